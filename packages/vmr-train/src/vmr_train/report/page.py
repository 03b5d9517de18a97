"""The page: ``templates/report.html``, filled with the figures, tables and charts of a report."""

from __future__ import annotations

import base64
import functools
import hashlib
import itertools
from collections.abc import Iterator
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from vmr_train.clock import format_clock
from vmr_train.report.analysis import THRESHOLDS, breakdowns, loss_series, metric_series, selected_epoch
from vmr_train.report.charts import bar_chart, line_chart, percent
from vmr_train.report.data import Report, Shown, choose_queries
from vmr_train.report.strips import film_strips
from vmr_train.report.svg import printable
from vmr_train.report.tables import figure, headlines, metric_table
from vmr_train.report.timelines import LONG, timeline, zoom

MOST_CHARTS = 60
SECTIONS = {"results": "Results", "training": "Training", "kinds": "By moment", "queries": "Queries"}
GROUPS = {
    "best": ("The best", "Highest IoU of the first prediction."),
    "worst": ("The worst", "Lowest IoU of the first prediction."),
    "random": ("At random", "Drawn from the other queries, highest IoU first."),
}


@functools.cache
def environment() -> jinja2.Environment:
    """The templates of pages: everything that is not markup is escaped, and nothing undefined is passed over."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("vmr_train.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["sha256"] = lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return found


def render(report: Report) -> str:
    """The whole report as HTML text; the same report gives the same text."""
    shown = choose_queries(report.queries, report.predictions, report.shown, report.seed)
    script = resources.files("vmr_train.report").joinpath("templates", "filter.js")
    page = environment().get_template("report.html")
    return page.render(
        report=report,
        sections=SECTIONS,
        groups=GROUPS,
        script=Markup(script.read_text(encoding="utf-8")),
        warnings=[_warning(text) for text in _warnings(report)],
        heads=list(headlines(report.tables[0][1])) if report.tables and report.tables[0][1] else [],
        facts=_facts(report),
        tables=[metric_table(title, rows) for title, rows in report.tables if rows],
        training=list(_training(report)),
        kinds=list(_kinds(report)),
        cards=_cards(report, shown),
        glances=any(s.query.glance is not None for s in shown),
        curves=sorted({curve.name for s in shown for curve in report.curves.get(s.query.id, ())}),
    )


def _warnings(report: Report) -> Iterator[str]:
    if report.selected_on_test or metric_series(report.history, "test"):
        yield (
            "Selected on test: the epoch was chosen by its score on the very queries reported here. "
            "These figures are optimistic and not comparable with an honest selection."
        )
    yield from report.warnings


def _warning(text: str) -> tuple[str, str]:
    """A warning as its first words, which stand out, and the others."""
    lead, _, rest = text.partition(": ")
    return (lead, rest) if rest and len(lead) < 40 else ("", text)


def _facts(report: Report) -> dict[str, str]:
    facts = dict(report.facts)
    if report.queries:
        predicted = {p.query for p in report.predictions if len(p.moments)}
        missing = sum(query.id not in predicted for query in report.queries)
        facts.setdefault("queries", f"{len(report.queries):,}")
        facts.setdefault("without prediction", f"{missing:,}")
    if report.bias_window:
        facts.setdefault("bias baseline", report.bias_window)
    return facts


def _training(report: Report) -> Iterator[tuple[str, list[Markup], int]]:
    """Groups of charts: title, charts, and how many there are with those left out."""
    losses = loss_series(report.history)
    if losses:
        first = enumerate(losses[:MOST_CHARTS])
        yield (
            "Loss terms",
            [line_chart(f"loss{n}", s.name, [s], x_name="update") for n, s in first],
            len(losses),
        )
    chosen = selected_epoch(report.history)
    mark = None if chosen is None else (chosen, "selected")
    for split in ("validation", "test"):
        metrics = metric_series(report.history, split)
        charts = [
            line_chart(
                f"{split}{n}",
                name,
                lines[:MOST_CHARTS],
                x_name="epoch",
                y_text=percent,
                from_zero=True,
                mark=mark,
            )
            for n, (name, lines) in enumerate(itertools.islice(metrics.items(), MOST_CHARTS))
        ]
        if charts:
            yield split.capitalize(), charts, len(metrics)


def _kinds(report: Report) -> Iterator[tuple[str, list[Markup], list[str], list[tuple[str, str, list[str]]]]]:
    """Recall by kind of moment: title, charts, names of the table's columns, and its rows."""
    length, start = breakdowns(report.queries, report.predictions, report.bias)
    if not length.counts.sum() or not report.predictions:
        return
    for key, title, data in (
        ("length", "Length of the true moment, share of the video", length),
        ("start", "Start of the true moment, share of the video", start),
    ):
        systems = {"model": data.model} | ({} if data.bias is None else {"bias": data.bias})
        columns = [(name, threshold) for threshold in THRESHOLDS for name in systems]
        yield (
            title,
            [bar_chart(f"{key}{n}", threshold, data) for n, threshold in enumerate(THRESHOLDS)],
            [f"{name}, IoU {threshold:g}" for name, threshold in columns],
            [
                (
                    label,
                    f"{data.counts[row]:,}",
                    [figure(float(systems[name][t][row])) for name, t in columns],
                )
                for row, label in enumerate(data.labels)
            ],
        )


def _cards(report: Report, shown: list[Shown]) -> list[dict[str, Any]]:
    """The values of ``report.html`` for the card of each of these queries."""
    strips = film_strips(report, shown)
    biases = {p.query: p for p in report.bias or ()}
    cards = []
    for row, item in enumerate(shown):
        query, part = item.query, zoom(item)
        bias = biases.get(query.id)
        seconds = query.duration
        cards.append(
            {
                "query": query,
                "group": item.group,
                "iou": f"{item.iou:.2f}",
                "find": f"{query.text} {query.video} {query.id}".lower(),
                "length": f"{seconds:.1f} s" if seconds < LONG else format_clock(seconds),
                "strip": strips.get(query.id, ()),
                "timeline": timeline(f"q{row}", item, report.curves.get(query.id, ()), bias),
                "zoomed": None if part is None else timeline(f"q{row}z", item, (), None, part),
            }
        )
    return cards
