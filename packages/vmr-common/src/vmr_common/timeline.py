"""The only place where seconds, frames, clips and normalised time are converted into each other.

Times are float64 seconds unless a name says otherwise; *normalised* time is a fraction of the duration.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vmr_common.errors import UserError

FloatArray = NDArray[np.float64]
HIGHLIGHT_CLIP_SECONDS = 2.0
MOST_HIGHLIGHT_CLIPS = 1 << 20
"""The most clips of one video that highlights are scored of: those of 24 days."""
MOST_SECONDS = 1e9
"""The longest time that annotations and options may state, about 32 years: no sum or quotient of times overflows."""
LEAST_DURATION = 1e-6
"""The shortest video that they may state, seconds."""


def frames_to_seconds(frames: ArrayLike, fps: float) -> FloatArray:
    """Frame numbers to seconds: ``frames / fps`` (TACoS annotations count frames).

    Raises `ValueError` if `fps` is not positive.

    Example:
        >>> frames_to_seconds([147, 294], 29.4).tolist()
        [5.0, 10.0]
    """
    if not fps > 0:
        raise ValueError(f"fps must be positive, found {fps}")
    return np.asarray(frames, dtype=np.float64) / fps


def to_normalised(seconds: ArrayLike, duration: ArrayLike) -> FloatArray:
    """Seconds ``(N, ...)`` to fractions of the duration, a scalar or ``(N,)``; values past the end stay above 1.

    Example:
        >>> to_normalised([[5.0, 12.0]], [10.0]).tolist()
        [[0.5, 1.2]]
    """
    return np.asarray(seconds, dtype=np.float64) / _align(seconds, duration)


def to_seconds(fractions: ArrayLike, duration: ArrayLike) -> FloatArray:
    """Fractions of the duration to seconds, the inverse of `to_normalised`.

    Example:
        >>> to_seconds([0.25, 0.5], 30.0).tolist()
        [7.5, 15.0]
    """
    return np.asarray(fractions, dtype=np.float64) * _align(fractions, duration)


def _align(values: ArrayLike, duration: ArrayLike) -> FloatArray:
    length = np.asarray(duration, dtype=np.float64)
    return length.reshape(length.shape + (1,) * (np.ndim(values) - length.ndim)) if length.ndim else length


def pooling_bounds(num_rows: int, length: int) -> NDArray[np.int64]:
    """The ``length + 1`` row numbers between which `num_rows` feature rows are pooled to `length` clips.

    ``b_j = round_half_even(j / length * num_rows)``, at most ``num_rows - 1`` (the rule of CPL, RGN and CFMR). Raises
    `ValueError` if either number is not positive.

    Example:
        >>> pooling_bounds(3, 4).tolist()
        [0, 1, 2, 2, 2]
    """
    if num_rows < 1 or length < 1:
        raise ValueError(f"cannot pool {num_rows} rows to {length} clips")
    # float32 as in the methods' released loaders would round differently; they divide in float64
    bounds = np.round(np.arange(length + 1, dtype=np.float64) / length * num_rows).astype(np.int64)
    return np.minimum(bounds, num_rows - 1)


def clip_centres(length: int, duration: float) -> FloatArray:
    """Middle of each of `length` equal clips of a video, seconds, ``(length,)``.

    Example:
        >>> clip_centres(4, 8.0).tolist()
        [1.0, 3.0, 5.0, 7.0]
    """
    return (np.arange(length, dtype=np.float64) + 0.5) * (duration / length)


def highlight_clips(duration: float) -> int:
    """Number of clips that QVHighlights scores highlights of in a video: whole ones of two seconds.

    Raises `UserError` if they are more than `MOST_HIGHLIGHT_CLIPS`.

    Example:
        >>> highlight_clips(150.0), highlight_clips(149.9)
        (75, 74)
    """
    clips = int(duration / HIGHLIGHT_CLIP_SECONDS)
    if clips > MOST_HIGHLIGHT_CLIPS:
        raise UserError(f"a video of {duration:g} s has too many clips to score highlights of")
    return clips
