"""Sentences that place a moment after or before another one: both parts are found, and the order of their windows."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vmr_search.engine.moment_index import Filter, FoundVideo, MomentIndex

CANDIDATES = 200
"""Videos of each part that are scored, at least."""
_PER_VIDEO = 10  # times the wanted videos, where that is more
_OVERLAP = 0.25  # of the anchor's window may lie on the wrong side: windows are coarse

_WORDS = r"(?:(?:right|just|shortly|soon|immediately) )?(after|before)"
_FIRST = re.compile(rf"{_WORDS} ([^,]+), ?(.+)", re.IGNORECASE)
_LAST = re.compile(rf"(.+?),? {_WORDS} (.+)", re.IGNORECASE)
_ANY = re.compile(r"\b(?:after|before)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Reading:
    """A sentence in two parts.

    Attributes:
        main: What is to be found.
        order: How it lies to the anchor.
        anchor: What happens first, or later.
    """

    main: str
    order: Literal["after", "before"]
    anchor: str

    def __str__(self) -> str:
        return f'"{self.main}" {self.order} "{self.anchor}"'


def reading_of(text: str) -> Reading | None:
    """The parts of a sentence with one ``after`` or ``before`` between two parts, else None.

    Example:
        >>> print(reading_of("after the dog barks, a man opens the door"))
        "a man opens the door" after "the dog barks"
        >>> print(reading_of("he waves just before leaving"))
        "he waves" before "leaving"
        >>> reading_of("the morning after"), reading_of("a dog jumps")
        (None, None)
    """
    text = " ".join(text.split()).rstrip(" .!?")
    if len(_ANY.findall(text)) != 1:
        return None
    if found := _FIRST.fullmatch(text):
        order, anchor, main = found.groups()
    elif found := _LAST.fullmatch(text):
        main, order, anchor = found.groups()
    else:
        return None
    return Reading(main, "after" if order.lower() == "after" else "before", anchor)


def in_order(
    engine: MomentIndex,
    main: NDArray[np.float32],
    anchor: NDArray[np.float32],
    order: Literal["after", "before"],
    n: int,
    where: Filter,
    *,
    exact: bool = False,
) -> list[FoundVideo]:
    """The n videos with the best pair of a main window and an anchor's window on its right side, best first.

    The score of a main window is the mean of its own and of the best anchor's; windows without one are left out.

    Args:
        engine: Vectors of the corpus.
        main: ``(size,)`` vector of the main part.
        anchor: ``(size,)`` vector of the anchor.
        order: ``after`` if the anchor comes first.
        n: Videos at the most.
        where: Which videos, and which windows of the main part, count.
        exact: See `MomentIndex.search`; the best `CANDIDATES` videos of each part are scored in any case.
    """
    count = max(CANDIDATES, _PER_VIDEO * n)
    anywhere = Filter(videos=where.videos)
    mains = _by_video(engine, main, count, where, exact)  # a scan for each: one for both takes as long
    anchors = _by_video(engine, anchor, count, anywhere, exact)
    # the best of one part may be further down in the list of the other
    for found, other, vector, seen in ((mains, anchors, main, where), (anchors, mains, anchor, anywhere)):
        lacking = frozenset(other) - frozenset(found)
        if lacking:
            found |= _by_video(engine, vector, len(lacking), replace(seen, videos=lacking), exact)
    pairs = (_paired(mains[video], anchors[video], order) for video in mains if video in anchors)
    ranked = sorted((one for one in pairs if one is not None), key=lambda video: -video.best)
    return ranked[:n]


def _by_video(
    engine: MomentIndex, vector: NDArray[np.float32], count: int, where: Filter, exact: bool
) -> dict[str, FoundVideo]:
    """The best videos for a vector ``(size,)``, by id."""
    (found,) = engine.search(vector[None], count, where, exact=exact)
    return {one.video: one for one in found}


def _paired(main: FoundVideo, anchor: FoundVideo, order: str) -> FoundVideo | None:
    """A video whose main windows have the mean score of themselves and of the best anchor in order."""
    starts, ends = anchor.windows[:, 0], anchor.windows[:, 1]
    slack = _OVERLAP * (ends - starts)
    if order == "after":
        limits, wanted = ends - slack, main.windows[:, 0]
    else:  # the same on a clock that runs backwards
        limits, wanted = -(starts + slack), -main.windows[:, 1]
    by_limit = np.argsort(limits, kind="stable")
    best = np.maximum.accumulate(anchor.scores[by_limit])  # of the anchors up to each limit
    number = np.searchsorted(limits[by_limit], wanted, side="right")
    keep = number > 0
    if not keep.any():
        return None
    scores = ((main.scores[keep] + best[number[keep] - 1]) / 2).astype(np.float32)
    return FoundVideo(main.video, main.duration, main.windows[keep], scores)
