"""Results as a table of text, and with film strips in a notebook."""

from __future__ import annotations

import base64
import logging
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from vmr_common.errors import UserError, one_line, visible
from vmr_video.answers.answer import plain, time_code

if TYPE_CHECKING:
    from vmr_search.hits import Hit, Results

logger = logging.getLogger(__name__)

PICTURES = 5
"""Of a film strip."""
HEIGHT = 54
"""Of its pictures, pixels."""
MOST_STRIPS = 20
"""Moments that get a film strip; those behind have their times alone."""
_WIDEST = 60  # letters of a column of videos


def table(results: Results) -> str:
    r"""Results as text: the sentence, a line for each moment, the remark.

    Example:
        >>> from vmr_search import Hit, Results
        >>> hit = Hit(video="v_1", start=3.0, end=71.5, score=0.25, duration=90.0, retrieval=0.25)
        >>> print(table(Results(text="a\ndog", hits=(hit,), videos=1)))
        a dog
        rank  video       start         end     score
           1  v_1        0:03.0      1:11.5     0.250
    """
    lines = [plain(results.text)]
    if results.hits:
        names = [_short(plain(hit.video)) for hit in results]
        width = max(len("video"), *map(len, names))
        sure = any(hit.presence is not None for hit in results)
        lines.append(
            f"rank  {'video':<{width}}  {'start':>10}  {'end':>10}  {'score':>8}{'  present' if sure else ''}"
        )
        lines += [
            f"{rank:>4}  {name:<{width}}  {time_code(hit.start):>10}  {time_code(hit.end):>10}  {hit.score:8.3f}"
            + (f"  {100 * hit.presence:5.0f} %" if hit.presence is not None else "")
            for rank, (name, hit) in enumerate(zip(names, results, strict=True), 1)
        ]
    else:
        lines.append("no moment")
    return "\n".join(lines + ([plain(results.note)] if results.note else []))


def html(results: Results) -> str:
    """Results as a table of HTML that is whole in itself: film strips of moments whose files are known, times, scores.

    All that comes from outside stands in it as text.
    """
    strips = _strips(results.hits[:MOST_STRIPS])
    rows = [
        f"<tr><td>{rank}</td><td>{strips.get(rank - 1, '')}</td><td style='text-align:left'>{_text(hit.video)}<br>"
        f"<small>{time_code(hit.start)} to {time_code(hit.end)} of {time_code(hit.duration)}</small></td>"
        f"<td>{hit.score:.3f}{_presence(hit)}</td></tr>"
        for rank, hit in enumerate(results, 1)
    ]
    note = f"<p>{_text(results.note)}</p>" if results.note else ""
    videos = f"{results.videos:,} video{'s' * (results.videos != 1)}"
    return f"<p><b>{_text(results.text)}</b> <small>in {videos}</small></p>{note}" + (
        f"<table>{''.join(rows)}</table>" if rows else "<p>no moment</p>"
    )


def _presence(hit: Hit) -> str:
    return "" if hit.presence is None else f"<br><small>present {100 * hit.presence:.0f} %</small>"


def _text(text: str) -> str:
    return escape(plain(text))


def _short(text: str) -> str:
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}\N{HORIZONTAL ELLIPSIS}"


def times(hit: Hit, count: int = PICTURES) -> list[float]:
    """Times of so many pictures of a moment, seconds, spread evenly over it."""
    length = hit.end - hit.start
    return [round(hit.start + (place + 0.5) / count * length, 3) for place in range(count)]


def _strips(hits: Sequence[Hit]) -> Mapping[int, str]:
    """Film strips as HTML by the place of their moment; each file is gone through once."""
    by_file: dict[Path, list[int]] = {}
    for place, hit in enumerate(hits):
        if hit.file is not None:
            by_file.setdefault(hit.file, []).append(place)
    found = {}
    for file, places in by_file.items():
        from vmr_video.answers.strip import grab

        try:
            pictures = grab(file, [time for place in places for time in times(hits[place])], HEIGHT)
        except UserError as error:
            logger.warning("no film strip: %s", one_line(visible(str(error))))
            continue
        for place in places:
            shown = [pictures[time] for time in times(hits[place]) if time in pictures]
            found[place] = "".join(map(_picture, shown))
    return found


def _picture(data: bytes) -> str:
    address = base64.b64encode(data).decode()
    return f"<img alt='' style='display:inline;margin:0 1px' height='{HEIGHT}' src='data:image/jpeg;base64,{address}'>"
