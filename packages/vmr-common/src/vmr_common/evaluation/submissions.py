"""Prediction files of any known layout, read; submissions to the servers of Ego4D and QVHighlights, written."""

from __future__ import annotations

import itertools
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
from vmr_common.evaluation import answers
from vmr_common.features.npz import Archive
from vmr_common.features.npz import shown as shown_names
from vmr_common.io import write_json_lines, write_text
from vmr_common.predictions import CLIP_SCORES, IDS, TEXTS, VIDEOS, WINDOWS, predictions_of, require_video
from vmr_common.text_input import opened
from vmr_common.timeline import highlight_clips
from vmr_common.types import Prediction, Query, prediction_row, rank_scores
from vmr_common.values import identifier, list_of, number_rows, shown

logger = logging.getLogger(__name__)
_WINDOW_ARRAYS = {"moments": 1.0, "pred": 1.0, "pred_cs": 100.0, "pred_e4": 10000.0}
_SCORE_ARRAYS = {"scores": 1.0, "score_e4": 10000.0}
_LENGTHS = "NK"
_NOTHING = np.zeros((0, 2))


def read_any(path: str | Path, queries: Sequence[Query] | None = None) -> list[Prediction]:
    """Reads a prediction file of any known layout, recognised by its name and content.

    It is ``.npz`` (see `read_npz`), an Ego4D submission, JSON lines or a list of objects (see `read_predictions`, and
    text whose windows are found by `answers.windows_in`), samples of lmms-eval, or answers by query id (`answers`);
    text may be gzipped (``.gz``). ``.npz`` without ids needs the `queries`; a prediction that names another video than
    its query does is refused. Raises `UserError` if the file cannot be read or is none of these; names file, line and
    key.
    """
    if Path(path).suffix == ".npz":
        return read_npz(path, queries)
    known = list(queries or ())
    with opened(path) as source:
        if source.first[:1] not in ("{", "["):
            if not source.first:
                return []
            raise UserError(f"{path}: begins with {quoted(source.first, 40)}; {answers.LAYOUTS}")
        first = source.first_value()
        if isinstance(first, dict) and "doc_id" in first:
            rows = answers.sample_rows(str(path), source.rows(), known)
        elif isinstance(first, dict) and _is_row(first):
            rows = ((f"{path}:{number}", row) for number, row in source.rows())
        else:
            content = source.document()  # of several lines, or of one
            if isinstance(content, dict) and "results" in content:
                return _ego4d_entries(str(path), content, known)
            rows = answers.rows_of(str(path), [content] if _is_row(content) else content, known)
        rows = iter(rows)
        head = next(rows, None)
        rows = rows if head is None else itertools.chain([head], rows)
        found = predictions_of(rows, answers.finder(known), answers.windows_in)
    if head is not None and "duration" in head[1] and _is_truth(found, known):
        raise UserError(
            f"{path}: annotations, not predictions: each window is that of the query; {answers.LAYOUTS}"
        )
    silent = sum(not len(one.moments) and one.saliency is None for one in found)
    alone = sum(not len(one.moments) and one.saliency is not None for one in found)
    backward = sum(int((one.moments[:, 0] > one.moments[:, 1]).sum()) for one in found)
    if silent:
        logger.info("%s: %d of %d predictions have no window", path, silent, len(found))
    if alone:
        logger.info("%s: %d of %d predictions are highlight scores without a window", path, alone, len(found))
    if backward:
        logger.info("%s: windows that end before they start, kept as answered: %d", path, backward)
    return found


def _is_truth(found: Sequence[Prediction], queries: Sequence[Query]) -> bool:
    """True if predictions are the targets of their queries, all of them."""
    truth = {query.id: query.moments for query in queries}
    return all(one.query in truth and np.array_equal(one.moments, truth[one.query]) for one in found)


def _is_row(value: Any) -> bool:
    """True for an object that is one prediction, not answers by query id."""
    names = {*IDS, *VIDEOS, *WINDOWS, *TEXTS, CLIP_SCORES, "relevant_windows"}
    return isinstance(value, dict) and bool(value.keys() & names)


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
        (flat, "windows that do not start before they end: the server gives them an overlap of 0"),
    ]
    return submitted, [f"{count:,} {what}" for count, what in remarks if count]
