"""The result of an evaluation, and the table that shows several of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from vmr_common.errors import counted


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The values of one protocol for one set of predictions.

    Example:
        >>> facts = {"protocol": "strict", "compare": "IoU >= m", "split": "mine", "num_queries": 2}
        >>> Scores(**facts, num_missing=0, values={"R@1,IoU@0.5": 0.5}).to_dict()["values"]
        {'R@1,IoU@0.5': 0.5}
    """

    protocol: str  # name of the rule set
    compare: str  # how an overlap becomes a hit, in words for the header of a table
    split: str  # name of the evaluated split; may be empty
    num_queries: int  # queries of the split that have a target
    num_missing: int  # those without any prediction
    # fractions by key (`R@1,IoU@0.5`, `R@1,mIoU`, ...), ranks by keys that say so; in a fixed order
    values: dict[str, float]
    shown: tuple[str, ...] = field(default=())  # keys that a table shows; empty means all
    num_left_out: int = 0  # further queries, without target, which no figure counts

    def counts(self) -> str:
        """The numbers of queries in words.

        Example:
            >>> Scores(protocol="", compare="", split="", num_queries=4, num_missing=1, values={}).counts()
            '4 queries, 1 without prediction'
        """
        left_out = f" (and {self.num_left_out:,} without a target, left out)" if self.num_left_out else ""
        return f"{counted(self.num_queries, 'query')}{left_out}, {self.num_missing:,} without prediction"

    def to_dict(self) -> dict[str, Any]:
        """The scores as JSON can hold them, without `shown`."""
        row = asdict(self)
        del row["shown"]
        row["values"] = {key: value if math.isfinite(value) else None for key, value in self.values.items()}
        return row


def format_table(rows: Sequence[tuple[str, Scores]]) -> str:
    """A text table of systems scored by one protocol on one split, figures in percent.

    The header is that of the first row; a later row with another number of queries or of missing
    predictions says so behind its figures, and a value that a row does not have is ``-``.

    Args:
        rows: (label, scores), at least one.

    Returns:
        Lines joined by line feeds, with no trailing one.

    Raises:
        ValueError: if there is no row, or the rows come from different protocols.

    Example:
        >>> scores = Scores(protocol="strict", compare="IoU >= m", split="demo/test", num_queries=4,
        ...                 num_missing=1, values={"R@1,IoU@0.5": 0.25, "R@1,mIoU": 0.31234})
        >>> print(format_table([("mine", scores)]))
        protocol strict (IoU >= m), split demo/test, 4 queries, 1 without prediction
        %     R@1,0.5    mIoU
        mine    25.00   31.23
    """
    if not rows:
        raise ValueError("a table needs at least one row")
    if len({scores.protocol for _, scores in rows}) > 1:
        raise ValueError("rows of different protocols do not share a table")
    first = rows[0][1]
    keys = list(dict.fromkeys(key for _, scores in rows for key in scores.shown or scores.values))
    titles = _titles(keys)
    width = max(len("%"), *(len(label) for label, _ in rows))
    widths = [max(len(title), 6) for title in titles]
    lines = [_header(first)]
    lines.append("  ".join(["%".ljust(width), *(t.rjust(w) for t, w in zip(titles, widths, strict=True))]))
    for label, scores in rows:
        cells = [_cell(scores.values, key).rjust(w) for key, w in zip(keys, widths, strict=True)]
        lines.append("  ".join([label.ljust(width), *cells]) + _remark(scores, first))
    return "\n".join(lines)


def _cell(values: dict[str, float], key: str) -> str:
    """A value in percent, a rank as it is."""
    if key not in values:
        return "-"
    if key.endswith(" rank"):
        return f"{values[key]:g}" if math.isfinite(values[key]) else "beyond"
    return f"{100 * values[key]:.2f}"


def _header(scores: Scores) -> str:
    split = f"split {scores.split}, " if scores.split else ""
    return f"protocol {scores.protocol} ({scores.compare}), {split}{scores.counts()}"


def _titles(keys: Sequence[str]) -> list[str]:
    """Column titles: the part before the comma is given once per run of keys that share it."""
    titles: list[str] = []
    previous = None
    for key in keys:
        group, _, name = key.partition(",")
        name = name.removeprefix("IoU@")
        titles.append(name if group == previous and name else f"{group},{name}" if name else group)
        previous = group
    return titles


def _remark(scores: Scores, first: Scores) -> str:
    if scores.num_queries != first.num_queries:
        return f"  ({scores.counts()})"
    if scores.num_missing != first.num_missing:
        return f"  ({scores.num_missing:,} without prediction)"
    return ""
