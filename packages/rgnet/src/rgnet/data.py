"""Queries and features as RGNet's tensors: sampled windows in training, whole videos in evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rgnet.config import Config
from rgnet.losses import Targets
from rgnet.model import Frames, Tokens
from rgnet.query_features.config import open_query_features, require_queries
from rgnet.query_features.store import QueryFeatures, QueryFeatureStore, QueryVectors, normalise
from rgnet.windows import SampledWindow, moment_rows, sample_window
from rgnet.zero_shot import zero_shot
from vmr_common.errors import UserError
from vmr_common.evaluation.zero_shot import ZERO_SHOT
from vmr_common.splits.sources import found_path
from vmr_common.types import Prediction, Query
from vmr_train import prepared
from vmr_train.caches import distinct_videos
from vmr_train.feature_files import FeatureSource, open_features
from vmr_train.method import warn_of_left_out

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Video:
    """A whole video: `features` ``(L, F)`` as the network reads them, `frames` ``(L, A)`` for matching, or None."""

    id: str
    features: Tensor
    frames: Tensor | None


@dataclass(frozen=True)
class TrainTargets:
    """Windows and targets of a training batch.

    Attributes:
        windows: One window with the moment per query.
        targets: The moment in it.
        negatives: One window without the moment per query, padded on its own; or None.
        matched: ``(b, V, A)`` the windows in the space of the sentence vectors, for the adapter; or None.
    """

    windows: Frames
    targets: Targets
    negatives: Frames | None
    matched: Tensor | None


@dataclass(frozen=True)
class Batch:
    """One batch on its way to the model.

    Attributes:
        query_ids: ``B`` ids.
        queries: The ``B`` queries.
        tokens: Their texts.
        sentences: ``(B, A)`` sentence vectors of unit length, or None.
        train: In training.
        videos: In evaluation, each distinct video once; else empty.
        video_of: In evaluation, the place of each query's video in `videos`.
    """

    query_ids: tuple[str, ...]
    queries: tuple[Query, ...]
    tokens: Tokens
    sentences: Tensor | None
    train: TrainTargets | None
    videos: tuple[Video, ...] = ()
    video_of: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class WindowingConfig:
    """Windows over videos, and the limits of texts.

    Attributes:
        window: Rows of a window.
        feature_stride: Seconds between two feature rows.
        max_tokens: Tokens kept per query.
        negative_windows: A training example brings a window without the moment, too.
        adapter: The adapter learns.
    """

    window: int
    feature_stride: float
    max_tokens: int
    negative_windows: bool
    adapter: bool

    @classmethod
    def of(cls, config: Config) -> WindowingConfig:
        """The part of a run's configuration."""
        return cls(
            window=config.data.window,
            feature_stride=config.data.stride,
            max_tokens=config.data.max_tokens,
            negative_windows=config.loss.negatives == "window",
            adapter=config.model.adapter and config.loss.adapter > 0,
        )


class Dataset:
    """Queries as batches. Draws depend on seed, epoch and query alone, so they are the same in every process.

    Args:
        queries: The queries.
        features: Features of whole videos.
        vectors: Of the queries.
        windowing: Windows and texts.
        scale: Standardises the features that the network reads, or None.
        by_video: Put queries of one video together, so that an evaluation prepares each video once; else they keep
            their order.
        seed: Seed of the draws in training.

    Attributes:
        queries: Those with vectors.
        unknown: Words of all queries that have none.
    """

    def __init__(
        self,
        queries: Sequence[Query],
        features: prepared.FeaturesByVideo,
        vectors: QueryFeatures,
        windowing: WindowingConfig,
        *,
        scale: prepared.FeatureNormalizer | None,
        by_video: bool,
        seed: int,
    ) -> None:
        known = [vectors.has(query) for query in queries]
        self.queries = [query for query, there in zip(queries, known, strict=True) if there]
        left_out = [query for query, there in zip(queries, known, strict=True) if not there]
        warn_of_left_out(left_out, len(self), "no word that has a vector")
        self.unknown = vectors.unknown_words(queries)
        if by_video:
            _, places = distinct_videos(self.queries)
            self.queries = [self.queries[n] for n in sorted(range(len(places)), key=places.__getitem__)]
        self._features, self._vectors, self._windowing = features, vectors, windowing
        self._scale, self._seed = scale, seed

    def __len__(self) -> int:
        return len(self.queries)

    def batch(self, indices: Sequence[int], epoch: int | None) -> Batch:
        """The batch of some queries: with sampled windows in an epoch, with whole videos in evaluation (None).

        Raises:
            UserError: if a query has no usable vectors or features or, in training, no moment within its video.
        """
        queries = [self.queries[index] for index in indices]
        vectors = [self._normalised(query) for query in queries]
        if epoch is not None:
            return collate(queries, vectors, self._train_targets(queries, epoch))
        names, video_of = distinct_videos(queries)
        matched = vectors[0].sentence is not None
        videos = [self._video(name, matched=matched) for name in names]
        return collate(queries, vectors, None, videos, video_of)

    def baselines(self) -> dict[str, list[Prediction]]:
        """The answers of ``zero-shot``, where frames and sentences share a space."""
        found = zero_shot(self.queries, self._features, self._vectors, self._windowing.feature_stride)
        return {} if found is None else {ZERO_SHOT: found}

    def _normalised(self, query: Query) -> QueryVectors:
        vectors = normalise(self._vectors.of(query), self._windowing.max_tokens)
        if self._vectors.sentence_dim is None:
            return QueryVectors(vectors.tokens)
        return vectors

    def _video(self, name: str, *, matched: bool) -> Video:
        rows = self._features[name]
        return Video(name, self._scaled(rows), torch.from_numpy(rows) if matched else None)

    def _scaled(self, rows: Array) -> Tensor:
        return torch.from_numpy(rows if self._scale is None else self._scale(rows))

    def _train_targets(self, queries: Sequence[Query], epoch: int) -> TrainTargets:
        sampled = [self._sample(query, epoch) for query in queries]
        pairs = list(zip(queries, sampled, strict=True))
        windows = [self._rows(query, one.window) for query, one in pairs]
        negatives = None
        if self._windowing.negative_windows:
            negatives = Frames.padded([self._scaled(self._negative(query, one)) for query, one in pairs])
        matched = None
        if self._windowing.adapter:
            matched = Frames.padded([torch.from_numpy(rows) for rows in windows]).features
        targets = Targets(
            spans=torch.tensor([one.target.span for one in sampled], dtype=torch.float32),
            frames=torch.tensor([one.target.frames for one in sampled]),
            inside=torch.tensor([one.inside for one in sampled]),
            outside=torch.tensor([one.outside for one in sampled]),
        )
        return TrainTargets(
            Frames.padded([self._scaled(rows) for rows in windows]), targets, negatives, matched
        )

    def _sample(self, query: Query, epoch: int) -> SampledWindow:
        rows = len(self._features[query.video])
        start, end = moment_rows(query, rows, self._windowing.feature_stride)
        return sample_window(start, end, rows, self._windowing.window, self._seed, epoch, query.id)

    def _rows(self, query: Query, window: tuple[int, int]) -> Array:
        first, length = window
        return self._features[query.video][first : first + length]

    def _negative(self, query: Query, sampled: SampledWindow) -> Array:
        if sampled.negative is None:
            raise UserError(
                f"query {query.id!r}: every window of video {query.video!r} holds part of its moment, but "
                "loss.negatives is window; leave such queries out of training"
            )
        return self._rows(query, sampled.negative)


def collate(
    queries: Sequence[Query],
    vectors: Sequence[QueryVectors],
    train: TrainTargets | None,
    videos: Sequence[Video] = (),
    video_of: Sequence[int] = (),
) -> Batch:
    """Pads the texts of B queries to the longest one, see `Batch`."""
    sentences = [one.sentence for one in vectors if one.sentence is not None]
    return Batch(
        query_ids=tuple(query.id for query in queries),
        queries=tuple(queries),
        tokens=Tokens.padded([torch.from_numpy(one.tokens) for one in vectors]),
        sentences=torch.from_numpy(np.stack(sentences)) if sentences else None,
        train=train,
        videos=tuple(videos),
        video_of=tuple(video_of),
    )


def open_frames(config: Config, root: Path, store: FeatureSource | None = None) -> prepared.PreparedFeatures:
    """Frame features by video, ``(L, F)`` float32 each, before they are standardised; the last used ones are kept.

    They come from `store`, or from the files of the configuration.

    Raises:
        UserError: if a file is missing or of another width; see `open_features`.
    """
    return prepared.PreparedFeatures(
        store or open_features(config.data.features, root), limit=config.data.cache_gb * 1e9
    )


def query_files(config: Config, root: Path) -> list[Path]:
    """The files behind the tokens of queries."""
    named = (config.data.queries.path, config.data.queries.word_vectors)
    return [found_path(path, root) for path in named if path is not None]


def query_store(config: Config, root: Path) -> QueryFeatureStore | None:
    """The file of query features; None where words are looked up."""
    if config.data.queries.path is None:
        return None
    found = open_query_features(config.data.queries, root)
    assert isinstance(found, QueryFeatureStore)
    return found


def build_dataset(
    config: Config,
    scale: prepared.FeatureNormalizer | None,
    frames: prepared.FeaturesByVideo,
    root: Path,
    queries: Sequence[Query],
    vectors: QueryFeatures | None = None,
) -> Dataset:
    """Queries of a run as batches; those without a known word are left out with a warning.

    Args:
        config: Of the run.
        scale: Standardises the features that the network reads, or None.
        frames: Features by video.
        root: The data root, where the tokens and sentence vectors of the queries are.
        queries: The queries.
        vectors: Theirs; None: those of the configuration's files.

    Raises:
        UserError: if a file of query features cannot be read or lacks a query.
    """
    if vectors is None:
        vectors = open_query_features(config.data.queries, root, [query.text for query in queries])
    if config.data.queries.path is not None:
        require_queries(vectors, {"this split or request": queries})
    return Dataset(
        queries,
        frames,
        vectors,
        WindowingConfig.of(config),
        scale=scale,
        # the released mask mixes the pairs of a batch, so their order is part of the result
        by_video=config.quirks == "fixed",
        seed=config.train.seed,
    )
