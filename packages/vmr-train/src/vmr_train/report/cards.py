"""The values of a card: a query with its film strip, its timeline and the ways to play its moments."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vmr_common.timeline import clip_centres
from vmr_common.types import Prediction, Query
from vmr_train.clock import format_clock
from vmr_train.report.analysis import GLANCE, MOMENT
from vmr_train.report.data import Report, Shown
from vmr_train.report.strips import film_strips
from vmr_train.report.svg import DASH
from vmr_train.report.timelines import LONG, time_end, timeline, zoom

FloatArray: TypeAlias = "NDArray[np.float64]"


def run_cards(report: Report, shown: Sequence[Shown]) -> list[dict[str, Any]]:
    """The values for each of these queries of a run."""
    strips = film_strips(report, shown)
    biases = {p.query: p for p in report.bias or ()}
    cards = []
    for row, item in enumerate(shown):
        query, part = item.query, zoom(item)
        drawn = timeline(f"q{row}", item, report.curves.get(query.id, ()), biases.get(query.id))
        cards.append(
            {
                **about(query, strips.get(query.id, ()), report.videos),
                "group": item.group,
                "figure": figure(item),
                "timeline": drawn,
                "zoomed": None if part is None else timeline(f"q{row}z", item, (), None, part),
                "plays": list(plays(query, {"first prediction": item.prediction}, report.videos)),
            }
        )
    return cards


def figure(item: Shown) -> tuple[str, str]:
    """The figure of a card: its name and value; empty where the query has nothing to be held against."""
    if item.distance is not None:
        return GLANCE.figure, GLANCE.shown(item.distance)
    return (MOMENT.figure, MOMENT.shown(item.iou)) if len(item.query.moments) else ("", "")


def about(query: Query, strip: Sequence[str], videos: Mapping[str, str]) -> dict[str, Any]:
    """The values of a query's card in any report."""
    seconds = query.duration
    return {
        "query": query,
        "find": f"{query.text} {query.video} {query.id}".lower(),
        "length": f"{seconds:.1f} s" if seconds < LONG else format_clock(seconds),
        "strip": list(_frames(query, strip)),
        "video": videos.get(query.video, ""),
    }


def _frames(query: Query, strip: Sequence[str]) -> Iterator[tuple[str, str, bool]]:
    """The pictures of a film strip, their times, and whether they lie in a true moment."""
    if strip:
        for image, time in zip(strip, clip_centres(len(strip), time_end(query)), strict=True):
            inside = any(start <= time <= end for start, end in query.moments)
            yield image, _time(float(time)), inside


def plays(
    query: Query, predictions: Mapping[str, Prediction | None], videos: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    """Name and address of each moment that can be played: the true one and the first ones of predictions, by name."""
    address = videos.get(query.video)
    moments: dict[str, Iterable[FloatArray]] = {"true moment": query.moments[:1]}
    moments |= {name: found.moments[:1] for name, found in predictions.items() if found is not None}
    for name, rows in moments.items() if address else ():
        for start, end in rows:
            if np.isfinite((start, end)).all() and end > start:
                span = f"{_time(float(start))}{DASH}{_time(float(end))}"
                yield f"{name}, {span}", f"{address}#t={max(float(start), 0.0):.2f},{float(end):.2f}"


def _time(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < LONG else format_clock(seconds)
