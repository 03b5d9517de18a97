"""Submissions to the servers of Ego4D and QVHighlights, checked and written."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, listed, quoted
from vmr_common.io import write_json_lines, write_text
from vmr_common.timeline import highlight_clips
from vmr_common.types import Prediction, Query, prediction_row

logger = logging.getLogger(__name__)
EGO4D_VERSION, EGO4D_CHALLENGE = "1.0", "ego4d_nlq_challenge"
_NOTHING = np.zeros((0, 2))


def write_ego4d(
    path: str | Path, predictions: Iterable[Prediction], queries: Sequence[Query], *, fill: bool = False
) -> list[str]:
    """Writes a submission for the Ego4D natural-language-query server, atomically; returns remarks on it.

    Predictions have ids ``<annotation_uid>_<query_idx>`` and seconds in the clip, best first; `queries` are all of the
    split, and their video is the clip. Windows that do not start before they end are written, and counted in a remark:
    the official program gives them an overlap of 0. Raises `UserError` for whatever it refuses, or leaves out of its
    mean without a word: unknown ids, ids of another form, and queries without a window, unless `fill` answers these by
    ``[0, 0]``, a miss.
    """
    found, remarks = _submittable(path, predictions, queries, _EGO4D_ID, fill)
    results = []
    for prediction, query in found:
        annotation, _, index = query.id.rpartition("_")
        about = {"clip_uid": query.video, "annotation_uid": annotation, "query_idx": int(index)}
        results.append({**about, "predicted_times": prediction.moments.tolist()})
    content = {"version": EGO4D_VERSION, "challenge": EGO4D_CHALLENGE, "results": results}
    write_text(path, json.dumps(content, allow_nan=False))
    return remarks


# --- QVHighlights ---


def write_qvhighlights(
    path: str | Path, predictions: Iterable[Prediction], queries: Sequence[Query], *, fill: bool = False
) -> list[str]:
    """Writes a submission for the QVHighlights server (JSON lines), atomically; returns remarks on it.

    Windows are sorted by score, because the server's recall trusts the order and its precision the score; of equal
    scores the given order stays. Sentence and video are those of the query. Lists of highlight scores (`saliency`,
    one value per two-second clip) are cut, or padded with 0, to the number of clips, which is what the server does to
    them, and counted in a remark; scores without any window make a submission of highlights alone. `queries` are all
    of the split, with decimal numbers as ids. Windows, `fill` and errors are as in `write_ego4d`; the server also
    refuses highlight scores that only some queries have (`fill` adds scores of 0).
    """
    found, remarks = _submittable(path, predictions, queries, _QVHIGHLIGHTS_ID, fill, highlights=True)
    windows = any(len(one.moments) for one, _ in found)
    rows: list[dict[str, Any]] = []
    refitted = 0
    for prediction, query in found:
        row = prediction_row(prediction) | {"query": query.text, "vid": query.video}
        row.pop("presence", None)  # no key of the server's
        row["pred_relevant_windows"].sort(key=lambda window: -window[2])
        if not windows:
            del row["pred_relevant_windows"]
        if prediction.saliency is not None:
            row["pred_saliency_scores"] = _fitted(prediction.saliency, query).tolist()
            refitted += len(row["pred_saliency_scores"]) != len(prediction.saliency)
        rows.append(row)
    if not windows:
        remarks.append("highlight scores alone, for no prediction has a window")
    if refitted:
        remarks.append(
            f"{refitted:,} of {len(rows):,} lists of highlight scores cut or padded with 0 to the number of clips, as "
            "the server does"
        )
    write_json_lines(path, rows)
    return remarks


def _fitted(saliency: NDArray[np.float64], query: Query) -> NDArray[np.float64]:
    """Highlight scores, one per clip: cut at the end, or padded with 0."""
    clips = highlight_clips(query.duration)
    return np.pad(saliency[:clips], (0, max(0, clips - len(saliency))))


# --- what any server refuses ---

_EGO4D_ID = re.compile(r".+_(0|[1-9]\d{0,17})"), "<annotation_uid>_<query_idx>"
_QVHIGHLIGHTS_ID = re.compile(r"0|[1-9]\d{0,17}"), "a decimal number"
_MOST_LISTED = 100


def _submittable(
    path: str | Path,
    predictions: Iterable[Prediction],
    queries: Sequence[Query],
    form: tuple[re.Pattern[str], str],
    fill: bool,
    *,
    highlights: bool = False,
) -> tuple[list[tuple[Prediction, Query]], list[str]]:
    """A prediction for every query in the order of the split, and remarks on what the server scores as nothing.

    Raises `UserError` that counts all that the server refuses, by kind; log lines before it list what a line cannot.
    """
    known, found = {query.id: query for query in queries}, {one.query: one for one in predictions}
    scored = highlights and any(one.saliency is not None for one in found.values())
    needed = not scored or any(len(one.moments) for one in found.values())
    empty = [name for name in known if needed and (name not in found or not len(found[name].moments))]
    silent = [name for name in known if scored and (name not in found or found[name].saliency is None)]
    unknown = [name for name in found if name not in known]
    misnamed = [name for name in known if not form[0].fullmatch(name)]
    refused = [
        (
            unknown,
            f"of {len(found):,} predictions are for no query of the split",
            "--ignore-unknown skips them",
        ),
        (misnamed, f"of {len(known):,} query ids are not {form[1]}", "the only ids that the server knows"),
        (empty, f"of {len(known):,} queries have no window", "--fill-missing answers by [0, 0], a miss"),
        (silent, f"of {len(known):,} queries have no highlight scores", "--fill-missing gives scores of 0"),
    ]
    problems = []
    for names, what, remedy in refused[:2] if fill else refused:
        texts = list(map(quoted, names))
        if len(names) > 3:
            logger.warning("%s: %d %s: %s", path, len(names), what, listed(texts, _MOST_LISTED))
        if names:
            problems.append(f"{len(names):,} {what} ({listed(texts, 3)}; {remedy})")
    if problems:
        raise UserError(f"{path} not written: {', '.join(problems)}")
    submitted, flat, unanswered, unscored = [], 0, set(empty), set(silent)
    for query in queries:
        one = found.get(query.id) or Prediction(
            query=query.id, video="", moments=_NOTHING, scores=_NOTHING[:, 0]
        )
        numbers = (one.moments, one.scores, _NOTHING if one.saliency is None else one.saliency)
        if not all(np.isfinite(array).all() for array in numbers):
            raise UserError(f"{path} not written: query {quoted(query.id)} holds a number that is not finite")
        flat += int((one.moments[:, 0] >= one.moments[:, 1]).sum())
        if query.id in unanswered:
            one = replace(one, moments=np.zeros((1, 2)), scores=np.zeros(1))
        if query.id in unscored:
            one = replace(one, saliency=np.zeros(highlight_clips(query.duration)))
        submitted.append((one, query))
    remarks = [
        (len(empty), "without a window, answered by [0, 0], a miss"),
        (len(silent), "without highlight scores, given scores of 0"),
        (
            flat,
            "window that does not start before it ends: the server gives it an overlap of 0"
            if flat == 1
            else "windows that do not start before they end: the server gives them an overlap of 0",
        ),
    ]
    return submitted, [f"{count:,} {what}" for count, what in remarks if count]
