"""Queries and features as RGNet's tensors: a window per query in training, whole videos in evaluation."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rgnet.inference import stack_tokens
from rgnet.losses import Targets
from rgnet.model import Frames, Tokens
from rgnet.windows import Draw, draw, moment_rows
from vmr_common.errors import UserError
from vmr_common.pooling import ColumnScale, FeaturesByVideo
from vmr_common.query_features import QueryFeatures, QueryVectors, normalise
from vmr_common.records import Query

logger = logging.getLogger(__name__)

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Video:
    """A whole video: `features` ``(L, F)`` as the network reads them, `frames` ``(L, A)`` for matching, or None."""

    id: str
    features: Tensor
    frames: Tensor | None


@dataclass(frozen=True)
class Lesson:
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
    lesson: Lesson | None
    videos: tuple[Video, ...]
    video_of: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Cut:
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
        cut: Cut,
        *,
        scale: ColumnScale | None,
        by_video: bool,
        seed: int,
    ) -> None:
        known = [vectors.has(query) for query in queries]
        self.unknown = [query for query, there in zip(queries, known, strict=True) if not there]
        self.queries = [query for query, there in zip(queries, known, strict=True) if there]
        if by_video:
            place = {video: n for n, video in enumerate(dict.fromkeys(query.video for query in self.queries))}
            self.queries.sort(key=lambda query: place[query.video])
        self._features, self._vectors, self._cut = features, vectors, cut
        self._scale, self._seed = scale, seed

    def __len__(self) -> int:
        return len(self.queries)

    def warn_of_unknown(self) -> None:
        """Logs how many queries have no known word and are left out."""
        if self.unknown:
            logger.warning(
                "%d of %d queries have no word that has a vector and are left out, for example %r",
                len(self.unknown),
                len(self.unknown) + len(self.queries),
                self.unknown[0].text,
            )

    def batch(self, indices: Sequence[int], epoch: int | None) -> Batch:
        """Collates queries: with drawn windows in an epoch, with whole videos in evaluation (None).

        Raises:
            UserError: if a query has no usable vectors or features or, in training, no moment within its video.
        """
        queries = [self.queries[index] for index in indices]
        vectors = [self._normalised(query) for query in queries]
        lesson: Lesson | None = None
        videos: tuple[Video, ...] = ()
        video_of: tuple[int, ...] = ()
        if epoch is None:
            names = list(dict.fromkeys(query.video for query in queries))
            videos = tuple(self._video(name, vectors[0]) for name in names)
            video_of = tuple(names.index(query.video) for query in queries)
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

    def _lesson(self, queries: Sequence[Query], epoch: int) -> Lesson:
        drawn = [self._draw(query, epoch) for query in queries]
        windows = [self._slice(query, one.window) for query, one in zip(queries, drawn, strict=True)]
        negative = None
        if self._cut.negative_windows:
            pairs = zip(queries, drawn, strict=True)
            negative = pad_frames([self._scaled(self._negative(query, one)) for query, one in pairs])
        frames = pad_frames([self._scaled(rows) for rows in windows])
        return Lesson(
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

    def _draw(self, query: Query, epoch: int) -> Draw:
        rows = len(self._features[query.video])
        start, end = moment_rows(query, rows, self._cut.seconds_per_row)
        return draw(start, end, rows, self._cut.window, self._seed, epoch, query.id)

    def _slice(self, query: Query, window: tuple[int, int]) -> Array:
        first, length = window
        return self._features[query.video][first : first + length]

    def _negative(self, query: Query, drawn: Draw) -> Array:
        if drawn.negative is None:
            raise UserError(
                f"query {query.id!r}: every window of video {query.video!r} holds part of its moment, but "
                "loss.negatives is window; leave such queries out of training"
            )
        return self._slice(query, drawn.negative)


def pad_frames(windows: Sequence[Array]) -> Frames:
    """Windows ``(n, F)`` padded to the longest."""
    lengths = torch.tensor([len(window) for window in windows])
    features = pad_sequence([torch.from_numpy(window) for window in windows], batch_first=True)
    return Frames(features, torch.arange(features.shape[1]) < lengths[:, None])
