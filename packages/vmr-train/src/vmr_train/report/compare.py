"""Two runs on the same queries: paired differences, and the queries that one of them finds and the other does not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vmr_common.errors import UserError, quoted
from vmr_common.evaluation import protocol
from vmr_common.evaluation.paired import Difference, paired_differences
from vmr_common.types import Prediction, Query
from vmr_train.report.analysis import MOMENT, Judged, Target, judged, with_target
from vmr_train.report.data import Report
from vmr_train.report.failures import group_values, key
from vmr_train.report.intervals import DRAWS
from vmr_train.report.kinds import Group, Kind, kinds_of

MARGIN = 0.05
"""IoU by which a first prediction must be better to win."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """One query in both runs: its predictions, and of the first one of each the value, nearness and hit of `Judged`."""

    query: Query
    first: Prediction | None
    second: Prediction | None
    values: tuple[float, float]
    nearness: tuple[float, float]
    hits: tuple[bool, bool]


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """The differences of two runs; A is the first, differences are B minus A.

    Attributes:
        protocol: The rules behind `differences`.
        differences: By value of the protocol.
        target: What first predictions are held against.
        kinds: By kind of queries its groups, each with the differences of its recall and of the mean of its values.
        pairs: Every query with a true moment, or with a glance where none has.
    """

    protocol: str
    target: Target
    differences: dict[str, Difference]
    kinds: list[tuple[Kind, list[tuple[Group, Difference, Difference]]]]
    pairs: list[Pair]

    def won(self, by: int) -> list[Pair]:
        """The queries that B (1) or A (-1) wins, the largest gain first; by 0 the ties."""
        gains = np.array([pair.nearness[1] - pair.nearness[0] for pair in self.pairs])
        side = np.where(np.abs(gains) > MARGIN, np.sign(gains), 0)
        rows = np.flatnonzero(side == by)
        return [self.pairs[row] for row in rows[np.argsort(-np.abs(gains[rows]), kind="stable")]]

    def found(self) -> dict[tuple[bool, bool], int]:
        """Number of queries by whether A and B find them."""
        hits = [pair.hits for pair in self.pairs]
        return {(a, b): hits.count((a, b)) for a in (True, False) for b in (True, False)}


def compare(first: Report, second: Report, names: tuple[str, str]) -> Comparison:
    """Compares two runs.

    Args:
        first: Run A.
        second: Run B.
        names: What messages call them.

    Raises:
        UserError: if a run has not been evaluated, or their queries differ.
    """
    rules = _common_protocol(first, second, names)
    _require_same_queries(first.queries, second.queries, names)
    queries = first.queries
    one, other = (protocol(rules).per_query(queries, report.predictions) for report in (first, second))
    known = with_target(queries)
    one_known, other_known = (judged(known, report.predictions) for report in (first, second))
    guesses = [{p.query: p for p in report.predictions} for report in (first, second)]
    return Comparison(
        protocol=rules,
        differences=paired_differences(one, other, [query.video for query in queries], draws=DRAWS),
        target=one_known.target or MOMENT,
        kinds=_kinds(known, (one_known, other_known), first),
        pairs=[
            Pair(
                query=query,
                first=guesses[0].get(query.id),
                second=guesses[1].get(query.id),
                values=(float(one_known.values[row]), float(other_known.values[row])),
                nearness=(float(one_known.nearness[row]), float(other_known.nearness[row])),
                hits=(bool(one_known.hits[row]), bool(other_known.hits[row])),
            )
            for row, query in enumerate(known)
        ],
    )


def _kinds(
    queries: Sequence[Query], judgements: Sequence[Judged], report: Report
) -> list[tuple[Kind, list[tuple[Group, Difference, Difference]]]]:
    kinds = kinds_of(queries, report.seen)
    one, other = (group_values(kinds, found) for found in judgements)
    differences = paired_differences(one, other, [query.video for query in queries], draws=DRAWS)
    return [
        (
            kind,
            [
                (group, differences[key(place, number, "R")], differences[key(place, number, "I")])
                for number, group in enumerate(kind.groups)
            ],
        )
        for place, kind in enumerate(kinds)
    ]


def _common_protocol(first: Report, second: Report, names: tuple[str, str]) -> str:
    found = [[rows[0][1].protocol for _, rows in report.tables if rows] for report in (first, second)]
    for name, rules in zip(names, found, strict=True):
        if not rules:
            raise UserError(f"{name}: this run has not been evaluated, or nothing could be measured")
    common = [rules for rules in found[0] if rules in found[1]]
    if not common:
        raise UserError(
            f"the runs share no protocol: {names[0]} was scored by {', '.join(found[0])}, "
            f"{names[1]} by {', '.join(found[1])}"
        )
    return common[0]


def _require_same_queries(first: Sequence[Query], second: Sequence[Query], names: tuple[str, str]) -> None:
    ours, theirs = ({query.id: query for query in queries} for queries in (first, second))
    what = (
        f"the runs were tested on other queries: {names[0]} on {len(ours):,}, {names[1]} on {len(theirs):,}"
    )
    for name, mine, other in ((names[0], ours, theirs), (names[1], theirs, ours)):
        missing = next((found for found in mine if found not in other), None)
        if missing is not None:
            raise UserError(f"{what}; only {name} has {quoted(missing, 60)}")
    for found in first:
        part = _differing(found, theirs[found.id])
        if part:
            raise UserError(f"{what}; the {part} of {quoted(found.id, 60)} differs")


def _differing(one: Query, other: Query) -> str:
    """The first part in which two queries of the same id differ; empty where they are the same."""
    same = {
        "video": one.video == other.video,
        "sentence": one.text == other.text,
        "duration": math.isclose(one.duration, other.duration),
        "moment": np.array_equal(one.moments, other.moments, equal_nan=True),
        "glance": len(one.moments) > 0 or one.glance == other.glance,
    }
    return next((part for part, equal in same.items() if not equal), "")
