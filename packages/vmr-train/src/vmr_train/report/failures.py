"""Figures of every group of queries, with their intervals, and the groups that a system fails on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vmr_common.evaluation.recall import PerQuery
from vmr_common.types import Prediction, Query
from vmr_train.report.analysis import rank_ious, with_truth
from vmr_train.report.intervals import Estimate, estimates
from vmr_train.report.kinds import Group, Kind, kinds_of
from vmr_train.report.seen import Seen

FloatArray: TypeAlias = "NDArray[np.float64]"

THRESHOLD = 0.5
WHOLE = "all"


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupFigures:
    """A group's recall at rank 1 and IoU 0.5, its mIoU, and the recall of the baseline where there is one."""

    group: Group
    recall: Estimate
    miou: Estimate
    bias: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Failures:
    """The groups of a run.

    Attributes:
        whole: R@1 at IoU 0.5 of all queries.
        kinds: The figures of every group, by kind.
        weak: Title and figures of the groups whose whole interval lies below `whole`, furthest first; no small ones.
    """

    whole: float
    kinds: list[tuple[Kind, list[GroupFigures]]]
    weak: list[tuple[str, GroupFigures]]


def failures(
    queries: Sequence[Query],
    predictions: Sequence[Prediction],
    bias: Sequence[Prediction] | None,
    seen: Mapping[str, Seen],
) -> Failures | None:
    """The figures of every group of queries; None where there is nothing to group."""
    known = with_truth(queries)
    kinds = kinds_of(known, seen)
    if not kinds or not predictions:
        return None
    ious = rank_ious(known, predictions)
    hits = None if bias is None else rank_ious(known, bias) >= THRESHOLD
    found = estimates(group_values(kinds, ious), [query.video for query in known])
    whole = float((ious >= THRESHOLD).mean())
    rows = []
    for place, kind in enumerate(kinds):
        figures = [
            GroupFigures(
                group=group,
                recall=found.get(key(place, number, "R"), _alone(ious[group.rows] >= THRESHOLD)),
                miou=found.get(key(place, number, "I"), _alone(ious[group.rows])),
                bias=None if hits is None else float(hits[group.rows].mean()),
            )
            for number, group in enumerate(kind.groups)
        ]
        rows.append((kind, figures))
    return Failures(whole=whole, kinds=rows, weak=_weak(rows, whole))


def group_values(kinds: Sequence[Kind], ious: FloatArray) -> PerQuery:
    """What each query adds to the recall and the mIoU of each group, by `key`; not-a-number outside of the group.

    Args:
        kinds: The groups.
        ious: ``(N,)`` IoU of the first prediction of each query.
    """
    values: PerQuery = {}
    for place, kind in enumerate(kinds):
        for number, group in enumerate(kind.groups):
            for name, source in (("R", (ious >= THRESHOLD).astype(np.float64)), ("I", ious)):
                inside = np.full(len(ious), np.nan)
                inside[group.rows] = source[group.rows]
                values[key(place, number, name)] = inside
    return values


def key(kind: int, group: int, figure: str) -> str:
    """The key of a group's recall (``R``) or mIoU (``I``)."""
    return f"{kind}/{group}/{figure}"


def _alone(values: NDArray[np.generic]) -> Estimate:
    """A mean without an interval."""
    return Estimate(float(values.mean()), math.nan, math.nan)


def _weak(
    kinds: Sequence[tuple[Kind, Sequence[GroupFigures]]], whole: float
) -> list[tuple[str, GroupFigures]]:
    found = [
        (kind.title, figures)
        for kind, groups in kinds
        for figures in groups
        if not figures.group.small and figures.recall.high < whole
    ]
    return sorted(found, key=lambda row: row[1].recall.value)
