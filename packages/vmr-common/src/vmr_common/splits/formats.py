"""One reader per published annotation format; each gives queries and a report of irregular records.

Readers never drop, swap or limit anything silently: what they do to irregular records is a named policy
(`POLICIES`), and the report counts what they met and what they did.
"""

from __future__ import annotations

import contextlib
import difflib
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vmr_common.errors import UserError
from vmr_common.splits import json_files, json_lines, text_files
from vmr_common.splits.irregular import Annotations
from vmr_common.splits.policies import Policy
from vmr_common.text_input import Readable, TextInput, opened
from vmr_common.values import listed

FORMATS: dict[str, Callable[..., Annotations]] = {
    "canonical": json_lines.read_canonical,
    "charades-sta": text_files.read_charades_sta,
    "viga": text_files.read_viga,
    "glance-list": json_files.read_glance_list,
    "tacos": json_files.read_tacos,
    "activitynet": json_files.read_activitynet,
    "qvhighlights": json_lines.read_qvhighlights,
    "cone": json_lines.read_cone,
    "ego4d-nlq": json_files.read_ego4d_nlq,
    "ego4d-nlq-whole-seconds": json_files.read_ego4d_whole_seconds,
    "mad": json_files.read_mad,
    "timelens": json_files.read_timelens,
}


def read_annotations(
    path: str | Path,
    format: str = "auto",
    *,
    durations: Mapping[str, float] | None = None,
    policy: str | Policy | None = None,
    count: bool = True,
) -> Annotations:
    """Reads an annotation file of any known format.

    `format` is a name of `FORMATS`, or ``auto`` to recognise it by the content; `durations` are seconds by video id,
    which the Charades-STA text files need; `policy` is a name of `POLICIES`, by default the reader's own; without
    `count` the report has no irregularities.
    """
    with opened(path) as source:
        if format == "auto":
            format = detect_format(source)
        if format not in FORMATS:
            raise UserError(f"annotation format {format!r} is unknown, expected auto, {', '.join(FORMATS)}")
        options: dict[str, Any] = {"count": count} if policy is None else {"count": count, "policy": policy}
        if format in ("charades-sta", "viga"):
            if durations is None:
                raise UserError(f"{path}: {format} needs a table of durations (CSV with id, length)")
            return FORMATS[format](source, durations, **options)
        if format in ("ego4d-nlq", "ego4d-nlq-whole-seconds"):
            options["durations"] = durations
        return FORMATS[format](source, **options)


def detect_format(path: Readable) -> str:
    """Recognises the format of an annotation file by its content."""
    with opened(path) as source:
        first = source.first
        if not first:
            raise UserError(f"{source.path}: the file is empty, expected annotations")
        if first[0] not in "[{":
            return _text_format(first, source.path)
        row = source.first_value()
        return (_line_format(row) if isinstance(row, dict) else None) or _document_format(source)


def _text_format(first: str, path: Path) -> str:
    fields = first.split("##")
    if len(fields) < 2:
        raise UserError(f"{path}:1: not an annotation file of a known format ({', '.join(FORMATS)})")
    if len(fields) > 2:
        with contextlib.suppress(ValueError):
            float(fields[1])
            return "viga"
    return "charades-sta"


def _line_format(row: dict[str, Any]) -> str | None:
    """The format of a JSON-lines file by its first record; None where that is no record of one."""
    if "qid" in row:
        return "qvhighlights"
    # CONE's rows may lack their times; a misspelt key of ours must not pass for that
    if ("query_id" in row or "video_id" in row) and difflib.get_close_matches(
        "windows", itertools.islice(row, 100), cutoff=0.8
    ):
        return "canonical"
    return "cone" if "query_id" in row else None


def _document_format(source: TextInput) -> str:
    row = source.first_value()
    try:
        document = source.document()
    except UserError:
        if not isinstance(row, dict):
            raise
        raise UserError(
            f"{source.path}:1: not a record of a known format (found: {listed(row)}), "
            "expected video_id, duration, query, windows"
        ) from None
    if isinstance(document, list):
        return "glance-list"
    if isinstance(document.get("videos"), list):
        return "ego4d-nlq"
    entry = next(iter(document.values()), None)
    if isinstance(entry, dict):
        for key, name in (
            ("movie", "mad"),
            ("num_frames", "tacos"),
            ("sentences", "activitynet"),
            ("spans", "timelens"),
        ):
            if key in entry:
                return name
    raise UserError(f"{source.path}: not an annotation file of a known format ({', '.join(FORMATS)})")
