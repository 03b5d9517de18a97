"""Baselines that a system must beat: random windows, and constant windows that ignore video and sentence."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vmr_common import metrics, timeline
from vmr_common.errors import UserError
from vmr_common.evaluation.clip_labels import ClipLabels
from vmr_common.evaluation.recall import Protocol
from vmr_common.evaluation.scores import Scores
from vmr_common.types import Prediction, Query

_STEPS = 20  # constant windows start and end at multiples of 5 % of the duration
_HIT = 0.5
_BLOCK = 1 << 12  # targets judged at once


def baseline_scores(
    protocol: Protocol, queries: Sequence[Query], bias: ConstantWindowBaseline | None, *, split: str = ""
) -> list[tuple[str, Scores]]:
    """Names and scores of the baselines: ``chance``, and ``bias`` where there is one.

    Against labels of clips, chance is random scores of clips, and there is no bias.
    """
    if isinstance(protocol, ClipLabels):
        return [("chance", protocol.score(queries, _random_clips(queries), split=split))]
    packed = protocol.pack(queries, [])
    windows = {"chance": chance(packed.duration)}
    if bias is not None:
        windows["bias"] = bias.windows_of(packed.duration)
    return [
        (label, protocol.score_packed(packed.answered(found), split=split))
        for label, found in windows.items()
    ]


def _random_clips(queries: Sequence[Query]) -> list[Prediction]:
    """Random scores, the same each time, of as many clips as each query has labels for."""
    rng = np.random.default_rng(0)
    clips = [0 if query.saliency is None else len(query.saliency) for query in queries]
    nothing = np.zeros((0, 2)), np.zeros(0)
    return [
        Prediction(
            query=q.id, video=q.video, moments=nothing[0], scores=nothing[1], saliency=rng.random(count)
        )
        for q, count in zip(queries, clips, strict=True)
    ]


def chance(durations: ArrayLike, k: int = 5, seed: int = 0) -> NDArray[np.float64]:
    """Random windows ``(N, k, 2)``, seconds: both ends uniform over the video, the earlier one first.

    The same seed and the same durations ``(N,)`` give the same windows.

    Example:
        >>> chance([10.0], k=2).shape
        (1, 2, 2)
    """
    ends = np.random.default_rng(seed).random((np.size(durations), k, 2))
    return timeline.to_seconds(np.sort(ends, axis=-1), durations)


@dataclass(frozen=True, eq=False)
class ConstantWindowBaseline:
    """The constant windows, in fractions of the duration, that would have answered a training split best."""

    windows: NDArray[np.float64]  # `(k, 2)` float64 fractions, best first
    num_queries: int  # training queries that chose them

    @classmethod
    def fit(cls, train_queries: Sequence[Query], k: int = 5) -> ConstantWindowBaseline:
        """Chooses k windows from the grid of 5 % steps, on targets cut to the video.

        The first maximises recall at rank 1 with an overlap of at least 0.5, ties going to the higher mean overlap;
        each following one adds most to the recall of all chosen so far, ties to their mean overlap. Raises `UserError`
        if no training query has a target.

        Example:
            >>> def query(n):
            ...     return Query(id=str(n), video="v", text="", duration=10.0, moments=[[0, 4 + n]])
            >>> ConstantWindowBaseline.fit([query(n) for n in range(3)], k=1).describe()
            '0 to 50 % of the video'
        """
        located = [query for query in train_queries if len(query.moments)]
        if not located:
            raise UserError("the bias baseline needs training queries with target moments; found none")
        grid = np.array([(i, j) for i in range(_STEPS) for j in range(i + 1, _STEPS + 1)]) / _STEPS
        targets = [_Targets.of(block) for block in _blocks(located)]
        # overlaps are found again where they are needed: all of them at once are kilobytes per query
        bits = [np.packbits(block.overlaps(grid) >= _HIT, axis=0) for block in targets]
        hits = np.concatenate(bits, axis=1)
        best = [np.zeros(len(block.firsts)) for block in targets]
        chosen: list[int] = []
        for _ in range(min(k, len(grid))):
            missed = np.concatenate(best) < _HIT
            gains = np.unpackbits(hits[:, missed], axis=0, count=len(grid)).sum(axis=1, dtype=np.int64)
            gains[chosen] = -1  # never the same window twice, even if nothing is left to gain
            tied = np.flatnonzero(gains == gains.max())
            sums = np.zeros(len(tied))
            for block, reached in zip(targets, best, strict=True):
                sums += np.maximum(block.overlaps(grid[tied]), reached).sum(axis=1)
            # rounded, so that the order of summation does not break ties
            chosen.append(int(tied[(sums / len(located)).round(9).argmax()]))
            for block, reached in zip(targets, best, strict=True):
                np.maximum(reached, block.overlaps(grid[chosen[-1:]])[0], out=reached)
        return cls(windows=grid[chosen], num_queries=len(located))

    def windows_of(self, durations: ArrayLike) -> NDArray[np.float64]:
        """The constant windows ``(N, k, 2)`` of videos of these durations ``(N,)``, seconds."""
        windows = np.broadcast_to(self.windows, (np.size(durations), *self.windows.shape))
        return timeline.to_seconds(windows, durations)

    def describe(self) -> str:
        """The first window in words."""
        start, end = (round(100 * float(value)) for value in self.windows[0])
        return f"{start} to {end} % of the video"


def _blocks(queries: Sequence[Query]) -> list[Sequence[Query]]:
    """The queries in turn, some at a time: as many as have `_BLOCK` targets, and one at least."""
    ends = np.cumsum([len(query.moments) for query in queries])
    edges = [0, *(np.flatnonzero(np.diff(ends // _BLOCK)) + 1).tolist(), len(queries)]
    return [queries[begin:end] for begin, end in itertools.pairwise(edges)]


class _Targets(NamedTuple):
    """The targets of N queries in fractions of the video; each query has one at least."""

    moments: NDArray[np.float64]  # `(M, 2)`
    firsts: NDArray[np.int64]  # `(N,)`, place of each query's first target

    @classmethod
    def of(cls, queries: Sequence[Query]) -> _Targets:
        counts = np.array([len(query.moments) for query in queries])
        durations = np.repeat([query.duration for query in queries], counts)
        moments = np.concatenate([query.moments for query in queries])
        with np.errstate(over="ignore"):  # what is beyond every number is cut to the video
            moments = np.clip(timeline.to_normalised(moments, durations), 0.0, 1.0)
        return cls(moments, np.cumsum(counts) - counts)

    def overlaps(self, windows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Overlap ``(W, N)`` of every window with the best target of every query."""
        overlaps = metrics.iou(windows[:, None], self.moments, "hull", empty=0.0)
        several = len(self.moments) > len(self.firsts)
        return np.asarray(np.maximum.reduceat(overlaps, self.firsts, axis=1) if several else overlaps)
