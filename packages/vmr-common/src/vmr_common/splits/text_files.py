"""Readers of the Charades-STA text files (official and ViGA's) and of tables of durations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from vmr_common.errors import UserError
from vmr_common.io import read_json
from vmr_common.splits.irregular import Record, reader
from vmr_common.splits.tables import Table
from vmr_common.text_input import TextInput, opened
from vmr_common.values import duration_of, identifier, object_of, parsed_number, seconds, sentence, shown

_COLUMNS = ("id", "video", "video_id", "vid"), ("length", "duration")


def read_durations_csv(path: str | Path) -> dict[str, float]:
    """Reads video durations from a table with the columns ``id`` and ``length`` (seconds).

    This is the layout of Charades' ``Charades_v1_{train,test}.csv``; other columns are ignored. ``video``,
    ``video_id`` or ``vid`` may stand for ``id``, and ``duration`` for ``length``.

    Returns:
        Video id -> duration in seconds, in file order.
    """
    durations: dict[str, float] = {}
    with opened(path) as source:
        table = Table(source, known=[*_COLUMNS[0], *_COLUMNS[1]])
        found = [next((name for name in known if name in table.names), None) for known in _COLUMNS]
        id_column, length_column = found
        if id_column is None or length_column is None:
            raise UserError(
                f"{table.where}: expected the columns id and length, found {shown(','.join(table.names))}"
            )
        for where, row in table.rows():
            video = identifier(row[id_column], where, id_column)
            if video in durations:
                raise UserError(f"{where}: id {shown(video)} occurs twice")
            length = table.number(row[length_column], where, length_column)
            durations[video] = duration_of(length, where, length_column)
    return durations


def read_durations(path: str | Path) -> dict[str, float]:
    """Reads video durations from a CSV table (`read_durations_csv`) or a JSON object ``{video: seconds}``."""
    if not str(path).removesuffix(".gz").endswith(".json"):
        return read_durations_csv(path)
    table = object_of(read_json(path), str(path), "the file")
    return {
        identifier(video, str(path), "a video id"): duration_of(
            value, str(path), f"duration of {shown(video)}"
        )
        for video, value in table.items()
    }


@reader("checked")
def read_charades_sta(source: TextInput, durations: Mapping[str, float]) -> Iterator[Record]:
    """Reads Charades-STA moments: lines ``VIDEO START END##sentence``, times in seconds.

    `durations` are seconds by video id, see `read_durations_csv`. The policy of the published evaluation is
    ``cut-then-drop``.
    """
    return _records(source, durations, with_point=False)


@reader("checked")
def read_viga(source: TextInput, durations: Mapping[str, float]) -> Iterator[Record]:
    """Reads ViGA's Charades-STA glances: lines ``VIDEO START END##POINT##sentence``, times in seconds.

    ViGA's TACoS and ActivityNet files are read by `read_tacos` and `read_activitynet`.
    """
    return _records(source, durations, with_point=True)


def _records(source: TextInput, durations: Mapping[str, float], *, with_point: bool) -> Iterator[Record]:
    layout = "VIDEO START END##POINT##sentence" if with_point else "VIDEO START END##sentence"
    separators, path = layout.count("##"), str(source.path)
    for number, line in source.lines():
        line = line.removesuffix("\n").removesuffix("\r")
        where = f"{path}:{number}"
        # sentences hold stray number signs, so only the first separators count
        parts = line.split("##", separators)
        head = parts[0].split()
        if len(parts) != separators + 1 or len(head) != 3:
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
            moments=[(_seconds(head[1], where, "start"), _seconds(head[2], where, "end"))],
            point=_seconds(parts[1], where, "time point") if with_point else None,
        )


def _seconds(text: str, where: str, key: str) -> float:
    return seconds(parsed_number(text, where, key), where, key)
