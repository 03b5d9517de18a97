"""Submissions to the Ego4D natural-language-query server: read, written and checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vmr_common.errors import UserError, quoted
from vmr_common.evaluation.problems import id_problems, missing_queries, raise_first, window_problems
from vmr_common.io import read_json, write_text
from vmr_common.types import Prediction, Query, encode_id, rank_scores, require_video
from vmr_common.values import identifier, list_of, number_rows, shown

EGO4D_VERSION, EGO4D_CHALLENGE = "1.0", "ego4d_nlq_challenge"


def read_ego4d(path: str | Path, queries: Iterable[Query] = ()) -> list[Prediction]:
    """Reads a submission of the Ego4D natural-language-query challenge.

    Query ids are ``<annotation_uid>_<query_idx>``; the video is the clip; times are seconds in the clip;
    columns after start and end are ignored; scores only say the order.

    Args:
        path: The file (``.gz`` accepted).
        queries: Those that the predictions are for; an entry that names another clip than its query does is refused.

    Raises:
        UserError: naming file, entry and key if the layout is another one, a value has another type or a query
            occurs twice.
    """
    return entries_of(str(path), read_json(path), queries)


def entries_of(path: str, content: Any, queries: Iterable[Query] = ()) -> list[Prediction]:
    """The predictions of a submission's content, see `read_ego4d`."""
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, list):
        raise UserError(
            f"{path}: not an Ego4D submission (expected an object with a list 'results'), nor JSON lines"
        )
    clips = {query.id: query.video for query in queries}
    predictions: list[Prediction] = []
    seen: set[str] = set()
    for number, entry in enumerate(results):
        where = f"{path}: results[{number}]"
        prediction = _ego4d_entry(entry, where)
        if prediction.query in seen:
            raise UserError(f"{where}: query {quoted(prediction.query)} occurs twice")
        seen.add(prediction.query)
        require_video(
            prediction.query, prediction.video, clips.get(prediction.query, prediction.video), where
        )
        predictions.append(prediction)
    return predictions


def _ego4d_entry(entry: Any, where: str) -> Prediction:
    keys = ("clip_uid", "annotation_uid", "query_idx", "predicted_times")
    if not isinstance(entry, dict) or any(key not in entry for key in keys):
        raise UserError(f"{where}: expected an object with {', '.join(keys)}")
    index = entry["query_idx"]
    if type(index) is not int or index < 0:
        raise UserError(f"{where}: query_idx must be an integer from 0 on, found {shown(index)}")
    rows = list_of(entry["predicted_times"], where, "predicted_times")
    starts = [row[:2] if isinstance(row, list) else row for row in rows]
    times = number_rows(starts, ("start", "end"), where, "predicted_times")
    return Prediction(
        query=f"{identifier(entry['annotation_uid'], where, 'annotation_uid')}_{index}",
        video=identifier(entry["clip_uid"], where, "clip_uid"),
        moments=times,
        scores=rank_scores(len(times)),
    )


def write_ego4d(path: str | Path, predictions: Iterable[Prediction], queries: Sequence[Query]) -> None:
    """Writes and checks a submission for the Ego4D natural-language-query server, atomically.

    Args:
        path: JSON file to write.
        predictions: With ids ``<annotation_uid>_<query_idx>`` and seconds in the clip, best first.
        queries: All queries of the split; their video is the clip.

    Raises:
        UserError: if an id has another form, or the file would not pass `check_ego4d`; nothing is written.
    """
    clips = {query.id: query.video for query in queries}
    results = []
    for prediction in predictions:
        annotation, _, last = prediction.query.rpartition("_")
        index = encode_id(last)
        if not annotation or not isinstance(index, int):
            raise UserError(
                f"query id {quoted(prediction.query)} is not of the form <annotation_uid>_<query_idx>"
            )
        results.append(
            {
                "clip_uid": clips.get(prediction.query, prediction.video),
                "annotation_uid": annotation,
                "query_idx": index,
                "predicted_times": prediction.moments.tolist(),
            }
        )
    content = {"version": EGO4D_VERSION, "challenge": EGO4D_CHALLENGE, "results": results}
    raise_first(_ego4d_problems(content, queries), path)
    write_text(path, json.dumps(content, allow_nan=False))


def check_ego4d(path: str | Path, queries: Sequence[Query]) -> list[str]:
    """Problems that the Ego4D server would refuse or count against the system, one line each.

    Missing queries are listed because the official program leaves them out of its mean without a word.

    Raises:
        UserError: if the file is not JSON.
    """
    return _ego4d_problems(read_json(path), queries)


def _ego4d_problems(content: Any, queries: Sequence[Query]) -> list[str]:
    if not isinstance(content, dict) or not isinstance(content.get("results"), list):
        return ["expected an object with version, challenge and a list results"]
    problems = [
        f"{key} must be {value!r}, found {shown(content.get(key))}"
        for key, value in (("version", EGO4D_VERSION), ("challenge", EGO4D_CHALLENGE))
        if content.get(key) != value
    ]
    clips = {query.id: query.video for query in queries}
    seen: set[str] = set()
    for number, entry in enumerate(content["results"]):
        where = f"results[{number}]"
        try:
            prediction = _ego4d_entry(entry, where)
        except UserError as error:
            problems.append(str(error))
            continue
        where += f" (query {prediction.query})"
        problems += id_problems(prediction.query, seen, clips, where)
        if prediction.query in clips and prediction.video != clips[prediction.query]:
            problems.append(
                f"{where}: clip_uid is {quoted(prediction.video)}, expected {quoted(clips[prediction.query])}"
            )
        problems += window_problems(prediction.moments, where)
    return problems + missing_queries(seen, clips)
