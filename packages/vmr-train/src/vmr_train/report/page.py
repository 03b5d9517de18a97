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

from vmr_common.page import stylesheet
from vmr_train.report.analysis import loss_series, metric_series, selected_epoch, target_of
from vmr_train.report.cards import run_cards
from vmr_train.report.charts import interval_bar, line_chart, percent
from vmr_train.report.data import Report, choose_queries
from vmr_train.report.failures import GroupFigures, failures
from vmr_train.report.glossary import GLOSSARY
from vmr_train.report.intervals import protocol_estimates
from vmr_train.report.kinds import SMALL
from vmr_train.report.svg import printable
from vmr_train.report.tables import headlines, interval, metric_table

MOST_CHARTS = 60
SECTIONS = {
    "results": "Results",
    "kinds": "Which queries fail",
    "training": "Training",
    "queries": "Queries",
    "words": "Words",
}


def _groups(report: Report) -> dict[str, tuple[str, str]]:
    """The title of each group of drawn queries, and why they are drawn."""
    target = target_of(report.queries)
    if target is None:
        return {"random": ("At random", "Nothing is known of where they should be.")}
    return {
        "best": ("The best", target.nearest),
        "worst": ("The worst", target.farthest),
        "random": ("At random", "Drawn from the other queries, the best first."),
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
    found.globals["shared_css"] = Markup(stylesheet())
    found.filters["sha256"] = lambda text: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return found


@functools.cache
def script() -> Markup:
    """The one script of a page."""
    templates = resources.files("vmr_train.report").joinpath("templates")
    parts = (templates.joinpath(name).read_text(encoding="utf-8") for name in ("filter.js", "viewer.js"))
    return Markup("".join(parts))


def render(report: Report) -> str:
    """The whole report as HTML text; the same report gives the same text."""
    shown = choose_queries(report.queries, report.predictions, report.shown, report.seed)
    page = environment().get_template("report.html")
    return page.render(
        report=report,
        sections=SECTIONS,
        groups=_groups(report),
        target=target_of(report.queries),
        script=script(),
        glossary_words=GLOSSARY,
        small=SMALL,
        warnings=[_warning(text) for text in _warnings(report)],
        heads=_heads(report),
        facts=_facts(report),
        tables=[metric_table(title, rows) for title, rows in report.tables if rows],
        training=list(_training(report)),
        failures=_failures(report),
        cards=run_cards(report, shown),
        glances=any(s.query.glance is not None for s in shown),
        curves=sorted({curve.name for s in shown for curve in report.curves.get(s.query.id, ())}),
    )


def _heads(report: Report) -> list[tuple[str, str, str, list[str]]]:
    rows = report.tables[0][1] if report.tables else []
    if not rows:
        return []
    return list(headlines(rows, protocol_estimates(rows[0][1].protocol, report.queries, report.predictions)))


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


def _failures(report: Report) -> dict[str, Any] | None:
    """Groups of queries: those that fail, and by kind the rows of a table; None where there is nothing to compare."""
    found = failures(report.queries, report.predictions, report.bias, report.seen)
    if found is None:
        return None
    return {
        "target": found.target,
        "whole": f"{found.whole * 100:.1f}",
        "groups": sum(len(rows) for _, rows in found.kinds),
        "weak": [
            (title, row.group.label, f"{row.recall.value * 100:.1f}", f"{len(row.group.rows):,}")
            for title, row in found.weak
        ],
        "kinds": [
            (kind.title, kind.about, [_group_row(row, found.whole) for row in rows])
            for kind, rows in found.kinds
        ],
        "small": any(row.group.small for _, rows in found.kinds for row in rows),
    }


def _group_row(row: GroupFigures, whole: float) -> dict[str, Any]:
    return {
        "label": row.group.label,
        "small": row.group.small,
        "count": f"{len(row.group.rows):,}",
        "bar": interval_bar(row.recall.value, row.recall.low, row.recall.high, bias=row.bias, whole=whole),
        "recall": f"{row.recall.value * 100:.1f}",
        "recall_interval": interval(row.recall.low, row.recall.high),
        "mean": f"{row.mean.value * 100:.1f}",
        "mean_interval": interval(row.mean.low, row.mean.high),
        "bias": None if row.bias is None else f"{row.bias * 100:.1f}",
    }
