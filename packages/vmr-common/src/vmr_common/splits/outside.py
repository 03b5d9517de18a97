"""Moments and time points that lie wholly outside their videos: most often a wrong unit, or the wrong video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from vmr_common.errors import UserError, quoted

if TYPE_CHECKING:
    from vmr_common.splits.load import Split

_UNITS = {"frame numbers": 30.0, "milliseconds": 1e3, "microseconds": 1e6}
"""Units that times are mistaken in, and how many of each make a second, about."""
FEW, LONG = 3, 5.0  # times, and seconds of a video, from which times up to 1 look like fractions


class Outside(NamedTuple):
    """A kept record with a time that its video does not have.

    Example:
        >>> one = Outside("mine.jsonl:2", "q7", 4523.0, 61.7, "the moment 4521 to 4530 s")
        >>> print(one)
        mine.jsonl:2: query 'q7': the moment 4521 to 4530 s lies wholly outside the video of 61.7 s
    """

    where: str  # file and record
    query: str  # id
    time: float  # the largest one, seconds
    duration: float  # of the video, seconds
    what: str  # the moment or time point, in words

    def __str__(self) -> str:
        return (
            f"{self.where}: query {quoted(self.query)}: {self.what} lies wholly outside the video of "
            f"{self.duration:g} s"
        )


def find_outside(
    where: str, query: str, moments: Sequence[tuple[float, float]], point: float | None, duration: float
) -> Outside | None:
    """The first moment of a record that lies wholly outside its video, else its time point if that does, else None."""
    for start, end in moments:
        if start >= duration or max(start, end) <= 0 > min(start, end):
            return Outside(where, query, max(start, end), duration, f"the moment {start:g} to {end:g} s")
    if point is not None and not 0 <= point <= duration:
        return Outside(where, query, point, duration, f"the time point {point:g} s")
    return None


def outside_of(split: Split) -> list[Outside]:
    """The queries of a split that lie outside their videos, in the order of its file."""
    there = {query.id for query in split.queries} if split.report.outside else set()
    return [one for one in split.report.outside if one.query in there]


def seem_fractions(split: Split) -> str:
    """That all times of a split lie in the first second of videos of `LONG` seconds and more; "" where not so."""
    ends = [float(query.moments.max()) for query in split.queries if len(query.moments)]
    ends += [query.glance for query in split.queries if query.glance is not None]
    if len(ends) < FEW or max(ends) > 1 or min(query.duration for query in split.queries) < LONG:
        return ""
    return (
        f"all times of {split.name} lie in the first second of their videos: are they fractions of the video, "
        "and not seconds?"
    )


def require_mostly_inside(split: Split) -> None:
    """Makes sure that at most half of the queries lie outside their videos, and that times are no fractions.

    Raises `UserError` with their number, an example, and the unit that would fit.
    """
    if fractions := seem_fractions(split):
        raise UserError(fractions)
    found = outside_of(split)
    if 2 * len(found) > len(split.queries):
        raise UserError(said_outside(split, found))


def said_outside(split: Split, found: Sequence[Outside]) -> str:
    """How many queries of a split lie outside their videos, with an example, and the unit that would fit most."""
    hint = unit_hint(found) if 2 * len(found) > len(split.queries) else ""
    about = f"{len(found):,} of {len(split.queries):,} queries of {split.name}"
    return f"{about} lie outside their videos{hint}; for example {found[0]}"


def unit_hint(found: Sequence[Outside]) -> str:
    """The unit in which all times would lie in their videos, as a question; "" where none would do."""
    for unit, a_second in _UNITS.items():
        if all(one.time / a_second <= one.duration for one in found):
            return f" (are the times {unit}, and not seconds?)"
    return ""
