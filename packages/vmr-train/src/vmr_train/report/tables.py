"""The metric tables and the large figures of the heading."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vmr_common.evaluation import Scores
from vmr_train.report.analysis import split_key
from vmr_train.report.intervals import Estimate
from vmr_train.report.svg import DASH, MINUS

Rows = Sequence[tuple[str, Scores]]

HEADLINES = ("R@1,IoU@0.3", "R@1,IoU@0.5", "R@1,IoU@0.7", "R@1,mIoU", "R@5,IoU@0.5")
OF_GLANCES = {"R@1,glance": "R@1, glance", "distance,median": "distance, median"}
"""Headlines of a split without moments, as they are called."""
BIAS = "bias"


def figure(value: float) -> str:
    """A fraction in percent with two decimals, a dash where it is not a number.

    Example:
        >>> figure(0.12345)
        '12.35'
    """
    return f"{value * 100:.2f}" if math.isfinite(value) else DASH


def difference(value: float, decimals: int = 2) -> str:
    """A difference of fractions in percentage points, always with its sign."""
    return f"{value * 100:+.{decimals}f}".replace("-", MINUS) if math.isfinite(value) else DASH


def interval(low: float, high: float) -> str:
    """An interval of fractions in percent, nothing where it is not known.

    Example:
        >>> interval(0.401, 0.4567) == f"40.1{DASH}45.7", interval(math.nan, 1.0)
        (True, '')
    """
    known = math.isfinite(low) and math.isfinite(high)
    return f"{low * 100:.1f}{DASH}{high * 100:.1f}" if known else ""


def headlines(rows: Rows, intervals: Mapping[str, Estimate]) -> Iterable[tuple[str, str, str, list[str]]]:
    """The main figures of the first row: name, figure, interval, and those of the other rows in words."""
    model = rows[0][1].values
    for key in (*HEADLINES, *OF_GLANCES):
        if key in model:
            group, name = split_key(key)
            others = [f"{row} {figure(s.values[key])}" for row, s in rows[1:] if key in s.values]
            ends = interval(intervals[key].low, intervals[key].high) if key in intervals else ""
            title = f"{group} at {name}" if name.startswith("IoU") else OF_GLANCES.get(key, name)
            yield title, figure(model[key]), ends, others


@dataclass(frozen=True, kw_only=True)
class MetricTable:
    """One protocol's table as texts: a row per system, columns grouped by rank.

    Attributes:
        title: Its caption.
        about: The protocol, the split and the numbers of queries.
        groups: Name and number of columns of each group.
        columns: Names of the columns.
        edges: Columns that begin a group, all but the first.
        rows: Name and cells of each system, the model first.
        gain: The same of what the model gains over bias, or None.
    """

    title: str
    about: str
    groups: list[tuple[str, int]]
    columns: list[str]
    edges: set[int]
    rows: list[tuple[str, list[str]]]
    gain: tuple[str, list[str]] | None


def metric_table(title: str, rows: Rows) -> MetricTable:
    """The table of at least one row, the model's first."""
    keys = list(dict.fromkeys(key for _, scores in rows for key in scores.shown or scores.values))
    columns = [split_key(key) for key in keys]
    groups = [(name, len(list(found))) for name, found in itertools.groupby(group for group, _ in columns)]
    values = [[scores.values.get(key, math.nan) for key in keys] for _, scores in rows]
    bias = next((row for row, (name, _) in enumerate(rows) if row and name == BIAS), None)
    model, scores = rows[0]
    split = f"split {scores.split}, " if scores.split else ""
    return MetricTable(
        title=title,
        about=f"Protocol {scores.protocol}: {scores.compare.replace('>=', '≥')}; {split}{scores.counts()}",
        groups=groups,
        columns=[name for _, name in columns],
        edges=set(itertools.accumulate(size for _, size in groups[:-1])),
        rows=[(name, [figure(v) for v in row]) for (name, _), row in zip(rows, values, strict=True)],
        gain=None
        if bias is None
        else (
            f"{model} {MINUS} {BIAS}",
            [difference(a - b) for a, b in zip(values[0], values[bias], strict=True)],
        ),
    )
