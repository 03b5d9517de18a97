"""Submissions to the Ego4D natural-language-query server: read, written and checked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vmr_common.errors import UserError
from vmr_common.files import read_json, write_text
from vmr_common.records import Prediction, Query, rank_scores
from vmr_common.submissions.problems import id_problems, missing_queries, raise_first, window_problems

EGO4D_VERSION, EGO4D_CHALLENGE = "1.0", "ego4d_nlq_challenge"


def read_ego4d(path: str | Path) -> list[Prediction]:
    """Reads a submission of the Ego4D natural-language-query challenge.

    Query ids are ``<annotation_uid>_<query_idx>``; the video is the clip; times are seconds in the clip;
    columns after start and end are ignored; scores only say the order.

    Raises:
        UserError: naming file, entry and key if the layout is another one or a query occurs twice.
    """
    content = read_json(path)
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, list):
        raise UserError(f"{path}: not an Ego4D submission (expected an object with a list 'results')")
    predictions: list[Prediction] = []
    seen: set[str] = set()
    for number, entry in enumerate(results):
        prediction = _ego4d_entry(entry, f"{path}: results[{number}]")
        if prediction.query in seen:
            raise UserError(f"{path}: results[{number}]: query {prediction.query!r} occurs twice")
        seen.add(prediction.query)
        predictions.append(prediction)
    return predictions


def _ego4d_entry(entry: Any, where: str) -> Prediction:
    keys = ("clip_uid", "annotation_uid", "query_idx", "predicted_times")
    if not isinstance(entry, dict) or any(key not in entry for key in keys):
        raise UserError(f"{where}: expected an object with {', '.join(keys)}")
    try:
        times = np.array([row[:2] for row in entry["predicted_times"]], dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError, KeyError, OverflowError):
        raise UserError(f"{where}: predicted_times must be a list of [start, end] in seconds") from None
    if not np.isfinite(times).all():
        raise UserError(f"{where}: predicted_times holds a value that is not finite")
    return Prediction(
        query=f"{entry['annotation_uid']}_{entry['query_idx']}",
        video=str(entry["clip_uid"]),
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
        annotation, _, index = prediction.query.rpartition("_")
        if not annotation or not (index.isascii() and index.isdecimal()):
            raise UserError(f"query id {prediction.query!r} is not of the form <annotation_uid>_<query_idx>")
        results.append(
            {
                "clip_uid": clips.get(prediction.query, prediction.video),
                "annotation_uid": annotation,
                "query_idx": int(index),
                "predicted_times": prediction.moments.tolist(),
            }
        )
    content = {"version": EGO4D_VERSION, "challenge": EGO4D_CHALLENGE, "results": results}
    raise_first(_ego4d_problems(content, queries), path)
    write_text(path, json.dumps(content, allow_nan=False))


def check_ego4d(path: str | Path, queries: Sequence[Query]) -> list[str]:
    """What the Ego4D server would refuse or count against the system, one line each; empty if nothing.

    Missing queries are listed because the official program leaves them out of its mean without a word.

    Raises:
        UserError: if the file is not JSON.
    """
    return _ego4d_problems(read_json(path), queries)


def _ego4d_problems(content: Any, queries: Sequence[Query]) -> list[str]:
    if not isinstance(content, dict) or not isinstance(content.get("results"), list):
        return ["expected an object with version, challenge and a list results"]
    problems = [
        f"{key} must be {value!r}, found {content.get(key)!r}"
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
        if not isinstance(entry["query_idx"], int) or isinstance(entry["query_idx"], bool):
            problems.append(f"{where}: query_idx must be an integer, found {entry['query_idx']!r}")
        if prediction.query in clips and prediction.video != clips[prediction.query]:
            problems.append(f"{where}: clip_uid is {prediction.video}, expected {clips[prediction.query]}")
        problems += window_problems(prediction.moments, where)
    return problems + missing_queries(seen, clips)
