"""Exact scores of the videos that an engine holds candidates of, and their order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vmr_search.engine.moment_index import Filter, FoundVideo

CANDIDATES = 240
"""Windows that an approximate search asks for at the least: the best ten are often of one video."""
PER_VIDEO = 10
"""Windows that it asks for by video."""

Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ScoredWindows:
    """Some windows of videos that an engine knows by number, `(W,)` each, in any order.

    Attributes:
        numbers: Of their videos, int64: a video that was added earlier has a smaller one.
        nth: Places of the windows in their videos, int64.
        windows: ``(W, 2)`` float64, seconds.
        scores: float32.
    """

    numbers: Numbers
    nth: Numbers
    windows: NDArray[np.float64]
    scores: NDArray[np.float32]


def as_float32(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """The vectors in float32; torch converts float16 six times faster than numpy."""
    if vectors.dtype != np.float16:
        return vectors.astype(np.float32, copy=False)
    kept = vectors if vectors.flags.writeable else vectors.copy()  # torch warns of what it could change
    found: NDArray[np.float32] = torch.from_numpy(kept).float().numpy()
    return found


def scores_of(vectors: NDArray[Any], query: NDArray[np.float32]) -> NDArray[np.float32]:
    """Inner products in float32 ``(W,)`` of vectors ``(W, size)``; of equal vectors they are equal to the bit.

    A product of matrices adds up in an order that depends on how many rows it is given.
    """
    found: NDArray[np.float32] = np.einsum("wd,d->w", as_float32(vectors), query)
    return found


def ranked(
    parts: Iterable[ScoredWindows],
    n: int,
    where: Filter,
    named: Callable[[int], tuple[str, float]],
) -> list[FoundVideo]:
    """The n best videos of scored windows, best first; of equal ones the one that was added first.

    Args:
        parts: All windows of each of the videos.
        n: How many.
        where: Which windows count.
        named: Id and seconds of a video by its number.
    """
    given = list(parts)
    if not given:
        return []
    numbers, nth, scores = (
        np.concatenate([getattr(part, name) for part in given]) for name in ("numbers", "nth", "scores")
    )
    windows = np.concatenate([part.windows for part in given])
    keep = np.flatnonzero(where.keeps(windows))
    order = keep[np.lexsort((nth[keep], numbers[keep]))]
    numbers, windows, scores = numbers[order], windows[order], scores[order]
    if not len(numbers):
        return []
    starts = np.flatnonzero(np.diff(numbers, prepend=numbers[0] - 1))
    ends = np.append(starts[1:], len(numbers))
    best = np.maximum.reduceat(scores, starts)
    found = []
    for place in np.argsort(-best, kind="stable")[:n].tolist():
        mine = slice(starts[place], ends[place])
        video, duration = named(int(numbers[starts[place]]))
        found.append(FoundVideo(video, duration, windows[mine].copy(), scores[mine].copy()))
    return found


class BestOfVideos:
    """The highest score of each video while all windows of a corpus pass by once, for some queries.

    Args:
        numbers: Of the videos that count, ascending.
        queries: ``(Q, size)`` float32.
    """

    def __init__(self, numbers: Numbers, queries: NDArray[np.float32]) -> None:
        self.numbers, self.queries = numbers, queries
        self.best = np.full((len(queries), len(numbers)), -np.inf, dtype=np.float32)
        self._longest = 0.0

    def take(self, numbers: Numbers, vectors: NDArray[Any]) -> None:
        """Some windows: numbers of their videos ``(W,)`` and vectors ``(W, size)``."""
        if not len(self.numbers) or not len(numbers):
            return
        places = np.minimum(np.searchsorted(self.numbers, numbers), len(self.numbers) - 1)
        known = self.numbers[places] == numbers
        if not known.all():
            places, vectors = places[known], vectors[known]
        rows = as_float32(vectors)
        if len(rows):
            self._longest = max(self._longest, float(np.einsum("wd,wd->w", rows, rows).max()))
        for best, scores in zip(self.best, self.queries @ rows.T, strict=True):
            np.maximum.at(best, places, scores)

    def nearest(self, n: int) -> list[Numbers]:
        """For each query the numbers of all videos that can be among the n best: rounding is allowed for."""
        chosen = []
        # each of some thousand roundings is 2^-24 of a partial sum, which the lengths of both vectors bound
        lengths = np.sqrt(self._longest) * np.linalg.norm(self.queries, axis=1)
        for best, slack in zip(self.best, 2.0**-15 * lengths, strict=True):
            seen = np.flatnonzero(best > -np.inf)
            if len(seen) > n:
                nth = np.partition(best[seen], len(seen) - n)[len(seen) - n]
                seen = seen[best[seen] >= nth - slack]
            chosen.append(self.numbers[seen])
        return chosen
