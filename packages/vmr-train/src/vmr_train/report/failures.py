"""Figures of every group of queries, with their intervals, and the groups that a system fails on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vmr_common.evaluation.recall import PerQuery
from vmr_common.types import Prediction, Query
from vmr_train.report.analysis import Judged, Target, judged, with_target
from vmr_train.report.intervals import Estimate, estimates
from vmr_train.report.kinds import Group, Kind, kinds_of
from vmr_train.report.seen import Seen

WHOLE = "all"


@dataclass(frozen=True, kw_only=True, eq=False)
class GroupFigures:
    """A group's recall at rank 1, the mean of its values, and the recall of the baseline where there is one."""

    group: Group
    recall: Estimate
    mean: Estimate
    bias: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Failures:
    """The groups of a run.

    Attributes:
        target: What first predictions are held against, which makes hits and values.
        whole: R@1 of all queries.
        kinds: The figures of every group, by kind.
        weak: Title and figures of the groups whose whole interval lies below `whole`, furthest first; no small ones.
    """

    target: Target
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
    known = with_target(queries)
    kinds = kinds_of(known, seen)
    own = judged(known, predictions)
    if not kinds or not predictions or own.target is None:
        return None
    hits = None if bias is None else judged(known, bias).hits
    found = estimates(group_values(kinds, own), [query.video for query in known])
    whole = float(own.hits.mean())
    rows = []
    for place, kind in enumerate(kinds):
        figures = [
            GroupFigures(
                group=group,
                recall=found.get(key(place, number, "R"), _alone(own.hits[group.rows])),
                mean=found.get(key(place, number, "I"), _alone(own.values[group.rows])),
                bias=None if hits is None else float(hits[group.rows].mean()),
            )
            for number, group in enumerate(kind.groups)
        ]
        rows.append((kind, figures))
    return Failures(target=own.target, whole=whole, kinds=rows, weak=_weak(rows, whole))


def group_values(kinds: Sequence[Kind], found: Judged) -> PerQuery:
    """The value of each query in the recall and the mean of each group, by `key`; not-a-number outside of the group."""
    values: PerQuery = {}
    for place, kind in enumerate(kinds):
        for number, group in enumerate(kind.groups):
            for name, source in (("R", found.hits.astype(np.float64)), ("I", found.values)):
                inside = np.full(len(source), np.nan)
                inside[group.rows] = source[group.rows]
                values[key(place, number, name)] = inside
    return values


def key(kind: int, group: int, figure: str) -> str:
    """The key of a group's recall (``R``) or mean (``I``)."""
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
