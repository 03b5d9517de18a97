"""The contents of a report: the `Report`, its JSON form, and the choice of the queries that are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, quoted, shortened
from vmr_common.evaluation import Scores
from vmr_common.schema import conform
from vmr_common.timeline import MOST_SECONDS
from vmr_common.types import Prediction, Query
from vmr_train.machine import Machine
from vmr_train.report.analysis import rank_ious

FORMAT = 1
BIAS_MOMENTS = 5
MOST_SHOWN = 1000
"""Queries that a page draws at the most; each takes some ten thousand characters."""

FloatArray: TypeAlias = "NDArray[np.float64]"
Frames: TypeAlias = Callable[[str], "tuple[NDArray[np.uint8], NDArray[np.float64]] | None"]
FrameOverlay: TypeAlias = Callable[[Query, "NDArray[np.uint8]", "NDArray[np.float64]"], "NDArray[np.uint8]"]
"""Frames ``(n, H, W, 3)`` of a query's video and their times ``(n,)`` in seconds, with something drawn on them."""
Group: TypeAlias = Literal["best", "worst", "random"]


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
    machine: NotRequired[Machine]


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
    """A weight over time that is drawn above a query's predictions (RGN: the re-glance Gaussian).

    Attributes:
        name: Label in the picture, a word or two.
        times: ``(P,)`` float64, seconds, ascending.
        values: ``(P,)`` float64 in [0, 1]; others are cut off at the edge, NaN leaves a gap.
    """

    name: str
    times: FloatArray
    values: FloatArray

    def __post_init__(self) -> None:
        for key in ("times", "values"):
            object.__setattr__(self, key, np.asarray(getattr(self, key), dtype=np.float64))
        if self.times.ndim != 1 or self.times.shape != self.values.shape:
            raise ValueError(
                f"curve {self.name!r}: times and values must be of one shape (P,), "
                f"found {self.times.shape} and {self.values.shape}"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """Everything that one report shows; only the title is needed.

    Attributes:
        title: Heading, such as "rgn on shapes/test".
        facts: Key and value pairs of the heading, in order (run, split, seed, versions, hashes, time, ...).
            The numbers of queries and of queries without prediction are added where they are missing.
        warnings: Sentences that a reader must not overlook.
        command: The shell command that reproduces the run.
        selected_on_test: The epoch was chosen on the test split; labelled loudly, as it also is where the
            history holds test metrics by epoch.
        bias_window: The baseline's first window in words ("0 to 35 % of the video").
        tables: One per protocol: its title and rows (name, scores), in order: model, chance, bias.
        history: Rows of ``metrics.jsonl`` as the training loop writes them; unknown kinds are ignored.
        queries: All queries of the split.
        predictions: Their predictions; missing ones count as misses.
        bias: Predictions of the bias baseline, or None.
        curves: Query id to the curves drawn for it; needed for the shown queries only.
        frames: Video id to its frames ``(F, H, W, 3)`` uint8 and their times ``(F,)`` in seconds, or None
            where the video has none; without it no film strips are drawn.
        draw: Draws on frames of a query's film strip, see `FrameOverlay`; or None.
        strips: Query id to thumbnails that exist already (data URIs, evenly spread over the video); used
            where `frames` is None. `from_json` fills them.
        shown: How many queries are drawn.
        seed: Seed of the choice of the queries.
    """

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    command: str = ""
    selected_on_test: bool = False
    bias_window: str = ""
    tables: Sequence[tuple[str, Sequence[tuple[str, Scores]]]] = ()
    history: Sequence[Mapping[str, Any]] = ()
    queries: Sequence[Query] = ()
    predictions: Sequence[Prediction] = ()
    bias: Sequence[Prediction] | None = None
    curves: Mapping[str, Sequence[Curve]] = field(default_factory=dict)
    frames: Frames | None = None
    draw: FrameOverlay | None = None
    strips: Mapping[str, Sequence[str]] = field(default_factory=dict)
    shown: int = 40
    seed: int = 0

    def to_json(self) -> ReportJson:
        """A plain JSON object of everything but history, predictions and frames, which have their own files.

        Of a bias prediction the first five moments are kept; the film strips are those of `strips`.
        """
        return {
            "format": FORMAT,
            "title": self.title,
            "facts": dict(self.facts),
            "warnings": list(self.warnings),
            "command": self.command,
            "selected_on_test": self.selected_on_test,
            "bias_window": self.bias_window,
            "shown": self.shown,
            "seed": self.seed,
            "tables": [
                {
                    "title": title,
                    "rows": [
                        {"name": name, **scores.to_dict(), "shown": list(scores.shown)}  # type: ignore[typeddict-item]
                        for name, scores in rows
                    ],
                }
                for title, rows in self.tables
            ],
            "queries": [_query_row(query) for query in self.queries],
            "bias": None if self.bias is None else [_prediction_row(p) for p in self.bias],
            "curves": {
                key: [
                    {"name": c.name, "times": _numbers(c.times), "values": _numbers(c.values)} for c in curves
                ]
                for key, curves in self.curves.items()
            },
            "strips": {key: list(strip) for key, strip in self.strips.items()},
        }

    @classmethod
    def from_json(
        cls,
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
        return cls(
            title=known["title"],
            facts=known["facts"],
            warnings=known["warnings"],
            command=known["command"],
            selected_on_test=known["selected_on_test"],
            bias_window=known["bias_window"],
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
            history=history,
            predictions=predictions,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """One query that the report draws.

    Attributes:
        query: The query.
        prediction: Its prediction, or None where there is none.
        iou: IoU of the first prediction (true union, best of several true moments); 0 where there is none.
        group: Why it was chosen.
    """

    query: Query
    prediction: Prediction | None
    iou: float
    group: Group


def choose_queries(
    queries: Sequence[Query], predictions: Sequence[Prediction], count: int = 40, seed: int = 0
) -> list[Shown]:
    """The queries that a report draws: three tenths the best, three tenths the worst, the others at random.

    Queries without ground truth are left out; ties are broken at random by `seed`. Best comes first and
    random last; within a group by falling IoU ("worst": rising).

    Args:
        queries: All queries of the split.
        predictions: Their predictions, in any order.
        count: How many at most.
        seed: Of the random choice.

    Returns:
        At most `count` queries, none of them twice.
    """
    ious = rank_ious(queries, predictions)
    by_query = {prediction.query: prediction for prediction in predictions}
    candidates = np.array([row for row, query in enumerate(queries) if len(query.moments)], dtype=np.int64)
    shuffled = np.random.default_rng(seed).permutation(candidates)
    order = shuffled[np.argsort(-ious[shuffled], kind="stable")]
    count = max(0, min(count, len(order)))
    ends = math.ceil(count * 0.3) if count > 1 else 0
    rest = np.isin(shuffled, order[ends : len(order) - ends])
    middle = shuffled[rest][: count - 2 * ends]
    middle = middle[np.argsort(-ious[middle], kind="stable")]
    groups: tuple[tuple[Group, NDArray[np.int64]], ...] = (
        ("best", order[:ends]),
        ("worst", order[len(order) - ends :][::-1]),
        ("random", middle),
    )
    return [
        Shown(query=queries[row], prediction=by_query.get(queries[row].id), iou=float(ious[row]), group=group)
        for group, rows in groups
        for row in rows
    ]


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


def _query(row: _QueryJson) -> Query:
    return Query(
        id=row["id"],
        video=row["video"],
        text=row["text"],
        duration=row["duration"],
        moments=_moments(row["moments"]),
        glance=None if row["glance"] is None else _times([row["glance"]])[0],
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
