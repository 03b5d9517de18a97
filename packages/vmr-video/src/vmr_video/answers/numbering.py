"""Moments in frames of their video, and the time codes by which editors number frames."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from vmr_common.errors import UserError
from vmr_video.answers.answer import Answer, file_name, plain
from vmr_video.answers.reading import exact_rate, opened

_FORM = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.,])(\d\d+)")


@dataclass(frozen=True)
class FrameEvent:
    """A moment in frames of its video.

    Attributes:
        answer: It belongs to.
        rate: Frames per second.
        rank: From 1.
        seconds: Start and end.
        frames: Likewise, the end not included.
        score: Higher is better.
    """

    answer: Answer
    rate: Fraction
    rank: int
    seconds: tuple[float, float]
    frames: tuple[int, int]
    score: float

    @property
    def length(self) -> int:
        """Frames."""
        return self.frames[1] - self.frames[0]

    @property
    def name(self) -> str:
        """Name of the file."""
        return file_name(self.answer.video.path)

    @property
    def text(self) -> str:
        """The sentence, in letters that XML holds."""
        return plain(self.answer.text).translate({0xFFFE: None, 0xFFFF: None})

    @property
    def label(self) -> str:
        """Rank, score and note in words."""
        note = f", {plain(self.answer.note)}" if self.answer.note else ""
        return f"rank {self.rank}, score {self.score:.3f}{note}"


def rate_of(answer: Answer) -> Fraction:
    """Frames per second of a video, exactly; 25 where its file does not say."""
    return exact_rate(answer.video.fps) if answer.video.fps else Fraction(25)


def frame_events(answer: Answer) -> list[FrameEvent]:
    """The moments of an answer."""
    rate = rate_of(answer)
    count = max(round(answer.video.duration * rate), 1)
    events = []
    for rank, start, end, score in answer.within():
        first = min(round(start * rate), count - 1)
        last = min(max(round(end * rate), first + 1), count)
        events.append(FrameEvent(answer, rate, rank, (start, end), (first, last), score))
    return events


@dataclass(frozen=True)
class TimeCode:
    """The numbers of frames.

    Attributes:
        rate: Frames per second.
        drop: Skip numbers so that they keep up with the clock; at 29.97 and its multiples.
        first: Frames before the first of the video.
    """

    rate: Fraction
    drop: bool
    first: int = 0

    @property
    def whole(self) -> int:
        """Numbers of each second; 1 at least, also of pictures that stand for seconds."""
        return max(round(self.rate), 1)

    def of(self, frame: int) -> str:
        """The number of a frame, ``hh:mm:ss:ff``, with a semicolon before the frames where numbers are skipped.

        Example:
            >>> TimeCode(Fraction(25), False).of(25 * 61 + 3)
            '00:01:01:03'
            >>> code = TimeCode(Fraction(30000, 1001), True)
            >>> code.of(1799), code.of(1800), code.of(17982)
            ('00:00:59;29', '00:01:00;02', '00:10:00;00')
        """
        whole, number = self.whole, frame + self.first
        if self.drop:
            skipped = whole // 15  # numbers at the beginning of each minute but every tenth
            minute = 60 * whole - skipped
            tens, rest = divmod(number, 10 * minute + skipped)
            number += 9 * skipped * tens + skipped * max((rest - skipped) // minute, 0)
        seconds, frames = divmod(number, whole)
        minutes, seconds = divmod(seconds, 60)
        mark = ";" if self.drop else ":"
        return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}:{seconds:02d}{mark}{frames:02d}"

    def number(self, text: str) -> int:
        """The frame of a number, the inverse of `of`.

        Raises:
            ValueError: if it is none.

        Example:
            >>> TimeCode(Fraction(30000, 1001), True).number("00:01:00;02")
            1800
        """
        form = _FORM.fullmatch(text)
        if form is None:
            raise ValueError(f"expected hh:mm:ss:ff, found {text!r}")
        hours, minutes, seconds, frames = (int(form[place]) for place in (1, 2, 3, 5))
        whole, minutes = self.whole, 60 * hours + minutes
        number = (60 * minutes + seconds) * whole + frames
        if self.drop:
            number -= whole // 15 * (minutes - minutes // 10)
        return number - self.first


def time_codes(events: Sequence[FrameEvent]) -> dict[Path, TimeCode]:
    """The time codes of the videos of moments, by file."""
    answers = {event.answer.video.path: event.answer for event in events}
    return {path: time_code_of(answer) for path, answer in answers.items()}


def time_code_of(answer: Answer) -> TimeCode:
    """The time code of a video: as its file says, else from 0."""
    rate = rate_of(answer)
    may_drop = rate.denominator == 1001 and round(rate) % 30 == 0
    stated = _stated(answer.video.path)
    if stated is None:
        return TimeCode(rate, may_drop)
    drop = may_drop and any(mark in stated for mark in ";.,")
    return TimeCode(rate, drop, TimeCode(rate, drop).number(stated))


def _stated(path: Path) -> str | None:
    """The time code of a video's first frame, as cameras write it."""
    try:
        with opened(path) as (container, stream):
            holders = [container, stream, *container.streams]
            found = [holder.metadata.get("timecode", "") for holder in holders]
    except UserError:  # the moments are known without the file
        return None
    return next((text for text in found if _FORM.fullmatch(text)), None)
