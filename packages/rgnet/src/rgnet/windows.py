"""Overlapping windows over a long video (the paper's clips), and a query's training targets in them.

Rows are feature rows (frames) of the whole video; W is the window's length in rows, windows start every W // 2 rows.
Source: section 3.1 of the paper and the released loader (which is CONE's).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rgnet import window_metrics
from vmr_common.errors import UserError
from vmr_common.types import Query
from vmr_train.rng import rng_for

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]


def video_windows(rows: int, window: int) -> Integers:
    """First row and length of every window of a video, ``(ceil(rows / (W // 2)) + 1, 2)`` int64.

    Window i begins at row ``(i - 1) * (W // 2)``, so the first one and the last ones are cut short by the video's
    ends, and every row lies in two windows.

    Example:
        >>> video_windows(25, 10).tolist()
        [[0, 5], [0, 10], [5, 10], [10, 10], [15, 10], [20, 5]]
    """
    half = window // 2
    begin = (np.arange(-(-rows // half) + 1, dtype=np.int64) - 1) * half
    first = np.maximum(begin, 0)
    return np.stack([first, np.minimum(begin + window, rows) - first], axis=1)


def moment_rows(query: Query, rows: int, stride: float) -> tuple[float, float]:
    """Start and end of a query's first moment in rows, exchanged if reversed and limited to the video.

    Args:
        query: With a moment.
        rows: Rows of its video.
        stride: Seconds between two rows.

    Raises:
        UserError: if the query has no moment, or it begins after the last row.
    """
    if not len(query.moments):
        raise UserError(f"query {query.id!r} has no moment to learn from")
    start, end = sorted((query.moments[0] / stride).tolist())
    if not start < rows:
        raise UserError(
            f"query {query.id!r}: its moment begins at {start * stride:.1f} s, after the features of video "
            f"{query.video!r} end ({rows} rows of {stride:g} s); leave such queries out of training"
        )
    return max(start, 0.0), min(max(end, 0.0), float(rows))


def windows_of_moment(start: float, end: float, window: int) -> Integers:
    """Numbers of the windows that hold part of a moment (rows), in order: those that the metric counts as right.

    Example:
        >>> windows_of_moment(7.0, 12.0, 10).tolist()
        [1, 2, 3]
    """
    first, last = window_metrics.positive_windows([(start, end)], clip_length=1.0, window_clips=window)[0]
    return np.arange(first, last + 1, dtype=np.int64)


def draw_probabilities(numbers: Integers) -> Floats:
    """Probability that each positive window is drawn: middle ones more, like a Gaussian of deviation 1.

    Example:
        >>> draw_probabilities(np.array([4, 5, 6])).round(3).tolist()
        [0.274, 0.452, 0.274]
    """
    weight = np.exp(-((numbers - numbers.mean()) ** 2) / 2)
    return np.asarray(weight / weight.sum())


@dataclass(frozen=True)
class Target:
    """The target of one window that holds part of a moment.

    Attributes:
        span: (centre, width), fractions of the window's length.
        frames: Numbers of the first frame of the moment and of the one after its last, within the window.
    """

    span: tuple[float, float]
    frames: tuple[int, int]


def target_in(start: float, end: float, number: int, first: int, length: int, window: int) -> Target:
    """The moment (rows) in window `number`, which has `length` rows from row `first` on."""
    begin = (number - 1) * (window // 2)
    low, high = max(begin, start) - first, min(begin + window, end) - first
    # a moment of no length on the edge of two frames still has the frame after it
    from_frame = min(math.floor(low), length - 1)
    to_frame = min(max(math.ceil(high), from_frame + 1), length)
    return Target(((low + high) / 2 / length, (high - low) / length), (from_frame, to_frame))


@dataclass(frozen=True)
class SampledWindow:
    """The windows and frames drawn for one query in one epoch.

    Attributes:
        window: ``(first row, length)`` of the drawn window with the moment.
        target: Of that window.
        inside: A frame of the moment, within the window.
        outside: A frame of the window outside of the moment; 0 where there is none.
        negative: ``(first row, length)`` of a window without the moment, or None where every window has some of it.
    """

    window: tuple[int, int]
    target: Target
    inside: int
    outside: int
    negative: tuple[int, int] | None


def sample_window(start: float, end: float, rows: int, window: int, *key: object) -> SampledWindow:
    """Windows and frames drawn for a moment (rows) of a video; they depend on the arguments alone.

    Args:
        start: First row of the moment.
        end: Its last.
        rows: Rows of the video.
        window: Window length W.
        key: Names the draw, e.g. the seed, the epoch and the query's id.
    """
    random = rng_for(*key)
    windows, numbers = video_windows(rows, window), windows_of_moment(start, end, window)
    number = int(random.choice(numbers, p=draw_probabilities(numbers)))
    first, length = windows[number].tolist()
    target = target_in(start, end, number, first, length, window)
    inside = int(random.integers(*target.frames))
    others = np.delete(np.arange(length), np.arange(*target.frames))
    outside = int(random.choice(others)) if len(others) else 0
    free = np.setdiff1d(np.arange(len(windows)), numbers)
    negative = tuple(windows[int(random.choice(free))].tolist()) if len(free) else None
    return SampledWindow((first, length), target, inside, outside, negative)
