"""Predictions of recorded cases, ranked and judged as the released programs do it."""

import dataclasses
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np

from vmr_common.map_decoding import DecodeConfig, decode
from vmr_common.metrics import cell_windows
from vmr_common.protocols import proposal_map, protocol
from vmr_common.records import Prediction, Query
from vmr_common.timeline import to_seconds

Judged = tuple[list[Query], list[Prediction]]


def best_first(moments: Iterable[np.ndarray], truth: np.ndarray, durations: np.ndarray) -> Judged:
    """A query with its one moment, and a prediction with moments ``(n, 2)``, per row; seconds."""
    queries, predictions = [], []
    for row, (found, moment, duration) in enumerate(zip(moments, truth, durations, strict=True)):
        queries.append(Query(id=str(row), video="v", text="", duration=float(duration), moments=[moment]))
        scores = -np.arange(len(found), dtype=float)
        predictions.append(Prediction(query=str(row), video="v", moments=found, scores=scores))
    return queries, predictions


def point_scores(spans: np.ndarray, truth: np.ndarray, durations: np.ndarray) -> dict[str, float]:
    """Metrics of the `point` protocol for normalised spans and a truth in the durations' unit."""
    moments = [to_seconds(span, float(length)) for span, length in zip(spans, durations, strict=True)]
    return protocol("point").score(*best_first(moments, truth, durations)).values


def map_scores(
    moments: np.ndarray, truth: np.ndarray, durations: np.ndarray, thresholds: tuple[float, ...], nms: float
) -> tuple[np.ndarray, np.ndarray]:
    """Recall ``(threshold, 2)`` at 1 and 5, and mIoU, as the 2D-map methods evaluate."""
    rules = dataclasses.replace(proposal_map(nms), thresholds=thresholds)
    values = rules.score(*best_first(moments, truth, durations)).values
    recalls = [[values[f"R@{n},IoU@{m}"] for n in (1, 5)] for m in thresholds]
    return np.array(recalls), np.array(values["R@1,mIoU"])


def unasked(durations: Iterable[float]) -> tuple[Query, ...]:
    """Queries of which only the length of their video is known, each about a video of its own."""
    return tuple(
        Query(id=str(n), video=str(n), text="", duration=float(duration))
        for n, duration in enumerate(durations)
    )


def ranked(
    cells: np.ndarray, scores: np.ndarray, durations: np.ndarray, limit: int, nms: float
) -> list[np.ndarray]:
    """The best moments ``(limit, 2)`` of each score map ``(N, N)`` with these valid cells ``(N, N)``; seconds."""
    config = DecodeConfig(nms=nms, moments=limit)
    found = decode(scores[:, cells], cell_windows(cells), len(cells), unasked(durations), config)
    return [prediction.moments for prediction in found]


def map_batch(durations: np.ndarray, features: Any, video_of: Any, words: Any) -> SimpleNamespace:
    """Recorded inputs as the batch that the task of a 2D-map method takes."""
    queries = unasked(durations)
    videos = tuple(query.video for query in queries)
    return SimpleNamespace(queries=queries, videos=videos, features=features, video_of=video_of, words=words)
