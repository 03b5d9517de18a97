"""Readers of the Charades-STA text files (official and ViGA's) and of tables of durations."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

from vmr_common.annotations.policies import Policy
from vmr_common.annotations.report import Annotations, Record, finish
from vmr_common.annotations.values import duration_of, object_of, parsed_number, sentence, shown
from vmr_common.errors import UserError
from vmr_common.files import read_json, read_text

_ID_COLUMNS, _LENGTH_COLUMNS = ("id", "video", "video_id", "vid"), ("length", "duration")


def read_durations_csv(path: str | Path) -> dict[str, float]:
    """Reads video durations from a table with the columns ``id`` and ``length`` (seconds).

    This is the layout of Charades' ``Charades_v1_{train,test}.csv``; other columns are ignored. ``video``,
    ``video_id`` or ``vid`` may stand for ``id``, and ``duration`` for ``length``.

    Returns:
        Video id -> duration in seconds, in file order.

    Raises:
        UserError: naming file and line for a missing column, a length that is not positive seconds, or an id
            that occurs twice.
    """
    # newline="" semantics: quoted scripts may hold line feeds, the file itself uses CR LF
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""))
    durations: dict[str, float] = {}
    try:
        columns = reader.fieldnames or []
        id_column, length_column = (
            next((name for name in names if name in columns), None)
            for names in (_ID_COLUMNS, _LENGTH_COLUMNS)
        )
        if id_column is None or length_column is None:
            raise UserError(f"{path}:1: expected the columns id and length, found {shown(','.join(columns))}")
        for row in reader:
            where = f"{path}:{reader.line_num}"
            video = row[id_column]
            if not video or row[length_column] is None:
                raise UserError(f"{where}: expected an id and a length, found {shown(row[id_column])}")
            if video in durations:
                raise UserError(f"{where}: id {shown(video)} occurs twice")
            durations[video] = duration_of(
                parsed_number(row[length_column], where, length_column), where, length_column
            )
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: not a comma-separated table ({error})") from None
    return durations


def read_durations(path: str | Path) -> dict[str, float]:
    """Reads video durations from a CSV table (`read_durations_csv`) or a JSON object ``{video: seconds}``.

    Raises:
        UserError: as `read_durations_csv`.
    """
    if not str(path).removesuffix(".gz").endswith(".json"):
        return read_durations_csv(path)
    table = object_of(read_json(path), str(path), "the file")
    return {
        video: duration_of(value, str(path), f"duration of {shown(video)}") for video, value in table.items()
    }


def read_charades_sta(
    path: str | Path, durations: Mapping[str, float], *, policy: str | Policy = "checked"
) -> Annotations:
    """Reads Charades-STA moments: lines ``VIDEO START END##sentence``, times in seconds.

    Args:
        path: The text file (``.gz`` accepted).
        durations: Video id -> seconds, see `read_durations_csv`.
        policy: Name of a policy; the published evaluation is ``cut-then-drop``.

    Raises:
        UserError: naming file and line for a malformed line, or a video without a duration.
    """
    return finish(str(path), _lines(path, durations, with_point=False), policy)


def read_viga(
    path: str | Path, durations: Mapping[str, float], *, policy: str | Policy = "checked"
) -> Annotations:
    """Reads ViGA's Charades-STA glances: lines ``VIDEO START END##POINT##sentence``, times in seconds.

    ViGA's TACoS and ActivityNet files are read by `read_tacos` and `read_activitynet`.

    Raises:
        UserError: as `read_charades_sta`.
    """
    return finish(str(path), _lines(path, durations, with_point=True), policy)


def _lines(path: str | Path, durations: Mapping[str, float], *, with_point: bool) -> Iterator[Record]:
    layout = "VIDEO START END##POINT##sentence" if with_point else "VIDEO START END##sentence"
    for number, line in enumerate(read_text(path).split("\n"), 1):
        line = line.removesuffix("\r")
        if not line.strip():
            continue
        where = f"{path}:{number}"
        # sentences hold stray number signs, so only the first separators count
        parts = line.split("##", 2 if with_point else 1)
        head = parts[0].split()
        if len(parts) != (3 if with_point else 2) or len(head) != 3:
            raise UserError(f"{where}: expected {layout}, found {shown(line)}")
        video = head[0]
        if video not in durations:
            raise UserError(
                f"{where}: video {shown(video)} is not among the {len(durations)} of the table of durations"
            )
        yield Record(
            where=where,
            video=video,
            text=sentence(parts[-1], where, "the sentence"),
            duration=duration_of(durations[video], where),
            moments=[(parsed_number(head[1], where, "start"), parsed_number(head[2], where, "end"))],
            point=parsed_number(parts[1], where, "time point") if with_point else None,
        )
