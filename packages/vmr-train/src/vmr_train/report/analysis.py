"""The figures behind the charts: IoU per query, curves from the history."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vmr_common.evaluation import measurable
from vmr_common.metrics import iou
from vmr_common.types import Prediction, Query

FloatArray: TypeAlias = "NDArray[np.float64]"

MOST = 1e100
"""Values of a history from which on nothing is drawn: their differences could overflow."""


def moment_ious(moments: FloatArray, truth: FloatArray) -> FloatArray:
    """IoU (true union) of ``(K, 2)`` moments, each with the best of ``(M, 2)`` true ones: ``(K,)`` in [0, 1].

    Values that are not numbers count as 0, as do all of them where there is no truth.
    """
    if not len(moments) or not len(truth):
        return np.zeros(len(moments))
    best: FloatArray = _ious(moments[:, None], truth[None]).max(axis=1)
    return best


def rank_ious(queries: Sequence[Query], predictions: Iterable[Prediction]) -> FloatArray:
    """IoU of the first prediction of each query, ``(N,)``; 0 where there is no prediction or no truth."""
    first = {p.query: p.moments[0] for p in predictions if len(p.moments)}
    rows, guesses, truths = [], [], []
    for row, query in enumerate(queries):
        if query.id in first:
            for moment in query.moments:
                rows.append(row)
                guesses.append(first[query.id])
                truths.append(moment)
    best = np.zeros(len(queries))
    if rows:
        np.maximum.at(best, np.array(rows), _ious(np.array(guesses), np.array(truths)))
    return best


def _ious(moments: FloatArray, truth: FloatArray) -> FloatArray:
    with np.errstate(over="ignore", invalid="ignore"):  # a prediction may hold any number
        values = np.asarray(iou(moments, truth, union="true"), dtype=np.float64)
    return np.clip(np.nan_to_num(values, nan=0.0), 0.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class Target:
    """The truth that first predictions are held against, in words.

    Attributes:
        recall: Title of the share of hits.
        mean: Title of the mean of the values.
        figure: The value of one query.
        lead: Both figures in a sentence, without its end.
        nearest: The query that comes first, in words.
        farthest: The query that comes last.
    """

    recall: str
    mean: str
    figure: str
    lead: str
    nearest: str
    farthest: str

    def shown(self, value: float) -> str:
        """A value of one query."""
        return f"{value * 100:.0f} %" if self.figure == "distance" else f"{value:.2f}"


MOMENT = Target(
    recall="R@1, 0.5",
    mean="mIoU",
    figure="IoU",
    lead="R@1 at IoU 0.5 and mIoU of the first prediction, in percent (true union)",
    nearest="Highest IoU of the first prediction.",
    farthest="Lowest IoU of the first prediction.",
)
GLANCE = Target(
    recall="R@1, glance",
    mean="distance",
    figure="distance",
    lead="Share of queries whose first prediction holds the glance, and distance of its middle from the glance as a "
    "share of the video, in percent",
    nearest="First prediction nearest to the glance.",
    farthest="First prediction farthest from the glance.",
)
HIT = 0.5
"""IoU of a first prediction that counts as right."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """First predictions of N queries against their targets.

    Attributes:
        target: What they are held against; None where no query has a moment or a glance.
        hits: ``(N,)`` bool: an IoU of `HIT` and more, or a glance inside.
        values: ``(N,)`` the IoU, or the distance as a share of the video.
        nearness: ``(N,)`` in [0, 1], higher is better: the IoU, or 1 less the distance.
    """

    target: Target | None
    hits: NDArray[np.bool_]
    values: FloatArray
    nearness: FloatArray


def target_of(queries: Sequence[Query]) -> Target | None:
    """The truth that predictions are held against: moments where any query has one, else glances, else nothing."""
    by = measurable(queries)
    return None if by is None else MOMENT if by == "moments" else GLANCE


def with_target(queries: Sequence[Query]) -> list[Query]:
    """The queries whose target is there and finite, of several moments the first."""
    if target_of(queries) is GLANCE:
        return [query for query in queries if query.glance is not None and math.isfinite(query.glance)]
    return [query for query in queries if len(query.moments) and np.isfinite(query.moments[0]).all()]


def judged(queries: Sequence[Query], predictions: Iterable[Prediction]) -> Judged:
    """The first prediction of each query against its target; one that is missing is as far away as can be."""
    target = target_of(queries)
    if target is not GLANCE:
        ious = rank_ious(queries, predictions)
        return Judged(target=target, hits=ious >= HIT, values=ious, nearness=ious)
    first = {p.query: p.moments[0] for p in predictions if len(p.moments)}
    hits, far = np.zeros(len(queries), dtype=np.bool_), np.ones(len(queries))
    for row, query in enumerate(queries):
        if query.glance is not None:
            found = first.get(query.id)
            hits[row] = found is not None and found[0] <= query.glance <= found[1]
            far[row] = glance_distance(found, query)
    return Judged(target=target, hits=hits, values=far, nearness=1 - far)


def glance_distance(moment: FloatArray | None, query: Query) -> float:
    """From the middle of a moment to the glance as a share of the video, at most 1; of none the farther end's."""
    assert query.glance is not None
    away = max(query.glance, query.duration - query.glance)
    if moment is not None and np.isfinite(moment).all():
        away = abs(float(moment[0] / 2 + moment[1] / 2) - query.glance)
    return min(max(away / query.duration, 0.0), 1.0)


@dataclass(frozen=True, kw_only=True, eq=False)
class Series:
    """A line of a chart.

    Attributes:
        name: Label.
        x: ``(N,)`` float64, ascending.
        y: ``(N,)`` float64; NaN leaves a gap.
        low: Lower edge of the band around the line ``(N,)``, or None.
        high: Its upper edge.
    """

    name: str
    x: FloatArray
    y: FloatArray
    low: FloatArray | None = None
    high: FloatArray | None = None


EXTRA_LINES = {"lr": "learning rate", "grad_norm": "gradient norm"}


def loss_series(history: Sequence[Mapping[str, Any]], points: int = 200) -> list[Series]:
    """One series over the updates per loss term (key ``train/<term>``), then learning rate and gradient norm.

    From the rows of kind "interval", or "epoch" where there are none. More than `points` rows are averaged in
    equal groups (placed at their last update), with the smallest and largest value as band.
    """
    rows = [row for row in history if row.get("kind") == "interval"]
    rows = rows or [row for row in history if row.get("kind") == "epoch"]
    found = _by("update", rows, lambda key: key.startswith("train/") or key in EXTRA_LINES)
    extra = {key: found.pop(key) for key in EXTRA_LINES if key in found}  # behind the losses
    return [
        _condense(EXTRA_LINES.get(key, key.removeprefix("train/")), sorted(values.items()), points)
        for key, values in (found | extra).items()
    ]


def _by(
    axis: str, rows: Sequence[Mapping[str, Any]], wanted: Callable[[str], bool]
) -> dict[str, dict[float, float]]:
    """The values of the wanted keys by place on an axis; of places that are repeated the last value counts."""
    found: dict[str, dict[float, float]] = {}
    for row in rows:
        place = _number(row.get(axis))
        if math.isfinite(place):
            for key, value in row.items():
                if wanted(key):
                    found.setdefault(key, {})[place] = _number(value)
    return found


def _condense(name: str, pairs: list[tuple[float, float]], points: int) -> Series:
    x, y = np.array(pairs, dtype=np.float64).T
    if len(x) <= points:
        return Series(name=name, x=x, y=y)
    size = -(-len(x) // points)
    groups = [np.arange(start, min(start + size, len(x))) for start in range(0, len(x), size)]
    rows = [_group(x[g], y[g]) for g in groups]
    middle, mean, low, high = np.array(rows).T
    return Series(name=name, x=middle, y=mean, low=low, high=high)


def _group(x: FloatArray, y: FloatArray) -> tuple[float, float, float, float]:
    finite = y[np.isfinite(y)]
    if not len(finite):
        return float(x[-1]), math.nan, math.nan, math.nan
    return float(x[-1]), float(finite.mean()), float(finite.min()), float(finite.max())


def metric_series(history: Sequence[Mapping[str, Any]], split: str = "validation") -> dict[str, list[Series]]:
    """Metrics by epoch in groups, from the rows of kind "epoch".

    Key ``validation/R@1,IoU@0.5`` is line "IoU 0.5" of group "R@1". All mIoU keys form one group, the last; a
    key of another form is a group of its own.

    Args:
        history: Rows of ``metrics.jsonl``.
        split: What the keys begin with: "validation", or "test" where the epoch was chosen on it.
    """
    rows = [row for row in history if row.get("kind") == "epoch"]
    prefix = f"{split}/"
    groups: dict[str, list[Series]] = {}
    for key, values in _by("epoch", rows, lambda key: key.startswith(prefix)).items():
        x, y = np.array(sorted(values.items()), dtype=np.float64).T
        group, name = split_key(key.removeprefix(prefix))
        group, name = ("mIoU", group) if name == "mIoU" else (group, name)
        groups.setdefault(group or name, []).append(Series(name=name, x=x, y=y))
    if "mIoU" in groups:  # after the recalls
        groups["mIoU"] = groups.pop("mIoU")
    return groups


def selected_epoch(history: Sequence[Mapping[str, Any]]) -> float | None:
    """The epoch whose weights were kept: the last one that says so."""
    epochs = [
        _number(row.get("epoch")) for row in history if row.get("kind") == "epoch" and row.get("selected")
    ]
    return epochs[-1] if epochs and math.isfinite(epochs[-1]) else None


def split_key(key: str) -> tuple[str, str]:
    """Splits the key of a metric into its group and its column.

    Example:
        >>> split_key("R@1,IoU@0.5"), split_key("R@5,mIoU"), split_key("mAP")
        (('R@1', 'IoU 0.5'), ('R@5', 'mIoU'), ('', 'mAP'))
    """
    group, comma, name = key.partition(",")
    return (group, name.strip().replace("IoU@", "IoU ")) if comma else ("", key)


def _number(value: Any) -> float:
    """A value of a history as a number that can be drawn, else not-a-number."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MOST
    return float(value) if known else math.nan
