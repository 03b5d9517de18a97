"""Moments for other programs: an edit decision list (CMX 3600), Final Cut Pro XML, or a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from vmr_common.errors import UserError
from vmr_common.io import write_text
from vmr_video.answers.answer import Answer, plain, time_code
from vmr_video.answers.files import Kind
from vmr_video.answers.final_cut import fcpxml
from vmr_video.answers.numbering import FrameEvent, TimeCode, frame_events, time_codes

_PLACE = ["start_s", "end_s", "start", "end", "start_frame", "end_frame"]
_FIELDS = ["video", "query", "rank", *_PLACE, "fps", "score", "note"]
_MOST_EVENTS = 9_999  # numbers of four digits, as programs read them beside the three of the standard


def export(path: str | Path, answers: Sequence[Answer], kind: Kind) -> None:
    """Writes the moments of all answers, atomically.

    ``edl``: each moment is an event, one behind the other; sentence, rank and score stand in comments. ``fcpxml``
    (1.9): in an event the videos with a keyword range for each moment, and a project of the moments in order, each
    with a marker. Both count frames at the rate of the video, begin where its own time code does (00:00:00:00 without
    one), and skip numbers (drop frame) where the video's time code does, or, without one, at 29.97 and 59.94 frames per
    second. ``csv``: a row for each moment, in seconds, time code and frames from 0; a text that a
    spreadsheet would take for a formula has an apostrophe before it.

    Args:
        path: The file.
        answers: Of one or several videos.
        kind: See above.

    Raises:
        UserError: if there is no moment, the file cannot be written, or ``edl`` would mix rates of frames.
    """
    events = [event for answer in answers for event in frame_events(answer)]
    if not events:
        raise UserError(f"{path} not written: there is no moment to export")
    text = {"edl": _edl, "fcpxml": fcpxml, "csv": _csv}[kind](plain(Path(path).stem), events)
    write_text(path, text)


def _edl(title: str, events: Sequence[FrameEvent]) -> str:
    rates = sorted({event.rate for event in events})
    if len(rates) > 1:
        shown = " and ".join(f"{float(rate):.5g}" for rate in rates)
        raise UserError(
            f"edl: a list holds videos of one rate, found {shown} frames per second; fcpxml and csv hold several"
        )
    if len(events) > _MOST_EVENTS:
        raise UserError(f"edl: holds {_MOST_EVENTS} moments at most, found {len(events)}; csv holds more")
    codes = time_codes(events)
    drop = any(code.drop for code in codes.values())
    record = TimeCode(rates[0], drop)
    lines = [f"TITLE: {title[:70]}", f"FCM: {'DROP FRAME' if drop else 'NON-DROP FRAME'}", ""]
    place = 0
    for number, event in enumerate(events, 1):
        source = codes[event.answer.video.path]
        times = [source.of(frame) for frame in event.frames]
        times += [record.of(place), record.of(place + event.length)]
        lines += [
            f"{number:03d}  AX       V     C        {' '.join(times)}",
            f"* FROM CLIP NAME: {event.name}",
            f"* COMMENT: {event.text} ({event.label})",
            "",
        ]
        place += event.length
    return "\r\n".join(lines)


def _csv(title: str, events: Sequence[FrameEvent]) -> str:
    del title
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\r\n")
    table.writerow(_FIELDS)
    for event in events:
        seconds = [f"{second:.3f}" for second in event.seconds]
        codes = [time_code(second) for second in event.seconds]
        rate = f"{float(event.rate):.6g}"
        row = [_cell(event.name), _cell(event.text), event.rank, *seconds, *codes, *event.frames]
        table.writerow([*row, rate, f"{event.score:.6g}", _cell(plain(event.answer.note))])
    return file.getvalue()


def _cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
