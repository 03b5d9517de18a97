"""A page that plays what was found: one HTML file with the video, the moments and pictures around them in it."""

from __future__ import annotations

import base64
import functools
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vmr_common.errors import UserError, visible
from vmr_common.io import write_text
from vmr_common.page import stylesheet
from vmr_video.answers.answer import Answer, file_name, plain, time_code

if TYPE_CHECKING:
    import jinja2

    from vmr_video.answers.playing import Playing

logger = logging.getLogger(__name__)

STRIP = 8
"""Pictures of a film strip."""
STRIP_BYTES = 8_000_000
"""Bytes of all pictures of a page; answers after that get none."""
MOST_MOMENTS = 10
"""Moments that are shown of an answer."""
_CURVE_POINTS = 400


def write_page(path: str | Path, answers: Sequence[Answer], *, title: str) -> None:
    """Writes the page, atomically; it is complete in itself and plays from the disk.

    A video is embedded as it is where browsers play it and it has at most 40 MB, else as a copy of at most 480 lines
    (H.264, AAC), or, where it is longer than 20 minutes, as clips around its moments; those of a page take 120 MB.
    Of a file nothing is shown but its name; of one that cannot be encoded the moments alone.

    Args:
        path: The page.
        answers: Of one or several videos; those of one video share a player.
        title: Heading of the page.

    Raises:
        UserError: if there is no answer, or the page cannot be written.
    """
    if not answers:
        raise UserError(f"{path} not written: there is no answer to show")
    by_video: dict[Path, list[Answer]] = {}
    for answer in answers:
        by_video.setdefault(answer.video.path, []).append(answer)
    strips = _Strips(STRIP_BYTES)
    videos = [_video(found, len(by_video), strips) for found in by_video.values()]
    page = environment("vmr_video.answers").get_template("answers.html")
    write_text(path, page.render(title=plain(title), videos=videos, script=_script(), count=len(answers)))


@functools.cache
def environment(package: str) -> jinja2.Environment:
    """The templates of a package's pages: all that is not markup is escaped, and nothing undefined is passed over."""
    import jinja2
    from markupsafe import Markup

    found = jinja2.Environment(
        loader=jinja2.PackageLoader(package),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else visible(str(value)),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals["shared_css"] = Markup(stylesheet())
    found.filters["sha256"] = lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return found


@functools.cache
def _script() -> Any:
    from markupsafe import Markup

    return Markup(resources.files("vmr_video.answers").joinpath("templates", "player.js").read_text("utf-8"))


class _Strips:
    """Film strips, until the room for them is used up."""

    def __init__(self, room: int) -> None:
        self.room = room

    def of(self, answers: Sequence[Answer]) -> tuple[list[list[tuple[float, bool, str]]], str]:
        """For each answer: time, whether it lies in the moment, and data URI; and a first picture of the video."""
        from vmr_video.answers.strip import grab

        wanted = [strip_times(answer) for answer in answers]
        first = next((times[len(times) // 2] for times in wanted if times), 0.0)
        try:
            found = grab(answers[0].video.path, [first, *(time for times in wanted for time in times)])
        except UserError as error:
            logger.warning("no film strip: %s", error)
            return [[] for _ in answers], ""
        strips = []
        for answer, times in zip(answers, wanted, strict=True):
            start, end = answer.within(1)[0][1:3] if times else (0.0, 0.0)
            strip = [(time, start <= time <= end, _jpeg(found[time])) for time in times if time in found]
            self.room -= sum(len(address) for _, _, address in strip)
            strips.append(strip if self.room >= 0 else [])
        return strips, _jpeg(found[first]) if first in found and self.room >= 0 else ""


def _jpeg(data: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(data).decode()


def strip_times(answer: Answer) -> list[float]:
    """Times (seconds) of the pictures of a strip: most of them in the best moment, the others right around it."""
    best = answer.within(1)
    if not best:
        return []
    _, start, end, _ = best[0]
    around = (end - start) / 3
    low, high = max(start - around, 0.0), min(end + around, answer.video.duration)
    steps = (np.arange(STRIP) + 0.5) / STRIP
    return [round(time, 3) for time in (low + steps * (high - low)).tolist()]


@dataclass(frozen=True)
class _Row:
    """A moment as the page shows it; places are percent of the video."""

    rank: int
    start: float
    end: float
    score: float
    left: float
    width: float
    there: bool

    @property
    def times(self) -> tuple[str, str]:
        return time_code(self.start), time_code(self.end)

    @property
    def figure(self) -> str:
        """The score as text."""
        return (f"{self.score:.3f}" if abs(self.score) < 1000 else f"{self.score:.3g}").replace(
            "-", "\N{MINUS SIGN}"
        )

    @property
    def length(self) -> str:
        return f"{self.end - self.start:.1f} s"


def _video(answers: Sequence[Answer], videos: int, strips: _Strips) -> dict[str, Any]:
    from vmr_video.answers.playing import PAGE_BYTES, Playing, playing

    video = answers[0].video
    ranked = [(rank, start, end) for answer in answers for rank, start, end, _ in answer.within(MOST_MOMENTS)]
    ranked.sort(key=lambda moment: moment[0])  # the best of every answer before the second ones
    try:
        played = playing(video, [(start, end) for _, start, end in ranked], PAGE_BYTES // videos)
    except UserError as error:  # the moments are known, and other videos play
        logger.warning("the page does not play one video: %s", error)
        played = Playing([], "The video could not be encoded for this page.")
    pictures, poster = strips.of(answers)
    return {
        "name": file_name(video.path),
        "duration": video.duration,
        "about": " · ".join(_facts(video)),
        "pieces": played.pieces,
        "note": played.note,
        "poster": poster,
        "ticks": _ticks(video.duration),
        "answers": [_card(answer, strip, played) for answer, strip in zip(answers, pictures, strict=True)],
    }


def _facts(video: Any) -> list[str]:
    facts = [time_code(video.duration), f"{video.width} \N{MULTIPLICATION SIGN} {video.height}"]
    return [*facts, f"{video.fps:.4g} frames per second"] if video.fps else facts


def _card(answer: Answer, strip: list[tuple[float, bool, str]], played: Playing) -> dict[str, Any]:
    length = max(answer.video.duration, 1e-6)
    rows = [
        _Row(
            rank,
            start,
            end,
            score,
            100 * start / length,
            max(100 * (end - start) / length, 0.4),
            any(piece.start <= start and end <= piece.end + 1 for piece in played.pieces),
        )
        for rank, start, end, score in answer.within(MOST_MOMENTS)
    ]
    return {
        "text": plain(answer.text),
        "note": plain(answer.note),
        "rows": rows,
        "left_out": max(len(answer.moments) - MOST_MOMENTS, 0),
        "strip": [(time, time_code(time), inside, address) for time, inside, address in strip],
        "curve": _curve(answer),
    }


def _curve(answer: Answer) -> str:
    """The path of a curve in a box of 1000 by 100, its highest value at the top; "" where there is none."""
    if answer.curve is None or len(answer.curve[0]) < 2:
        return ""
    times, values = answer.curve
    # at the resolution of a screen, so that no peak is lost: the highest value of each bin
    bins = np.minimum(
        (times / max(answer.video.duration, 1e-6) * _CURVE_POINTS).astype(int), _CURVE_POINTS - 1
    )
    tops = np.full(_CURVE_POINTS, -np.inf)
    inside = (bins >= 0) & (times >= 0)
    np.maximum.at(tops, bins[inside], values[inside])
    places = np.flatnonzero(np.isfinite(tops))
    if len(places) < 2:
        return ""
    heights = tops[places]
    heights = (heights - heights.min()) / max(float(np.ptp(heights)), 1e-12)
    points = [
        f"{(place + 0.5) * 1000 / _CURVE_POINTS:.1f} {100 - 96 * height:.1f}"
        for place, height in zip(places.tolist(), heights.tolist(), strict=True)
    ]
    return "M" + "L".join(points)


def _ticks(duration: float) -> list[tuple[float, str]]:
    """Places (percent) and times of some marks of a time axis: of round numbers of seconds, at most six."""
    steps = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
    step = next((step for step in steps if duration / step <= 6), duration / 5)
    count = int(duration / step + 1e-9)
    marks = [number * step for number in range(count + 1)]
    return [(100 * mark / max(duration, 1e-6), _short(mark)) for mark in marks]


def _short(seconds: float) -> str:
    text = time_code(seconds)
    return text.removesuffix(".0")
