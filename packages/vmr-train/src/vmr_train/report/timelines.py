"""The picture of one query: truth, glance, curves and ranked predictions over the time of its video."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from vmr_common.types import Prediction, Query
from vmr_train.report.analysis import glance_distance, moment_ious
from vmr_train.report.charts import area_path, line_path, nice_ticks, picture, short, stretched
from vmr_train.report.data import Curve, Shown
from vmr_train.report.svg import el, number

FloatArray: TypeAlias = "NDArray[np.float64]"

ROW, BAR, CURVE_ROW = 16, 9, 34
RANKS, PAIR_RANKS = 5, 3
MAX_POINTS = 160
LONG = 600.0  # seconds from which on times are written in minutes


def time_end(query: Query) -> float:
    """The end of the time axis, seconds: the duration, or the annotation where that ends later."""
    times = [*query.moments.reshape(-1).tolist(), query.glance or 0.0]
    return max([query.duration, *(time for time in times if math.isfinite(time))])


@dataclass(frozen=True)
class Axis:
    """The part of a video that a picture shows, seconds; `whole`: all of it, and what lies outside is at its edges."""

    start: float
    end: float
    whole: bool = False

    def at(self, time: float) -> float:
        """The place of a time between 0 and 1, limited to the axis."""
        return min(max((time - self.start) / (self.end - self.start), 0.0), 1.0)


def zoom(shown: Shown) -> Axis | None:
    """The surroundings of the true moment and, where it is near, of the first prediction; None in a short video.

    The surroundings are four times as long as what they are of. A first prediction is near if both together take
    a tenth of the video at most.
    """
    query = shown.query
    times = query.moments[np.isfinite(query.moments).all(axis=1)].reshape(-1).tolist()
    if query.duration < LONG or not times:
        return None
    if shown.prediction is not None and len(shown.prediction.moments):
        both = [*times, *shown.prediction.moments[0].tolist()]
        if max(both) - min(both) <= query.duration / 10:
            times = both
    margin = max(1.5 * (max(times) - min(times)), 5.0)
    start, end = max(min(times) - margin, 0.0), min(max(times) + margin, time_end(query))
    return Axis(start, end) if end - start < query.duration / 2 else None


def timeline(
    key: str, shown: Shown, curves: Sequence[Curve], bias: Prediction | None, part: Axis | None = None
) -> Markup:
    """The timeline of one query.

    Args:
        key: Id of the picture, unique on the page.
        shown: The query and its prediction.
        curves: Drawn as filled lines under the true moment.
        bias: The baseline's prediction, of which the first moment is drawn.
        part: What is shown of the video; None: all of it.
    """
    query, axis = shown.query, part or Axis(0.0, time_end(shown.query), whole=True)
    parts: list[Markup] = []
    y = float(ROW)
    for curve in curves:
        parts += _curve_row(curve, y, axis)
        y += CURVE_ROW
    rows, y = _ranked(query, shown.prediction, y, axis)
    parts += rows
    if bias is not None and len(bias.moments):
        parts += _moment_row("bias", bias.moments[0], y, axis, "guess other", height=BAR - 4)
        parts += _figures(y, "", figures(bias.moments[:1], query)[0])
        y += ROW
    head = [
        el("title", f"Timeline of query {query.id}", id=f"{key}-t"),
        el("desc", describe(shown), id=f"{key}-d"),
    ]
    content = head + _axis(y, axis) + _truth(query, y, axis) + parts + _glance(query, y, axis)
    return picture(key, y + 4, content, "time")


def pair_timeline(
    key: str, query: Query, first: Prediction | None, second: Prediction | None, words: str
) -> Markup:
    """The timeline of one query with the first predictions of two runs, A and B.

    Args:
        key: Id of the picture, unique on the page.
        query: The query.
        first: The prediction of A.
        second: The prediction of B.
        words: The picture in words.
    """
    axis = Axis(0.0, time_end(query), whole=True)
    one, y = _ranked(query, first, float(ROW), axis, label="A", kind="guess", ranks=PAIR_RANKS)
    two, y = _ranked(query, second, y, axis, label="B", kind="guess rival", ranks=PAIR_RANKS)
    head = [
        el("title", f"Timeline of query {query.id}", id=f"{key}-t"),
        el("desc", words, id=f"{key}-d"),
    ]
    point = [] if len(query.moments) else _glance(query, y, axis)
    return picture(key, y + 4, head + _axis(y, axis) + _truth(query, y, axis) + one + two + point, "time")


def _ranked(
    query: Query,
    guesses: Prediction | None,
    y: float,
    axis: Axis,
    *,
    label: str = "",
    kind: str = "guess",
    ranks: int = RANKS,
) -> tuple[list[Markup], float]:
    """The rows of the first predictions, and where the next row begins."""
    if guesses is None or not len(guesses.moments):
        missing = f"{label} no prediction".strip()
        return [el("text", missing, x="0", y=y + ROW * 0.6, class_="tick")], y + ROW
    parts: list[Markup] = []
    held = figures(guesses.moments[:ranks], query)
    scores = score_texts(guesses.scores[:ranks])
    for rank, moment in enumerate(guesses.moments[:ranks]):
        parts += _moment_row(f"{label} {rank + 1}".strip(), moment, y, axis, f"{kind} g{rank}")
        parts += _figures(y, scores[rank], held[rank], strong=rank == 0)
        y += ROW
    return parts, y


def describe(shown: Shown) -> str:
    """The timeline in words."""
    query = shown.query
    parts = [f"Video of {query.duration:.1f} s"]
    parts += [f"true moment {start:.1f} to {end:.1f} s" for start, end in query.moments]
    if query.glance is not None:
        parts.append(f"glance at {query.glance:.1f} s")
    if shown.prediction is None or not len(shown.prediction.moments):
        parts.append("no prediction")
    else:
        start, end = shown.prediction.moments[0]
        name, value = figure_name(query), figures(shown.prediction.moments[:1], query)[0]
        held = f", {name} {value}" if name else ""
        parts.append(f"first prediction {start:.1f} to {end:.1f} s{held}")
    return "; ".join(parts) + "."


def figure_name(query: Query) -> str:
    """The name of what `figures` gives; nothing where it gives nothing."""
    if len(query.moments):
        return "IoU"
    return "" if query.glance is None else "off, s"


def figures(moments: FloatArray, query: Query) -> list[str]:
    """The nearness of moments ``(K, 2)``: their IoU, without a true moment the seconds from their middle to the glance.

    Example:
        >>> figures(np.array([[1.0, 3.0]]), Query(id="1", video="v", text="", duration=9.0, glance=5.0))
        ['3.0']
    """
    if len(query.moments):
        return [f"{value:.2f}" for value in moment_ious(moments, query.moments)]
    if query.glance is None:
        return [""] * len(moments)
    return [f"{glance_distance(moment, query) * query.duration:.1f}" for moment in moments]


def score_texts(scores: FloatArray) -> list[str]:
    """Scores of one query in one form: as many decimals for all where their size allows it.

    Example:
        >>> score_texts(np.array([0.9, 0.0123])), score_texts(np.array([12.5, -3.0]))
        (['0.900', '0.012'], ['12.50', '-3.00'])
    """
    largest = float(np.abs(scores).max(initial=0.0))
    if not math.isfinite(largest) or largest >= 100 or 0 < largest < 0.01:
        return [short(float(score)) for score in scores]
    return [f"{score:.{3 if largest < 10 else 2}f}" for score in scores]


def time_ticks(end: float) -> list[tuple[float, str]]:
    """Ticks of a time axis from 0 to `end` seconds and their labels; minutes from ten minutes on.

    Example:
        >>> time_ticks(17.0)
        [(0.0, '0'), (5.0, '5'), (10.0, '10'), (15.0, '15 s')]
        >>> time_ticks(1300.0)
        [(0.0, '0:00'), (300.0, '5:00'), (600.0, '10:00'), (900.0, '15:00'), (1200.0, '20:00')]
    """
    if end < LONG:
        places = [place for place in nice_ticks(0.0, end, 5) if place <= end]
        return [(p, f"{p:g} s" if p == places[-1] else f"{p:g}") for p in places]
    steps = (120, 300, 600, 900, 1800, 3600, 7200, 14400)
    step = next((s for s in steps if end / s <= 6), 14400 * math.ceil(end / 14400 / 6))
    return [(float(s), _clock(s)) for s in range(0, int(end) + 1, step)]


def _ticks_of_part(axis: Axis) -> list[tuple[float, str]]:
    places = [place for place in nice_ticks(axis.start, axis.end, 5) if axis.start <= place <= axis.end]
    return [(place, _clock(round(place))) for place in places]


def _clock(seconds: int) -> str:
    hours, minutes, rest = seconds // 3600, seconds % 3600 // 60, seconds % 60
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _at(time: float, axis: Axis) -> str:
    return f"{number(axis.at(time) * 100)}%"


def _span(moment: FloatArray, axis: Axis) -> tuple[str, str] | None:
    """Left edge and width of a moment on the axis; None where it is not finite, reversed, or beside a part."""
    start, stop = float(moment[0]), float(moment[1])
    if not (math.isfinite(start) and math.isfinite(stop)) or stop < start:
        return None
    if not axis.whole and (stop < axis.start or start > axis.end):
        return None
    left, right = axis.at(start), axis.at(stop)
    return f"{number(left * 100)}%", f"{number(max(right - left, 0.003) * 100)}%"


def _label(text: str, y: float) -> Markup:
    return el("text", text, x=-8, y=y + 4, class_="tick end")


def _figures(y: float, score: str, iou: str, strong: bool = False) -> list[Markup]:
    middle = y + ROW / 2
    return [
        el("text", score, x="100%", dx=45, y=middle + 4, class_="tick end"),
        el("text", iou, x="100%", dx=81, y=middle + 4, class_="tick end strong" if strong else "tick end"),
    ]


def _moment_row(
    label: str, moment: FloatArray, y: float, axis: Axis, kind: str, height: float = BAR
) -> list[Markup]:
    middle = y + ROW / 2
    span = _span(moment, axis)
    parts = [_label(label, middle)]
    if span is not None:
        left, width = span
        parts.append(
            el("rect", x=left, width=width, y=middle - height / 2, height=height, rx=1.5, class_=kind)
        )
    return parts


def _truth(query: Query, bottom: float, axis: Axis) -> list[Markup]:
    parts = []
    for moment in query.moments:
        span = _span(moment, axis)
        if span is not None:
            left, width = span
            parts.append(el("rect", x=left, width=width, y=0, height=bottom, class_="shade"))
            parts.append(el("rect", x=left, width=width, y=1, height=BAR + 2, rx=1.5, class_="truth"))
    parts.append(
        _label("truth" if len(query.moments) else "" if query.glance is None else "glance", ROW / 2 - 1)
    )
    parts.append(el("text", "score", x="100%", dx=45, y=ROW / 2 + 3, class_="tick end"))
    parts.append(el("text", figure_name(query), x="100%", dx=81, y=ROW / 2 + 3, class_="tick end"))
    return parts


def _glance(query: Query, bottom: float, axis: Axis) -> list[Markup]:
    if query.glance is None or not math.isfinite(query.glance):
        return []
    if not axis.whole and not axis.start <= query.glance <= axis.end:
        return []
    x = _at(query.glance, axis)
    # a nested picture of no width carries the diamond: paths know no percentages
    diamond = el(
        "svg", el("path", d="M0 -6L5 0L0 6L-5 0Z", class_="glance"), x=x, y=ROW / 2 - 1, class_="free"
    )
    return [el("line", x1=x, x2=x, y1=0, y2=bottom, class_="glance"), diamond]


def _axis(bottom: float, axis: Axis) -> list[Markup]:
    parts = [el("line", x1="0", x2="100%", y1=bottom, y2=bottom, class_="axis")]
    ticks = time_ticks(axis.end) if axis.whole else _ticks_of_part(axis)
    for place, label in ticks:
        x = _at(place, axis)
        parts.append(el("line", x1=x, x2=x, y1=0, y2=bottom + 4, class_="grid"))
        parts.append(el("text", label, x=x, y=bottom + 17, class_="tick middle"))
    return parts


def _fitting(name: str, length: int = 10) -> str:
    """A name cut to the width of the label column; the legend has it in full."""
    return name if len(name) <= length else name[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _curve_row(curve: Curve, y: float, axis: Axis) -> list[Markup]:
    if not len(curve.times):
        return []
    keep = np.unique(np.linspace(0, len(curve.times) - 1, MAX_POINTS).astype(np.int64))
    x = (curve.times[keep] - axis.start) / (axis.end - axis.start) * 1000
    height = 1000 - np.clip(curve.values[keep], 0.0, 1.0) * 960
    layer = stretched(
        el("path", d=area_path(x, np.full_like(height, 1000.0), height), class_="hill"),
        el("path", d=line_path(x, height), class_="ridge"),
    )
    floor = y + CURVE_ROW - 3
    return [
        el("svg", layer, x="0", y=y + 3, width="100%", height=CURVE_ROW - 6),
        el("line", x1="0", x2="100%", y1=floor, y2=floor, class_="grid"),
        _label(_fitting(curve.name), floor - 9),
    ]
