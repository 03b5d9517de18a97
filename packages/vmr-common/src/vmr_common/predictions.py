"""Predictions read from objects that any system wrote: names of keys, forms of windows, the queries they are about."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, quoted, some_of
from vmr_common.io import read_json_lines
from vmr_common.types import Prediction, Query, rank_scores
from vmr_common.values import (
    identifier,
    list_of,
    number_rows,
    numbers,
    sentence,
    shown,
    video_stem,
)

IDS = ("qid", "query_id", "question_id", "annotation_id", "id")
VIDEOS = ("vid", "video_id", "video", "vid_name")
SENTENCES = ("query", "sentence", "caption", "question")
WINDOWS = (
    *("pred_relevant_windows", "windows", "window", "moments", "moment", "spans", "span"),
    *("timestamps", "timestamp", "segments", "segment"),
)
TEXTS = ("answer", "response", "prediction", "pred", "output")
CLIP_SCORES = "pred_saliency_scores"
_ANSWERS = {*WINDOWS, *TEXTS}
STARTS = ("start", "start_time", "begin")
ENDS = ("end", "end_time", "finish")
_SCORES = ("score", "confidence")
_DECIMAL = re.compile(r"-?\d{1,9}(\.\d{1,20})?", re.ASCII)


def read_predictions(path: str | Path, queries: Iterable[Query] = ()) -> list[Prediction]:
    """Reads predictions from JSON lines (ours, or any QVHighlights-style submission, ``.gz`` accepted), in file order.

    Names of keys are those of `IDS`, `VIDEOS`, `SENTENCES` and `WINDOWS`; windows are as in `ranked_windows`; highlight
    scores may come without windows. Raises `UserError` naming file, line and key for an unreadable file, a missing key
    or two that disagree, windows of another form, clip scores that are not a flat list of finite numbers, an id or a
    sentence of another type, a query id that occurs twice, or another video than that of the query in `queries`.

    Example:
        >>> import json, tempfile
        >>> path = Path(tempfile.mkdtemp()) / "theirs.jsonl"
        >>> row = {"qid": 7, "vid": "kitchen", "pred_relevant_windows": [[3, 9, 0.5]]}
        >>> _ = path.write_text(json.dumps(row))
        >>> read_predictions(path)[0].query
        '7'
    """
    known = {query.id: query for query in queries}
    rows = ((f"{path}:{number}", row) for number, row in read_json_lines(path))
    return predictions_of(rows, lambda name, where: known.get(name))


def predictions_of(
    rows: Iterable[tuple[str, Mapping[str, Any]]],
    query_of: Callable[[str, str], Query | None],
    windows_in: Callable[[str], list[list[float]]] | None = None,
) -> list[Prediction]:
    """The predictions of objects, see `read_predictions`.

    Args:
        rows: Their places for messages, and the objects.
        query_of: Function from an id and its place to the query, None where it is not known; the id of an object that
            has none is ``video>>>sentence``.
        windows_in: Function from text to the windows it names; None refuses text.
    """
    found: dict[str, Prediction] = {}
    first: dict[str, str] = {}
    for where, row in rows:
        prediction = _prediction(row, query_of, windows_in, where)
        if prediction.query in found:
            raise UserError(
                f"{where}: query id {quoted(prediction.query)} occurs twice "
                f"(first at {first[prediction.query].rpartition('/')[2]})"
            )
        found[prediction.query], first[prediction.query] = prediction, where
    return list(found.values())


def named(row: Mapping[str, Any], names: Sequence[str], where: str) -> str | None:
    """The one of several names of a key that an object has, or None; two with different values are a `UserError`."""
    there = [name for name in names if name in row]
    if len(there) > 1 and any(row[name] != row[there[0]] for name in there):
        raise UserError(f"{where}: expected one of the keys {', '.join(there)}, found several that differ")
    return there[0] if there else None


def id_key(row: Mapping[str, Any], where: str) -> str | None:
    """The key under which an object has the id of its query, or None."""
    # two ids of a query must agree; what else is called an id may be of something else
    return named(row, IDS[:2], where) or next((name for name in IDS[2:] if name in row), None)


def ranked_windows(value: Any, where: str, key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Moments ``(K, 2)`` and scores ``(K,)`` of a list of windows ``[start, end, score]``, or all ``[start, end]``.

    The latter are ranked as they are listed. A window may be an object with start and end, a number may be decimal
    digits in text, and one ``[start, end]`` needs no list around it. Raises `UserError` as `number_rows`.
    """
    try:
        return _ranked(value, where, key)
    except UserError:
        return _ranked(_plain_windows(value), where, key)


def _ranked(value: Any, where: str, key: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows = list_of(value, where, key)
    if rows and all(isinstance(row, list) and len(row) == 2 for row in rows):
        return number_rows(rows, ("start", "end"), where, key), rank_scores(len(rows))
    windows = number_rows(rows, ("start", "end", "score"), where, key)
    return windows[:, :2], windows[:, 2]


def _plain_windows(value: Any) -> Any:
    """A list of windows whose objects are lists, and whose decimal digits in text are numbers; the rest as it is."""
    flat = (
        isinstance(value, list)
        and len(value) == 2
        and not any(isinstance(item, list | dict) for item in value)
    )
    rows = [value] if flat or is_window(value) else value
    return [_plain_window(row) for row in rows] if isinstance(rows, list) else value


def is_window(value: object) -> bool:
    """True for an object with a start and an end."""
    return isinstance(value, Mapping) and all(value.keys() & set(names) for names in (STARTS, ENDS))


def _plain_window(row: Any) -> Any:
    if is_window(row):
        keys = [name for names in (STARTS, ENDS, _SCORES) for name in names if name in row]
        row = [row[key] for key in keys]
    if not isinstance(row, list):
        return row
    return [float(item) if isinstance(item, str) and _DECIMAL.fullmatch(item) else item for item in row]


def require_video(query: str, found: str, expected: str, where: str) -> None:
    """Raises `UserError`, beginning with `where`, for a prediction that names another video than that of its query.

    A folder before the name, and the ending of a video file, make no difference.
    """
    if found and found != expected and video_stem(found) != video_stem(expected):
        raise UserError(
            f"{where}: the prediction for query {quoted(query)} is about video {quoted(found)}, "
            f"the query is about {quoted(expected)}"
        )


def _prediction(
    row: Mapping[str, Any],
    query_of: Callable[[str, str], Query | None],
    windows_in: Callable[[str], list[list[float]]] | None,
    where: str,
) -> Prediction:
    key = named(row, VIDEOS, where)
    video = "" if key is None or row[key] == "" else identifier(row[key], where, key)
    key = named(row, SENTENCES, where)
    text = "" if key is None else sentence(row[key], where, key)
    key = id_key(row, where)
    if key is None and not (video and text):
        raise UserError(
            f"{where}: expected one of the keys {', '.join(IDS)} (found: {some_of(row)}), or a video and a sentence"
        )
    name = f"{video}>>>{text}" if key is None else identifier(row[key], where, key)
    query = query_of(name, where)
    saliency = None
    if row.get(CLIP_SCORES) is not None:
        saliency = numbers(row[CLIP_SCORES], where, CLIP_SCORES)
    moments, scores = _answer(row, windows_in, where, needed=saliency is None)
    presence = row.get("presence")  # other systems may call anything so
    if isinstance(presence, bool) or not isinstance(presence, int | float) or not 0 <= presence <= 1:
        presence = None
    if query is not None:
        require_video(name, video, query.video, where)
        # the query's own texts serve for both, so that they are held once
        name, video, text = query.id, video and query.video, query.text if text == query.text else text
    return Prediction(
        query=name,
        video=video,
        moments=moments,
        scores=scores,
        text=text,
        saliency=saliency,
        presence=presence,
    )


def _answer(
    row: Mapping[str, Any], windows_in: Callable[[str], list[list[float]]] | None, where: str, *, needed: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Moments and scores of an object, none where it has no such key and they are not `needed`."""
    there = _ANSWERS & row.keys()
    if len(there) > 1 and WINDOWS[0] not in there:
        raise UserError(f"{where}: expected one of the keys {', '.join(sorted(there))}, found {len(there)}")
    if not there and is_window(row):
        return ranked_windows([dict(row)], where, "the window")
    if not there:
        if needed:
            annotated = "; relevant_windows are annotations, not predictions" * ("relevant_windows" in row)
            names = ", ".join((*WINDOWS, *TEXTS))
            raise UserError(f"{where}: expected one of the keys {names} (found: {some_of(row)}){annotated}")
        return ranked_windows([], where, WINDOWS[0])
    key = WINDOWS[0] if WINDOWS[0] in there else next(iter(there))
    value = row[key]
    value = [] if value is None else value
    if key != WINDOWS[0] and windows_in is not None:
        if isinstance(value, str):
            value = windows_in(sentence(value, where, key))
        elif isinstance(value, dict) and (inner := named(value, (*WINDOWS, *TEXTS), where)):
            return _answer({inner: value[inner]}, windows_in, where, needed=True)
        if not isinstance(value, list | dict):
            raise UserError(
                f"{where}: {key} must be text, [start, end] or a list of windows, found {shown(value)}"
            )
    return ranked_windows(value, where, key)
