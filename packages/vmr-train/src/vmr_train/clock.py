"""Times for people, and of the clips that a picture shows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def format_hours(seconds: float) -> str:
    """``h:mm:ss``; what lies before 0 is shown as 0.

    Example:
        >>> format_hours(3725), format_hours(-2.0)
        ('1:02:05', '0:00:00')
    """
    whole = max(round(seconds), 0)
    return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"


def format_clock(seconds: float) -> str:
    """Seconds for people: ``m:ss.s``, or ``h:mm:ss`` from one hour on.

    Example:
        >>> format_clock(75.25), format_clock(3725)
        ('1:15.2', '1:02:05')
    """
    if seconds >= 3600:
        return format_hours(seconds)
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths % 600 // 10:02d}.{tenths % 10}"


def clip_centres(length: int, duration: float) -> NDArray[np.float64]:
    """Middle of each of `length` equal clips of a video, seconds, ``(length,)``.

    Example:
        >>> clip_centres(4, 8.0).tolist()
        [1.0, 3.0, 5.0, 7.0]
    """
    return (np.arange(length, dtype=np.float64) + 0.5) * (duration / length)
