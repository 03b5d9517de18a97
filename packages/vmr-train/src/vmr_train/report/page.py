"""The page: heading, tables, charts and queries put together into one HTML text."""

from __future__ import annotations

import base64
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from importlib import resources

from vmr_common.timeline import format_clock
from vmr_common.types import Prediction
from vmr_train.report.analysis import (
    THRESHOLDS,
    Breakdown,
    breakdowns,
    loss_series,
    metric_series,
    selected_epoch,
)
from vmr_train.report.charts import bar_chart, line_chart, percent
from vmr_train.report.data import Report, Shown, choose_queries
from vmr_train.report.markup import Markup, el, join
from vmr_train.report.strips import film_strips
from vmr_train.report.tables import figure, headlines, metric_table, scrolling
from vmr_train.report.timelines import LONG, timeline, zoom

MOST_CHARTS = 60
GROUPS = {
    "best": ("The best", "Highest IoU of the first prediction."),
    "worst": ("The worst", "Lowest IoU of the first prediction."),
    "random": ("At random", "Drawn from the other queries, highest IoU first."),
}
SECTIONS = (("results", "Results"), ("training", "Training"), ("kinds", "By moment"), ("queries", "Queries"))


def render(report: Report) -> str:
    """The whole report as HTML text; the same report gives the same text."""
    style, script = (_asset(name) for name in ("style.css", "filter.js"))
    body = join(
        _header(report),
        el("main", _results(report), _training(report), _kinds(report), _queries(report)),
        el("footer", el("p", _footer())),
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # nothing may be loaded and only our own script may run, whatever a sentence holds
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = join(
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="color-scheme", content="light dark"),
        el("title", report.title),
        el("style", Markup(style)),
    )
    page = el("html", el("head", head), el("body", body, el("script", Markup(script))), lang="en")
    return f"<!DOCTYPE html>\n{page}\n"


def _asset(name: str) -> str:
    return resources.files("vmr_train.report").joinpath(name).read_text(encoding="utf-8")


def _header(report: Report) -> Markup:
    warnings = list(report.warnings)
    if report.selected_on_test or metric_series(report.history, "test"):
        warnings.insert(
            0,
            "Selected on test: the epoch was chosen by its score on the very queries reported here. "
            "These figures are optimistic and not comparable with an honest selection.",
        )
    return el(
        "header",
        el("h1", report.title),
        el("nav", [el("a", name, href=f"#{key}") for key, name in SECTIONS], aria_label="Sections"),
        [_warning(text) for text in warnings],
        headlines(report.tables[0][1]) if report.tables and report.tables[0][1] else None,
        _facts(report),
        el("div", el("span", "Reproduce with"), el("pre", report.command), class_="command")
        if report.command
        else None,
    )


def _warning(text: str) -> Markup:
    lead, colon, rest = text.partition(": ")
    content = join(el("strong", lead + ":"), " " + rest) if colon and len(lead) < 40 else join(text)
    return el("p", content, class_="warning", role="note")


def _facts(report: Report) -> Markup:
    predicted = {p.query for p in report.predictions if len(p.moments)}
    facts = dict(report.facts)
    if report.queries:
        facts.setdefault("queries", f"{len(report.queries):,}")
        missing = sum(query.id not in predicted for query in report.queries)
        facts.setdefault("without prediction", f"{missing:,}")
    if report.bias_window:
        facts.setdefault("bias baseline", report.bias_window)
    rows = [el("div", el("dt", key), el("dd", value)) for key, value in facts.items()]
    return el("dl", rows, class_="facts") if rows else Markup("")


def _section(key: str, title: str, *content: Markup) -> Markup:
    return el(
        "section", el("h2", title, id=f"{key}-h"), *content, id=key, class_=key, aria_labelledby=f"{key}-h"
    )


def _results(report: Report) -> Markup:
    tables = [
        metric_table(f"table{row}", title, rows) for row, (title, rows) in enumerate(report.tables) if rows
    ]
    if not tables:
        return _section("results", "Results", el("p", "This run has not been evaluated.", class_="empty"))
    note = "All figures in percent. Chance draws moments at random"
    note += "; bias gives the moments that fit the training split best, whatever the video and the query"
    note += f" (its first: {report.bias_window})." if report.bias_window else "."
    return _section("results", "Results", el("p", note, class_="lead"), *tables)


def _training(report: Report) -> Markup:
    losses = loss_series(report.history)
    groups = {split: metric_series(report.history, split) for split in ("validation", "test")}
    if not losses and not any(groups.values()):
        return _section("training", "Training", el("p", "No training history was recorded.", class_="empty"))
    parts = []
    if losses:
        charts = [
            line_chart(f"loss{row}", s.name, [s], x_name="update")
            for row, s in enumerate(losses[:MOST_CHARTS])
        ]
        parts += [el("h3", "Loss terms"), el("div", charts, class_="panels"), _left_out(len(losses))]
    chosen = selected_epoch(report.history)
    mark = None if chosen is None else (chosen, "selected")
    for split, metrics in groups.items():
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
            parts += [
                el("h3", split.capitalize()),
                el("div", charts, class_="panels"),
                _left_out(len(metrics)),
            ]
    return _section("training", "Training", *parts)


def _left_out(count: int) -> Markup:
    text = f"{count - MOST_CHARTS:,} further charts are left out."
    return el("p", text, class_="empty") if count > MOST_CHARTS else Markup("")


def _kinds(report: Report) -> Markup:
    length, start = breakdowns(report.queries, report.predictions, report.bias)
    if not length.counts.sum() or not report.predictions:
        return _section("kinds", "By moment", el("p", "There is nothing to compare.", class_="empty"))
    parts = []
    for key, title, data in (
        ("length", "Length of the true moment, share of the video", length),
        ("start", "Start of the true moment, share of the video", start),
    ):
        charts = [bar_chart(f"{key}{row}", threshold, data) for row, threshold in enumerate(THRESHOLDS)]
        parts += [el("h3", title), el("div", charts, class_="panels three"), _kinds_table(title, data)]
    lead = (
        "Recall of the first prediction in percent (IoU with the true union, hit at the threshold and above)."
    )
    return _section(
        "kinds", "By moment", el("p", lead, class_="lead"), _bar_key(report.bias is not None), *parts
    )


def _bar_key(bias: bool) -> Markup:
    parts = [("model", el("rect", width=12, height=12, class_="bar"))]
    if bias:
        parts.append(("bias baseline", el("line", x1=0, x2=14, y1=6, y2=6, class_="bias")))
    return _key(parts)


def _key(parts: Sequence[tuple[str, Markup]]) -> Markup:
    items = [
        el("li", el("svg", picture, width=16, height=12, aria_hidden="true"), name) for name, picture in parts
    ]
    return el("ul", items, class_="key")


def _kinds_table(title: str, data: Breakdown) -> Markup:
    heads = [el("th", "share", class_="corner", scope="col"), el("th", "queries", scope="col")]
    for threshold in THRESHOLDS:
        heads.append(el("th", f"model, IoU {threshold:g}", scope="col", class_="edge"))
        if data.bias is not None:
            heads.append(el("th", f"bias, IoU {threshold:g}", scope="col"))
    rows = []
    for row, label in enumerate(data.labels):
        cells = [el("th", label, scope="row"), el("td", f"{int(data.counts[row]):,}")]
        for threshold in THRESHOLDS:
            cells.append(el("td", figure(float(data.model[threshold][row])), class_="edge"))
            if data.bias is not None:
                cells.append(el("td", figure(float(data.bias[threshold][row]))))
        rows.append(el("tr", cells))
    table = el("table", el("thead", el("tr", heads)), el("tbody", rows))
    return el("details", el("summary", "The figures"), scrolling(title, table))


def _queries(report: Report) -> Markup:
    shown = choose_queries(report.queries, report.predictions, report.shown, report.seed)
    if not shown:
        return _section("queries", "Queries", el("p", "There is no query to show.", class_="empty"))
    strips = film_strips(report, shown)
    bias = {p.query: p for p in report.bias or ()}
    numbered = list(enumerate(shown))
    parts = []
    for group, (title, about) in GROUPS.items():
        cards = [
            _card(row, s, report, strips, bias.get(s.query.id)) for row, s in numbered if s.group == group
        ]
        if cards:
            heading = el("h3", f"{title} {len(cards)} ", el("small", about))
            parts.append(el("div", heading, el("div", cards, class_="cards"), data_group=group))
    return _section(
        "queries", "Queries", _query_lead(report, shown), _query_key(report, shown), _filter(), *parts
    )


def _query_lead(report: Report, shown: Sequence[Shown]) -> Markup:
    text = f"{len(shown)} of {len(report.queries):,} queries, each with its first five predictions."
    return el("p", text, class_="lead")


def _query_key(report: Report, shown: Sequence[Shown]) -> Markup:
    parts = [("true moment", el("rect", width=16, height=11, rx=1.5, class_="truth"))]
    if any(s.query.glance is not None for s in shown):
        diamond = el("svg", el("path", d="M0 -6L5 0L0 6L-5 0Z", class_="glance"), x=8, y=6, class_="free")
        parts.append(("glance", diamond))
    names = sorted({curve.name for s in shown for curve in report.curves.get(s.query.id, ())})
    parts += [
        (
            name,
            join(
                el("path", d="M0 12Q8 -10 16 12Z", class_="hill"),
                el("path", d="M0 12Q8 -10 16 12", class_="ridge"),
            ),
        )
        for name in names
    ]
    parts.append(("predictions, best first", el("rect", width=16, y=1, height=9, rx=1.5, class_="guess")))
    if report.bias is not None:
        parts.append(("bias baseline", el("rect", width=16, y=1, height=9, rx=1.5, class_="guess other")))
    return _key(parts)


def _filter() -> Markup:
    options = [el("option", "All groups", value="")]
    options += [el("option", title, value=group) for group, (title, _) in GROUPS.items()]
    return el(
        "div",
        el(
            "input",
            type="search",
            placeholder="Filter by sentence or video",
            aria_label="Filter by sentence or video",
        ),
        el("select", options, aria_label="Group"),
        el("output", aria_live="polite"),
        id="filter",
        class_="filter",
        hidden=True,
    )


def _card(
    row: int, shown: Shown, report: Report, strips: Mapping[str, Sequence[str]], bias: Prediction | None
) -> Markup:
    query, part = shown.query, zoom(shown)
    strip = strips.get(query.id)
    images = [el("img", src=image, alt="") for image in strip or ()]
    return el(
        "article",
        el(
            "div",
            el("p", f"“{query.text}”", class_="text"),
            el("div", el("small", "IoU "), f"{shown.iou:.2f}", class_="score"),
            class_="top",
        ),
        el("p", f"video {query.video} · query {query.id} · {_length(query.duration)}", class_="about"),
        el("div", images, class_="strip", role="img", aria_label="Frames of the video over time")
        if strip
        else None,
        timeline(f"q{row}", shown, report.curves.get(query.id, ()), bias),
        None if part is None else el("p", "zoomed in", class_="about"),
        None if part is None else timeline(f"q{row}z", shown, (), None, part),
        class_="card",
        data_find=f"{query.text} {query.video} {query.id}".lower(),
    )


def _length(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < LONG else format_clock(seconds)


def _footer() -> str:
    return (
        "IoU is that of the strict protocol (true union) wherever no protocol is named. "
        "This page is complete in itself and loads nothing."
    )
