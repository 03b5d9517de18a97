"""Readers of annotations whose records have named fields: JSON objects, tables; the writer of the canonical form."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vmr_common.errors import UserError
from vmr_common.io import parse_json, write_json_lines
from vmr_common.splits.fields import NAMES, Names, find_names, is_record, known_names, no_duration, records_of
from vmr_common.splits.irregular import Record, reader
from vmr_common.splits.tables import Table
from vmr_common.text_input import TextInput
from vmr_common.types import Query
from vmr_common.values import (
    duration_of,
    field_of,
    identifier,
    list_of,
    moment,
    moments,
    number_rows,
    object_of,
    seconds,
    sentence,
    shown,
)

_SOURCE_TIMES = re.compile(r"_(\d+(?:\.\d+)?)_(\d+(?:\.\d+)?)$")
_CLOCK = re.compile(r"(?:(\d{1,6}):)?(\d{1,6}):(\d{1,2}(?:[.,]\d{0,18})?)", re.ASCII)
_GOOD_CLIP = 2
_CANONICAL = (
    "query_id",
    "query",
    "video_id",
    "duration",
    "windows",
    "point",
    "relevant_clip_ids",
    "saliency_scores",
)
_SENTENCES, _IDS = frozenset(NAMES["query"]), frozenset((*NAMES["id"], "id"))
_TIMES = ("duration", "start", "end", "point")


@reader("checked")
def read_objects(
    source: TextInput, durations: Mapping[str, float] | None = None, fields: Mapping[str, str] | None = None
) -> Iterator[Record]:
    """Reads records that are JSON objects: one a line, or a list of them.

    This is the canonical form of this project, and the layouts of QVHighlights (lighthouse, UniVTG), CONE and RGNet,
    TVR, TVSum and YouTube Highlights, and most data sets of language models: `fields.NAMES` are the names of each
    field, and `fields` maps a field to another name. A record has a query, a video, a duration (else that of
    `durations`, seconds by video id), and unless the truth is hidden moments: a list of ``[start, end]``, one such
    pair, or a start and an end, in seconds; null is hidden too. It may have an id (else ``<video>_<n>``), a time point,
    and highlight scores: those of the clips in ``relevant_clip_ids``, or a ``label`` for each clip. An object may also
    be a video with a list of records, or with lists of sentences and moments.
    """
    known: tuple[str, ...] | None = None
    names: Names = {}
    note = ""
    for where, row in _rows(source, fields):
        if (keys := tuple(row)) != known:  # most records have the keys of the one before
            known, names = keys, find_names(keys, where, fields)
            _refuse_unread(row, names, where)
            note = _note(names)
        if isinstance(row[names["query"][0]], list):
            yield from (_record(*one, durations or {}, note) for one in _spread(row, names, where))
        else:
            yield _record(row, names, where, durations or {}, note)


def _spread(row: Mapping[str, Any], names: Names, where: str) -> Iterator[tuple[dict[str, Any], Names, str]]:
    """The records of an object with a list of sentences, beside which moments, points and ids are lists too."""
    texts = row[names["query"][0]]
    lists = {
        key: list_of(row[key], where, key, len(texts))
        for field in ("query", "moments", "start", "end", "point", "id")
        for key in names.get(field, ())
        if isinstance(row[key], list)
    }
    names = {field: keys for field, keys in names.items() if field != "id" or keys[0] in lists}
    for index in range(len(texts)):
        yield {**row, **{key: items[index] for key, items in lists.items()}}, names, f"{where}, entry {index}"


@reader("checked")
def read_table(
    source: TextInput, durations: Mapping[str, float] | None = None, fields: Mapping[str, str] | None = None
) -> Iterator[Record]:
    """Reads a table whose first line names its columns: fields separated by commas, tabs or semicolons.

    Columns are what keys are to `read_objects`; a moment is a start and an end, or the text ``[start, end]``. Times are
    seconds (``12.5``) or clock times (``0:01:12.5``, ``1:12``); an empty cell is a field that is not there. `Table`
    says what spreadsheets do.
    """
    table = Table(source, known={*known_names(), *(fields or {}).values()})
    names = dict(find_names(table.names, table.where, fields))
    for field in ("clips", "scores", "labels"):
        names.pop(field, None)
    _refuse_unread(dict.fromkeys(table.names, ""), names, table.where)
    note = _note(names)
    for where, row in table.rows():
        values: dict[str, Any] = dict(row)
        for field in (*_TIMES, "moments", "id"):
            for key in names.get(field, ()):
                values[key] = _cell(row[key], field, where, key, table)
        yield _record(values, names, where, durations or {}, note)


def _cell(text: str, field: str, where: str, key: str, table: Table) -> Any:
    """The value of one cell of a table, None where it is empty."""
    if not text.strip() or field == "id":
        return text.strip() or None
    if field == "moments":
        return parse_json(text, f"{where}: {key}") if text.lstrip().startswith("[") else text
    if clock := _CLOCK.fullmatch(text.strip()):
        hours, minutes, rest = clock.groups()
        return 3600 * float(hours or 0) + 60 * float(minutes) + float(rest.replace(",", "."))
    return table.number(text, where, key)


def _rows(source: TextInput, fields: Mapping[str, str] | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and object of every record."""
    path = str(source.path)
    if not source.number:  # an empty file holds no record
        return
    first = source.first_value()
    if isinstance(first, dict) and is_record(first, fields):
        for line, row in source.rows():
            yield from _inner(row, f"{path}:{line}", fields)
        return
    document = source.document()
    records = records_of(document, fields)
    if records is None:
        raise UserError(
            f"{path}: expected one JSON object a line, or a list of objects, found {shown(document)}"
        )
    for index, record in enumerate(records):
        records[index] = None  # what was read makes room for its query
        where = f"{path}: record {index}"
        yield from _inner(object_of(record, where), where, fields)


def _inner(
    row: dict[str, Any], where: str, fields: Mapping[str, str] | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The object itself, or where it has no sentence and one list of objects, these, with what it says of its video."""
    if not _SENTENCES.isdisjoint(row) or (fields or {}).get("query") in row:
        yield where, row
        return
    lists = [key for key, value in row.items() if _is_records(key, value)]
    if len(lists) != 1:
        yield where, row
        return
    inside = row[lists[0]]
    about = {key: value for key, value in row.items() if key != lists[0] and key not in _IDS}
    for index, item in enumerate(inside):
        spot = f"{where}, {lists[0]} {index}"
        yield spot, {**object_of(item, spot), **about}


def _is_records(key: str, value: Any) -> bool:
    return isinstance(value, list) and (isinstance(value[0], dict) if value else key == "annotations")


def _refuse_unread(row: Mapping[str, Any], names: Names, where: str) -> None:
    """Raises `UserError` for a record without moments that has times under names that are not known."""
    highlights = any(isinstance(row[key], list) for key in names.get("labels", ()))
    if highlights or {"moments", "start", "point"} & names.keys():
        return
    known = {key for keys in names.values() for key in keys}
    others = {key: value for key, value in row.items() if key not in known}
    held = [f"moments={key}" for key, value in others.items() if _may_be_moment(value)][:1]
    held = held or [f"point={key}" for key, value in others.items() if _may_be_point(key, value)][:1]
    if not held:
        times = [
            key
            for key, value in others.items()
            if isinstance(value, int | float | str) and "video" not in key
        ]
        sides = {"start": ("start", "begin"), "end": ("end", "stop", "finish")}
        held = [
            f"{side}={key}"
            for side, words in sides.items()
            for key in times
            if any(word in key for word in words)
        ]
        if len(held) != 2 or held[0][:3] == held[1][:3]:
            return
    raise UserError(
        f"{where}: no key is known to hold moments or a time point; --fields {shown(shlex.join(held))[1:-1]} reads them"
    )


def _may_be_point(key: str, value: Any) -> bool:
    return type(value) in (int, float) and not {"point", "glance", "timepoint"}.isdisjoint(
        key.lower().split("_")
    )


def _may_be_moment(value: Any) -> bool:
    inner = value[0] if isinstance(value, list) and value else None
    pair = inner if isinstance(inner, list) else value
    return isinstance(pair, list) and len(pair) == 2 and set(map(type, pair)) <= {int, float}


def _value(row: Mapping[str, Any], names: Names, field: str, where: str) -> tuple[str, Any]:
    """Key and value of a field, the value None where it has none; its keys must agree."""
    keys = names.get(field, ())
    if len(keys) == 1:
        return keys[0], row[keys[0]]
    found = [key for key in keys if row[key] is not None]
    for key in found[1:]:
        if _same(row[key], field) != _same(row[found[0]], field):
            raise UserError(
                f"{where}: {found[0]} and {key} disagree (found: {shown(row[found[0]])} and {shown(row[key])}); "
                f"--fields {field}={found[0]} chooses one"
            )
    return (found[0], row[found[0]]) if found else ("", None)


def _same(value: Any, field: str) -> Any:
    if field == "moments" and isinstance(value, list) and not isinstance((value or [[]])[0], list):
        return [value]
    return str(value) if field in ("id", "video") else value


def _note(names: Names) -> str:
    """What stands for what, where keys have other names than in the canonical form."""
    usual = (*_CANONICAL, *NAMES)
    other = [f"{key} as {field}" for field, keys in names.items() for key in keys if key not in usual]
    return f"read by name: {', '.join(other)}" if other else ""


def _record(
    row: Mapping[str, Any], names: Names, where: str, durations: Mapping[str, float], note: str
) -> Record:
    video_key, video = _value(row, names, "video", where)
    video = identifier(video, where, video_key)
    text_key, text = _value(row, names, "query", where)
    id_key, id_ = _value(row, names, "id", where) if "id" in names else ("", None)
    if "id" in names and id_ is None and len(names["id"]) == 1 and names["id"][0] in ("query_id", "qid"):
        identifier(None, where, names["id"][0])
    length_key, length = _value(row, names, "duration", where)
    if length is None:
        if video not in durations:
            raise no_duration(row, where)
        length_key, length = "duration", durations[video]
    _, point = _value(row, names, "point", where)
    extra, remarks = _highlights(row, names, where), []
    duration = duration_of(length, where, length_key)
    if video_key == "vid":
        times = _SOURCE_TIMES.search(video)
        if times and duration < float(times[2]) - float(times[1]):
            remarks.append("video shorter than its id says")
        if extra and "scores" in names and not (extra["saliency"] >= _GOOD_CLIP).any():
            remarks.append("no clip scored 2 or more by any annotator")
    _, part = _value(row, names, "subset", where)
    return Record(
        where=where,
        id=None if id_ is None else identifier(id_, where, id_key),
        video=video,
        text=sentence(text, where, text_key or names["query"][0]),
        duration=duration,
        moments=_moments(row, names, where),
        point=None if point is None else seconds(point, where, "point"),
        extra=extra,
        remarks=tuple(remarks),
        subset=part if isinstance(part, str) else None,
        note=note,
    )


def _moments(row: Mapping[str, Any], names: Names, where: str) -> list[tuple[float, float]]:
    key, value = _value(row, names, "moments", where)
    found: list[tuple[float, float]] = []
    if value is not None and value != [None, None]:
        single = isinstance(value, list) and value and not isinstance(value[0], list)
        found = [moment(value, where, key)] if single else moments(value, where, key)
    if "start" not in names:
        return found
    start_key, end_key = names["start"][0], names["end"][0]
    start, end = (_value(row, names, side, where)[1] for side in ("start", "end"))
    if start is None and end is None:
        return found
    if start is None or end is None:
        raise UserError(
            f"{where}: {start_key} and {end_key} need each other, found {shown(start)} and {shown(end)}"
        )
    apart = (seconds(start, where, start_key), seconds(end, where, end_key))
    if found and found != [apart]:
        raise UserError(
            f"{where}: {key} and {start_key}, {end_key} disagree (found: {list(map(list, found))} and {list(apart)}); "
            f"--fields moments={key} chooses one"
        )
    return [apart]


def _highlights(row: Mapping[str, Any], names: Names, where: str) -> dict[str, Any]:
    """Highlight scores ``(C, A)`` and clip numbers ``(C,)`` of a record, or nothing where it has none."""
    key, scores = _value(row, names, "scores", where)
    if scores is not None:
        clips = list_of(
            field_of(row, names.get("clips", ("relevant_clip_ids",))[0], where), where, "relevant_clip_ids"
        )
        rows = list_of(scores, where, key, len(clips))
        if not set(map(type, clips)) <= {int} or (clips and not 0 <= min(clips) <= max(clips) < 2**31):
            raise UserError(f"{where}: relevant_clip_ids must be numbers from 0 on, found {shown(clips)}")
        if len(set(clips)) < len(clips):
            raise UserError(f"{where}: relevant_clip_ids holds a clip twice")
    else:
        key, rows = _value(row, names, "labels", where)
        if not isinstance(rows, list) or not rows:  # the name of a class
            return {}
        clips = list(range(len(rows)))
    if rows and not isinstance(rows[0], list):  # of one annotator
        rows = [[label] for label in rows]
    annotators = len(rows[0]) if rows and isinstance(rows[0], list) else 1
    saliency = number_rows(rows, ["label"] * max(annotators, 1), where, key)
    return {"saliency": saliency, "saliency_clips": np.array(clips, dtype=np.int64)}


def canonical_row(query: Query) -> dict[str, Any]:
    """One query as the object that `write_canonical` writes; numbers come back bit for bit."""
    row: dict[str, Any] = {
        "query_id": query.id,
        "video_id": query.video,
        "duration": query.duration,
        "query": query.text,
        "windows": query.moments.tolist(),
    }
    if query.glance is not None:
        row["point"] = query.glance
    if query.saliency is not None and query.saliency_clips is not None:
        row["relevant_clip_ids"] = query.saliency_clips.tolist()
        row["saliency_scores"] = query.saliency.tolist()
    return row


def write_canonical(path: str | Path, queries: Iterable[Query]) -> None:
    """Writes queries as JSON lines in the canonical form, which `read_objects` reads; atomically."""
    write_json_lines(path, map(canonical_row, queries))
