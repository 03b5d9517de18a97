"""Queries and features as CFMR's tensors (as the released loaders make them)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cfmr.config import Config
from cfmr.model import Frames, Words
from vmr_common.features.config import open_features
from vmr_common.features.pooling import FeaturesByVideo, PreparedFeatures, pool
from vmr_common.features.store import FeatureStore
from vmr_common.text.vectors import Vocabulary
from vmr_common.types import Query, distinct_videos
from vmr_train.method import warn_of_left_out
from vmr_train.point_supervised import PointExamples, collate_words, relative_glances
from vmr_train.preprocessing import Preprocessor
from vmr_train.sources import FeatureInputs
from vmr_train.word_masking import MaskableWords


def kept_clips(clips: int) -> NDArray[np.int64]:
    """The ``clips // 4`` clip numbers that the model sees, first and last included, ``(L,)`` int64.

    ``floor(r (T - 1) / (L - 1))`` in whole numbers. The released code cuts a float32 ``linspace``, whose
    rounding differs between frameworks for some T; for the lengths of its configurations (200, 512) both agree.

    Example:
        >>> kept_clips(16).tolist()
        [0, 5, 10, 15]
    """
    kept = clips // 4
    return np.arange(kept, dtype=np.int64) * (clips - 1) // max(kept - 1, 1)


def kept_clip_features(store: FeatureStore, clips: int) -> PreparedFeatures:
    """Features pooled to T clips, of which the kept ones stay in memory: ``kept[video] -> (L, F) float32``.

    Args:
        store: Where the features come from.
        clips: Clips T.
    """
    return PreparedFeatures(store, functools.partial(keep, clips=clips))


def keep(features: NDArray[np.float32], clips: int) -> NDArray[np.float32]:
    """The kept clips ``(L, F)`` of a video's raw features ``(n, F)`` pooled to `clips`."""
    return pool(features, clips)[kept_clips(clips)]


@dataclass(frozen=True)
class Batch:
    """One batch on its way to the model. Every video is there once, however many queries it has.

    Attributes:
        query_ids: ``B`` ids.
        queries: The ``B`` queries.
        videos: ``V`` ids.
        frames: Their clips.
        video_of: ``(B,)`` int64 row of each query's video.
        words: What the text encoder reads.
        masked: ``(B, W + 2)`` bool, True where a word is hidden from the reconstructor.
        targets: ``(B, W)`` int64 word classes, 0 after the last word.
        glance: ``(B,)`` float32 glance / duration; NaN where a query has none.
    """

    query_ids: tuple[str, ...]
    queries: tuple[Query, ...]
    videos: tuple[str, ...]
    frames: Frames
    video_of: Tensor
    words: Words
    masked: Tensor
    targets: Tensor
    glance: Tensor


class QueryExamples(PointExamples[Batch]):
    """Queries with at least one known word, as batches.

    Args:
        queries: The queries.
        features: Kept clips by video, all of one shape.
        vocabulary: The words that the model knows.
        word_vectors: ``(V, E)`` float32 by word class, row 0 zeros.
        max_words: Words kept per query.
        end_token: Whether the longest query of a batch has an end token as well, where it has fewer than `max_words`
            words. Without, what is told of a query depends on its batch.
        seed: Seed of the word masks in training.
    """

    def __init__(
        self,
        queries: Sequence[Query],
        features: FeaturesByVideo,
        vocabulary: Vocabulary,
        word_vectors: NDArray[np.float32],
        *,
        max_words: int,
        end_token: bool,
        seed: int,
    ) -> None:
        super().__init__(queries, vocabulary, max_words=max_words, seed=seed)
        self._features = features
        self._word_vectors = word_vectors
        self._max_words = max_words
        self._end_token = end_token

    def _collate(
        self, queries: Sequence[Query], words: Sequence[MaskableWords], masks: Sequence[NDArray[np.bool_]]
    ) -> Batch:
        return collate(
            queries,
            words,
            masks,
            self._features,
            self._word_vectors,
            self._max_words,
            end_token=self._end_token,
        )


class InputFeatures(FeatureInputs):
    """Clip features by video, pooled and thinned out to what the model reads, and word vectors."""

    @classmethod
    def open(cls, config: Config, data_root: Path) -> InputFeatures:
        """The files that a configuration names under a data root.

        Raises:
            UserError: as `open_features`.
        """
        data = config.data
        clips = kept_clip_features(open_features(data.features, data_root), data.clips)
        return cls(clips, data_root / data.word_vectors)


def make_examples(
    config: Config, learned: Preprocessor, sources: InputFeatures, queries: Sequence[Query]
) -> QueryExamples:
    """Queries as batches; those without a known word are left out with a warning."""
    found = QueryExamples(
        queries,
        learned.normalise(sources.features),
        learned.vocabulary,
        learned.word_vectors,
        max_words=config.data.max_words,
        end_token=config.quirks != "released-torch",
        seed=config.train.seed,
    )
    warn_of_left_out(found.unknown, len(found), "have no word that the model knows")
    return found


def collate(
    queries: Sequence[Query],
    words: Sequence[MaskableWords],
    masks: Sequence[NDArray[np.bool_]],
    features: FeaturesByVideo,
    word_vectors: NDArray[np.float32],
    max_words: int,
    *,
    end_token: bool,
) -> Batch:
    """Pads B queries to the longest one and, with `end_token`, to its end token, see `Batch`.

    A query of `max_words` words has no end token as a target, whatever its batch mates (as released).

    Args:
        queries: B queries.
        words: Their known words, at least one and at most `max_words` each.
        masks: Their hidden words, ``(l,)`` bool each.
        features: Kept clips by video.
        word_vectors: ``(V, E)``.
        max_words: See above.
        end_token: See `QueryExamples`.
    """
    longest = max(len(known) for known in words)
    padded = collate_words(words, masks, word_vectors, min(longest + int(end_token), max_words))
    videos, video_of = distinct_videos(queries)
    return Batch(
        query_ids=tuple(query.id for query in queries),
        queries=tuple(queries),
        videos=videos,
        frames=stack_frames([features[video] for video in videos]),
        video_of=torch.tensor(video_of),
        words=Words(_with_summary_row(padded.vectors), padded.lengths),
        masked=torch.nn.functional.pad(padded.masked, (0, 1)),
        targets=padded.targets,
        glance=relative_glances(queries),
    )


def stack_frames(clips: Sequence[NDArray[np.float32]]) -> Frames:
    """Kept clips ``(L, F)`` of several videos as one input; pooled videos are valid throughout."""
    features = torch.from_numpy(np.stack(clips))
    return Frames(features, torch.ones(features.shape[:2], dtype=torch.bool))


def collate_texts(words: Sequence[MaskableWords], word_vectors: NDArray[np.float32]) -> Words:
    """Queries alone, without any video, padded to the longest one."""
    masks = [np.zeros(len(known), dtype=np.bool_) for known in words]
    padded = collate_words(words, masks, word_vectors, max(len(known) for known in words))
    return Words(_with_summary_row(padded.vectors), padded.lengths)


def _with_summary_row(vectors: Tensor) -> Tensor:
    return torch.nn.functional.pad(vectors, (0, 0, 0, 1))
