"""One reader per layout of annotation files; each gives queries and a report of irregular records.

Readers never drop, swap or limit anything silently: what they do to irregular records is a named policy
(`POLICIES`), and the report counts what they met and what they did.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vmr_common.errors import UserError, some_of
from vmr_common.splits import ego4d, json_files, objects, text_files
from vmr_common.splits.fields import is_record, records_of, require_fields
from vmr_common.splits.irregular import Annotations
from vmr_common.splits.policies import Policy
from vmr_common.splits.tables import separator_of
from vmr_common.text_input import Readable, TextInput, opened
from vmr_common.values import shown


class Format(NamedTuple):
    """A layout of annotation files."""

    read: Callable[..., Annotations]
    durations: str = ""  # whether it takes a table of durations: "needed", or "taken" where records have none
    fields: bool = False  # whether its fields have names, which can be mapped


_NAMED = Format(objects.read_objects, "taken", fields=True)

FORMATS: dict[str, Format] = {
    "objects": _NAMED,
    "table": Format(objects.read_table, "taken", fields=True),
    "charades-sta": Format(text_files.read_charades_sta, "needed"),
    "viga": Format(text_files.read_viga, "needed"),
    "glance-list": Format(json_files.read_glance_list),
    "tacos": Format(json_files.read_tacos),
    "activitynet": Format(json_files.read_activitynet),
    "detection": Format(json_files.read_detection, "taken"),
    "didemo": Format(json_files.read_didemo, "taken"),
    "hirest": Format(json_files.read_hirest),
    "ego4d-nlq": Format(ego4d.read_ego4d_nlq, "taken"),
    "ego4d-nlq-whole-seconds": Format(ego4d.read_ego4d_whole_seconds, "taken"),
    "mad": Format(json_files.read_mad),
    "timelens": Format(json_files.read_timelens),
    # other names of the first, from when each had a reader of its own
    **dict.fromkeys(("canonical", "qvhighlights", "cone"), _NAMED),
}

_EXPECTED = (
    "expected one JSON object a line, a list of such, or a table with named columns (video_id, duration, query, "
    f"windows; --fields names others), or a layout of --format: {', '.join(FORMATS)}"
)


def read_annotations(
    path: str | Path,
    format: str = "auto",
    *,
    durations: Mapping[str, float] | None = None,
    policy: str | Policy | None = None,
    count: bool = True,
    fields: Mapping[str, str] | None = None,
    subset: str | None = None,
    strip_extension: bool = False,
) -> Annotations:
    """Reads an annotation file of any known format.

    `format` is a name of `FORMATS`, or ``auto`` to recognise it by the content; `durations` are seconds by video id,
    which the Charades-STA text files need; `policy` is a name of `POLICIES`, by default the reader's own; without
    `count` the report has no irregularities. `fields` are the names of fields (of `fields.NAMES`) in files whose
    records have named ones; `subset` and `strip_extension` as `irregular.finish`.
    """
    if fields:
        require_fields(fields)
    with opened(path) as source:
        if format == "auto":
            format = detect_format(source, fields)
        if format not in FORMATS:
            raise UserError(f"annotation format {format!r} is unknown, expected auto, {', '.join(FORMATS)}")
        layout = FORMATS[format]
        options: dict[str, Any] = {"count": count, "policy": policy}
        if layout.durations == "needed" and durations is None:
            raise UserError(f"{path}: {format} needs a table of durations (CSV with id, length)")
        if layout.durations:
            options["durations"] = durations
        if fields and not layout.fields:
            raise UserError(f"{path}: fields are for records with named fields, those of {format} are fixed")
        if layout.fields:
            options["fields"] = fields
        return layout.read(source, subset=subset, strip_extension=strip_extension, **options)


def detect_format(path: Readable, fields: Mapping[str, str] | None = None) -> str:
    """Recognises the format of an annotation file by its content; `fields` are names that its records have."""
    with opened(path) as source:
        first = source.first
        if not first:
            raise UserError(f"{source.path}: the file is empty, expected annotations")
        if first[0] not in "[{":
            return _text_format(first, source.path)
        row = source.first_value()
        if isinstance(row, dict) and is_record(row, fields):
            return "objects"
        return _document_format(source, fields)


def _text_format(first: str, path: Path) -> str:
    parts = first.split("##")
    if len(parts) > 2:
        with contextlib.suppress(ValueError):
            float(parts[1])
            return "viga"
    if len(parts) > 1:
        return "charades-sta"
    if separator_of(first):
        return "table"
    raise UserError(
        f"{path}:1: not an annotation file of a known format: found the text {shown(first)}, {_EXPECTED}"
    )


_KEYS = {
    "movie": "mad",
    "annotations": "detection",
    "num_frames": "tacos",
    "sentences": "activitynet",
    "spans": "timelens",
}
"""Keys of the entries of an object that tell its format."""


def _document_format(source: TextInput, fields: Mapping[str, str] | None) -> str:
    row = source.first_value()
    try:
        document = source.document()
    except UserError:
        if not isinstance(row, dict):
            raise
        found = f"objects with the keys {some_of(row)}"
        raise UserError(
            f"{source.path}:1: not a record of a known format: found {found}, {_EXPECTED}"
        ) from None
    if (
        name := _list_format(document, fields)
        if isinstance(document, list)
        else _object_format(document, fields)
    ):
        return name
    raise UserError(
        f"{source.path}: not an annotation file of a known format: found {_found(document)}, {_EXPECTED}"
    )


def _list_format(document: list[Any], fields: Mapping[str, str] | None) -> str | None:
    entry = document[0] if document else []
    if isinstance(entry, dict) and {"times", "num_segments"} <= entry.keys():
        return "didemo"
    if isinstance(entry, dict) and is_record(entry, fields):
        return "objects"
    return "glance-list" if isinstance(entry, list) else None


def _object_format(document: dict[str, Any], fields: Mapping[str, str] | None) -> str | None:
    if isinstance(document.get("videos"), list):
        return "ego4d-nlq"
    if isinstance(document.get("database"), dict):
        return "detection"
    entry = next(iter(document.values()), None)
    if isinstance(entry, dict):
        prompted = next(iter(entry.values()), None)
        if isinstance(prompted, dict) and "relevant" in prompted:
            return "hirest"
        if name := next((name for key, name in _KEYS.items() if key in entry), None):
            return name
    return "objects" if records_of(document, fields) is not None else None


def _found(value: Any, depth: int = 2) -> str:
    """A JSON value in words: its kind, its keys, and what is in it."""
    if isinstance(value, dict):
        about = f"an object with the keys {some_of(value)}" if value else "an object without keys"
        inside, kind = next(iter(value.values()), None), "whose first holds"
    elif isinstance(value, list):
        about, inside, kind = f"a list of {len(value)}", value[0] if value else None, "the first of them"
    else:
        return shown(value)
    more = isinstance(inside, dict | list) and depth > 1
    return f"{about} ({kind} {_found(inside, depth - 1)})" if more else about
