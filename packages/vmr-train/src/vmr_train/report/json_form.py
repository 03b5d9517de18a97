"""``report.json``: the JSON form of a report, its schema, and the way back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NotRequired, TypeAlias, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, quoted, shortened
from vmr_common.evaluation import Scores
from vmr_common.schema import conform
from vmr_common.timeline import MOST_SECONDS
from vmr_common.types import Prediction, Query
from vmr_train.machine import Machine
from vmr_train.report.data import MOST_SHOWN, Curve, Report
from vmr_train.report.seen import Seen

FORMAT = 1
BIAS_MOMENTS = 5
MOST_SENTENCES = 10**12

FloatArray: TypeAlias = "NDArray[np.float64]"
Number: TypeAlias = float | None
"""A number in JSON, null where it is not finite."""
Made = TypeVar("Made")


class ScoresRow(TypedDict):
    """The scores of one system as JSON (``results.json``, ``report.json``); null where a figure is not a number."""

    name: str
    protocol: str
    compare: str
    split: str
    num_queries: int
    num_missing: int
    values: dict[str, float | None]
    shown: NotRequired[list[str]]
    num_left_out: NotRequired[int]
    num_without_features: NotRequired[int]
    machine: NotRequired[Machine]
    intervals: NotRequired[dict[str, tuple[float, float]]]
    presence: NotRequired[dict[str, Any]]


class _TableJson(TypedDict):
    title: str
    rows: list[ScoresRow]


class _QueryJson(TypedDict):
    id: str
    video: str
    text: str
    duration: float
    moments: list[list[Number]]
    glance: Number


class _PredictionJson(TypedDict):
    query: str
    video: str
    moments: list[list[Number]]
    scores: list[Number]


class _CurveJson(TypedDict):
    name: str
    times: list[Number]
    values: list[Number]


class _SeenJson(TypedDict):
    rarest: int
    together: bool
    held_out: bool | None


class ReportJson(TypedDict):
    """The contents of ``report.json``."""

    format: int
    title: str
    facts: dict[str, str]
    warnings: list[str]
    command: str
    selected_on_test: bool
    bias_window: str
    shown: int
    seed: int
    tables: list[_TableJson]
    queries: list[_QueryJson]
    bias: list[_PredictionJson] | None
    curves: dict[str, list[_CurveJson]]
    strips: dict[str, list[str]]
    seen: NotRequired[dict[str, _SeenJson]]
    remarks: NotRequired[list[str]]
    presence: NotRequired[str]


def to_json(report: Report) -> ReportJson:
    """A plain JSON object of everything but history, predictions and frames, which have their own files.

    Of a bias prediction the first five moments are kept; the film strips are those of `strips`.
    """
    return {
        "format": FORMAT,
        "title": report.title,
        "facts": dict(report.facts),
        "warnings": list(report.warnings),
        "remarks": list(report.remarks),
        "command": report.command,
        "selected_on_test": report.selected_on_test,
        "bias_window": report.bias_window,
        "presence": report.presence,
        "shown": report.shown,
        "seed": report.seed,
        "tables": [
            {
                "title": title,
                "rows": [
                    {"name": name, **scores.to_dict(), "shown": list(scores.shown)}  # type: ignore[typeddict-item]
                    for name, scores in rows
                ],
            }
            for title, rows in report.tables
        ],
        "queries": [_query_row(query) for query in report.queries],
        "bias": None if report.bias is None else [_prediction_row(p) for p in report.bias],
        "curves": {
            key: [{"name": c.name, "times": _numbers(c.times), "values": _numbers(c.values)} for c in curves]
            for key, curves in report.curves.items()
        },
        "strips": {key: list(strip) for key, strip in report.strips.items()},
        "seen": {key: _seen_row(seen) for key, seen in report.seen.items()},
    }


def from_json(
    data: Mapping[str, Any],
    *,
    history: Sequence[Mapping[str, Any]] = (),
    predictions: Sequence[Prediction] = (),
    where: str = "report.json",
) -> Report:
    """The inverse of `to_json`.

    Args:
        data: The JSON object.
        history: Rows of ``metrics.jsonl``.
        predictions: Those of ``predictions.jsonl``.
        where: Name of the file in messages.

    Raises:
        UserError: if the object is not a report of this format.
    """
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, Mapping) else data
        raise UserError(f"{where}: expected a report of format {FORMAT}, found {quoted(found, 60)}")
    known = conform(dict(data), ReportJson, where)
    if not 0 <= known["shown"] <= MOST_SHOWN:
        raise UserError(
            f"{where}: key shown: found {known['shown']}, expected at most {MOST_SHOWN:,} queries"
        )
    if known["seed"] < 0:
        raise UserError(f"{where}: key seed: found {known['seed']}, expected 0 or more")
    bias = known["bias"]
    return Report(
        title=known["title"],
        facts=known["facts"],
        warnings=known["warnings"],
        remarks=known.get("remarks", []),
        command=known["command"],
        selected_on_test=known["selected_on_test"],
        bias_window=known["bias_window"],
        presence=known.get("presence", ""),
        shown=known["shown"],
        seed=known["seed"],
        tables=[(table["title"], [_scores(row) for row in table["rows"]]) for table in known["tables"]],
        queries=_made(_query, known["queries"], f"{where}: key queries"),
        bias=None if bias is None else _made(_prediction, bias, f"{where}: key bias"),
        curves={
            key: _made(_curve, rows, f"{where}: key curves.{shortened(key, 60)}")
            for key, rows in known["curves"].items()
        },
        strips={
            key: [image for image in images if image.startswith("data:image/")]
            for key, images in known["strips"].items()
        },
        seen={
            key: _seen(row, f"{where}: key seen.{shortened(key, 60)}")
            for key, row in known.get("seen", {}).items()
        },
        history=history,
        predictions=predictions,
    )


def _numbers(values: FloatArray) -> list[float | None]:
    return [float(value) if math.isfinite(value) else None for value in values]


def _floats(values: Sequence[float | None]) -> FloatArray:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _times(values: Sequence[float | None]) -> FloatArray:
    """Seconds that any computation can bear."""
    times = _floats(values)
    if (np.abs(times) > MOST_SECONDS).any():
        raise ValueError(f"times must be at most {MOST_SECONDS:g} seconds, found {times.tolist()}")
    return times


def _scores(row: ScoresRow) -> tuple[str, Scores]:
    return row["name"], Scores(
        protocol=row["protocol"],
        compare=row["compare"],
        split=row["split"],
        num_queries=row["num_queries"],
        num_missing=row["num_missing"],
        values={key: math.nan if value is None else float(value) for key, value in row["values"].items()},
        shown=tuple(row.get("shown", ())),
        num_left_out=row.get("num_left_out", 0),
    )


def _query_row(query: Query) -> _QueryJson:
    return {
        "id": query.id,
        "video": query.video,
        "text": query.text,
        "duration": query.duration,
        "moments": [_numbers(moment) for moment in query.moments],
        "glance": query.glance if query.glance is not None and math.isfinite(query.glance) else None,
    }


def _seen_row(seen: Seen) -> _SeenJson:
    return {"rarest": seen.rarest, "together": seen.together, "held_out": seen.held_out}


def _seen(row: _SeenJson, where: str) -> Seen:
    if not 0 <= row["rarest"] <= MOST_SENTENCES:
        raise UserError(
            f"{where}: rarest: found {quoted(row['rarest'], 60)}, expected 0 to {MOST_SENTENCES:,} sentences"
        )
    return Seen(**row)


def _query(row: _QueryJson) -> Query:
    return Query(
        id=row["id"],
        video=row["video"],
        text=row["text"],
        duration=row["duration"],
        moments=_moments(row["moments"]),
        glance=None if row["glance"] is None else _times([row["glance"]])[0],
        as_annotated=True,  # what the split's policy kept
    )


def _prediction_row(prediction: Prediction) -> _PredictionJson:
    return {
        "query": prediction.query,
        "video": prediction.video,
        "moments": [_numbers(moment) for moment in prediction.moments[:BIAS_MOMENTS]],
        "scores": _numbers(prediction.scores[:BIAS_MOMENTS]),
    }


def _prediction(row: _PredictionJson) -> Prediction:
    return Prediction(
        query=row["query"],
        video=row["video"],
        moments=_moments(row["moments"]),
        scores=_floats(row["scores"]),
    )


def _moments(rows: Sequence[Sequence[float | None]]) -> FloatArray:
    return np.array([_times(moment) for moment in rows])


def _curve(row: _CurveJson) -> Curve:
    return Curve(name=row["name"], times=_times(row["times"]), values=_floats(row["values"]))


def _made(make: Callable[[Any], Made], rows: Sequence[Any], where: str) -> list[Made]:
    """The result of `make` for each row; of a row that it cannot take, the message names the place."""
    made = []
    for place, row in enumerate(rows):
        try:
            made.append(make(row))
        except ValueError as error:
            raise UserError(f"{where}[{place}]: {error}") from None
    return made
