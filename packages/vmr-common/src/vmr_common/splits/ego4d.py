"""Readers of Ego4D's files of natural-language queries, and of NaQ's, which have the same layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from vmr_common.errors import UserError
from vmr_common.splits.irregular import Record, reader
from vmr_common.text_input import TextInput
from vmr_common.values import (
    duration_of,
    field_of,
    identifier,
    list_of,
    moment,
    object_of,
    seconds,
    sentence,
    shown,
)


@reader("drop-textless")
def read_ego4d_nlq(source: TextInput, durations: Mapping[str, float] | None = None) -> Iterator[Record]:
    """Reads the official Ego4D natural-language-query files: videos, clips, annotations, language queries.

    The video of a `Query` is the clip (``clip_uid``): features, times and predictions are all relative to it. Query
    ids are ``<annotation_uid>_<index of the query in its annotation>``. The duration is ``video_end_sec -
    video_start_sec``, or where a file does not give these that of the clip in `durations`. Queries of the test part
    have no moments. By default the few records without a sentence are dropped, as the official baselines do.
    """
    return _ego4d_records(source, durations or {})


@reader("drop-brief")
def read_ego4d_whole_seconds(
    source: TextInput, durations: Mapping[str, float] | None = None
) -> Iterator[Record]:
    """Reads the files of `read_ego4d_nlq` (also NaQ's) as CONE and RGNet do: clip lengths in whole seconds.

    The duration is ``video_end_sec`` minus ``video_start_sec``, each rounded to a whole second, halves up. By default
    what is too brief is dropped too, as by their converter.
    """
    return _ego4d_records(source, durations or {}, _half_up)


def _half_up(time: float) -> float:
    return float(np.floor(time + 0.5))


def _ego4d_records(
    source: TextInput, durations: Mapping[str, float], rounded: Callable[[float], float] = float
) -> Iterator[Record]:
    document = object_of(source.document(), str(source.path), "the file")
    for clip, where in _ego4d_clips(document, str(source.path)):
        clip_uid = identifier(field_of(clip, "clip_uid", where), where, "clip_uid")
        where = f"{source.path}: clip {shown(clip_uid)}"
        duration = _clip_duration(clip, clip_uid, durations, where, rounded)
        for entry in list_of(field_of(clip, "annotations", where), where, "annotations"):
            annotation = object_of(entry, where, "an annotation")
            uid = identifier(field_of(annotation, "annotation_uid", where), where, "annotation_uid")
            spot = f"{where}, annotation {shown(uid)}"
            queries = list_of(field_of(annotation, "language_queries", spot), spot, "language_queries")
            for index, query in enumerate(queries):
                place = f"{spot}, query {index}"
                yield _ego4d_query(object_of(query, place), place, clip_uid, duration, f"{uid}_{index}")


def _ego4d_clips(document: dict[str, Any], where: str) -> Iterator[tuple[dict[str, Any], str]]:
    for number_, video in enumerate(list_of(field_of(document, "videos", where), where, "videos")):
        spot = f"{where}: video {number_}"
        clips = field_of(object_of(video, spot), "clips", spot)
        for index, clip in enumerate(list_of(clips, spot, "clips")):
            yield object_of(clip, f"{spot}, clip {index}"), f"{spot}, clip {index}"


def _clip_duration(
    clip: dict[str, Any],
    uid: str,
    durations: Mapping[str, float],
    where: str,
    rounded: Callable[[float], float],
) -> float:
    if "video_start_sec" in clip and "video_end_sec" in clip:
        start, end = (rounded(seconds(clip[key], where, key)) for key in ("video_start_sec", "video_end_sec"))
        return duration_of(end - start, where, "video_end_sec - video_start_sec")
    if uid in durations:
        return duration_of(rounded(durations[uid]), where)
    raise UserError(
        f"{where}: video_start_sec and video_end_sec are missing, and no table of durations was given"
    )


def _ego4d_query(query: dict[str, Any], where: str, clip: str, duration: float, identity: str) -> Record:
    times = [query.get("clip_start_sec"), query.get("clip_end_sec")]
    text = query.get("query")
    return Record(
        where=where,
        id=identity,
        video=clip,
        # a null or absent sentence is how the published files mark an unusable record
        text="" if text is None else sentence(text, where, "query"),
        duration=duration,
        moments=[] if times == [None, None] else [moment(times, where, "clip_start_sec, clip_end_sec")],
    )
