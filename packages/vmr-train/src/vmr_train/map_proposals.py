"""Score maps over shared proposals, decoded and suppressed for many queries at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vmr_common.metrics.overlap import Floats, Integers, floating, iou_of

_CHUNK = 128  # queries at once: their scores then stay in the processor's cache


def top_proposals(
    scores: ArrayLike,
    proposals: ArrayLike,
    threshold: float,
    *,
    limit: int = 5,
    cells: ArrayLike | None = None,
) -> tuple[Integers, Floats]:
    """Greedy suppression over proposals that all queries share, without sorting them.

    Keeps what `nms` keeps of the proposals in descending order of score (of equal scores the first). Only
    the `limit` best are ever sought, and what a proposal removes is found once per distinct proposal, because
    the maps of a data set peak in the same places. Memory: up to P * P bytes for that.

    Args:
        scores: ``(N, P)``; ``-inf`` marks what may not be chosen. With `cells`, 2D maps ``(N, T, T)``. Not
            changed.
        proposals: ``(P, 2)`` windows in any unit; overlap does not depend on it.
        threshold: Largest overlap that two kept proposals may have.
        limit: Proposals to keep per query.
        cells: ``(P, 2)`` place of each proposal in the maps (see `map_proposals`; fewer for a masked map).

    Returns:
        Indices ``(N, L)`` int64, best first, padded with -1, ``L = min(limit, P)``, and their scores, padded
        with ``-inf``.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        >>> kept, scores = top_proposals([[0.9, 0.8, 0.1]], [[0, 10], [0, 9], [20, 30]], 0.5, limit=2)
        >>> kept.tolist(), scores.tolist()
        ([[0, 2]], [[0.9, 0.1]])
        >>> cells, windows = map_proposals(2)
        >>> top_proposals([[[0.9, 0.1], [0.0, 0.3]]], windows, 0.5, cells=cells)[0].tolist()
        [[0, 2, 1]]
    """
    values, windows = floating(scores), floating(proposals)
    places = None
    if cells is not None:
        corner = np.asarray(cells, dtype=np.int64)
        places = corner[:, 0] * values.shape[-1] + corner[:, 1]
        values = values.reshape(len(values), -1)
        if places.size and not 0 <= places.min() <= places.max() < values.shape[1]:
            raise ValueError("cells lie outside the maps")
    width = values.shape[-1] if places is None else len(places)
    if values.ndim != 2 or windows.shape != (width, 2):
        raise ValueError(f"scores {values.shape} and proposals {windows.shape} must be (N, P) and (P, 2)")
    limit = min(limit, len(windows))
    kept = np.full((len(values), limit), -1, dtype=np.int64)
    best = np.full((len(values), limit), -np.inf, dtype=values.dtype)
    near = _Neighbours(windows, threshold)
    buffer = np.empty((min(_CHUNK, len(values)), len(windows)), dtype=values.dtype)
    for begin in range(0, len(values) if limit else 0, _CHUNK):
        part = values[begin : begin + _CHUNK]
        remaining = buffer[: len(part)]
        if places is None:
            remaining[:] = part
        else:
            # ten times as fast as indexing; with "raise" it would not write to the buffer directly
            np.take(part, places, axis=1, out=remaining, mode="clip")
        rows = np.arange(len(part))
        for position in range(limit):
            chosen = remaining.argmax(axis=1)
            score = remaining[rows, chosen]
            kept[begin : begin + len(part), position] = np.where(score > -np.inf, chosen, -1)
            best[begin : begin + len(part), position] = score
            if position + 1 < limit:
                near.remove(remaining, chosen)
    return kept, best


class _Neighbours:
    """The proposals that each chosen one removes; found when it is first chosen."""

    def __init__(self, windows: Floats, threshold: float) -> None:
        self.starts, self.ends = (np.ascontiguousarray(column) for column in windows.T)
        self.lengths = self.ends - self.starts
        self.threshold = threshold
        self.known = np.zeros(len(windows), dtype=bool)
        self.removed = np.empty((len(windows), len(windows)), dtype=bool)  # rows fill as they are needed

    def remove(self, scores: Floats, chosen: Integers) -> None:
        """Sets what `chosen` ``(n,)`` removes, and itself, to -inf in `scores` ``(n, P)``."""
        for proposal in set(chosen[~self.known[chosen]].tolist()):
            self._find(proposal)
        np.copyto(scores, -np.inf, where=self.removed[chosen])

    def _find(self, proposal: int) -> None:
        # `iou` with the true union, written out without temporaries: this is the hot spot
        shared = np.minimum(self.ends, self.ends[proposal])
        shared -= np.maximum(self.starts, self.starts[proposal])
        np.maximum(shared, 0.0, out=shared)
        whole = self.lengths + self.lengths[proposal]
        whole -= shared
        with np.errstate(divide="ignore", invalid="ignore"):
            shared /= whole
        row = self.removed[proposal]
        np.less_equal(shared, self.threshold, out=row)
        np.logical_not(row, out=row)  # an overlap that is not a number removes, too
        row[proposal] = True
        self.known[proposal] = True


def map_overlaps(moments: ArrayLike, duration: float, size: int) -> NDArray[np.float32]:
    """Temporal overlap of each cell of a 2D map with a target, ``(size, size)`` float32.

    Cell (i, j) is the window from clip i's start to clip j's end; its times and the targets are rounded to
    float32, the overlap (hull form) is computed in float64. Below the diagonal it is 0 (2D-TAN, CDN, LEORN).

    Args:
        moments: ``(M, 2)`` or ``(2,)`` targets, seconds; of several the best counts, without any all is 0.
        duration: Seconds.
        size: Clips T of the map.

    Example:
        >>> map_overlaps([2.0, 4.0], 4.0, 2).tolist()
        [[0.0, 0.5], [0.0, 1.0]]
    """
    targets = np.asarray(moments, dtype=np.float32).astype(np.float64).reshape(-1, 2)
    edges = np.arange(size + 1, dtype=np.float32) * np.float32(duration) / np.float32(size)
    starts, ends = edges[:-1, None].astype(np.float64), edges[None, 1:].astype(np.float64)
    best = np.zeros((size, size))
    for start, end in targets:
        best = np.maximum(best, iou_of((starts, start), (ends, end), empty=0.0))
    return best.astype(np.float32)


def cell_windows(cells: ArrayLike) -> NDArray[np.float64]:
    """The windows ``[i, j + 1]`` of valid cells ``(T, T)`` of a 2D map, in clips, ``(P, 2)`` in row order.

    Example:
        >>> cell_windows([[True, True], [False, True]]).tolist()
        [[0.0, 1.0], [0.0, 2.0], [1.0, 2.0]]
    """
    windows: NDArray[np.float64] = np.argwhere(np.asarray(cells)) + np.array([0.0, 1.0])
    return windows


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
    cells = np.triu(np.ones((size, size), dtype=bool))
    return np.argwhere(cells), cell_windows(cells)
