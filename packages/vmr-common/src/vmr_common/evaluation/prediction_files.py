"""Prediction files of any known layout, read."""

from __future__ import annotations

import itertools
import logging
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, quoted, some_of
from vmr_common.evaluation.answers import windows_in
from vmr_common.features.npz import Archive
from vmr_common.predictions import (
    CLIP_SCORES,
    ENDS,
    IDS,
    SENTENCES,
    STARTS,
    TEXTS,
    VIDEOS,
    WINDOWS,
    is_window,
    named,
    predictions_of,
)
from vmr_common.text_input import opened
from vmr_common.types import Prediction, Query, rank_scores
from vmr_common.values import field_of, identifier, list_of, number_rows, sentence, shown, video_stem

logger = logging.getLogger(__name__)
LAYOUTS = (
    "read are JSON lines or a list of objects with qid and pred_relevant_windows, answers by query id, samples of "
    "lmms-eval, submissions to Ego4D, and .npz"
)
_WINDOW_ARRAYS = {"moments": 1.0, "pred": 1.0, "pred_cs": 100.0, "pred_e4": 10000.0}
_SCORE_ARRAYS = {"scores": 1.0, "score_e4": 10000.0}
_LENGTHS = "NK"


def read_any(path: str | Path, queries: Sequence[Query] | None = None) -> list[Prediction]:
    """Reads a prediction file of any known layout, recognised by its name and content.

    It is ``.npz`` (see `read_npz`), an Ego4D submission, JSON lines or a list of objects (see `read_predictions`, and
    text whose windows `answers.windows_in` finds), samples of lmms-eval, or answers by query id (see `rows_of`);
    text may be gzipped (``.gz``). ``.npz`` without ids needs the `queries`; a prediction that names another video than
    its query does is refused. Raises `UserError` if the file cannot be read or is none of these; names file, line and
    key.
    """
    found = read_npz(path, queries) if Path(path).suffix == ".npz" else _read_text(path, list(queries or ()))
    silent = sum(not len(one.moments) and one.saliency is None for one in found)
    alone = sum(not len(one.moments) and one.saliency is not None for one in found)
    moments = np.concatenate([one.moments for one in found]) if found else np.zeros((0, 2))
    backward = int((moments[:, 0] > moments[:, 1]).sum())
    if silent:
        logger.info("%s: %d of %d predictions have no window", path, silent, len(found))
    if alone:
        logger.info("%s: %d of %d predictions are highlight scores without a window", path, alone, len(found))
    if backward:
        logger.info("%s: windows that end before they start, kept as answered: %d", path, backward)
    return found


def _read_text(path: str | Path, known: list[Query]) -> list[Prediction]:
    with opened(path) as source:
        if source.first[:1] not in ("{", "["):
            if not source.first:
                return []
            raise UserError(f"{path}: begins with {quoted(source.first, 40)}; {LAYOUTS}")
        first = source.first_value()
        if _is_sample(first):
            rows = sample_rows(str(path), source.rows(), known)
        elif isinstance(first, dict) and _is_row(first):
            rows = ((f"{path}:{number}", row) for number, row in source.rows())
        else:
            content, ego4d = source.document(), False  # of several lines, or of one
            if isinstance(content, dict) and "results" in content:
                content = content["results"]
                listed_rows = isinstance(content, list) and content and _is_row(content[0])
                ego4d = not (listed_rows or isinstance(content, dict))
            if ego4d:
                rows = _ego4d_rows(str(path), content)
            else:
                rows = rows_of(str(path), [content] if _is_row(content) else content, known)
        rows = iter(rows)
        head = next(rows, None)
        rows = rows if head is None else itertools.chain([head], rows)
        found = predictions_of(rows, finder(known), windows_in)
    if head is not None and "duration" in head[1] and _is_truth(found, known):
        raise UserError(f"{path}: annotations, not predictions: each window is that of the query; {LAYOUTS}")
    return found


def _is_truth(found: Sequence[Prediction], queries: Sequence[Query]) -> bool:
    """True if predictions are the targets of their queries, all of them."""
    truth = {query.id: query.moments for query in queries}
    return all(one.query in truth and np.array_equal(one.moments, truth[one.query]) for one in found)


def _is_sample(value: Any) -> bool:
    return isinstance(value, dict) and "doc_id" in value


def _is_row(value: Any) -> bool:
    """True for an object that is one prediction, not answers by query id."""
    names = {*IDS, *VIDEOS, *SENTENCES, *WINDOWS, *TEXTS, *STARTS, *ENDS, CLIP_SCORES, "relevant_windows"}
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
                f"{path}: no windows; expected one of {expected}, found {some_of(archive.names, 8)}"
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


def rows_of(path: str, document: Any, queries: Sequence[Query]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Objects for `predictions_of`, and their places, of a document: a list of such, or answers by query id.

    An answer is an object with windows or text, or one of these by itself, or nothing (null). Raises `UserError` for
    whatever is something else. Samples of lmms-eval are read as `sample_rows`, also in its older ``logs``.
    """
    if isinstance(document, dict) and isinstance(document.get("logs"), list):
        document = document["logs"]
    if isinstance(document, list) and document and all(_is_sample(row) for row in document):
        yield from sample_rows(path, enumerate(document), queries)
    elif isinstance(document, dict):
        known = {query.id for query in queries}
        if known and document and not any(key in known or ">>>" in key for key in document):
            raise UserError(
                f"{path}: an object with the keys {some_of(document)}, none of them a query; {LAYOUTS}"
            )
        for key, value in document.items():
            row = value if isinstance(value, dict) and not is_window(value) else {"answer": value}
            yield f"{path}: {shown(key)}", {**row, "qid": key}
    elif isinstance(document, list):
        for number, row in enumerate(document):
            if not isinstance(row, dict):
                raise UserError(f"{path}: record {number} is {shown(row)}, not an object; {LAYOUTS}")
            yield f"{path}: record {number}", row
    else:
        raise UserError(f"{path}: holds {shown(document)}; {LAYOUTS}")


def sample_rows(
    path: str, rows: Iterable[tuple[int, Mapping[str, Any]]], queries: Sequence[Query]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Objects for `predictions_of` of lmms-eval's samples (``--log_samples``) of a temporal grounding task.

    A sample is about the query with the video and sentence of its `doc` or `submission`, else about query number
    `doc_id` of the split. Raises `UserError` naming file, line and key for whatever is something else.
    """
    for number, row in rows:
        where = f"{path}:{number}"
        answer = row["filtered_resps"] if "filtered_resps" in row else field_of(row, "resps", where)
        while isinstance(answer, list) and len(answer) == 1:
            answer = answer[0]
        answer = None if answer is None else sentence(answer, where, "filtered_resps")
        yield where, {"qid": _subject(row, queries, where), "answer": answer}


def _subject(row: Mapping[str, Any], queries: Sequence[Query], where: str) -> str:
    """Whom a sample is about: ``video>>>sentence``, or the id of a query."""
    doc = row.get("doc")
    if isinstance(doc, dict):
        names = named(doc, VIDEOS, where), named(doc, SENTENCES, where)
        if all(names):
            return ">>>".join(str(doc[name]) for name in names)
    submitted = row.get("submission")
    if isinstance(submitted, dict) and len(submitted) == 1 and ">>>" in next(iter(submitted)):
        return str(next(iter(submitted)))
    number = field_of(row, "doc_id", where)
    if type(number) is not int or not 0 <= number < len(queries):
        raise UserError(
            f"{where}: doc_id must be a number below {len(queries)}, the queries of the split, found {shown(number)}"
        )
    return queries[number].id


def finder(queries: Iterable[Query]) -> Callable[[str, str], Query | None]:
    """Function from an id, and its place, to its query; of several about one ``video>>>sentence`` the next one."""
    known: dict[str, Query] = {}
    left: dict[tuple[str, str], deque[Query]] = defaultdict(deque)
    for query in queries:
        known[query.id] = query
        left[video_stem(query.video), _plain(query.text)].append(query)

    def query_of(name: str, where: str) -> Query | None:
        if ">>>" not in name or name in known:
            return known.get(name)
        video, text = name.split(">>>")[:2]
        waiting = left.get((video_stem(video), _plain(text)))
        if not waiting:
            raise UserError(
                f"{where}: the split has no (further) query {quoted(text)} about video {quoted(video)}"
            )
        return waiting.popleft()

    return query_of


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).rstrip(". ")


def _ego4d_rows(path: str, results: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Objects for `predictions_of` of a submission to the Ego4D natural-language-query challenge.

    Query ids are ``<annotation_uid>_<query_idx>``; the video is the clip; times are seconds in the clip; columns after
    start and end are ignored.
    """
    if not isinstance(results, list):
        raise UserError(
            f"{path}: 'results' must be a list or an object, found {shown(results)}: not an Ego4D submission"
        )
    keys = ("clip_uid", "annotation_uid", "query_idx", "predicted_times")
    for number, entry in enumerate(results):
        where = f"{path}: results[{number}]"
        if not isinstance(entry, dict) or any(key not in entry for key in keys):
            raise UserError(f"{where}: expected an object with {', '.join(keys)}")
        clip, annotation, index, times = (entry[key] for key in keys)
        if type(index) is not int or index < 0:
            raise UserError(f"{where}: query_idx must be an integer from 0 on, found {shown(index)}")
        windows = [row[:2] if isinstance(row, list) else row for row in list_of(times, where, keys[3])]
        number_rows(windows, ("start", "end"), where, keys[3])
        query = f"{identifier(annotation, where, keys[1])}_{index}"
        yield where, {"qid": query, "vid": identifier(clip, where, keys[0]), "windows": windows}
