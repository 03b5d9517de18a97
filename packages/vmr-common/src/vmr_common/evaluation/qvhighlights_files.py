"""Submissions to the QVHighlights server: written and checked (they are read like our own JSON lines)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, quoted, shortened
from vmr_common.evaluation.problems import id_problems, missing_queries, raise_first, window_problems
from vmr_common.io import read_json_lines, write_json_lines
from vmr_common.timeline import highlight_clips
from vmr_common.types import Prediction, Query, encode_id
from vmr_common.values import number_rows, numbers, shown

logger = logging.getLogger(__name__)


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
    raise_first(_qvhighlights_problems(enumerate(rows, 1), queries), path)
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
        identifier = str(row.get("qid"))
        where = f"line {number} (qid {shortened(identifier)})"
        problems += id_problems(identifier, seen, videos, where)
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
    return problems + missing_queries(seen, videos)


def _scored_window_problems(windows: Any, where: str) -> list[str]:
    try:
        array = number_rows(windows, ("start", "end", "score"), where, "pred_relevant_windows")
    except UserError as error:
        return [str(error)]
    problems = window_problems(array[:, :2], where)
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
