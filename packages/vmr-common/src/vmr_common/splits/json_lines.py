"""Readers of annotation files with one JSON object per line, and the writer of the canonical form."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vmr_common.errors import UserError
from vmr_common.io import write_json_lines
from vmr_common.splits.irregular import Record, reader
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
    seconds,
    sentence,
    shown,
)

_SOURCE_TIMES = re.compile(r"_(\d+(?:\.\d+)?)_(\d+(?:\.\d+)?)$")
_GOOD_CLIP = 2


_JUDGED = 100  # keys of a line that are compared with the one looked for
_OTHER_NAMES = {"point": "glance", "query_id": "qid"}


def _rows(source: TextInput, optional: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place and object of every line; what looks like another spelling of an `optional` key is an error."""
    judged: tuple[str, ...] = ()
    for line, row in source.rows():
        where = f"{source.path}:{line}"
        if (names := tuple(row)) != judged:  # most lines have the keys of the line before
            judged = names
            for key in optional:
                _refuse_misspelt(key, names, where)
        yield where, row


def _refuse_misspelt(key: str, names: Sequence[str], where: str) -> None:
    if key in names:
        return
    other = _OTHER_NAMES.get(key)
    near = [other] if other in names else difflib.get_close_matches(key, names[:_JUDGED], cutoff=0.8)
    if near:
        raise UserError(f"{where}: unknown key {shown(near[0])} (did you mean {key!r}?)")


@reader("as-annotated")
def read_qvhighlights(source: TextInput) -> Iterator[Record]:
    """Reads QVHighlights-style JSON lines (QVHighlights, lighthouse, UniVTG).

    Keys: ``qid``, ``query``, ``duration``, ``vid``, and unless the truth is hidden ``relevant_windows``
    (``[[start, end], ...]``, seconds); QVHighlights adds ``relevant_clip_ids`` and ``saliency_scores``. What looks
    like another spelling of these is an error.
    """
    for where, row in _rows(source, ("relevant_windows", "relevant_clip_ids", "saliency_scores")):
        video = identifier(field_of(row, "vid", where), where, "vid")
        duration = duration_of(field_of(row, "duration", where), where)
        extra = _saliency(row, where)
        remarks = []
        times = _SOURCE_TIMES.search(video)
        if times and duration < float(times[2]) - float(times[1]):
            remarks.append("video shorter than its id says")
        if extra and not (extra["saliency"] >= _GOOD_CLIP).any():
            remarks.append("no clip scored 2 or more by any annotator")
        yield Record(
            where=where,
            id=identifier(field_of(row, "qid", where), where, "qid"),
            video=video,
            text=sentence(field_of(row, "query", where), where, "query"),
            duration=duration,
            moments=moments(row.get("relevant_windows", []), where, "relevant_windows"),
            extra=extra,
            remarks=tuple(remarks),
        )


def _saliency(row: dict[str, Any], where: str) -> dict[str, Any]:
    """Highlight scores ``(C, A)`` and clip numbers ``(C,)`` of a row, or nothing where it has none."""
    if "saliency_scores" not in row:
        return {}
    clips = list_of(field_of(row, "relevant_clip_ids", where), where, "relevant_clip_ids")
    scores = list_of(row["saliency_scores"], where, "saliency_scores", len(clips))
    if not set(map(type, clips)) <= {int} or (clips and not 0 <= min(clips) <= max(clips) < 2**31):
        raise UserError(f"{where}: relevant_clip_ids must be numbers from 0 on, found {shown(clips)}")
    if len(set(clips)) < len(clips):
        raise UserError(f"{where}: relevant_clip_ids holds a clip twice")
    annotators = len(scores[0]) if scores and isinstance(scores[0], list) else 1
    saliency = number_rows(scores, ["label"] * max(annotators, 1), where, "saliency_scores")
    return {"saliency": saliency, "saliency_clips": np.array(clips, dtype=np.int64)}


@reader("as-annotated")
def read_cone(source: TextInput) -> Iterator[Record]:
    """Reads the flat JSON lines of the long-video methods (CONE, RGNet).

    Keys: ``query_id``, ``query``, ``duration``, ``clip_id`` (the long video and feature key; else
    ``video_id``), and unless the truth is hidden ``timestamps`` (``[start, end]``, seconds in the clip). What looks
    like another spelling of that is an error.
    """
    for where, row in _rows(source, ("timestamps",)):
        video_key = "clip_id" if "clip_id" in row else "video_id"
        yield Record(
            where=where,
            id=identifier(field_of(row, "query_id", where), where, "query_id"),
            video=identifier(field_of(row, video_key, where), where, video_key),
            text=sentence(field_of(row, "query", where), where, "query"),
            duration=duration_of(field_of(row, "duration", where), where),
            moments=[moment(row["timestamps"], where, "timestamps")] if "timestamps" in row else [],
        )


@reader("checked")
def read_canonical(source: TextInput) -> Iterator[Record]:
    """Reads the canonical annotation JSON lines of this project, the inverse of `write_canonical`.

    Keys: ``video_id``, ``duration``, ``query``, ``windows`` (``[[start, end], ...]``, seconds; empty for hidden
    truth), optionally ``query_id`` (else ``<video>_<n>``), ``point`` (seconds), ``relevant_clip_ids`` and
    ``saliency_scores``. What looks like a misspelt ``point`` or ``query_id`` is an error.
    """
    for where, row in _rows(source, ("point", "query_id")):
        point = row.get("point")
        yield Record(
            where=where,
            id=identifier(row["query_id"], where, "query_id") if "query_id" in row else None,
            video=identifier(field_of(row, "video_id", where), where, "video_id"),
            text=sentence(field_of(row, "query", where), where, "query"),
            duration=duration_of(field_of(row, "duration", where), where),
            moments=moments(field_of(row, "windows", where), where, "windows"),
            point=None if point is None else seconds(point, where, "point"),
            extra=_saliency(row, where),
        )


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
    """Writes queries as canonical JSON lines (see `read_canonical`), atomically."""
    write_json_lines(path, map(canonical_row, queries))
