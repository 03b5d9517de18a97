"""The interface of an engine: vectors of windows of videos, searched by the vector of a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, quoted

Windows = NDArray[np.float64]
Vectors = NDArray[Any]


@dataclass(frozen=True, eq=False)
class VideoWindows:
    """A video as it is added to an engine.

    Attributes:
        video: Its id.
        duration: Seconds.
        windows: ``(W, 2)`` float64, start and end in seconds; at least one.
        vectors: ``(W, size)`` float16 or float32, one of each window.
    """

    video: str
    duration: float
    windows: Windows
    vectors: Vectors


@dataclass(frozen=True, kw_only=True)
class Filter:
    """The windows among which a search is made.

    Attributes:
        videos: Only those of these videos; None: of all.
        after: Only those that end after this time of their video, seconds.
        before: Only those that start before this time, seconds.
        shortest: Only those of at least this length, seconds.
        longest: Only those of at most this length, seconds.

    Raises:
        UserError: if nothing can fit (an end before its start), a number is negative, or `videos` is a single text.
    """

    videos: frozenset[str] | None = None
    after: float = 0.0
    before: float = float("inf")
    shortest: float = 0.0
    longest: float = float("inf")

    def __post_init__(self) -> None:
        if isinstance(self.videos, str):  # whose letters would be taken for ids
            raise UserError(f"videos: found the text {quoted(self.videos, 60)}, expected a set of ids")
        for low, high in (("after", "before"), ("shortest", "longest")):
            least, most = getattr(self, low), getattr(self, high)
            if not 0 <= least <= most:  # false for NaN too
                raise UserError(
                    f"{low} {quoted(least)} and {high} {quoted(most)}: expected seconds from 0 on, in order"
                )

    @property
    def of_windows(self) -> bool:
        """True if it says anything about windows, and not about videos alone."""
        return (self.after, self.before, self.shortest, self.longest) != (0.0, np.inf, 0.0, np.inf)

    def keeps(self, windows: Windows) -> NDArray[np.bool_]:
        """True for those of some windows ``(W, 2)`` that it lets pass, ``(W,)``."""
        start, end = windows[:, 0], windows[:, 1]
        fits = (end > self.after) & (start < self.before)
        fits |= (start == 0) & (self.after == 0)  # windows of no length at the beginning
        length = end - start
        result: NDArray[np.bool_] = fits & (length >= self.shortest) & (length <= self.longest)
        return result


EVERYTHING = Filter()


@dataclass(frozen=True, eq=False)
class FoundVideo:
    """A video that a search found, with exact scores.

    Attributes:
        video: Its id.
        duration: Seconds.
        windows: ``(W, 2)`` float64, seconds: all its windows that the filter lets pass, in the order of `add`.
        scores: ``(W,)`` float32, the inner product of each with the sentence, computed in float32.
    """

    video: str
    duration: float
    windows: Windows
    scores: NDArray[np.float32]

    @property
    def best(self) -> float:
        """The highest score."""
        return float(self.scores.max())


class MomentIndex(Protocol):
    """An engine. What `add`, `replace` and `remove` have returned from is on the disk, whatever happens then.

    Attributes:
        size: Length of a vector.
    """

    size: int

    def __len__(self) -> int:
        """Number of videos."""

    def __contains__(self, video: object) -> bool:
        """True if it holds a video of this id."""

    def videos(self) -> list[str]:
        """The ids of all videos."""

    def durations(self) -> dict[str, float]:
        """Seconds by video, of all."""

    def add(self, videos: Iterable[VideoWindows]) -> int:
        """Adds videos; how many. One by one or many at once: whatever it was given is there when it returns.

        Raises:
            UserError: if a video is there already, vectors do not fit, another process writes, the disk is full;
                what was written before stays.
        """

    def replace(self, videos: Iterable[VideoWindows]) -> int:
        """As `add`, for videos of which some are there: these are there once at any instant, old or new."""

    def remove(self, videos: Sequence[str]) -> None:
        """Takes videos out.

        Raises:
            UserError: naming the first one that is not there; none is removed then.
        """

    def search(
        self, queries: NDArray[np.float32], n: int, where: Filter = EVERYTHING, *, exact: bool = False
    ) -> list[list[FoundVideo]]:
        """For every query ``(Q, size)`` the `n` videos with the highest-scoring window, best first.

        Scores are exact whatever the engine: "approximate" means only which videos are scored, and with `exact`
        all are. Of equal scores the video that was added first comes first.
        """

    def refresh(self) -> None:
        """Sees from now on what writers have done since it was opened."""

    def verify(self) -> None:
        """Reads all of it; raises `UserError` for the first damage, as far as the engine can tell."""

    def compact(self) -> None:
        """Frees the space of what was removed, and makes the search fast again after many small additions."""

    def close(self) -> None:
        """Lets go of files and connections."""
