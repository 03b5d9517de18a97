"""The record that pages, cuts and exports are made of: ranked moments of one video for one sentence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import visible
from vmr_common.types import as_moments

if TYPE_CHECKING:
    from pathlib import Path

    from vmr_video.media import VideoInfo

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Answer:
    """Moments that were found for a sentence in one video file, best first.

    Attributes:
        video: The file.
        text: The sentence.
        moments: ``(K, 2)`` float64, ``[start, end]`` in seconds of the video.
        scores: ``(K,)`` float64, higher is better.
        note: A remark on the answer in words, e.g. that the sentence is probably not in the video.
        curve: Times and values ``(n,)`` each, of what was scored over time; None: nothing to draw.

    Raises:
        ValueError: if the shapes do not fit, or a number is not finite.
    """

    video: VideoInfo
    text: str
    moments: FloatArray
    scores: FloatArray
    note: str = ""
    curve: tuple[FloatArray, FloatArray] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "moments", as_moments(self.moments))
        object.__setattr__(self, "scores", np.asarray(self.scores, np.float64))
        if self.scores.shape != self.moments.shape[:1]:
            raise ValueError(f"{len(self.moments)} moments but scores of shape {self.scores.shape}")
        if self.curve is not None:
            times, values = (np.asarray(part, np.float64) for part in self.curve)
            if times.ndim != 1 or times.shape != values.shape:
                raise ValueError(f"a curve of shapes {times.shape} and {values.shape}, expected (n,) twice")
            object.__setattr__(self, "curve", (times, values))
        for numbers in (self.moments, self.scores, *(self.curve or ())):
            if not np.isfinite(numbers).all():
                raise ValueError("moments, scores and curves are finite numbers")

    def within(self, k: int | None = None) -> list[tuple[int, float, float, float]]:
        """Rank from 1, start, end (seconds, cut to the video) and score of the first k moments that lie in it."""
        found = []
        kept = np.clip(self.moments[:k], 0.0, self.video.duration)
        for rank, ((start, end), score) in enumerate(
            zip(kept.tolist(), self.scores.tolist(), strict=False), 1
        ):
            if end > start:
                found.append((rank, start, end, score))
        return found


def time_code(seconds: float) -> str:
    """Seconds as ``m:ss.s``, from one hour on ``h:mm:ss.s``; what lies before 0 is shown as 0.

    Example:
        >>> time_code(75.25), time_code(3725.0), time_code(59.99)
        ('1:15.2', '1:02:05.0', '1:00.0')
    """
    tenths = max(round(seconds * 10), 0)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    tail = f"{rest // 10:02d}.{rest % 10}"
    return f"{hours}:{minutes:02d}:{tail}" if hours else f"{minutes}:{tail}"


def file_name(path: Path) -> str:
    """The name of a file alone, in letters that any text can hold."""
    return plain(path.name)


def plain(text: str) -> str:
    r"""Text on one line, control characters and halves of surrogate pairs escaped.

    Example:
        >>> plain("two\nlines\x00")
        'two lines\\u0000'
    """
    return visible(" ".join(text.split()))
