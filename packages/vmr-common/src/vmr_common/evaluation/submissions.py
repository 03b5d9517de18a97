"""Prediction files of any known layout, read; submissions to the servers of Ego4D and QVHighlights, written."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, quoted, shortened
from vmr_common.evaluation import answers
from vmr_common.features.npz import Archive
from vmr_common.features.npz import shown as shown_names
from vmr_common.io import read_json, read_json_lines, write_json_lines, write_text
from vmr_common.text_input import opened
from vmr_common.timeline import highlight_clips
from vmr_common.types import (
    Prediction,
    Query,
    encode_id,
    prediction_row,
    predictions_of,
    rank_scores,
    require_video,
)
from vmr_common.values import identifier, list_of, number_rows, numbers, object_of, shown

logger = logging.getLogger(__name__)
_WINDOW_ARRAYS = {"moments": 1.0, "pred": 1.0, "pred_cs": 100.0, "pred_e4": 10000.0}
_SCORE_ARRAYS = {"scores": 1.0, "score_e4": 10000.0}
_LENGTHS = "NK"


def read_any(path: str | Path, queries: Sequence[Query] | None = None) -> list[Prediction]:
    """Reads a prediction file of any known layout, recognised by its name and content.

    It is ``.npz`` (see `read_npz`), an Ego4D submission, JSON lines or a list of such objects, samples of lmms-eval, or
    answers by query id (see `answers`); text may be gzipped (``.gz``). ``.npz`` without ids needs the `queries`; a
    prediction that names another video than its query does is refused. Raises `UserError` if the file cannot be read
    or is none of these; names file, line and key.
    """
    if Path(path).suffix == ".npz":
        return read_npz(path, queries)
    with opened(path) as source:
        row = source.first_value() if source.first[:1] in ("{", "[") else {"qid": None}
        if isinstance(row, dict) and "doc_id" in row:
            return answers.samples_of(str(path), source.rows(), queries or ())
        if isinstance(row, dict) and answers.is_record(row):
            records = [one for _, one in source.rows()]
            return answers.answers_of(str(path), records, queries or ())
        if isinstance(row, dict) and row.keys() & {"qid", "vid", "pred_relevant_windows"}:
            return predictions_of(str(path), source.rows(), queries or ())
        content = source.document()  # of several lines, or of one
        if isinstance(content, dict) and "results" in content:
            return _ego4d_entries(str(path), content, queries or ())
        first = content[0] if isinstance(content, list) and content else None
        if isinstance(first, dict) and "pred_relevant_windows" in first:
            rows = (object_of(one, f"{path}: record {number}") for number, one in enumerate(content, 1))
            return predictions_of(str(path), enumerate(rows, 1), queries or ())
        return answers.answers_of(str(path), content, queries or ())


def read_npz(path: str | Path, queries: Sequence[Query] | None = None) -> list[Prediction]:
    """Reads windows from arrays.

    The archive holds ``moments`` (or ``pred``) ``(N, K, 2)`` in seconds, or ``pred_cs`` / ``pred_e4`` in hundredths /
    ten-thousandths of a second, best first; optionally ``scores`` (or ``score_e4``) ``(N, K)``; optionally ``ids``
    ``(N,)``, text or whole numbers. Without ids, row n belongs to query n of the split. Raises `UserError` if the
    archive cannot be read (pickled arrays are refused, and arrays far larger than the file), an array is missing, there
    in two units, of another shape or of another type than whole or floating-point numbers, a number is not finite, an
    id occurs twice, or there are neither ids nor as many queries as rows.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file")
    with Archive(path, str(path), ": not a readable .npz archive") as archive:
        name = _only(archive, _WINDOW_ARRAYS)
        if name is None:
            expected = ", ".join(_WINDOW_ARRAYS)
            raise UserError(
                f"{path}: no windows; expected one of {expected}, found {shown_names(archive.names)}"
            )
        moments = _numbers(archive, name, _WINDOW_ARRAYS[name], (None, None, 2))
        name = _only(archive, _SCORE_ARRAYS)
        if name is None:
            scores = np.broadcast_to(rank_scores(moments.shape[1]), moments.shape[:2])
        else:
            scores = _numbers(archive, name, _SCORE_ARRAYS[name], moments.shape[:2])
        ids = _ids(archive, len(moments)) if "ids" in archive else None
    if ids is None:
        if queries is None or len(queries) != len(moments):
            count = "unknown" if queries is None else len(queries)
            raise UserError(
                f"{path}: {len(moments)} rows without array ids, but the number of queries is {count}"
            )
        named = [(query.id, query.video) for query in queries]
    else:
        named = [(name, "") for name in ids]
    return [
        Prediction(query=name, video=video, moments=windows, scores=values)
        for (name, video), windows, values in zip(named, moments, scores, strict=True)
    ]


def _only(archive: Archive, known: Iterable[str]) -> str | None:
    """The first of some names that an archive has, None for none of them."""
    names = [name for name in known if name in archive]
    if len(names) > 1:
        raise UserError(f"{archive.where}: holds both {' and '.join(names)}, expected one of them")
    return names[0] if names else None


def _numbers(archive: Archive, name: str, unit: float, shape: Sequence[int | None]) -> NDArray[np.float64]:
    """An array of finite numbers in float64, divided by its unit; in its shape None stands for any length."""
    found, dtype = archive.layout(name)
    if dtype.kind not in "iuf":
        raise UserError(
            f"{archive.where}: array {name} holds {dtype}, expected whole or floating-point numbers"
        )
    if len(found) != len(shape) or any(
        want not in (None, have) for have, want in zip(found, shape, strict=True)
    ):
        wanted = ", ".join(_LENGTHS[place] if want is None else str(want) for place, want in enumerate(shape))
        raise UserError(f"{archive.where}: array {name} must have shape ({wanted}), found {found}")
    values = archive.read(name).astype(np.float64)
    values /= unit
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0, 0])
        raise UserError(f"{archive.where}: array {name} holds a number that is not finite in row {row}")
    values.setflags(write=False)
    return values


def _ids(archive: Archive, rows: int) -> list[str]:
    """The query ids, one per row, each once."""
    shape, dtype = archive.layout("ids")
    if dtype.kind not in "iuU":
        raise UserError(f"{archive.where}: array ids holds {dtype}, expected text or whole numbers")
    if shape != (rows,):
        raise UserError(
            f"{archive.where}: array ids must have shape ({rows},), one per row of windows, found {shape}"
        )
    first: dict[str, int] = {}
    for row, value in enumerate(archive.read("ids").tolist()):
        name = identifier(value, archive.where, f"ids[{row}]")
        if first.setdefault(name, row) != row:
            raise UserError(f"{archive.where}: id {quoted(name)} occurs twice (rows {first[name]} and {row})")
    return list(first)


# --- Ego4D ---

EGO4D_VERSION, EGO4D_CHALLENGE = "1.0", "ego4d_nlq_challenge"


def _ego4d_entries(path: str, content: Any, queries: Iterable[Query]) -> list[Prediction]:
    """The predictions of a submission to the Ego4D natural-language-query challenge.

    Query ids are ``<annotation_uid>_<query_idx>``; the video is the clip, and an entry that names another clip than its
    query does is refused; times are seconds in the clip; columns after start and end are ignored; scores only say the
    order.
    """
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

    Predictions have ids ``<annotation_uid>_<query_idx>`` and seconds in the clip, best first; `queries` are all of the
    split, and their video is the clip.
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
    _raise_first(_ego4d_problems(content, queries), path)
    write_text(path, json.dumps(content, allow_nan=False))


def check_ego4d(path: str | Path, queries: Sequence[Query]) -> list[str]:
    """Problems that the Ego4D server would refuse or count against the system, one line each.

    Missing queries are listed because the official program leaves them out of its mean without a word.
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
        problems += _id_problems(prediction.query, seen, clips, where)
        if prediction.query in clips and prediction.video != clips[prediction.query]:
            problems.append(
                f"{where}: clip_uid is {quoted(prediction.video)}, expected {quoted(clips[prediction.query])}"
            )
        problems += _window_problems(prediction.moments, where)
    return problems + _missing_queries(seen, clips)


# --- QVHighlights ---


def write_qvhighlights(path: str | Path, predictions: Iterable[Prediction], queries: Sequence[Query]) -> None:
    """Writes and checks a submission for the QVHighlights server (JSON lines), atomically.

    Windows are sorted by score, because the server's recall trusts the order and its precision the score; of equal
    scores the given order stays. Sentence and video are those of the query. Lists of highlight scores (`saliency`,
    one value per two-second clip) are cut, or padded with 0, to the number of clips, which is what the server does to
    them; a log line counts them. `queries` are all of the split, with decimal numbers as ids.
    """
    known = {query.id: query for query in queries}
    rows: list[dict[str, Any]] = []
    refitted = 0
    for prediction in predictions:
        query, row = known.get(prediction.query), prediction_row(prediction)
        row.pop("presence", None)  # no key of the server's
        row["pred_relevant_windows"].sort(key=lambda window: -window[2])
        if query is not None:
            row |= {"query": query.text, "vid": query.video}
            if prediction.saliency is not None:
                row["pred_saliency_scores"] = _fitted(prediction.saliency, query).tolist()
                refitted += len(row["pred_saliency_scores"]) != len(prediction.saliency)
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
    """Problems that the QVHighlights server would refuse or count against the system, one line each.

    The official program demands exactly the queries of the split and breaks on an empty list of windows.
    Score lists are cut or padded by it, so that another length is listed as a problem here.
    """
    return _qvhighlights_problems(read_json_lines(path), queries)


def _qvhighlights_problems(rows: Iterable[tuple[int, dict[str, Any]]], queries: Sequence[Query]) -> list[str]:
    known = {query.id: query for query in queries}
    videos = {query.id: query.video for query in queries}
    seen: set[str] = set()
    problems: list[str] = []
    with_saliency = 0
    for number, row in rows:
        identifier = str(row.get("qid"))
        where = f"line {number} (qid {shortened(identifier)})"
        problems += _id_problems(identifier, seen, videos, where)
        if type(row.get("qid")) is not int:
            problems.append(f"{where}: qid must be an integer, found {shown(row.get('qid'))}")
        if identifier in videos and row.get("vid") != videos[identifier]:
            problems.append(f"{where}: vid is {shown(row.get('vid'))}, expected {quoted(videos[identifier])}")
        problems += _scored_window_problems(row.get("pred_relevant_windows"), where)
        if "pred_saliency_scores" in row:
            with_saliency += 1
            problems += _saliency_problems(row["pred_saliency_scores"], known.get(identifier), where)
    if 0 < with_saliency < len(seen):
        problems.append(f"{len(seen) - with_saliency} of {len(seen)} lines have no pred_saliency_scores")
    return problems + _missing_queries(seen, videos)


def _scored_window_problems(windows: Any, where: str) -> list[str]:
    try:
        array = number_rows(windows, ("start", "end", "score"), where, "pred_relevant_windows")
    except UserError as error:
        return [str(error)]
    problems = _window_problems(array[:, :2], where)
    if (np.diff(array[:, 2]) > 0).any():
        problems.append(f"{where}: scores are not descending (recall trusts the order, precision the score)")
    return problems


def _saliency_problems(saliency: Any, query: Query | None, where: str) -> list[str]:
    try:
        values = numbers(saliency, where, "pred_saliency_scores")
    except UserError as error:
        return [str(error)]
    clips = None if query is None else highlight_clips(query.duration)
    if clips is not None and len(values) != clips:
        return [f"{where}: {len(values)} pred_saliency_scores for {clips} clips"]
    return []


# --- problems that any server refuses ---


def _id_problems(identifier: str, seen: set[str], known: dict[str, str], where: str) -> list[str]:
    """Problems with the id of an entry, which is then among those `seen`; `known`: videos by query id."""
    problems = []
    if identifier in seen:
        problems.append(f"{where}: the query occurs twice")
    elif identifier not in known:
        problems.append(f"{where}: the split has no such query")
    seen.add(identifier)
    return problems


def _window_problems(moments: NDArray[np.float64], where: str) -> list[str]:
    """Problems of windows ``(K, 2)``: none, or one that does not start before it ends."""
    if not len(moments):
        return [f"{where}: no window"]
    wrong = np.flatnonzero(~(moments[:, 0] < moments[:, 1]))
    if not len(wrong):
        return []
    start, end = moments[wrong[0]]
    return [f"{where}: window {wrong[0]} does not start before it ends ({start:g} to {end:g})"]


def _missing_queries(seen: set[str], known: dict[str, str]) -> list[str]:
    """One line about the queries that no entry is for, if there are any."""
    missing = [identifier for identifier in known if identifier not in seen]
    return [f"{len(missing)} of {len(known)} queries are missing (first: {missing[0]})"] if missing else []


def _raise_first(problems: Sequence[str], path: str | Path) -> None:
    """Raises `UserError` with the first problem, if there is one."""
    if problems:
        more = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise UserError(f"{path} not written: {problems[0]}{more}")
