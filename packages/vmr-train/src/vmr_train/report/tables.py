"""The metric tables and the large figures of the heading."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from vmr_common.evaluation import Scores
from vmr_train.report.analysis import split_key
from vmr_train.report.markup import DASH, MINUS, Markup, el, join

Rows = Sequence[tuple[str, Scores]]

HEADLINES = ("R@1,IoU@0.3", "R@1,IoU@0.5", "R@1,IoU@0.7", "R@1,mIoU", "R@5,IoU@0.5")
BIAS = "bias"


def figure(value: float) -> str:
    """A fraction in percent with two decimals, a dash where it is not a number.

    Example:
        >>> figure(0.12345)
        '12.35'
    """
    return f"{value * 100:.2f}" if math.isfinite(value) else DASH


def difference(value: float) -> str:
    """A difference of fractions in percentage points, always with its sign."""
    return f"{value * 100:+.2f}".replace("-", MINUS) if math.isfinite(value) else DASH


def headlines(rows: Rows) -> Markup:
    """The main figures of the first row, large, with those of the others below."""
    model = rows[0][1].values
    parts = []
    for key in HEADLINES:
        if key in model:
            group, name = split_key(key)
            label = f"{group} at {name}" if name.startswith("IoU") else name
            others = [el("div", f"{row} {figure(s.values[key])}") for row, s in rows[1:] if key in s.values]
            parts.append(
                el(
                    "div",
                    el("div", label, class_="name"),
                    el("div", figure(model[key]), el("small", " %"), class_="figure"),
                    el("div", others, class_="others"),
                    class_="head",
                )
            )
    return el("div", parts, class_="heads") if parts else Markup("")


def metric_table(key: str, title: str, rows: Rows) -> Markup:
    """One protocol's table: a row per system, columns grouped by rank; last, what the model gains over bias.

    Args:
        key: Id of the table, unique on the page.
        title: Its caption.
        rows: (name, scores), the model first; at least one.
    """
    keys = list(dict.fromkeys(key for _, scores in rows for key in scores.shown or scores.values))
    columns = [split_key(key) for key in keys]
    groups = [(group, list(names)) for group, names in itertools.groupby(columns, lambda column: column[0])]
    starts = {names[0] for _, names in groups[1:]}
    edges = ["edge" if column in starts else None for column in columns]

    def line(name: str, cells: Sequence[str]) -> Markup:
        figures = [el("td", cell, class_=edge) for cell, edge in zip(cells, edges, strict=True)]
        return el("tr", el("th", name, scope="row"), figures)

    top = [
        el("th", el("span", name), class_="group", colspan=len(names), scope="colgroup")
        for name, names in groups
    ]
    second = [
        el("th", name, scope="col", class_=edge) for (_, name), edge in zip(columns, edges, strict=True)
    ]
    body = [line(name, [figure(_value(scores, key)) for key in keys]) for name, scores in rows]
    bias = dict(rows[1:]).get(BIAS)
    gain = None
    if bias is not None:
        cells = [difference(_value(rows[0][1], key) - _value(bias, key)) for key in keys]
        gain = line(f"{rows[0][0]} {MINUS} {BIAS}", cells)
    table = el(
        "table",
        el("thead", el("tr", el("td"), top), el("tr", el("td"), second)),
        el("tbody", body),
        el("tfoot", gain) if gain else None,
        aria_labelledby=f"{key}-t",
        aria_describedby=f"{key}-d",
    )
    # the words stand outside of what scrolls, so that a phone shows them whole
    heading = join(el("h3", title, id=f"{key}-t"), el("p", _about(rows[0][1]), id=f"{key}-d", class_="about"))
    return join(heading, scrolling(title, table))


def scrolling(title: str, table: Markup) -> Markup:
    """A wide table in a box of its own that scrolls, also by keyboard."""
    return el("div", table, class_="scroll", role="region", aria_label=title, tabindex="0")


def _value(scores: Scores, key: str) -> float:
    return scores.values.get(key, math.nan)


def _about(scores: Scores) -> str:
    split = f"split {scores.split}, " if scores.split else ""
    return (
        f"Protocol {scores.protocol}: {scores.compare.replace('>=', '≥')}; {split}"
        f"{scores.num_queries:,} queries, {scores.num_missing:,} without prediction"
    )
