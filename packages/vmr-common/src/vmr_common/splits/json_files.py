"""Readers of annotation files that are one JSON document."""

from __future__ import annotations

import difflib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from vmr_common.errors import UserError, some_of
from vmr_common.splits.fields import NAMES
from vmr_common.splits.irregular import Record, reader
from vmr_common.text_input import TextInput
from vmr_common.timeline import frames_to_seconds
from vmr_common.values import (
    duration_of,
    field_of,
    identifier,
    list_of,
    moment,
    number,
    object_of,
    pair,
    positive,
    seconds,
    sentence,
    shown,
)


@reader("checked")
def read_glance_list(source: TextInput) -> Iterator[Record]:
    """Reads the five-element lists of RGN and CFMR.

    The file is one JSON list of ``[video, duration, [start, end], sentence, time point]``, seconds; null or an empty
    list stands for a moment that is not known. CPL's files have the same layout without the time point; then every
    record must lack it.
    """
    rows = list_of(source.document(), str(source.path), "the file")
    length = len(rows[0]) if rows and isinstance(rows[0], list) and len(rows[0]) == 4 else 5
    for index, row in enumerate(rows):
        rows[index] = None  # what was read makes room for its query
        where = f"{source.path}: record {index}"
        layout = "[video, duration, [start, end], sentence, time point]"
        if not isinstance(row, list) or len(row) != length:
            also = " without the time point, as in record 0" if length == 4 else ""
            raise UserError(f"{where}: expected {layout}{also}, found {shown(row)}")
        yield Record(
            where=where,
            video=identifier(row[0], where, "video (element 0)"),
            text=sentence(row[3], where, "sentence (element 3)"),
            duration=duration_of(row[1], where, "duration (element 1)"),
            moments=[moment(row[2], where, "moment (element 2)")] if row[2] not in (None, []) else [],
            point=seconds(row[4], where, "time point (element 4)") if length == 5 else None,
        )


@reader("checked")
def read_tacos(source: TextInput) -> Iterator[Record]:
    """Reads TACoS: ``{video: {timestamps, sentences, num_frames, fps}}`` with timestamps in frames.

    ViGA's files carry one more list, ``glance``, in frames. Seconds are frames divided by ``fps``. Video ids
    keep their file ending (``s30-d52.avi``).
    """
    return _video_records(source, in_frames=True)


@reader("checked")
def read_activitynet(source: TextInput) -> Iterator[Record]:
    """Reads ActivityNet Captions: ``{video: {duration, timestamps, sentences}}``, seconds.

    ViGA's files carry one more list, ``glance``, in seconds; those of Charades-CD call the duration ``video_duration``.
    """
    return _video_records(source, in_frames=False)


@reader("as-annotated")
def read_timelens(source: TextInput) -> Iterator[Record]:
    """Reads TimeLens-Bench: ``{video: {duration, spans, queries}}``, seconds, a span for each query."""
    return _video_records(source, in_frames=False, spans="spans", sentences="queries")


def _video_records(
    source: TextInput, *, in_frames: bool, spans: str = "timestamps", sentences: str = "sentences"
) -> Iterator[Record]:
    for video, value in _taken(object_of(source.document(), str(source.path), "the file")):
        where = f"{source.path}: video {shown(video)}"
        entry = object_of(value, where, "the entry")
        times = _spans(entry, spans, where)
        count = None if times is None else len(times)
        texts = list_of(field_of(entry, sentences, where), where, sentences, count)
        points = list_of(entry["glance"], where, "glance", len(texts)) if "glance" in entry else None
        length_key = "num_frames" if in_frames else "duration"
        if length_key not in entry and "video_duration" in entry:
            length_key = "video_duration"
        fps = positive(field_of(entry, "fps", where), where, "fps") if in_frames else None
        length = positive(field_of(entry, length_key, where), where, length_key)
        duration = duration_of(_seconds(length, fps, where, length_key), where)
        for index, text in enumerate(texts):
            spot = f"{where}, entry {index}"
            annotated = []
            if times is not None:
                start, end = (_seconds(value, fps, spot, spans) for value in pair(times[index], spot, spans))
                annotated = [(start, end)]
            point = None if points is None else number(points[index], spot, "glance")
            point = None if point is None else _seconds(point, fps, spot, "glance")
            yield Record(
                where=spot,
                video=identifier(video, where, "the video's id"),
                text=sentence(text, spot, sentences),
                duration=duration,
                moments=annotated,
                point=point,
            )


def _spans(entry: dict[str, Any], key: str, where: str) -> list[Any] | None:
    """The moments of an entry, None where it hides them."""
    if entry.get(key) is not None:
        return list_of(entry[key], where, key)
    if key not in entry and difflib.get_close_matches(key, itertools.islice(entry, 100), 1, cutoff=0.8):
        field_of(entry, key, where)
    return None


@reader("checked")
def read_detection(source: TextInput, durations: Mapping[str, float] | None = None) -> Iterator[Record]:
    """Reads the layout of action detection: ``{database: {video: {duration, subset, annotations: [...]}}}``, seconds.

    Without ``database`` the file is the object of videos. An annotation has a ``segment`` and a ``sentence`` (YouCook2,
    SnAG), or the ``label`` of a class, which is then the sentence (ActivityNet 1.3, THUMOS14). A video without a
    duration has that of `durations`.
    """
    path = str(source.path)
    document = object_of(source.document(), path, "the file")
    database = document.get("database", document)
    for video, value in _taken(object_of(database, path, "database")):
        where = f"{path}: video {shown(video)}"
        entry = object_of(value, where, "the entry")
        length = entry["duration"] if "duration" in entry else (durations or {}).get(video)
        if length is None:
            raise UserError(f"{where}: no duration (found: {some_of(entry)}); --durations FILE may have it")
        subset = entry.get("subset")
        for index, item in enumerate(list_of(field_of(entry, "annotations", where), where, "annotations")):
            spot = f"{where}, annotation {index}"
            row = object_of(item, spot)
            key = next((name for name in (*NAMES["query"], "label") if name in row), "sentence")
            yield Record(
                where=spot,
                video=identifier(video, where, "the video's id"),
                text=sentence(field_of(row, key, spot), spot, key),
                duration=duration_of(length, where),
                moments=[moment(field_of(row, "segment", spot), spot, "segment")],
                subset=subset if isinstance(subset, str) else None,
            )


_SEGMENT_S = 5


@reader("as-annotated")
def read_didemo(source: TextInput, durations: Mapping[str, float] | None = None) -> Iterator[Record]:
    """Reads DiDeMo: a list of ``{annotation_id, video, description, times, num_segments}``.

    ``times`` are ``[first, last]`` numbers of segments, a pair per annotator; segment i is ``[5 i, 5 i + 5]`` seconds,
    and the last one ends with its video. All distinct moments are kept, the one that most annotators gave first. A
    video of n segments lasts 5 n seconds, unless `durations` say it.
    """
    rows = list_of(source.document(), str(source.path), "the file")
    for index, item in enumerate(rows):
        rows[index] = None
        where = f"{source.path}: record {index}"
        row = object_of(item, where)
        video = identifier(field_of(row, "video", where), where, "video")
        if durations and video in durations:
            duration = duration_of(durations[video], where)
        else:
            duration = _SEGMENT_S * positive(field_of(row, "num_segments", where), where, "num_segments")
        votes = Counter(
            pair(times, where, f"times[{place}]")
            for place, times in enumerate(list_of(field_of(row, "times", where), where, "times"))
        )
        if not all(part.is_integer() for times in votes for part in times):
            raise UserError(f"{where}: times must be numbers of segments, found {shown(row['times'][0])}")
        yield Record(
            where=where,
            id=identifier(field_of(row, "annotation_id", where), where, "annotation_id"),
            video=video,
            text=sentence(field_of(row, "description", where), where, "description"),
            duration=duration_of(duration, where, "num_segments"),
            moments=[
                (seconds(first * _SEGMENT_S, where, "times"), _end_of(last, duration, where))
                for (first, last), _ in votes.most_common()
            ],
            remarks=("annotators disagree on the moment",) if len(votes) > 1 else (),
        )


def _end_of(segment: float, duration: float, where: str) -> float:
    """The end of a segment of DiDeMo, seconds: the last one may be cut short by the end of its video."""
    end = seconds((segment + 1) * _SEGMENT_S, where, "times")
    return duration if 0 < end - duration < _SEGMENT_S else end


@reader("as-annotated")
def read_hirest(source: TextInput) -> Iterator[Record]:
    """Reads HiREST: ``{prompt: {video: {relevant, clip, v_duration, bounds}}}``, seconds.

    The prompt is the sentence and the bounds are the moment. A video that is not relevant, or relevant as a whole
    (``clip`` is false, the bounds are no moment), makes no query, which the report counts.
    """
    for prompt, value in _taken(object_of(source.document(), str(source.path), "the file")):
        spot = f"{source.path}: prompt {shown(prompt)}"
        for video, item in object_of(value, spot, "the entry").items():
            where = f"{spot}, video {shown(video)}"
            row = object_of(item, where)
            reason = "" if field_of(row, "relevant", where) is True else "video not relevant to its prompt"
            if not reason and field_of(row, "clip", where) is not True:
                reason = "video relevant as a whole, without a moment"
            yield Record(
                where=where,
                video=identifier(video, where, "the video's id"),
                text=sentence(prompt, where, "the prompt"),
                duration=1.0
                if reason
                else duration_of(field_of(row, "v_duration", where), where, "v_duration"),
                moments=[] if reason else [moment(field_of(row, "bounds", where), where, "bounds")],
                left_out=reason,
            )


def _taken(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The items of an object, which is emptied on the way: what was read makes room for its queries."""
    for key in list(document):
        yield key, document.pop(key)


def _seconds(value: float, fps: float | None, where: str, key: str) -> float:
    """A time in seconds: as it is without a frame rate, else of a frame number."""
    if fps is None:
        return seconds(value, where, key)
    # of two good numbers the quotient may still be infinite, which is refused
    with np.errstate(over="ignore"):
        return seconds(float(frames_to_seconds(value, fps)), where, f"{key} / fps")


@reader("as-annotated")
def read_mad(source: TextInput) -> Iterator[Record]:
    """Reads MAD: ``{id: {movie, sentence, timestamps, ext_timestamps, movie_duration}}``, seconds.

    Moments are ``timestamps``, which the long-video methods score; MAD's zero-shot baseline scores ``ext_timestamps``.
    """
    for identity, value in _taken(object_of(source.document(), str(source.path), "the file")):
        where = f"{source.path}: record {shown(identity)}"
        row = object_of(value, where)
        yield Record(
            where=where,
            id=identifier(identity, where, "the id"),
            video=identifier(field_of(row, "movie", where), where, "movie"),
            text=sentence(field_of(row, "sentence", where), where, "sentence"),
            duration=duration_of(field_of(row, "movie_duration", where), where, "movie_duration"),
            moments=[moment(field_of(row, "timestamps", where), where, "timestamps")],
        )
