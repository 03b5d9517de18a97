"""Line and bar charts as inline SVG that keeps its text size at any width.

Plots have no view box: horizontal places are percentages, vertical ones pixels, so that only the plot
stretches and never the letters. Colours and type come from the style sheet through classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from vmr_train.report.analysis import Breakdown, Series
from vmr_train.report.svg import DASH, Child, el, number

FloatArray: TypeAlias = "NDArray[np.float64]"

LINE_HEIGHT, BAR_HEIGHT = 132, 128
LABEL_GAP = 13
DOTS_UP_TO = 30
COLOURS = 6


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers within ``[low, high]``, steps of 1, 2 or 5 times a power of ten.

    Example:
        >>> nice_ticks(0, 30.5, 6), nice_ticks(0.2, 0.9)
        ([0.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0], [0.2, 0.4, 0.6, 0.8])
    """
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / count))
    step = min((power * unit for unit in (1, 2, 5, 10)), key=lambda s: abs((high - low) / s - count))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step)))
    return [round(place * step, digits + 1) for place in range(first, last + 1)]


def short(value: float) -> str:
    """A number for people, three significant digits.

    Example:
        >>> short(0.12345), short(1200), short(25000), short(0.00012), short(-3.0)
        ('0.123', '1200', '25k', '1.2e-4', '-3')
    """
    if not math.isfinite(value):
        return DASH
    size = abs(value)
    if size >= 1e6 or 0 < size < 1e-3:
        digits, _, power = f"{value:.3g}".partition("e")
        if not power:
            digits, _, power = f"{value:.2e}".partition("e")
        mantissa = digits.rstrip("0").rstrip(".") if "." in digits else digits
        return f"{mantissa}e{int(power)}"
    if size >= 10_000:
        return f"{value / 1000:.3g}k"
    return f"{value:.0f}" if size >= 1000 else f"{value:.3g}"


def percent(value: float) -> str:
    """A fraction as a whole percentage.

    Example:
        >>> percent(0.25)
        '25 %'
    """
    return f"{value * 100:.3g} %"


def line_path(x: FloatArray, y: FloatArray) -> str:
    """An SVG path through the points; a point that is not finite interrupts it."""
    parts, pen = [], "M"
    for a, b in zip(x, y, strict=True):
        if math.isfinite(a) and math.isfinite(b):
            parts.append(f"{pen}{number(a)} {number(b)}")
            pen = "L"
        else:
            pen = "M"
    return "".join(parts)


def area_path(x: FloatArray, low: FloatArray, high: FloatArray) -> str:
    """An SVG path around the band between two lines, one closed piece per run of finite points."""
    finite = np.isfinite(x) & np.isfinite(low) & np.isfinite(high)
    cuts = np.flatnonzero(np.diff(finite.astype(np.int8))) + 1
    pieces = []
    for rows in np.split(np.arange(len(x)), cuts):
        if len(rows) and finite[rows[0]]:
            outline = np.concatenate([rows, rows[::-1]])
            edge = np.concatenate([high[rows], low[rows[::-1]]])
            pieces.append(line_path(x[outline], edge) + "Z")
    return "".join(pieces)


def stretched(*children: Child) -> Markup:
    """A layer of 1000 x 1000 units over the whole plot, cut off at its edges; strokes keep their width."""
    return el(
        "svg",
        *children,
        width="100%",
        height="100%",
        viewBox="0 0 1000 1000",
        preserveAspectRatio="none",
        aria_hidden="true",
    )


def line_chart(
    key: str,
    title: str,
    series: Sequence[Series],
    *,
    x_name: str,
    y_text: Callable[[float], str] = short,
    from_zero: bool = False,
    mark: tuple[float, str] | None = None,
) -> Markup:
    """A small chart of one or more lines.

    Args:
        key: Id of the picture, unique on the page.
        title: Its heading.
        series: Lines; more than one are labelled at their last point.
        x_name: What the horizontal axis counts.
        y_text: Writes a value of the vertical axis.
        from_zero: The vertical axis begins at 0.
        mark: A place on the horizontal axis and its label.
    """
    drawn = [s for s in series if np.isfinite(s.y).any()]
    if not drawn:
        return figure(title, el("p", "No finite value was recorded.", class_="empty"))
    x_range, y_range = _x_range(drawn), _y_range(drawn, from_zero)
    labels = len(series) > 1
    content = [
        el("title", title, id=f"{key}-t"),
        el("desc", _describe(drawn, x_name, y_text), id=f"{key}-d"),
        *_y_axis(y_range, y_text),
        *_x_axis(x_range, x_name),
        *_mark(mark, x_range),
        stretched(*(_line(s, row, x_range, y_range) for row, s in enumerate(drawn))),
        *_dots(drawn, x_range, y_range),
        *(_end_labels(drawn, x_range, y_range) if labels else []),
    ]
    return figure(title, picture(key, LINE_HEIGHT, content, "lines labelled" if labels else "lines"))


def picture(key: str, height: float, content: Sequence[Markup], kind: str) -> Markup:
    """The SVG element around a chart, in the padded box that holds its labels."""
    svg = el(
        "svg",
        content,
        class_="plot",
        width="100%",
        height=height,
        role="img",
        aria_labelledby=f"{key}-t {key}-d",
    )
    return el("div", svg, class_=f"box {kind}")


def figure(title: str, content: Markup) -> Markup:
    """A chart under its heading."""
    return el("figure", el("figcaption", title), content)


def _x_range(series: Sequence[Series]) -> tuple[float, float]:
    low, high = min(s.x.min() for s in series), max(s.x.max() for s in series)
    margin = 0.0 if high > low else max(0.5, abs(low) * 1e-3)
    return float(low) - margin, float(high) + margin


def _y_range(series: Sequence[Series], from_zero: bool) -> tuple[float, float]:
    values = np.concatenate([s.y[np.isfinite(s.y)] for s in series])
    low, high = float(values.min()), float(values.max())
    if from_zero:
        low = min(low, 0.0)
    margin = (high - low) * 0.06 or max(abs(high) * 0.1, 1e-9 if not from_zero else 0.05)
    return (low if from_zero and low == 0 else low - margin), high + margin


def _place(values: FloatArray | float, bounds: tuple[float, float], size: float) -> FloatArray:
    return (np.asarray(values, dtype=np.float64) - bounds[0]) / (bounds[1] - bounds[0]) * size


def _height(values: FloatArray | float, bounds: tuple[float, float], size: float) -> FloatArray:
    return size - _place(values, bounds, size)


def _percent(value: float) -> str:
    return f"{number(value)}%"


def _y_axis(bounds: tuple[float, float], text: Callable[[float], str]) -> list[Markup]:
    parts = []
    for value in nice_ticks(*bounds, 4):
        y = float(_height(value, bounds, LINE_HEIGHT))
        parts.append(el("line", x1="0", x2="100%", y1=y, y2=y, class_="grid"))
        parts.append(el("text", text(value), x=-8, y=y + 4, class_="tick end"))
    return parts


def _x_axis(bounds: tuple[float, float], name: str) -> list[Markup]:
    parts = [el("line", x1="0", x2="100%", y1=LINE_HEIGHT, y2=LINE_HEIGHT, class_="axis")]
    for value in nice_ticks(*bounds, 4):
        if value == round(value):  # updates and epochs are whole
            x = _percent(float(_place(value, bounds, 100)))
            parts.append(el("text", short(value), x=x, y=LINE_HEIGHT + 16, class_="tick middle"))
    parts.append(el("text", name, x="100%", y=LINE_HEIGHT + 31, class_="tick end"))
    return parts


def _mark(mark: tuple[float, str] | None, bounds: tuple[float, float]) -> list[Markup]:
    if mark is None or not bounds[0] <= mark[0] <= bounds[1]:
        return []
    place = float(_place(mark[0], bounds, 100))
    x, side = _percent(place), "end" if place > 50 else "start"
    return [
        el("line", x1=x, x2=x, y1=-4, y2=LINE_HEIGHT, class_="mark"),
        el("text", mark[1], x=x, y=-8, dx=-4 if side == "end" else 4, class_=f"tick {side}"),
    ]


def _line(
    series: Series, row: int, x_range: tuple[float, float], y_range: tuple[float, float]
) -> list[Markup]:
    x = _place(series.x, x_range, 1000)
    parts = []
    if series.low is not None and series.high is not None:
        low, high = (_height(edge, y_range, 1000) for edge in (series.low, series.high))
        parts.append(el("path", d=area_path(x, low, high), class_=f"band s{row % COLOURS}"))
    parts.append(
        el("path", d=line_path(x, _height(series.y, y_range, 1000)), class_=f"line s{row % COLOURS}")
    )
    return parts


def _dots(
    series: Sequence[Series], x_range: tuple[float, float], y_range: tuple[float, float]
) -> list[Markup]:
    return [
        el(
            "circle",
            cx=_percent(float(_place(a, x_range, 100))),
            cy=float(_height(b, y_range, LINE_HEIGHT)),
            r=2.5,
            class_=f"dot s{row % COLOURS}",
        )
        for row, s in enumerate(series)
        if len(s.x) <= DOTS_UP_TO
        for a, b in zip(s.x, s.y, strict=True)
        if math.isfinite(b)
    ]


def _end_labels(
    series: Sequence[Series], x_range: tuple[float, float], y_range: tuple[float, float]
) -> list[Markup]:
    """Names at the last points, pushed apart so that none covers another."""
    ends = [float(s.y[np.isfinite(s.y)][-1]) for s in series]
    last = [(float(_height(y, y_range, LINE_HEIGHT)), row) for row, y in enumerate(ends)]
    parts, floor = [], -math.inf
    overflow = max(0.0, len(last) * LABEL_GAP - LINE_HEIGHT)
    for y, row in sorted(last):
        floor = max(y, floor + LABEL_GAP)
        text_y = floor + 4 - overflow
        parts.append(el("text", series[row].name, x="100%", dx=8, y=text_y, class_=f"name s{row % COLOURS}"))
    return parts


def _describe(series: Sequence[Series], x_name: str, y_text: Callable[[float], str]) -> str:
    parts = []
    for s in series:
        finite = np.isfinite(s.y)
        x, y = s.x[finite], s.y[finite]
        parts.append(
            f"{s.name}: from {y_text(y[0])} at {x_name} {short(x[0])} "
            f"to {y_text(y[-1])} at {x_name} {short(x[-1])}, "
            f"lowest {y_text(y.min())}, highest {y_text(y.max())}"
        )
    return ". ".join(parts) + "."


def bar_chart(key: str, threshold: float, data: Breakdown) -> Markup:
    """Recall at one threshold per bin: a bar for the model, a tick for the baseline, the count below."""
    title = f"R@1 at IoU {threshold:g}"
    model = data.model[threshold]
    bias = None if data.bias is None else data.bias[threshold]
    parts = [
        el("title", title, id=f"{key}-t"),
        el("desc", _describe_bars(data, threshold), id=f"{key}-d"),
    ]
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = BAR_HEIGHT * (1 - value)
        parts.append(el("line", x1="0", x2="100%", y1=y, y2=y, class_="grid" if value else "axis"))
        parts.append(el("text", f"{value * 100:.0f}", x=-8, y=y + 4, class_="tick end"))
    slot = 100 / len(data.labels)
    for row, label in enumerate(data.labels):
        middle = _percent((row + 0.5) * slot)
        parts += _bar(row * slot, slot, model[row], math.nan if bias is None else bias[row])
        parts.append(el("text", label, x=middle, y=BAR_HEIGHT + 16, class_="tick middle"))
        count = f"n {int(data.counts[row])}"
        parts.append(el("text", count, x=middle, y=BAR_HEIGHT + 31, class_="tick middle count"))
    return figure(title, picture(key, BAR_HEIGHT, parts, "bars"))


def _bar(left: float, width: float, model: float, bias: float) -> list[Markup]:
    middle = _percent(left + width / 2)
    if not math.isfinite(model):
        return [el("text", DASH, x=middle, y=BAR_HEIGHT - 6, class_="tick middle")]
    height = BAR_HEIGHT * model
    parts = [
        el(
            "rect",
            x=_percent(left + width * 0.28),
            width=_percent(width * 0.44),
            y=BAR_HEIGHT - height,
            height=height,
            class_="bar",
        )
    ]
    if math.isfinite(bias):
        y = BAR_HEIGHT * (1 - bias)
        x1, x2 = _percent(left + width * 0.16), _percent(left + width * 0.84)
        parts.append(el("line", x1=x1, x2=x2, y1=y, y2=y, class_="bias"))
    top = BAR_HEIGHT - height - 6
    if math.isfinite(bias) and -2 < BAR_HEIGHT * (1 - bias) - (top - 4) + 6 < 16:
        top = BAR_HEIGHT * (1 - bias) - 6  # over the baseline's tick, not through it
    parts.append(el("text", f"{model * 100:.0f}", x=middle, y=top, class_="value middle"))
    return parts


def _describe_bars(data: Breakdown, threshold: float) -> str:
    parts = []
    for row, label in enumerate(data.labels):
        text = label
        if data.counts[row]:
            text += f": {percent(float(data.model[threshold][row]))}"
            text += "" if data.bias is None else f", bias {percent(float(data.bias[threshold][row]))}"
        parts.append(f"{text} of {int(data.counts[row])} queries")
    return "; ".join(parts) + "."
