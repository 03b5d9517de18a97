"""Queries and features as RGNet's tensors: a window per query in training, whole videos in evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rgnet.config import Config
from rgnet.losses import Targets
from rgnet.model import Frames, Tokens
from rgnet.query_features.config import QueryFeaturesConfig, open_query_features, require_queries
from rgnet.query_features.store import QueryFeatures, QueryVectors, normalise
from rgnet.search.search import stack_tokens
from rgnet.windows import SampledWindow, draw, moment_rows
from vmr_common.errors import UserError
from vmr_common.features.config import open_features
from vmr_common.features.pooling import FeatureNormalizer, FeaturesByVideo, PreparedFeatures
from vmr_common.features.store import FeatureStore
from vmr_common.types import Query, distinct_videos
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
    """What a training batch learns from.

    Attributes:
        frames: One window with the moment per query.
        targets: What is to be found in it.
        negative: One window without the moment per query, padded on its own; or None.
        matched: ``(b, V, A)`` the windows as sentences are compared with them, for the adapter; or None.
    """

    frames: Frames
    targets: Targets
    negative: Frames | None
    matched: Tensor | None


@dataclass(frozen=True)
class Batch:
    """One batch on its way to the model.

    Attributes:
        query_ids: ``B`` ids.
        queries: The ``B`` queries.
        tokens: Their texts.
        sentences: ``(B, A)`` sentence vectors of unit length, or None.
        lesson: In training.
        videos: In evaluation, each distinct video once; else empty.
        video_of: In evaluation, the place of each query's video in `videos`.
    """

    query_ids: tuple[str, ...]
    queries: tuple[Query, ...]
    tokens: Tokens
    sentences: Tensor | None
    lesson: TrainTargets | None
    videos: tuple[Video, ...]
    video_of: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class WindowingConfig:
    """How videos are cut and texts are kept.

    Attributes:
        window: Rows of a window.
        seconds_per_row: Seconds between two feature rows.
        max_tokens: Tokens kept per query.
        negative_windows: Whether a training example brings a window without the moment.
        adapter: Whether the adapter learns.
    """

    window: int
    seconds_per_row: float
    max_tokens: int
    negative_windows: bool
    adapter: bool


class QueryExamples:
    """Queries as batches. Draws depend on seed, epoch and query alone, so they are the same in every process.

    Args:
        queries: The queries; those without a known word are set aside (`unknown`).
        features: Features of whole videos.
        vectors: Of the queries.
        cut: Windows and texts.
        scale: Standardises the features that the network reads, or None.
        by_video: Whether queries of one video stand together, so that an evaluation prepares each video once;
            else they keep their order.
        seed: Seed of the draws in training.
    """

    def __init__(
        self,
        queries: Sequence[Query],
        features: FeaturesByVideo,
        vectors: QueryFeatures,
        cut: WindowingConfig,
        *,
        scale: FeatureNormalizer | None,
        by_video: bool,
        seed: int,
    ) -> None:
        known = [vectors.has(query) for query in queries]
        self.unknown = [query for query, there in zip(queries, known, strict=True) if not there]
        self.queries = [query for query, there in zip(queries, known, strict=True) if there]
        if by_video:
            _, places = distinct_videos(self.queries)
            self.queries = [self.queries[n] for n in sorted(range(len(places)), key=places.__getitem__)]
        self._features, self._vectors, self._cut = features, vectors, cut
        self._scale, self._seed = scale, seed

    def __len__(self) -> int:
        return len(self.queries)

    def batch(self, indices: Sequence[int], epoch: int | None) -> Batch:
        """Collates queries: with drawn windows in an epoch, with whole videos in evaluation (None).

        Raises:
            UserError: if a query has no usable vectors or features or, in training, no moment within its video.
        """
        queries = [self.queries[index] for index in indices]
        vectors = [self._normalised(query) for query in queries]
        lesson: TrainTargets | None = None
        videos: tuple[Video, ...] = ()
        video_of: tuple[int, ...] = ()
        if epoch is None:
            names, video_of = distinct_videos(queries)
            videos = tuple(self._video(name, vectors[0]) for name in names)
        else:
            lesson = self._lesson(queries, epoch)
        sentences = [v.sentence for v in vectors if v.sentence is not None]
        return Batch(
            query_ids=tuple(query.id for query in queries),
            queries=tuple(queries),
            tokens=stack_tokens([torch.from_numpy(v.tokens) for v in vectors]),
            sentences=torch.from_numpy(np.stack(sentences)) if sentences else None,
            lesson=lesson,
            videos=videos,
            video_of=video_of,
        )

    def _normalised(self, query: Query) -> QueryVectors:
        vectors = normalise(self._vectors.of(query), self._cut.max_tokens)
        if vectors.sentence is None or self._vectors.sentence_dim is None:
            return QueryVectors(vectors.tokens)
        return vectors

    def _video(self, name: str, vectors: QueryVectors) -> Video:
        rows = self._features[name]
        frames = None if vectors.sentence is None else torch.from_numpy(rows)
        return Video(name, torch.from_numpy(self._scaled(rows)), frames)

    def _scaled(self, rows: Array) -> Array:
        return rows if self._scale is None else self._scale(rows)

    def _lesson(self, queries: Sequence[Query], epoch: int) -> TrainTargets:
        drawn = [self._draw(query, epoch) for query in queries]
        windows = [self._slice(query, one.window) for query, one in zip(queries, drawn, strict=True)]
        negative = None
        if self._cut.negative_windows:
            pairs = zip(queries, drawn, strict=True)
            negative = pad_frames([self._scaled(self._negative(query, one)) for query, one in pairs])
        frames = pad_frames([self._scaled(rows) for rows in windows])
        return TrainTargets(
            frames=frames,
            targets=Targets(
                spans=torch.tensor([one.target.span for one in drawn], dtype=torch.float32),
                frames=torch.tensor([one.target.frames for one in drawn]),
                inside=torch.tensor([one.inside for one in drawn]),
                outside=torch.tensor([one.outside for one in drawn]),
            ),
            negative=negative,
            matched=pad_frames(windows).features if self._cut.adapter else None,
        )

    def _draw(self, query: Query, epoch: int) -> SampledWindow:
        rows = len(self._features[query.video])
        start, end = moment_rows(query, rows, self._cut.seconds_per_row)
        return draw(start, end, rows, self._cut.window, self._seed, epoch, query.id)

    def _slice(self, query: Query, window: tuple[int, int]) -> Array:
        first, length = window
        return self._features[query.video][first : first + length]

    def _negative(self, query: Query, drawn: SampledWindow) -> Array:
        if drawn.negative is None:
            raise UserError(
                f"query {query.id!r}: every window of video {query.video!r} holds part of its moment, but "
                "loss.negatives is window; leave such queries out of training"
            )
        return self._slice(query, drawn.negative)


@dataclass(frozen=True)
class InputFeatures:
    """Where the inputs of a run come from; ``sources[video] -> (L, F) float32``.

    Attributes:
        features: Frame features by video, kept in memory up to a limit.
        queries: What the features of its queries are.
        data_root: What their paths are relative to.
    """

    features: PreparedFeatures
    queries: QueryFeaturesConfig
    data_root: Path

    @classmethod
    def open(cls, config: Config, data_root: Path) -> InputFeatures:
        """The files that a configuration names under a data root.

        Raises:
            UserError: as `open_features`.
        """
        data = config.data
        store = open_features(data.features, data_root)
        return cls(PreparedFeatures(store, limit=data.kept_gb * 1e9), data.queries, data_root)

    @property
    def store(self) -> FeatureStore:
        """The feature files of the videos."""
        return self.features.store

    @property
    def words(self) -> list[Path]:
        """The files behind the tokens of queries."""
        named = (self.queries.path, self.queries.word_vectors)
        return [self.data_root / path for path in named if path is not None]

    def __getitem__(self, video: str) -> Array:
        """The features of one video, ``(L, F)``, before they are standardised."""
        return self.features[video]

    def vectors(self, queries: Sequence[Query]) -> QueryFeatures:
        """The tokens and sentence vectors of some queries.

        Raises:
            UserError: if the file cannot be read or lacks a query.
        """
        found = open_query_features(self.queries, self.data_root, [query.text for query in queries])
        if self.queries.path is not None:
            require_queries(found, {"this split or request": queries})
        return found


def make_examples(
    config: Config, scale: FeatureNormalizer | None, sources: InputFeatures, queries: Sequence[Query]
) -> QueryExamples:
    """Queries as batches; those without a known word are left out with a warning."""
    cut = WindowingConfig(
        window=config.data.window,
        seconds_per_row=config.data.seconds_per_row,
        max_tokens=config.data.max_tokens,
        negative_windows=config.loss.negatives == "window",
        adapter=config.model.adapter and config.loss.adapter > 0,
    )
    found = QueryExamples(
        queries,
        sources.features,
        sources.vectors(queries),
        cut,
        scale=scale,
        # the released mask mixes batch mates, so their order is part of the result
        by_video=config.quirks == "fixed",
        seed=config.train.seed,
    )
    warn_of_left_out(found.unknown, len(found), "have no word that has a vector")
    return found


def pad_frames(windows: Sequence[Array]) -> Frames:
    """Windows ``(n, F)`` padded to the longest."""
    lengths = torch.tensor([len(window) for window in windows])
    features = pad_sequence([torch.from_numpy(window) for window in windows], batch_first=True)
    return Frames(features, torch.arange(features.shape[1]) < lengths[:, None])
