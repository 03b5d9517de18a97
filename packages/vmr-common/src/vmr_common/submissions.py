"""Prediction files of other systems in, submission files of the evaluation servers out.

Read: our JSON lines and QVHighlights submissions (the same layout), Ego4D natural-language-query submissions,
and arrays in ``.npz``. Written and checked: the layouts of the QVHighlights and the Ego4D servers.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError
from vmr_common.files import read_json, read_json_lines, read_text, write_json_lines, write_text
from vmr_common.records import Prediction, Query, decode_id, encode_id, rank_scores, read_predictions
from vmr_common.timeline import highlight_clips

logger = logging.getLogger(__name__)

EGO4D_VERSION, EGO4D_CHALLENGE = "1.0", "ego4d_nlq_challenge"
_WINDOW_ARRAYS = {"moments": 1.0, "pred": 1.0, "pred_cs": 100.0, "pred_e4": 10000.0}
_SCORE_ARRAYS = {"scores": 1.0, "score_e4": 10000.0}


def read_any(path: str | Path, queries: Sequence[Query] | None = None) -> list[Prediction]:
    """Reads a prediction file of any known layout, recognised by its name and content.

    Args:
        path: ``.npz`` (see `read_npz`), an Ego4D submission, or JSON lines; text may be gzipped (``.gz``).
        queries: Needed for ``.npz`` without ids.

    Raises:
        UserError: if the file cannot be read or is none of these; names file, line and key.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return read_npz(path, queries)
    if _is_ego4d(path):
        return read_ego4d(path)
    return read_predictions(path)


def _is_ego4d(path: Path) -> bool:
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError):
        return False  # several lines: JSON lines, whose reader names the line that is wrong
    return isinstance(content, dict) and "results" in content


def read_npz(path: str | Path, queries: Sequence[Query] | None = None) -> list[Prediction]:
    """Reads windows from arrays.

    The archive holds ``moments`` (or ``pred``) ``(N, K, 2)`` in seconds, or ``pred_cs`` / ``pred_e4`` in
    hundredths / ten-thousandths of a second, best first; optionally ``scores`` (or ``score_e4``)
    ``(N, K)``; optionally ``ids`` ``(N,)`` text. Without ids, row n belongs to query n of the split.

    Raises:
        UserError: if the archive cannot be read (pickled arrays are refused), an array is missing or of
            another shape, a time is not finite, or there are neither ids nor as many queries as rows.
    """
    try:
        # opened here, because numpy leaves a damaged archive open
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # a damaged archive raises whatever its damaged part runs into
        # zipfile quotes the damaged bytes
        raise UserError(f"{path}: not a readable .npz archive ({str(error)[:120]})") from None
    moments = _scaled(arrays, _WINDOW_ARRAYS, path)
    if moments is None:
        found = ", ".join(arrays) or "nothing"
        raise UserError(f"{path}: no windows; expected one of {', '.join(_WINDOW_ARRAYS)}, found {found}")
    if moments.ndim != 3 or moments.shape[2] != 2 or not np.isfinite(moments).all():
        raise UserError(f"{path}: windows must be finite and of shape (N, K, 2), found {moments.shape}")
    scores = _scaled(arrays, _SCORE_ARRAYS, path)
    if scores is None:
        scores = np.broadcast_to(rank_scores(moments.shape[1]), moments.shape[:2])
    if scores.shape != moments.shape[:2]:
        raise UserError(f"{path}: scores must have shape {moments.shape[:2]}, found {scores.shape}")
    ids, videos = _row_ids(path, arrays, len(moments), queries)
    return [
        Prediction(query=name, video=video, moments=windows, scores=values)
        for name, video, windows, values in zip(ids, videos, moments, scores, strict=True)
    ]


def _scaled(
    arrays: dict[str, NDArray[Any]], known: dict[str, float], path: str | Path
) -> NDArray[np.float64] | None:
    for key, unit in known.items():
        if key in arrays:
            try:
                return np.asarray(arrays[key].astype(np.float64) / unit)
            except (TypeError, ValueError):
                raise UserError(f"{path}: array {key} does not hold numbers ({arrays[key].dtype})") from None
    return None


def _row_ids(
    path: str | Path, arrays: dict[str, NDArray[Any]], rows: int, queries: Sequence[Query] | None
) -> tuple[list[str], list[str]]:
    if "ids" in arrays:
        ids = [str(value) for value in arrays["ids"].reshape(-1)]
        if len(ids) != rows:
            raise UserError(f"{path}: {len(ids)} ids for {rows} rows of windows")
        return ids, [""] * rows
    if queries is None or len(queries) != rows:
        found = "unknown" if queries is None else len(queries)
        raise UserError(f"{path}: {rows} rows without array ids, but the number of queries is {found}")
    return [query.id for query in queries], [query.video for query in queries]


# ---------------------------------------------------------------------------------------------- Ego4D


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
    _raise_first(_ego4d_problems(content, queries), path)
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
        problems += _id_problems(prediction.query, seen, clips, where)
        if not isinstance(entry["query_idx"], int) or isinstance(entry["query_idx"], bool):
            problems.append(f"{where}: query_idx must be an integer, found {entry['query_idx']!r}")
        if prediction.query in clips and prediction.video != clips[prediction.query]:
            problems.append(f"{where}: clip_uid is {prediction.video}, expected {clips[prediction.query]}")
        problems += _window_problems(prediction.moments, where)
    return problems + _missing(seen, clips)


# --------------------------------------------------------------------------------------- QVHighlights


def write_qvhighlights(path: str | Path, predictions: Iterable[Prediction], queries: Sequence[Query]) -> None:
    """Writes and checks a submission for the QVHighlights server (JSON lines), atomically.

    Windows are sorted by score, because the server's recall trusts the order and its precision the score; of
    equal scores the given order stays. Sentence and video are those of the query. Lists of highlight scores are
    cut, or padded with 0, to the number of clips, which is what the server does to them; a log line counts them.

    Args:
        path: JSON-lines file to write.
        predictions: With or without `saliency`, one value per two-second clip.
        queries: All queries of the split, with decimal numbers as ids.

    Raises:
        UserError: if the file would not pass `check_qvhighlights`; nothing is written.
    """
    known = {query.id: query for query in queries}
    rows: list[dict[str, Any]] = []
    refitted = 0
    for prediction in predictions:
        order = np.argsort(-prediction.scores, kind="stable")
        query = known.get(prediction.query)
        row: dict[str, Any] = {
            "qid": encode_id(prediction.query),
            "query": query.text if query else prediction.text,
            "vid": query.video if query else prediction.video,
            "pred_relevant_windows": np.column_stack([prediction.moments, prediction.scores])[order].tolist(),
        }
        if prediction.saliency is not None:
            saliency = prediction.saliency if query is None else _fitted(prediction.saliency, query)
            refitted += len(saliency) != len(prediction.saliency)
            row["pred_saliency_scores"] = saliency.tolist()
        rows.append(row)
    _raise_first(_qvhighlights_problems(enumerate(rows, 1), queries), path)
    if refitted:
        logger.info(
            "%s: %d of %d lists of highlight scores were cut or padded with 0 to the number of clips, as the "
            "server does",
            *(path, refitted, len(rows)),
        )
    write_json_lines(path, rows)


def _fitted(saliency: NDArray[np.float64], query: Query) -> NDArray[np.float64]:
    """Highlight scores, one per clip: cut at the end, or padded with 0."""
    clips = highlight_clips(query.duration)
    return np.pad(saliency[:clips], (0, max(0, clips - len(saliency))))


def check_qvhighlights(path: str | Path, queries: Sequence[Query]) -> list[str]:
    """What the QVHighlights server would refuse or count against the system, one line each.

    The official program demands exactly the queries of the split and breaks on an empty list of windows.
    Score lists are cut or padded by it, so that another length is listed as a problem here.

    Raises:
        UserError: if a line is not a JSON object.
    """
    return _qvhighlights_problems(read_json_lines(path), queries)


def _qvhighlights_problems(rows: Iterable[tuple[int, dict[str, Any]]], queries: Sequence[Query]) -> list[str]:
    known = {query.id: query for query in queries}
    videos = {query.id: query.video for query in queries}
    seen: set[str] = set()
    problems: list[str] = []
    with_saliency = 0
    for number, row in rows:
        identifier = decode_id(row.get("qid"))
        where = f"line {number} (qid {identifier})"
        problems += _id_problems(identifier, seen, videos, where)
        if not isinstance(row.get("qid"), int):
            problems.append(f"{where}: qid must be an integer, found {row.get('qid')!r}")
        if identifier in videos and row.get("vid") != videos[identifier]:
            problems.append(f"{where}: vid is {row.get('vid')!r}, expected {videos[identifier]!r}")
        problems += _scored_window_problems(row.get("pred_relevant_windows"), where)
        if "pred_saliency_scores" in row:
            with_saliency += 1
            problems += _saliency_problems(row["pred_saliency_scores"], known.get(identifier), where)
    if 0 < with_saliency < len(seen):
        problems.append(f"{len(seen) - with_saliency} of {len(seen)} lines have no pred_saliency_scores")
    return problems + _missing(seen, videos)


def _scored_window_problems(windows: Any, where: str) -> list[str]:
    try:
        array = np.array(windows, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.zeros(0)
    if array.ndim != 2 or array.shape[1] != 3 or not len(array):
        return [f"{where}: pred_relevant_windows must be a list of [start, end, score], with one at least"]
    if not np.isfinite(array).all():
        return [f"{where}: pred_relevant_windows holds a value that is not finite"]
    problems = _window_problems(array[:, :2], where)
    if (np.diff(array[:, 2]) > 0).any():
        problems.append(f"{where}: scores are not descending (recall trusts the order, precision the score)")
    return problems


def _saliency_problems(saliency: Any, query: Query | None, where: str) -> list[str]:
    numbers = isinstance(saliency, list) and all(
        # a comparison, because an integer may be too large to become a float
        isinstance(value, int | float) and -sys.float_info.max <= value <= sys.float_info.max
        for value in saliency
    )
    if not numbers:
        return [f"{where}: pred_saliency_scores must be a list of finite numbers"]
    clips = None if query is None else highlight_clips(query.duration)
    if clips is not None and len(saliency) != clips:
        return [f"{where}: {len(saliency)} pred_saliency_scores for {clips} clips"]
    return []


# --------------------------------------------------------------------------------------------- shared


def _id_problems(identifier: str, seen: set[str], known: dict[str, str], where: str) -> list[str]:
    problems = []
    if identifier in seen:
        problems.append(f"{where}: the query occurs twice")
    elif identifier not in known:
        problems.append(f"{where}: the split has no such query")
    seen.add(identifier)
    return problems


def _window_problems(moments: NDArray[np.float64], where: str) -> list[str]:
    if not len(moments):
        return [f"{where}: no window"]
    wrong = np.flatnonzero(~(moments[:, 0] < moments[:, 1]))
    if not len(wrong):
        return []
    start, end = moments[wrong[0]]
    return [f"{where}: window {wrong[0]} does not start before it ends ({start:g} to {end:g})"]


def _missing(seen: set[str], known: dict[str, str]) -> list[str]:
    missing = [identifier for identifier in known if identifier not in seen]
    return [f"{len(missing)} of {len(known)} queries are missing (first: {missing[0]})"] if missing else []


def _raise_first(problems: Sequence[str], path: str | Path) -> None:
    if problems:
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise UserError(f"{path} not written: {problems[0]}{more}")
