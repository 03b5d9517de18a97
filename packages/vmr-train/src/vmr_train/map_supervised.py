"""Queries of the fully supervised 2D-map methods (CDN, LEORN): words, distinct videos and overlap maps of a batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vmr_common.errors import UserError
from vmr_common.features.pooling import FeatureNormalizer, FeaturesByVideo
from vmr_common.metrics import map_overlaps
from vmr_common.text.vectors import WordLookup, WordVectors, plain_words
from vmr_common.types import Query, distinct_videos
from vmr_train.checkpoint import Checkpoint
from vmr_train.preprocessing import measured_scale, scale_tensors, scaled, stored_scale, stored_words

logger = logging.getLogger(__name__)
Features = TypeVar("Features")


class ByVideo(Protocol):
    """What a model reads of a video, by its id."""

    def __getitem__(self, video: str, /) -> Any:
        """Of one video."""


@dataclass(frozen=True, eq=False)
class MapInputs:
    """What the inputs take from the training set, part of every checkpoint.

    Attributes:
        words: The training queries' words that have a vector; other words are looked up when a query has them.
        scale: Of the feature columns, where features are standardised.
    """

    words: WordVectors
    scale: FeatureNormalizer | None = None

    @classmethod
    def learn(
        cls,
        method: str,
        queries: Sequence[Query],
        word_vectors: Path,
        words_of: Callable[[str], list[str]] = plain_words,
        *,
        features: FeaturesByVideo | None = None,
    ) -> MapInputs:
        """From training queries.

        Args:
            method: Its name, for the message.
            queries: The training queries, each with a moment.
            word_vectors: GloVe text file.
            words_of: A sentence's words.
            features: Of their videos, where the columns are to be standardised.

        Raises:
            UserError: if a query has no moment, or the word vectors cannot be read or know no word.
        """
        without = [query.id for query in queries if not len(query.moments)]
        if without:
            raise UserError(
                f"{method} learns from moments, but {len(without)} training queries have none, "
                f"for example {without[0]!r}"
            )
        words = {word for query in queries for word in words_of(query.text)}
        scale = None if features is None else measured_scale(features, queries)
        return cls(WordVectors.read(word_vectors, keep=words), scale)

    @classmethod
    def restore(cls, checkpoint: Checkpoint, columns: int | None) -> MapInputs:
        """As a checkpoint of ours holds them.

        Args:
            checkpoint: Of a task with words.
            columns: Of the features, where they are standardised.

        Raises:
            UserError: as `stored_words` and `stored_scale`.
        """
        words, vectors = stored_words(checkpoint)
        return cls(WordVectors(words, vectors, str(checkpoint.path)), stored_scale(checkpoint, columns))

    @classmethod
    def from_released(cls, weights: Mapping[str, Tensor], tensor: str, path: str | Path) -> MapInputs:
        """Of released weights: no word is kept, all are looked up in the vector file when a query has them.

        Args:
            weights: By our names.
            tensor: The first one of the text encoder, ``(..., E)``, which tells the width of a word vector.
            path: Where the weights come from, for the message.

        Raises:
            UserError: if there is no such tensor.
        """
        first = weights.get(tensor)
        if first is None or first.ndim < 2:
            raise UserError(f"{path}: holds no text encoder (textual_encoding...)")
        return cls(WordVectors((), np.zeros((0, first.shape[1]), dtype=np.float32)))

    def apply_scale(self, features: FeaturesByVideo) -> FeaturesByVideo:
        """The features as the model reads them."""
        return scaled(features, self.scale)

    def state(self) -> dict[str, list[str]]:
        """The words, for a checkpoint (see `WordsState`)."""
        return {"words": list(self.words.words)}

    def state_tensors(self) -> dict[str, Tensor]:
        """The word vectors ``(V, E)`` and, where features are standardised, their constants ``(D,)``."""
        return {"word_vectors": torch.from_numpy(self.words.vectors), **scale_tensors(self.scale)}


@dataclass(frozen=True)
class QueryWords:
    """The words of B queries, padded to the longest.

    Attributes:
        vectors: ``(B, L, E)`` float32, zeros for unknown words and padding.
        lengths: ``(B,)`` int64, at least 1.
    """

    vectors: Tensor
    lengths: Tensor


def collate_words(words: Sequence[NDArray[np.float32]]) -> QueryWords:
    """Pads the word vectors ``(l, E)`` of B queries to the longest one."""
    longest = max(len(rows) for rows in words)
    vectors = np.zeros((len(words), longest, words[0].shape[1]), dtype=np.float32)
    for padded, rows in zip(vectors, words, strict=True):
        padded[: len(rows)] = rows
    return QueryWords(torch.from_numpy(vectors), torch.tensor([len(rows) for rows in words]))


def overlap_maps(queries: Sequence[Query], clips: int) -> Tensor:
    """The overlap of every cell with each query's moment, ``(B, N, N)`` float32 (see `map_overlaps`)."""
    maps = [map_overlaps(query.moments, query.duration, clips) for query in queries]
    return torch.from_numpy(np.stack(maps))


def stack_arrays(arrays: Sequence[NDArray[np.float32]]) -> Tensor:
    """The feature arrays ``(F, D)`` of V videos as one tensor ``(V, F, D)``."""
    return torch.from_numpy(np.stack(arrays))


@dataclass(frozen=True)
class MapBatch(Generic[Features]):
    """One batch on its way to a 2D-map model. Every video is there once, however many queries it has.

    Attributes:
        query_ids: ``B`` ids.
        queries: The ``B`` queries.
        videos: ``V`` ids.
        features: Theirs, by default ``(V, F, D)`` float32.
        video_of: ``(B,)`` int64 row of each query's video.
        words: The queries' words.
        overlaps: ``(B, N, N)`` float32, see `overlap_maps`.
    """

    query_ids: tuple[str, ...]
    queries: tuple[Query, ...]
    videos: tuple[str, ...]
    features: Features
    video_of: Tensor
    words: QueryWords
    overlaps: Tensor


class MapExamples(Generic[Features]):
    """Queries with the features of their videos, as batches; nothing is drawn.

    Args:
        queries: The queries.
        features: By video, for example ``(F, D)`` float32, all of one shape.
        words: Word vectors; what the queries need is read at once.
        words_of: A sentence's words.
        clips: Clips N of the map.
        stack: Makes one batch of the features of several videos.
    """

    def __init__(
        self,
        queries: Sequence[Query],
        features: ByVideo,
        words: WordLookup,
        words_of: Callable[[str], list[str]] = plain_words,
        *,
        clips: int,
        stack: Callable[[Sequence[Any]], Features] = stack_arrays,  # type: ignore[assignment]
    ) -> None:
        self.queries = list(queries)
        self._features, self._clips, self._words = features, clips, words
        self._stack = stack
        self._tokens = [words_of(query.text) for query in queries]
        unasked = words.prepare(word for tokens in self._tokens for word in tokens)
        if unasked:
            logger.warning(
                "%d words of the queries are not in the checkpoint and count as unknown, because there is no %s",
                unasked,
                words.path,
            )
        elif unknown := words.unknown(word for tokens in self._tokens for word in tokens):
            logger.warning(
                "%d words of the queries have no vector in %s and count as unknown, for example %r",
                len(unknown),
                words.path or words.known.source,
                unknown[0],
            )

    def __len__(self) -> int:
        return len(self.queries)

    def batch(self, indices: Sequence[int], epoch: int | None) -> MapBatch[Features]:
        """The batch of some queries; `epoch` changes nothing."""
        queries = [self.queries[i] for i in indices]
        videos, video_of = distinct_videos(queries)
        return MapBatch(
            query_ids=tuple(query.id for query in queries),
            queries=tuple(queries),
            videos=videos,
            features=self._stack([self._features[video] for video in videos]),
            video_of=torch.tensor(video_of),
            words=collate_words([self._words[self._tokens[i]] for i in indices]),
            overlaps=overlap_maps(queries, self._clips),
        )
