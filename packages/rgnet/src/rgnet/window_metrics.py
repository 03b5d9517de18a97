"""Long videos: which overlapping slices of the video hold the moment, and how well they are ranked."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from vmr_common.metrics.overlap import Floats, Integers


def positive_windows(moments: ArrayLike, *, clip_length: float, window_clips: int) -> Integers:
    """First and last number of the half-overlapping windows that hold part of a moment (CONE, RGNet).

    Window w starts at step ``w * half``, ``half = window_clips // 2``; a step is a time divided by
    `clip_length`. The numbers run from ``floor(start / half)`` to ``ceil(end / half)``, both included, and
    may exceed the last window of the video.

    Args:
        moments: ``(N, 2)`` seconds, not cut to the video.
        clip_length: Seconds per feature step, positive.
        window_clips: Feature steps per window, at least 2.

    Returns:
        ``(N, 2)`` int64.

    Raises:
        ValueError: if `clip_length` or `window_clips` is too small.

    Example:
        >>> positive_windows([[10.0, 25.0]], clip_length=0.5, window_clips=20).tolist()
        [[2, 5]]
    """
    if not clip_length > 0 or window_clips < 2:
        raise ValueError(f"cannot slice a video into windows of {window_clips} clips of {clip_length} s")
    half = window_clips // 2
    steps = np.asarray(moments, dtype=np.float64) / clip_length
    bounds = [np.floor(steps[:, 0] / half), np.ceil(steps[:, 1] / half)]
    return np.stack(bounds, axis=1).astype(np.int64)


def window_recall(ranked: ArrayLike, positive: ArrayLike, ranks: Sequence[int]) -> Floats:
    """Share of queries with a positive window among the first n, for several n.

    Args:
        ranked: ``(N, W)`` window numbers, best first, padded with negative numbers.
        positive: ``(N, 2)`` first and last positive window (see `positive_windows`).
        ranks: Numbers n, at least 1.

    Returns:
        ``(len(ranks),)`` float64.

    Example:
        >>> window_recall([[7, 3, -1], [0, 1, 2]], [[2, 5], [4, 5]], [1, 2]).tolist()
        [0.0, 0.5]
    """
    numbers, bounds = np.asarray(ranked), np.asarray(positive)
    hit = (numbers >= bounds[:, :1]) & (numbers <= bounds[:, 1:]) & (numbers >= 0)
    return np.array([hit[:, :rank].any(axis=1).mean() for rank in ranks])
