"""Predictions of recorded cases, ranked and judged as the released programs do it, on any CPU.

Two machines round differently, so what hangs on a comparison is demanded up to the rounding of its margin: an order up
to ties, a count up to the values that lie at its threshold, a step of Adam up to what rounding of the gradient does.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from torch import Tensor

from cdn.config import DecodeConfig
from cdn.decoding import decode, window_seconds
from vmr_common.evaluation import Protocol, protocol
from vmr_common.metrics import iou
from vmr_common.timeline import to_seconds
from vmr_common.types import Prediction, Query
from vmr_train.map_proposals import cell_windows

Judged = tuple[list[Query], list[Prediction]]
NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
NEAR = 1e-6  # overlaps of recorded float32 windows may lie this far from those that were judged


# --- rules that a case states in words ---------------------------------------------------------------------


def stated(said: str, label: str, default: Sequence[float] = ()) -> tuple[float, ...]:
    """The numbers that follow `label` in the description of an array, else the default.

    Example: ``stated("[tIoU 0.1,0.3] x [Rank 1, 5]", "Rank")`` is ``(1.0, 5.0)``.
    """
    found = re.search(rf"{re.escape(label)}\s*({NUMBER}(?:,\s*{NUMBER})*)", said)
    return tuple(float(number) for number in found[1].split(",")) if found else tuple(default)


def ranks_of(values: Iterable[float]) -> tuple[int, ...]:
    """Numbers n of R@n, as whole numbers."""
    return tuple(int(value) for value in values)


# --- orders ------------------------------------------------------------------------------------------------


def same_scores_along(scores: np.ndarray, ours: np.ndarray, wanted: np.ndarray, tolerance: float) -> None:
    """Demands that two orders ``(n,)`` of the same scores differ within ties alone: the scores along both agree."""
    assert sorted(ours.tolist()) == sorted(wanted.tolist())
    np.testing.assert_allclose(scores[ours], scores[wanted], rtol=0, atol=tolerance)


def cells_of(moments: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Which of the windows ``seconds (P, 2)`` each moment ``(K, 2)`` is, ``(K,)``."""
    distance = np.abs(moments[:, None] - seconds[None]).max(axis=-1)
    assert (distance.min(axis=1) <= 1e-6 * max(1.0, seconds.max())).all(), "a moment is no cell of the map"
    return distance.argmin(axis=1)


def tied_as(cells: np.ndarray, scores: np.ndarray, durations: np.ndarray, listed: np.ndarray) -> np.ndarray:
    """The score maps ``(B, N, N)`` with their ties, which the released sort leaves to chance, broken as recorded.

    Args:
        cells: ``(N, N)`` bool, the valid cells.
        scores: ``(B, N, N)``.
        durations: ``(B,)`` seconds.
        listed: ``(B, K, 2)`` recorded moments, best first, seconds.
    """
    windows, found = cell_windows(cells), scores.astype(np.float64)
    for row, duration, moments in zip(found, durations, listed, strict=True):
        order = cells_of(moments, window_seconds(windows, len(cells), float(duration)))
        values = row[cells]
        gaps = np.diff(np.unique(values))
        # less than any difference, so that only cells of one score change places
        values[order] += gaps.min(initial=1.0) * np.linspace(0.5, 0, len(order), endpoint=False)
        row[cells] = values
    return found


def best_after_suppression(
    moments: np.ndarray,
    cells: np.ndarray,
    scores: np.ndarray,
    duration: float,
    nms: float,
    tolerance: float,
) -> None:
    """Demands that each moment is the best cell that the moments before it leave, up to `tolerance` of its score.

    Args:
        moments: ``(K, 2)`` seconds, best first.
        cells: ``(N, N)`` bool, the valid cells.
        scores: ``(N, N)`` recorded scores.
        duration: Seconds.
        nms: Suppression threshold.
        tolerance: How far scores of two machines may be apart.
    """
    seconds, values = window_seconds(cell_windows(cells), len(cells), duration), scores[cells]
    left = np.ones(len(values), dtype=bool)
    for cell in cells_of(moments, seconds):
        assert left[cell]
        assert values[cell] >= values[left].max() - tolerance
        left &= iou(seconds, seconds[cell], union="true") <= nms
        left[cell] = False


# --- counts ------------------------------------------------------------------------------------------------


def share_of_right_guesses(logits: Tensor, targets: Tensor, counts: Tensor, wanted: float) -> None:
    """Demands a recorded accuracy, up to guesses that rounding of the logits can turn.

    Args:
        logits: ``(..., C)``.
        targets: ``(...)`` right classes.
        counts: ``(...)`` bool, the places that count.
        wanted: The recorded share.
    """
    right = logits.gather(-1, targets[..., None])[..., 0]
    others = logits.scatter(-1, targets[..., None], float("-inf")).amax(-1)
    margin, rounding = right - others, 1e-4 * max(1.0, logits.abs().max().item())
    sure, possible = (((margin > limit) & counts).sum() / counts.sum() for limit in (rounding, -rounding))
    assert sure - NEAR <= wanted <= possible + NEAR


def agrees(rules: Protocol, judged: Judged, recorded: Mapping[str, float]) -> None:
    """Demands recorded metrics by key (``R@n,IoU@m``, ``R@n,mIoU``), up to overlaps that lie at a threshold."""
    thresholds = sorted({float(key.split("IoU@")[1]) for key in recorded if "IoU@" in key})
    ranks = sorted({int(key[2:].split(",")[0]) for key in recorded})
    around = tuple(m + by for m in thresholds for by in (-NEAR, 0.0, NEAR))
    fitted = dataclasses.replace(rules, thresholds=around, ranks=tuple(ranks), miou_ranks=tuple(ranks))
    values = fitted.score(*judged).values
    for key, wanted in recorded.items():
        rank, what = key.split(",")
        if what == "mIoU":
            np.testing.assert_allclose(values[key], wanted, rtol=0, atol=1e-5, err_msg=key)
            continue
        m = float(what.removeprefix("IoU@"))
        most, least = (values[f"{rank},IoU@{m + by:g}"] for by in (-NEAR, NEAR))
        assert least - NEAR <= wanted <= most + NEAR, (key, wanted, values[f"{rank},IoU@{m:g}"])


# --- metrics -----------------------------------------------------------------------------------------------


def best_first(moments: Iterable[np.ndarray], truth: np.ndarray, durations: np.ndarray) -> Judged:
    """A query with its one moment, and a prediction with moments ``(n, 2)``, per row; seconds."""
    queries, predictions = [], []
    for row, (found, moment, duration) in enumerate(zip(moments, truth, durations, strict=True)):
        queries.append(Query(id=str(row), video="v", text="", duration=float(duration), moments=[moment]))
        scores = -np.arange(len(found), dtype=float)
        predictions.append(Prediction(query=str(row), video="v", moments=found, scores=scores))
    return queries, predictions


def point_scores_agree(
    spans: np.ndarray, truth: np.ndarray, durations: np.ndarray, recorded: Mapping[str, float]
) -> None:
    """Demands the metrics of the `point` protocol for normalised spans and a truth in the durations' unit."""
    moments = [to_seconds(span, float(length)) for span, length in zip(spans, durations, strict=True)]
    agrees(protocol("point"), best_first(moments, truth, durations), recorded)


def map_scores(
    moments: Iterable[np.ndarray],
    truth: np.ndarray,
    durations: np.ndarray,
    *,
    thresholds: Sequence[float],
    ranks: Sequence[int],
    nms: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Recall ``(threshold, rank)`` and mIoU, as the 2D-map methods evaluate."""
    rules = dataclasses.replace(
        protocol("proposal-map"),
        nms=nms,
        thresholds=tuple(thresholds),
        ranks=tuple(ranks),
    )
    values = rules.score(*best_first(moments, truth, durations)).values
    recalls = [[values[f"R@{n},IoU@{m:g}"] for n in ranks] for m in thresholds]
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


# --- updates -----------------------------------------------------------------------------------------------


def gradient_limits(wanted: np.ndarray, norm: float) -> dict[str, float]:
    """How far a gradient may be off: 1e-3 of its largest value, and the rounding of the whole gradient."""
    return {"rtol": 0, "atol": 1e-3 * float(np.abs(wanted).max(initial=0.0)) + 1e-7 * norm}


def clipped_by(norm: float, limit: float) -> float:
    """What a gradient of this norm is multiplied with where its norm is limited."""
    return min(1.0, limit / (norm + 1e-6))


def first_update_agrees(
    found: np.ndarray,
    wanted: np.ndarray,
    *,
    before: np.ndarray,
    gradient: np.ndarray,
    lr: float,
    eps: float,
    name: str,
) -> None:
    """Demands Adam's first update, up to what rounding of the gradient can do to it.

    The step is ``lr g / (|g| + eps)``: where the gradient is hardly more than its own rounding, it is anything between
    ``-lr`` and ``lr``.

    Args:
        found: Our parameter after the step.
        wanted: The recorded one.
        before: The parameter.
        gradient: Its gradient after clipping.
        lr: Learning rate.
        eps: Of Adam.
        name: For the message.
    """
    size = np.abs(gradient.astype(np.float64))
    rounding = 5e-5 * size.max()
    limit = lr * np.minimum(2.0, eps * rounding / (size + eps) ** 2)
    limit = limit + 2.4e-7 * np.abs(before) + 1e-6 * lr
    beyond = np.abs(found.astype(np.float64) - wanted) > limit
    assert not beyond.any(), f"{name}: {beyond.sum()} of {beyond.size} values differ"
    np.testing.assert_allclose(found, wanted, rtol=0, atol=limit.max(), err_msg=name)
