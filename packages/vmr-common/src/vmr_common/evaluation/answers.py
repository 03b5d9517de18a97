"""Answers of video language models: windows or text by query in one JSON text, and the samples of lmms-eval."""

from __future__ import annotations

import logging
import re
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from vmr_common.errors import UserError, quoted
from vmr_common.types import Prediction, Query, ranked_windows, require_video
from vmr_common.values import field_of, identifier, listed, object_of, sentence, shown

logger = logging.getLogger(__name__)
IDS = ("qid", "query_id", "question_id", "id")
VIDEOS = ("vid", "video", "video_id")
SENTENCES = ("caption", "query", "sentence", "question")
WINDOWS = ("pred_relevant_windows", "windows", "moments", "spans", "timestamps", "timestamp")
TEXTS = ("answer", "response", "prediction", "output")
ENDINGS = (".mp4", ".avi", ".mkv", ".webm")

_TIME = r"(?<![\d.:])(?:\d{1,2}:)?(?:\d{1,2}:\d\d|\d{1,9})(?:\.\d{1,9})?(?![\d:]|\.\d)"
_UNIT = r"\s{0,2}(?:s|secs?|seconds?)\b"
_TO = r"\s{0,2}(?:-|–|—|~|to|until|till)\s{0,2}"  # noqa: RUF001 - the dashes that models write
_RANGE = re.compile(
    rf"(from\s|between\s|\[)?\s{{0,2}}({_TIME})({_UNIT})?(?:{_TO}|(?<=\d)\s{{0,2}},\s{{0,2}}|\s{{0,2}}and\s{{0,2}})"
    rf"({_TIME})({_UNIT})?",
    re.IGNORECASE,
)
_SINGLE = re.compile(rf"({_TIME})({_UNIT})?", re.IGNORECASE)


def windows_in(text: str) -> list[list[float]]:
    """The windows that a text names, in its order, seconds; clock times may be ``mm:ss`` or ``hh:mm:ss``.

    Ranges that are surely times (with a unit, a clock, a decimal point, a word such as *from*) outweigh others. Without
    any range, two times with a unit or by the clock are a start and an end.

    Example:
        >>> windows_in("It happens from 12.5 to 20 seconds, and 2 - 3 people watch.")
        [[12.5, 20.0]]
        >>> windows_in("00:12 - 01:20"), windows_in("Start time: 0.8 s. End time: 4 s."), windows_in("never")
        ([[12.0, 80.0]], [[0.8, 4.0]], [])
    """
    ranges = []
    for word, start, first, end, second in _RANGE.findall(text):
        sure = bool(word or first or second or re.search("[.:]", start + end))
        ranges.append((sure, [_seconds(start), _seconds(end)]))
    if ranges:
        surely = [window for sure, window in ranges if sure]
        return surely or [window for _, window in ranges]
    times = [_seconds(time) for time, unit in _SINGLE.findall(text) if unit or ":" in time]
    return [times] if len(times) == 2 else []


def _seconds(time: str) -> float:
    total = 0.0
    for part in time.split(":"):
        total = 60 * total + float(part)
    return total


def answers_of(path: str, document: Any, queries: Iterable[Query]) -> list[Prediction]:
    """The predictions of one JSON text: answers by query id, or a list of objects with an id and an answer each.

    An answer is text, ``[start, end]``, a list of such windows (with or without a score; without, they are ranked as
    listed), or an object with one of `WINDOWS` or `TEXTS`. An id ``video>>>sentence>>>...`` (lmms-eval) is the query
    about them. Raises `UserError` naming file and record for whatever is something else, or a query that occurs twice.
    """
    if isinstance(document, dict):
        entries: Iterable[tuple[str, Any, Any]] = (
            (f"{path}: {shown(key)}", key, document[key]) for key in document
        )
    elif isinstance(document, list):
        entries = _listed(path, document)
    else:
        raise UserError(f"{path}: expected answers by query id, found {shown(document)}")
    return _predictions(path, entries, list(queries))


def is_record(row: Mapping[str, Any]) -> bool:
    """True for a line of JSON lines that holds an id and an answer, and is no prediction of ours."""
    keys = row.keys()
    return bool(keys & set(IDS) and keys & {*WINDOWS[1:], *TEXTS} and WINDOWS[0] not in keys)


def _listed(path: str, rows: Sequence[Any]) -> Iterator[tuple[str, Any, Any]]:
    for number, row in enumerate(rows):
        where = f"{path}: record {number}"
        name = _one(object_of(row, where), IDS, where)
        yield where, row[name], row


def samples_of(
    path: str, rows: Iterable[tuple[int, Mapping[str, Any]]], queries: Sequence[Query]
) -> list[Prediction]:
    """The predictions of lmms-eval's samples (``--log_samples``) of a temporal grounding task.

    A sample is about the query with the video and sentence of its `doc` or `submission`, else about query number
    `doc_id` of the split. Raises `UserError` naming file, line and key for whatever is something else.
    """

    def entries() -> Iterator[tuple[str, Any, Any]]:
        for number, row in rows:
            where = f"{path}:{number}"
            answer = row["filtered_resps"] if "filtered_resps" in row else field_of(row, "resps", where)
            while isinstance(answer, list) and len(answer) == 1:
                answer = answer[0]
            yield where, _subject(row, queries, where), sentence(answer, where, "filtered_resps")

    return _predictions(path, entries(), queries)


def _subject(row: Mapping[str, Any], queries: Sequence[Query], where: str) -> str:
    """Whom a sample is about: ``video>>>sentence``, or the id of a query."""
    doc = row.get("doc")
    if isinstance(doc, dict) and set(doc) & set(VIDEOS) and set(doc) & set(SENTENCES):
        return ">>>".join(str(doc[_one(doc, names, where)]) for names in (VIDEOS, SENTENCES))
    submitted = row.get("submission")
    if isinstance(submitted, dict) and len(submitted) == 1 and ">>>" in next(iter(submitted)):
        return str(next(iter(submitted)))
    number = field_of(row, "doc_id", where)
    if type(number) is not int or not 0 <= number < len(queries):
        raise UserError(
            f"{where}: doc_id must be a number below {len(queries)}, the queries of the split, found {shown(number)}"
        )
    return queries[number].id


def _predictions(
    path: str, entries: Iterable[tuple[str, Any, Any]], queries: Sequence[Query]
) -> list[Prediction]:
    known, about = {query.id: query for query in queries}, _by_sentence(queries)
    found: dict[str, Prediction] = {}
    silent = 0
    for where, key, value in entries:
        name = identifier(key, where, "the query id")
        query = about(name, where) if ">>>" in name and name not in known else known.get(name)
        name = name if query is None else query.id
        if name in found:
            raise UserError(f"{where}: query {quoted(name)} occurs twice")
        if query is not None and isinstance(value, dict) and set(value) & set(VIDEOS):
            video = identifier(value[_one(value, VIDEOS, where)], where, "the video")
            if _stem(video) != _stem(query.video):
                require_video(name, video, query.video, where)
        moments, scores = _windows(value, where)
        silent += not len(moments)
        found[name] = Prediction(
            query=name, video=query.video if query else "", moments=moments, scores=scores
        )
    if silent:
        logger.info("%s: %d of %d answers name no window", path, silent, len(found))
    return list(found.values())


def _windows(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        value = value[_one(value, (*WINDOWS, *TEXTS), where)]
    if isinstance(value, str):
        value = windows_in(sentence(value, where, "the answer"))
    elif isinstance(value, list) and len(value) == 2 and not any(isinstance(item, list) for item in value):
        value = [value]
    if not isinstance(value, list):
        raise UserError(f"{where}: expected text, [start, end] or a list of windows, found {shown(value)}")
    return ranked_windows(value, where, "the answer")


def _one(row: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    """The one of some keys that an object has."""
    there = [name for name in names if name in row]
    if len(there) != 1:
        raise UserError(
            f"{where}: expected exactly one of the keys {', '.join(names)} (found: {listed(row)})"
        )
    return there[0]


def _by_sentence(queries: Iterable[Query]) -> Callable[[str, str], Query]:
    """Function from ``video>>>sentence...`` to the query about them; of several the next one each time."""
    left: dict[tuple[str, str], deque[Query]] = defaultdict(deque)
    for query in queries:
        left[_stem(query.video), _plain(query.text)].append(query)

    def about(name: str, where: str) -> Query:
        video, text = name.split(">>>")[:2]
        waiting = left.get((_stem(video), _plain(text)))
        if not waiting:
            raise UserError(
                f"{where}: the split has no (further) query {quoted(text)} about video {quoted(video)}"
            )
        return waiting.popleft()

    return about


def _stem(video: str) -> str:
    name = video.rpartition("/")[2]
    return next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), name)


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(". ")
