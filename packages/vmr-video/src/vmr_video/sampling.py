"""The picture of a video that stands for each frame: the rules of FFmpeg's filter ``fps``, on time stamps alone."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Generic, TypeVar

from vmr_common.errors import UserError
from vmr_video.recipe import FrameRecipe, Sampling

Picture = TypeVar("Picture")
MOST_FPS = 1000


def rate_of(recipe: FrameRecipe) -> Fraction:
    """Frames per second as a ratio: 29.97 is 2997/100, 30000 / 1001 is itself.

    Raises:
        UserError: if it is not a positive number, or more than `MOST_FPS`.
    """
    if not 0 < recipe.fps <= MOST_FPS:
        raise UserError(f"fps: found {recipe.fps}, expected more than 0 and at most {MOST_FPS}")
    return Fraction(recipe.fps).limit_denominator(1_000_000)


def frame_count(duration: float, recipe: FrameRecipe) -> int:
    """The number of frames that are taken of so many seconds.

    Example:
        >>> frame_count(30.7, FrameRecipe(fps=0.5)), frame_count(30.7, FrameRecipe(fps=0.5, sampling="start"))
        (15, 16)
    """
    place = Fraction(duration).limit_denominator(1_000_000) * rate_of(recipe)
    return _rounded(place.numerator, place.denominator, recipe.sampling)


def _rounded(above: int, below: int, sampling: Sampling) -> int:
    """A place in frames, a ratio, as a whole number: the nearest one, halves away from zero, or the next."""
    if sampling == "start":
        return -(-above // below)
    nearest = (2 * abs(above) + below) // (2 * below)
    return nearest if above >= 0 else -nearest


class Sampler(Generic[Picture]):
    """Takes for frame n the last picture whose rounded place is n at the most; before the first picture, that one.

    Rounding to the nearest frame is the rule `middle`, rounding up the rule `start` of `FrameRecipe`. Pictures come in
    the order in which they are decoded; one that is older than what was taken already falls out.
    """

    def __init__(self, step: Fraction, sampling: Sampling) -> None:
        """With the frames to a unit of time: frames per second times seconds per unit."""
        self._above, self._below = step.numerator, step.denominator  # whole numbers are faster than ratios
        self._sampling: Sampling = sampling
        self._held: Picture | None = None
        self._next = 0

    @property
    def taken(self) -> int:
        """Frames so far."""
        return self._next

    def add(self, time: int, picture: Picture) -> Iterator[tuple[Picture, int]]:
        """Yields the picture before, with how many frames it stands for, where it stands for any."""
        yield from self._until(self.place(time))
        self._held = picture

    def end(self, time: int) -> Iterator[tuple[Picture, int]]:
        """Likewise the last picture, with the time at which it ends."""
        yield from self._until(self.place(time))
        self._held = None

    def _until(self, place: int) -> Iterator[tuple[Picture, int]]:
        if self._held is not None and place > self._next:
            yield self._held, place - self._next
            self._next = place

    def place(self, time: int) -> int:
        """The rounded place of a time among the frames."""
        return _rounded(time * self._above, self._below, self._sampling)
