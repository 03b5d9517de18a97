"""One reader per published annotation format; each gives queries and a report of irregular records.

Readers never drop, swap or limit anything silently: what they do to irregular records is a named policy
(`POLICIES`), and the report counts what they met and what they did.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vmr_common.errors import UserError
from vmr_common.splits.irregular import Annotations, Report
from vmr_common.splits.json_files import (
    read_activitynet,
    read_ego4d_nlq,
    read_ego4d_whole_seconds,
    read_glance_list,
    read_mad,
    read_tacos,
)
from vmr_common.splits.json_lines import (
    canonical_row,
    read_canonical,
    read_cone,
    read_qvhighlights,
    write_canonical,
)
from vmr_common.splits.policies import POLICIES, Policy, policy_named
from vmr_common.splits.text_files import read_charades_sta, read_durations, read_durations_csv, read_viga
from vmr_common.text_input import Readable, TextInput, opened
from vmr_common.values import listed

__all__ = [
    "FORMATS",
    "POLICIES",
    "Annotations",
    "Policy",
    "Report",
    "canonical_row",
    "detect_format",
    "policy_named",
    "read_activitynet",
    "read_annotations",
    "read_canonical",
    "read_charades_sta",
    "read_cone",
    "read_durations",
    "read_durations_csv",
    "read_ego4d_nlq",
    "read_ego4d_whole_seconds",
    "read_glance_list",
    "read_mad",
    "read_qvhighlights",
    "read_tacos",
    "read_viga",
    "write_canonical",
]

FORMATS: dict[str, Callable[..., Annotations]] = {
    "canonical": read_canonical,
    "charades-sta": read_charades_sta,
    "viga": read_viga,
    "glance-list": read_glance_list,
    "tacos": read_tacos,
    "activitynet": read_activitynet,
    "qvhighlights": read_qvhighlights,
    "cone": read_cone,
    "ego4d-nlq": read_ego4d_nlq,
    "ego4d-nlq-whole-seconds": read_ego4d_whole_seconds,
    "mad": read_mad,
}
NEED_DURATIONS = frozenset({"charades-sta", "viga"})


def read_annotations(
    path: str | Path,
    format: str = "auto",
    *,
    durations: Mapping[str, float] | None = None,
    policy: str | Policy | None = None,
) -> Annotations:
    """Reads an annotation file of any known format.

    Args:
        path: The file (``.gz`` accepted).
        format: A name of `FORMATS`, or ``auto`` to recognise it by its content.
        durations: Video id -> seconds; the Charades-STA text files need it.
        policy: What to do with irregular records, a name of `POLICIES`; by default the reader's own.
    """
    with opened(path) as source:
        if format == "auto":
            format = detect_format(source)
        if format not in FORMATS:
            raise UserError(f"annotation format {format!r} is unknown, expected auto, {', '.join(FORMATS)}")
        options: dict[str, Any] = {} if policy is None else {"policy": policy}
        if format in NEED_DURATIONS:
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
    return "viga" if len(fields) > 2 and _is_number(fields[1]) else "charades-sta"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


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
        for key, name in (("movie", "mad"), ("num_frames", "tacos"), ("sentences", "activitynet")):
            if key in entry:
                return name
    raise UserError(f"{source.path}: not an annotation file of a known format ({', '.join(FORMATS)})")
