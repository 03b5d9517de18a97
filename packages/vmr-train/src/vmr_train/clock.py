"""Times for people."""

from __future__ import annotations


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
