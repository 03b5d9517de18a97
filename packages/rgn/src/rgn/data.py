"""Queries and features as RGN's tensors (spec of the data: paper section 4.1, released loaders)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rgn.model import Inputs
from vmr_common.features import PooledFeatures
from vmr_common.masked_queries import KnownWords, draw_mask, known_words
from vmr_common.records import Query
from vmr_common.text import Vocabulary, content_scores, tokenize


@dataclass(frozen=True)
class Batch:
    """One batch on its way to the model.

    Attributes:
        query_ids: ``B`` ids.
        queries: The ``B`` queries.
        inputs: What the model reads.
        targets: ``(B, L)`` int64 word classes, 0 after the last word.
        glance: ``(B,)`` float32 glance / duration; NaN where a query has none.
    """

    query_ids: tuple[str, ...]
    queries: tuple[Query, ...]
    inputs: Inputs
    targets: Tensor
    glance: Tensor


class QueryExamples:
    """Queries with at least one known word, as batches.

    Args:
        queries: The queries.
        features: Pooled clip features by video, ``(N, F)`` float32 each, all of one shape.
        vocabulary: The words that the model knows.
        word_vectors: ``(V, E)`` float32 by word class, row 0 zeros.
        max_words: Words kept per query.
        end_token: Whether every query predicts an end token. The released code lets all but the longest
            query of a batch do so, and the score then depends on the batch.
        seed: Seed of the word masks in training.
    """

    def __init__(
        self,
        queries: Sequence[Query],
        features: PooledFeatures,
        vocabulary: Vocabulary,
        word_vectors: NDArray[np.float32],
        *,
        max_words: int,
        end_token: bool,
        seed: int,
    ) -> None:
        words = [encode(query.text, vocabulary, max_words) for query in queries]
        self.queries = [query for query, known in zip(queries, words, strict=True) if len(known)]
        self.unknown = [query for query, known in zip(queries, words, strict=True) if not len(known)]
        self._words = [known for known in words if len(known)]
        self._features = features
        self._word_vectors = word_vectors
        self._end_token = end_token
        self._seed = seed

    def __len__(self) -> int:
        return len(self.queries)

    def batch(self, indices: Sequence[int], epoch: int | None) -> Batch:
        """Collates queries; word masks are drawn per (seed, epoch, query), in evaluation per query alone."""
        queries = tuple(self.queries[i] for i in indices)
        words = [self._words[i] for i in indices]
        masks = [self._mask(query, known, epoch) for query, known in zip(queries, words, strict=True)]
        return collate(
            queries,
            words,
            masks,
            [self._features[query.video] for query in queries],
            self._word_vectors,
            end_token=self._end_token,
        )

    def _mask(self, query: Query, words: KnownWords, epoch: int | None) -> NDArray[np.bool_]:
        if epoch is None:
            return draw_mask(words, "evaluation", query.video, query.text)
        return draw_mask(words, self._seed, epoch, query.id)


def encode(text: str, vocabulary: Vocabulary, max_words: int) -> KnownWords:
    """Tokens, content-word scores and vocabulary ids of a sentence; may hold no known word at all."""
    tokens = tokenize(text)
    return known_words(tokens, content_scores(tokens), vocabulary, max_words)


def collate(
    queries: Sequence[Query],
    words: Sequence[KnownWords],
    masks: Sequence[NDArray[np.bool_]],
    features: Sequence[NDArray[np.float32]],
    word_vectors: NDArray[np.float32],
    *,
    end_token: bool,
) -> Batch:
    """Pads B queries to the longest one (plus one position with `end_token`), see `Batch`.

    Args:
        queries: B queries.
        words: Their known words, at least one each.
        masks: Their hidden words, ``(l,)`` bool each.
        features: Their pooled clip features, ``(N, F)`` each.
        word_vectors: ``(V, E)``.
        end_token: See `QueryExamples`.
    """
    lengths = np.array([len(known) for known in words])
    longest = int(lengths.max()) + int(end_token)
    targets = np.zeros((len(words), longest), dtype=np.int64)
    masked = np.zeros((len(words), longest + 1), dtype=np.bool_)
    for row, (known, mask) in enumerate(zip(words, masks, strict=True)):
        targets[row, : len(known)] = known.ids
        masked[row, 1 : len(known) + 1] = mask
    vectors = np.zeros((len(words), longest + 1, word_vectors.shape[1]), dtype=np.float32)
    vectors[:, 1:] = word_vectors[targets]  # row 0 of the table is zeros, as is the padding
    frames = torch.from_numpy(np.stack(features))
    return Batch(
        query_ids=tuple(query.id for query in queries),
        queries=tuple(queries),
        inputs=Inputs(
            frames=frames,
            frames_len=torch.full((len(words),), frames.shape[1]),
            words=torch.from_numpy(vectors),
            words_len=torch.from_numpy(lengths),
            masked=torch.from_numpy(masked),
        ),
        targets=torch.from_numpy(targets),
        glance=torch.tensor([_relative_glance(query) for query in queries], dtype=torch.float32),
    )


def _relative_glance(query: Query) -> float:
    return float("nan") if query.glance is None else query.glance / query.duration
