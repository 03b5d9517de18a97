"""Addresses of the server's parts of a found moment."""

from __future__ import annotations

from urllib.parse import quote, urlencode

from vmr_search.hits import Hit
from vmr_search.server.schema import FoundMoment
from vmr_search.server.videos import Library

_AROUND = 1 / 3  # of a moment's length, that a film strip shows before and after it


def around(start: float, end: float, duration: float) -> tuple[float, float]:
    """The seconds that the film strip of a moment shows: the moment, and a third of it on either side.

    Example:
        >>> around(1.0, 4.0, 100.0), around(0.0, 3.0, 3.5)
        ((0.0, 5.0), (0.0, 3.5))
    """
    more = (end - start) * _AROUND
    return max(start - more, 0.0), min(end + more, max(duration, end))


def found_moment(rank: int, hit: Hit, library: Library) -> FoundMoment:
    """A hit as the server tells it."""
    known = hit.video in library

    def address(part: str, **parameters: float) -> str | None:
        if not known:
            return None
        shown = urlencode({name: f"{value:.3f}" for name, value in parameters.items()})
        return f"/{part}/{quote(hit.video, safe='')}" + (f"?{shown}" if shown else "")

    low, high = around(hit.start, hit.end, hit.duration)
    return FoundMoment(
        rank=rank,
        video=hit.video,
        title=library.title(hit.video),
        start=hit.start,
        end=hit.end,
        duration=hit.duration,
        score=hit.score,
        retrieval=hit.retrieval,
        grounding=hit.grounding,
        presence=hit.presence,
        video_url=address("video"),
        strip_url=address("strip", start=low, end=high) if high > low else None,
        clip_url=address("clip", start=hit.start, end=hit.end) if hit.end > hit.start else None,
    )
