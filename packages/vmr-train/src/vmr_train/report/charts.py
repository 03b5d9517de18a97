"""Line charts and bars as inline SVG that keeps its text size at any width.

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

from vmr_train.report.analysis import Series
from vmr_train.report.svg import DASH, Child, el, number

FloatArray: TypeAlias = "NDArray[np.float64]"

LINE_HEIGHT, ROW_HEIGHT = 132, 22
LABEL_GAP = 13
DOTS_UP_TO = 30
MOST_DIFFERENCE = 0.3
FLAT = 0.25
"""Share of the largest value by which values must differ for an axis from 0 to show it."""
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
        *_without_zero(y_range, y_text),
        *_x_axis(x_range, x_name),
        *_mark(mark, x_range),
        stretched(*(_line(s, row, x_range, y_range) for row, s in enumerate(drawn))),
        *_dots(drawn, x_range, y_range),
        *(_end_labels(drawn, y_range) if labels else []),
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
    """The vertical axis: from 0 where asked for, and where the values differ enough for that to show them."""
    values = np.concatenate([s.y[np.isfinite(s.y)] for s in series])
    low, high = float(values.min()), float(values.max())
    from_zero = from_zero or (low >= 0 and not 0 < high - low < FLAT * high)
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


def _without_zero(bounds: tuple[float, float], text: Callable[[float], str]) -> list[Markup]:
    """A remark below an axis that does not hold 0, so that nobody takes a small change for a large one."""
    if bounds[0] <= 0 <= bounds[1]:
        return []
    return [el("text", f"axis from {text(bounds[0])}, not 0", x="0", y=LINE_HEIGHT + 31, class_="tick")]


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


def _end_labels(series: Sequence[Series], y_range: tuple[float, float]) -> list[Markup]:
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


def difference_bar(value: float, low: float, high: float) -> Markup:
    """A difference of fractions as a bar from the middle of an axis of ±`MOST_DIFFERENCE`, with its interval."""

    def place(number: float) -> float:
        return 50 + 50 * min(max(number / MOST_DIFFERENCE, -1.0), 1.0)

    middle, left = ROW_HEIGHT / 2, min(place(value), 50.0)
    parts = [
        el("rect", width="100%", y=middle - 6, height=12, class_="track"),
        el(
            "rect",
            x=_percent(left),
            width=_percent(abs(place(value) - 50)),
            y=middle - 6,
            height=12,
            class_="bar rival" if value > 0 else "bar",
        ),
        el("line", x1="50%", x2="50%", y1=0, y2=ROW_HEIGHT, class_="axis"),
    ]
    if math.isfinite(low) and math.isfinite(high):
        ends = {"x1": _percent(place(low)), "x2": _percent(place(high))}
        parts += [
            el("line", **ends, y1=middle, y2=middle, class_=name) for name in ("whisker halo", "whisker")
        ]
    return el("svg", parts, class_="plot", width="100%", height=ROW_HEIGHT, aria_hidden="true")


def interval_bar(value: float, low: float, high: float, *, bias: float | None, whole: float) -> Markup:
    """A bar from 0 to a fraction on an axis that ends at 1, with its interval.

    Args:
        value: The fraction.
        low: Lower end of its interval; not-a-number where there is none.
        high: Upper end.
        bias: The baseline's fraction, a tick.
        whole: The fraction of the whole split, a dotted line.
    """
    middle = ROW_HEIGHT / 2
    parts = [
        el("rect", width="100%", y=middle - 6, height=12, class_="track"),
        el("rect", width=_percent(100 * value), y=middle - 6, height=12, class_="bar"),
        el("line", x1=_percent(100 * whole), x2=_percent(100 * whole), y1=0, y2=ROW_HEIGHT, class_="mark"),
    ]
    if bias is not None:
        place = _percent(100 * bias)
        parts.append(el("line", x1=place, x2=place, y1=middle - 9, y2=middle + 9, class_="bias"))
    if math.isfinite(low) and math.isfinite(high):
        ends = {"x1": _percent(100 * low), "x2": _percent(100 * high)}
        parts.append(el("line", **ends, y1=middle, y2=middle, class_="whisker halo"))
        parts.append(el("line", **ends, y1=middle, y2=middle, class_="whisker"))
    return el("svg", parts, class_="plot", width="100%", height=ROW_HEIGHT, aria_hidden="true")
