"""Files of corpus retrieval: ranked moments of a corpus, graded truth, ids of its videos."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vmr_common.errors import UserError, quoted, some_of
from vmr_common.evaluation.corpus import CorpusPrediction
from vmr_common.io import read_json_lines, write_json_lines
from vmr_common.predictions import IDS, SENTENCES, id_key, named
from vmr_common.text_input import opened
from vmr_common.types import encode_id
from vmr_common.values import (
    duration_of,
    field_of,
    identifier,
    list_of,
    moment,
    number,
    object_of,
    sentence,
    shown,
)

WINDOWS, VIDEOS = "pred_corpus_windows", "pred_corpus_videos"
LAYOUTS = (
    f"read are JSON lines with qid and {WINDOWS} ([[video, start, end, score], ...]), and submissions to TVR "
    "(video2idx, VCMR)"
)


def read_corpus_predictions(path: str | Path) -> tuple[list[CorpusPrediction], list[str] | None]:
    """Reads corpus predictions: our JSON lines, or a submission to TVR; the latter names the videos of its corpus too.

    A line holds ``qid``, ``pred_corpus_windows`` (``[[video, start, end, score], ...]``, best first), and may hold
    ``query`` and ``pred_corpus_videos`` (ids, best first). A submission is an object with ``video2idx`` (number by
    video) and ``VCMR`` (``desc_id``, ``predictions``: ``[[number, start, end, score], ...]``); where it has a list
    ``VR`` videos are ranked by that.

    Raises:
        UserError: naming file, line and key of what is something else.
    """
    with opened(path) as source:
        first = source.first_value()
        if not source.first:
            return [], None
        if isinstance(first, dict) and not first.keys().isdisjoint(IDS):
            rows = list(source.rows())
            return [_prediction(row, f"{path}:{number}") for number, row in rows], None
        content = source.document()
    if not isinstance(content, dict) or not {"video2idx", "VCMR"} <= content.keys():
        found = f"keys {some_of(content)}" if isinstance(content, dict) else shown(content)
        raise UserError(f"{path}: no corpus predictions, found {found}; {LAYOUTS}")
    return _of_submission(content, str(path))


def _prediction(row: Mapping[str, Any], where: str) -> CorpusPrediction:
    key = id_key(row, where)
    if key is None:
        raise UserError(f"{where}: expected one of the keys {', '.join(IDS)} (found: {some_of(row)})")
    text = named(row, SENTENCES, where)
    ranked = row.get(VIDEOS)
    if ranked is not None:
        names = enumerate(list_of(ranked, where, VIDEOS))
        ranked = tuple(identifier(name, where, f"{VIDEOS}[{place}]") for place, name in names)
    windows = list(_windows(field_of(row, WINDOWS, where), where, WINDOWS))
    return CorpusPrediction(
        query=identifier(row[key], where, key),
        videos=tuple(identifier(video, where, WINDOWS) for video, *_ in windows),
        moments=np.array([span for _, span, _ in windows], dtype=np.float64).reshape(-1, 2),
        scores=np.array([score for *_, score in windows]),
        text="" if text is None else sentence(row[text], where, text),
        ranked_videos=ranked,
    )


def _windows(value: Any, where: str, key: str) -> Iterator[tuple[Any, tuple[float, float], float]]:
    """Video as it is named, moment and score of each row."""
    for place, row in enumerate(list_of(value, where, key)):
        if not isinstance(row, list) or len(row) != 4:
            raise UserError(f"{where}: {key}[{place}] must be [video, start, end, score], found {shown(row)}")
        at = f"{key}[{place}]"
        yield row[0], moment(row[1:3], where, at), number(row[3], where, f"{at} score")


def _of_submission(content: Mapping[str, Any], path: str) -> tuple[list[CorpusPrediction], list[str]]:
    names: dict[Any, str] = {}
    for video, index in object_of(content["video2idx"], path, "video2idx").items():
        if type(index) is not int or index in names:
            raise UserError(
                f"{path}: video2idx: {quoted(video)} has number {shown(index)}, expected a whole one of its own"
            )
        names[index] = video

    def entries(task: str) -> Iterator[tuple[str, str, list[tuple[str, tuple[float, float], float]], str]]:
        for place, entry in enumerate(list_of(content[task], path, task)):
            where = f"{path}: {task}[{place}]"
            entry = object_of(entry, where)
            windows = []
            for index, span, score in _windows(field_of(entry, "predictions", where), where, "predictions"):
                if type(index) not in (int, float) or index not in names:
                    raise UserError(f"{where}: no video has the number {shown(index)} in video2idx")
                windows.append((names[index], span, score))
            text = sentence(entry.get("desc", ""), where, "desc")
            yield identifier(field_of(entry, "desc_id", where), where, "desc_id"), text, windows, where

    ranked = {
        query: tuple(video for video, *_ in rows)
        for query, _, rows, _ in (entries("VR") if "VR" in content else ())
    }
    found = [
        CorpusPrediction(
            query=query,
            videos=tuple(video for video, *_ in rows),
            moments=np.array([span for _, span, _ in rows], dtype=np.float64).reshape(-1, 2),
            scores=np.array([score for *_, score in rows]),
            text=text,
            ranked_videos=ranked.get(query),
        )
        for query, text, rows, _ in entries("VCMR")
    ]
    return found, list(names.values())


def write_corpus_predictions(path: str | Path, predictions: Iterable[CorpusPrediction]) -> None:
    """Writes corpus predictions as JSON lines, see `read_corpus_predictions`, atomically.

    Raises:
        UserError: if the file cannot be written.
    """
    write_json_lines(path, map(_row, predictions))


def _row(found: CorpusPrediction) -> dict[str, Any]:
    windows = zip(found.videos, found.moments.tolist(), found.scores.tolist(), strict=True)
    row: dict[str, Any] = {"qid": encode_id(found.query), "query": found.text}
    row[WINDOWS] = [[video, *span, score] for video, span, score in windows]
    if found.ranked_videos is not None:
        row[VIDEOS] = list(found.ranked_videos)
    return row


def read_truth(path: str | Path) -> dict[str, list[tuple[str, float, float]]]:
    """Reads graded truth: JSON lines ``{"qid": ..., "relevant": [["video", start, end], ...]}``.

    Raises:
        UserError: naming file, line and key of what is something else, or for a query that occurs twice.
    """
    truth: dict[str, list[tuple[str, float, float]]] = {}
    for number_, row in read_json_lines(path):
        where = f"{path}:{number_}"
        query = identifier(field_of(row, "qid", where), where, "qid")
        if query in truth:
            raise UserError(f"{where}: query id {quoted(query)} occurs twice")
        truth[query] = []
        for place, one in enumerate(list_of(field_of(row, "relevant", where), where, "relevant")):
            key = f"relevant[{place}]"
            if not isinstance(one, list) or len(one) != 3:
                raise UserError(f"{where}: {key} must be [video, start, end], found {shown(one)}")
            truth[query].append((identifier(one[0], where, key), *moment(one[1:], where, key)))
    return truth


def read_corpus(path: str | Path) -> dict[str, float | None]:
    """Reads the videos of a corpus: a JSON list of ids, an object of seconds by id, or an id a line; seconds or None.

    Raises:
        UserError: naming the file, if it is none of these or holds no id.
    """
    with opened(path) as source:
        if source.first[:1] in ("[", "{"):
            content = source.document()
            if isinstance(content, dict):
                found: dict[str, float | None] = {
                    identifier(video, str(path), "a video"): duration_of(seconds, str(path), shown(video))
                    for video, seconds in content.items()
                }
            else:
                found = {
                    identifier(one, str(path), "a video"): None for one in list_of(content, str(path), "it")
                }
        else:
            found = {line.strip(): None for _, line in source.lines() if line.strip()}
    if not found:
        raise UserError(f"{path}: holds no video id")
    return found
