"""Searches of `LanceIndex`: the videos that are worth scoring, and the exact scores of their windows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_search.engine.checks import stored_problem
from vmr_search.engine.lance_table import Inverted, condition_of, listed, numbers_in, values_in, vectors_in
from vmr_search.engine.moment_index import Filter
from vmr_search.engine.ranking import CANDIDATES, PER_VIDEO, BestOfVideos, Numbers, ScoredWindows, scores_of

_LISTED = 256  # videos that one query of the table names
_AT_ONCE = 32  # queries that share a scan
_ROWS = 2048  # of a part that is read
SCORED = ["number", "nth", "start_s", "end_s", "vector"]
"""Columns of which a search needs the windows of a video."""


@dataclass(frozen=True, eq=False)
class State:
    """A version of the table and what it holds; never changed, so that searches of other threads go on with theirs.

    Attributes:
        table: At this version.
        numbers: Of the videos by id, ascending.
        durations: Seconds by id.
        inverted: Says which windows are worth scoring; None: all are scanned.
        stray: Numbers of videos whose writer was killed before it could take back what another one had added.
    """

    table: Any
    numbers: dict[str, int]
    durations: dict[str, float]
    inverted: Inverted | None
    stray: list[int] = field(default_factory=list)

    @cached_property
    def names(self) -> dict[int, str]:
        """The videos by number."""
        return {number: video for video, number in self.numbers.items()}

    @cached_property
    def ascending(self) -> Numbers:
        """The numbers of all videos."""
        return np.fromiter(self.numbers.values(), np.int64, len(self.numbers))

    def counted(self, videos: frozenset[str] | None) -> Numbers:
        """The numbers of some videos, or of all, ascending."""
        if videos is None:
            return self.ascending
        found = [self.numbers[video] for video in videos if video in self.numbers]
        return np.sort(np.array(found, dtype=np.int64))

    def named(self, number: int) -> tuple[str, float]:
        """Id and seconds of a video."""
        video = self.names[number]
        return video, self.durations[video]


def promising(
    state: State, inverted: Inverted, query: NDArray[np.float32], n: int, where: Filter, counted: Numbers
) -> Numbers:
    """The videos of the best windows by the inverted file, at least n if there are so many."""
    length = float(np.linalg.norm(query))
    unit = query / length if length else query  # float16 holds no large numbers
    condition = condition_of(where)
    if where.videos is not None:
        condition = " AND ".join(filter(None, [condition, listed(counted.tolist())]))
    wanted = max(CANDIDATES, PER_VIDEO * n)
    while True:
        search = state.table.search(unit, vector_column_name="vector").distance_type(inverted.metric)
        search = search.minimum_nprobes(max(16, inverted.partitions // 24)).maximum_nprobes(0)
        search = search.limit(wanted).select(["number", "_distance"])
        found = numbers_in((search.where(condition, prefilter=True) if condition else search).to_arrow())
        distinct = np.array([one for one in np.unique(found).tolist() if one in state.names], dtype=np.int64)
        if len(distinct) >= n or len(found) < wanted:
            return distinct
        wanted *= 4


def scanned(
    state: State, queries: NDArray[np.float32], n: int, where: Filter, counted: Numbers
) -> list[Numbers]:
    """For each query the videos that can be among the n best, by all vectors."""
    chosen: list[Numbers] = []
    condition = condition_of(where)
    for start in range(0, len(queries), _AT_ONCE):
        best = BestOfVideos(counted, queries[start : start + _AT_ONCE])
        search = state.table.search().select(["number", "vector"])
        for batch in (search.where(condition) if condition else search).to_batches(_ROWS):
            best.take(numbers_in(batch), vectors_in(batch, queries.shape[1]))
        chosen += best.nearest(n)
    return chosen


def scored(
    state: State, numbers: Numbers, query: NDArray[np.float32], where: Filter
) -> Iterator[ScoredWindows]:
    """The windows of some videos with their exact scores."""
    condition = condition_of(where)
    for start in range(0, len(numbers), _LISTED):
        chosen = listed(numbers[start : start + _LISTED].tolist())
        search = state.table.search().where(f"{chosen} AND {condition}" if condition else chosen)
        for batch in search.select(SCORED).to_batches(_ROWS):
            windows, vectors = stored_in(batch, len(query))
            yield ScoredWindows(
                numbers_in(batch), values_in(batch, "nth"), windows, scores_of(vectors, query)
            )


def stored_in(batch: Any, size: int) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Windows ``(W, 2)`` and vectors of some rows; raises `ValueError` for what was never written there."""
    windows = np.stack([values_in(batch, name) for name in ("start_s", "end_s")], 1)
    vectors = vectors_in(batch, size)
    if (problem := stored_problem(windows, vectors, size)) is not None:
        raise ValueError(f"damaged, holds {problem}")
    return windows, vectors
