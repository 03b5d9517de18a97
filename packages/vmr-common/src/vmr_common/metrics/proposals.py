"""Score maps over shared proposals, decoded and suppressed for many queries at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vmr_common.metrics.overlap import Floats, Integers, floating, iou

_CHUNK = 1024  # queries at once: bounds the working copy of their scores


def top_proposals(
    scores: ArrayLike, proposals: ArrayLike, threshold: float, *, limit: int = 5
) -> tuple[Integers, Floats]:
    """Greedy suppression over proposals that all queries share, without sorting them.

    Keeps what `nms` keeps of the proposals in descending order of score (of equal scores the first). Only
    the `limit` best are ever sought, and their overlaps with all others are computed once per distinct
    proposal, because the maps of a data set peak in the same places.

    Args:
        scores: ``(N, P)``; ``-inf`` marks what may not be chosen. Not changed.
        proposals: ``(P, 2)`` windows in any unit; overlap does not depend on it.
        threshold: Largest overlap that two kept proposals may have.
        limit: Proposals to keep per query.

    Returns:
        Indices ``(N, L)`` int64, best first, padded with -1, ``L = min(limit, P)``, and their scores, padded
        with ``-inf``.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> kept, scores = top_proposals([[0.9, 0.8, 0.1]], [[0, 10], [0, 9], [20, 30]], 0.5, limit=2)
        >>> kept.tolist(), scores.tolist()
        ([[0, 2]], [[0.9, 0.1]])
    """
    values, windows = floating(scores), floating(proposals)
    if values.ndim != 2 or windows.shape != (values.shape[1], 2):
        raise ValueError(f"scores {values.shape} and proposals {windows.shape} must be (N, P) and (P, 2)")
    limit = min(limit, len(windows))
    kept = np.full((len(values), limit), -1, dtype=np.int64)
    best = np.full((len(values), limit), -np.inf, dtype=values.dtype)
    near = _Neighbours(windows, threshold)
    for begin in range(0, len(values) if limit else 0, _CHUNK):
        chunk = slice(begin, begin + _CHUNK)
        remaining = values[chunk].copy()
        rows = np.arange(len(remaining))
        for position in range(limit):
            chosen = remaining.argmax(axis=1)
            score = remaining[rows, chosen]
            alive = score > -np.inf
            kept[chunk, position] = np.where(alive, chosen, -1)
            best[chunk, position] = score
            if position + 1 < limit:
                near.remove(remaining, chosen)
    return kept, best


class _Neighbours:
    """Which proposals each chosen one removes; found on first use."""

    def __init__(self, windows: Floats, threshold: float) -> None:
        self.windows, self.threshold = windows, threshold
        self.found: dict[int, NDArray[Any]] = {}

    def remove(self, scores: Floats, chosen: Integers) -> None:
        """Sets what `chosen` ``(n,)`` removes to -inf in `scores` ``(n, P)``."""
        for proposal in np.unique(chosen).tolist():
            if proposal not in self.found:
                overlap = iou(self.windows, self.windows[proposal], "true")
                gone = ~(overlap <= self.threshold)
                gone[proposal] = True
                self.found[proposal] = np.flatnonzero(gone)
            rows = np.flatnonzero(chosen == proposal)
            scores[rows[:, None], self.found[proposal]] = -np.inf


def map_proposals(size: int) -> tuple[Integers, NDArray[np.float64]]:
    """All proposals of a 2D map: cells ``(i, j)``, ``i <= j``, and their windows in clips.

    Args:
        size: Clips T of the map.

    Returns:
        Cells ``(P, 2)`` int64 in row order and windows ``[i, j + 1]`` ``(P, 2)`` float64, P = T (T + 1) / 2.

    Example:
        >>> cells, windows = map_proposals(2)
        >>> cells.tolist(), windows.tolist()
        ([[0, 0], [0, 1], [1, 1]], [[0.0, 1.0], [0.0, 2.0], [1.0, 2.0]])
    """
    cells = np.argwhere(np.triu(np.ones((size, size), dtype=bool)))
    return cells, cells + np.array([0.0, 1.0])
