"""From the candidates of the kept windows to one ranked list of moments.

A row is ``(start s, end s, proposal score, matching score)``, rounded to four decimals as in the released program.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vmr_common import metrics

Floats = NDArray[np.float64]
START, END, PROPOSAL, MATCHING, FUSED = range(5)
DECIMALS = 4


def candidate_rows(
    spans: Floats, proposal: Floats, matching: Floats, windows: NDArray[np.int64], stride: float
) -> Floats:
    """Rows of the candidates of K windows, window by window, each by falling proposal score, ``(K * Q, 4)``.

    Args:
        spans: ``(K, Q, 2)`` (centre, width), fractions of the window's length.
        proposal: ``(K, Q)``.
        matching: ``(K, Q)``.
        windows: ``(K, 2)`` first row and length of each window.
        stride: Seconds between two feature rows.
    """
    first, length = windows[:, :1].astype(np.float64), windows[:, 1:].astype(np.float64)
    half = spans[..., 1] / 2
    start, end = ((edge * length + first) * stride for edge in (spans[..., 0] - half, spans[..., 0] + half))
    rows = np.stack([start, end, proposal, matching], axis=-1)  # (K, Q, 4)
    order = np.argsort(-proposal, axis=1, kind="stable")
    return np.take_along_axis(rows, order[..., None], axis=1).reshape(-1, 4).round(DECIMALS)


def spread(values: Floats) -> Floats:
    """Values moved to [0, 1] by their least and largest; unchanged where all are equal.

    Example:
        >>> spread(np.array([2.0, 6.0, 4.0])).tolist()
        [0.0, 1.0, 0.5]
    """
    low, high = values.min(), values.max()
    return values if low == high else np.asarray((values - low) / (high - low))


def fuse(rows: Floats) -> Floats:
    """Fused score of rows ``(R, 4)``: both scores, spread, added; ``(R,)``."""
    return spread(rows[:, PROPOSAL]) + spread(rows[:, MATCHING])


def rank(
    rows: Floats, *, by: int, limit: int, threshold: float, keep: int
) -> tuple[Floats, NDArray[np.int64]]:
    """The final list: repeated moments are one, sorted, similar ones suppressed.

    A moment that occurs more than once keeps its first place and its last scores, as in the released program.

    Args:
        rows: ``(R, C)``, R at least 1.
        by: Column that ranks.
        limit: Rows that enter the suppression, at most.
        threshold: Largest overlap of two kept rows.
        keep: Rows kept, at most.

    Returns:
        The kept rows ``(K, C)``, best first, and their numbers in `rows`.
    """
    # a key of a dictionary keeps its first place and takes its last value
    last = {(start, end): number for number, (start, end) in enumerate(rows[:, :2].tolist())}
    kept = np.fromiter(last.values(), dtype=np.int64)
    kept = kept[np.argsort(-rows[kept, by], kind="stable")][:limit]
    kept = kept[metrics.nms(rows[kept, :2], threshold, limit=keep, union="hull", empty=0.0)]
    return rows[kept], kept
