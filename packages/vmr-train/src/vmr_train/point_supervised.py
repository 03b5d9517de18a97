"""Queries of the methods that learn from one glance per query and a partly hidden sentence (CPL, RGN, CFMR)."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vmr_common.text.vectors import Vocabulary, content_scores, tokenize
from vmr_common.timeline import to_seconds
from vmr_common.types import Prediction, Query
from vmr_train.word_masking import MaskableWords, draw_mask, known_words

BatchType = TypeVar("BatchType")


@dataclass(frozen=True)
class WordBatch:
    """The words of B queries, padded to L places.

    Attributes:
        vectors: ``(B, L + 1, E)`` float32; row 0 is a placeholder for the start token, zeros after the words.
        lengths: ``(B,)`` int64 words per query.
        masked: ``(B, L + 1)`` bool, True where a word is hidden; column 0 is False.
        targets: ``(B, L)`` int64 word classes, 0 after the last word.
    """

    vectors: Tensor
    lengths: Tensor
    masked: Tensor
    targets: Tensor


class PointExamples(abc.ABC, Generic[BatchType]):
    """Queries with at least one known word, as batches; a package says how they are collated.

    Args:
        queries: The queries.
        vocabulary: The words that the model knows.
        max_words: Words kept per query.
        seed: Seed of the word masks in training.
    """

    def __init__(
        self, queries: Sequence[Query], vocabulary: Vocabulary, *, max_words: int, seed: int
    ) -> None:
        words = [encode(query.text, vocabulary, max_words) for query in queries]
        self.queries = [query for query, known in zip(queries, words, strict=True) if len(known)]
        self.unknown = [query for query, known in zip(queries, words, strict=True) if not len(known)]
        self._words = [known for known in words if len(known)]
        self._seed = seed

    def __len__(self) -> int:
        return len(self.queries)

    def batch(self, indices: Sequence[int], epoch: int | None) -> BatchType:
        """Collates queries; word masks are drawn per (seed, epoch, query), in evaluation per query alone."""
        queries = [self.queries[i] for i in indices]
        words = [self._words[i] for i in indices]
        masks = [self._mask(query, known, epoch) for query, known in zip(queries, words, strict=True)]
        return self._collate(queries, words, masks)

    def _mask(self, query: Query, words: MaskableWords, epoch: int | None) -> NDArray[np.bool_]:
        if epoch is None:
            return draw_mask(words, "evaluation", query.video, query.text)
        return draw_mask(words, self._seed, epoch, query.id)

    @abc.abstractmethod
    def _collate(
        self, queries: Sequence[Query], words: Sequence[MaskableWords], masks: Sequence[NDArray[np.bool_]]
    ) -> BatchType:
        """The batch of some queries with their known words and hidden words, one entry per query each."""


def encode(text: str, vocabulary: Vocabulary, max_words: int) -> MaskableWords:
    """Tokens, content-word scores and vocabulary ids of a sentence; may hold no known word at all."""
    tokens = tokenize(text)
    return known_words(tokens, content_scores(tokens), vocabulary, max_words)


def collate_words(
    words: Sequence[MaskableWords],
    masks: Sequence[NDArray[np.bool_]],
    word_vectors: NDArray[np.float32],
    length: int,
) -> WordBatch:
    """Pads the words of B queries to `length` places.

    Args:
        words: At least one known word each, at most `length`.
        masks: Their hidden words, ``(l,)`` bool each.
        word_vectors: ``(V, E)`` by word class, row 0 zeros.
        length: Places L.
    """
    targets = np.zeros((len(words), length), dtype=np.int64)
    masked = np.zeros((len(words), length + 1), dtype=np.bool_)
    for row, (known, mask) in enumerate(zip(words, masks, strict=True)):
        targets[row, : len(known)] = known.ids
        masked[row, 1 : len(known) + 1] = mask
    vectors = np.zeros((len(words), length + 1, word_vectors.shape[1]), dtype=np.float32)
    vectors[:, 1:] = word_vectors[targets]  # row 0 of the table is zeros, as is the padding
    return WordBatch(
        vectors=torch.from_numpy(vectors),
        lengths=torch.tensor([len(known) for known in words]),
        masked=torch.from_numpy(masked),
        targets=torch.from_numpy(targets),
    )


def relative_glances(queries: Sequence[Query]) -> Tensor:
    """Glance / duration of B queries, ``(B,)`` float32; NaN where a query has no glance."""
    nan = float("nan")
    return torch.tensor(
        [nan if query.glance is None else query.glance / query.duration for query in queries],
        dtype=torch.float32,
    )


def predictions(
    queries: Sequence[Query], moments: NDArray[np.float64], scores: NDArray[np.float64]
) -> list[Prediction]:
    """What is predicted for B queries, in seconds.

    Args:
        queries: B queries.
        moments: ``(B, K, 2)`` normalised, best first.
        scores: ``(B, K)``, descending.
    """
    return [
        Prediction(
            query=query.id,
            video=query.video,
            moments=to_seconds(found, query.duration),
            scores=of_query,
            text=query.text,
        )
        for query, found, of_query in zip(queries, moments, scores, strict=True)
    ]
