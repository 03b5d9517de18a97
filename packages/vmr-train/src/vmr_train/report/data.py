"""The contents of a report, and the choice of the queries that are drawn."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vmr_common.evaluation import Scores
from vmr_common.types import Prediction, Query
from vmr_train.report.analysis import GLANCE, Target, judged
from vmr_train.report.seen import Seen

MOST_SHOWN = 1000
"""Queries that a page draws at the most; each takes some ten thousand characters."""

FloatArray: TypeAlias = "NDArray[np.float64]"


class Pictures(Protocol):
    """Frames of a video: an array ``(F, H, W, 3)`` uint8, or what reads rows of one when asked for them."""

    def __len__(self) -> int:
        """The number of frames F."""

    def __getitem__(self, rows: NDArray[np.int64], /) -> NDArray[np.uint8]:
        """The frames of some rows, ``(n, H, W, 3)``."""


Frames: TypeAlias = Callable[[str], "tuple[Pictures, NDArray[np.float64]] | None"]


@dataclass(frozen=True)
class FrameOverlay:
    """Marks that a model draws on the frames of a query's video.

    Attributes:
        draw: Draws on frames ``(n, H, W, 3)``, given the query and their times ``(n,)`` in seconds.
        times: The times that it knows something about, ``(m,)`` seconds, or None for all.
    """

    draw: Callable[[Query, NDArray[np.uint8], FloatArray], NDArray[np.uint8]]
    times: Callable[[Query], FloatArray | None]


Group: TypeAlias = Literal["best", "worst", "random"]


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
        remarks: Why a row or a table that one would look for is not there.
        command: The shell command that reproduces the run.
        selected_on_test: The epoch was chosen on the test split; labelled loudly, as it also is where the
            history holds test metrics by epoch.
        bias_window: The baseline's first window in words ("0 to 35 % of the video").
        tables: One per protocol: its title and rows (name, scores), in order: model, chance, bias.
        presence: How well the model tells which sentences are in a video, in words; empty where not measured.
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
        seen: What training knows of each query's sentence, by query id; queries may be absent.
        videos: Address of each video that can be played, relative to the page, by video id.
        shown: How many queries are drawn.
        seed: Seed of the choice of the queries.
    """

    title: str
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    remarks: Sequence[str] = ()
    command: str = ""
    selected_on_test: bool = False
    bias_window: str = ""
    presence: str = ""
    tables: Sequence[tuple[str, Sequence[tuple[str, Scores]]]] = ()
    history: Sequence[Mapping[str, Any]] = ()
    queries: Sequence[Query] = ()
    predictions: Sequence[Prediction] = ()
    bias: Sequence[Prediction] | None = None
    curves: Mapping[str, Sequence[Curve]] = field(default_factory=dict)
    frames: Frames | None = None
    draw: FrameOverlay | None = None
    strips: Mapping[str, Sequence[str]] = field(default_factory=dict)
    seen: Mapping[str, Seen] = field(default_factory=dict)
    videos: Mapping[str, str] = field(default_factory=dict)
    shown: int = 40
    seed: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """One query that the report draws.

    Attributes:
        query: The query.
        prediction: Its prediction, or None where there is none.
        iou: IoU of the first prediction (true union, best of several true moments); 0 where there is none.
        group: Why it was chosen.
        distance: From the middle of the first prediction to the glance as a share of the video, where the split has
            glances and no moments; else None.
    """

    query: Query
    prediction: Prediction | None
    iou: float
    group: Group
    distance: float | None = None


def choose_queries(
    queries: Sequence[Query], predictions: Sequence[Prediction], count: int = 40, seed: int = 0
) -> list[Shown]:
    """The queries that a report draws: three tenths the best, three tenths the worst, the others at random.

    Queries without ground truth are left out, unless all are: then they are drawn at random. Ties are broken at random
    by `seed`. Best comes first and random last; within a group by falling IoU, or rising distance from the glance where
    a split has no moments ("worst": the other way).

    Args:
        queries: All queries of the split.
        predictions: Their predictions, in any order.
        count: How many at most.
        seed: Of the random choice.

    Returns:
        At most `count` queries, none of them twice.
    """
    found = judged(queries, predictions)
    by_query = {prediction.query: prediction for prediction in predictions}
    wanted = [row for row, query in enumerate(queries) if _has_target(query, found.target)]
    shuffled = np.random.default_rng(seed).permutation(np.array(wanted, dtype=np.int64))
    order = shuffled[np.argsort(-found.nearness[shuffled], kind="stable")]
    count = max(0, min(count, len(order)))
    ends = math.ceil(count * 0.3) if count > 1 and found.target else 0
    rest = np.isin(shuffled, order[ends : len(order) - ends])
    middle = shuffled[rest][: count - 2 * ends]
    middle = middle[np.argsort(-found.nearness[middle], kind="stable")]
    groups: tuple[tuple[Group, NDArray[np.int64]], ...] = (
        ("best", order[:ends]),
        ("worst", order[len(order) - ends :][::-1]),
        ("random", middle),
    )
    glances = found.target is GLANCE
    return [
        Shown(
            query=queries[row],
            prediction=by_query.get(queries[row].id),
            iou=0.0 if glances else float(found.values[row]),
            group=group,
            distance=float(found.values[row]) if glances else None,
        )
        for group, rows in groups
        for row in rows
    ]


def _has_target(query: Query, target: Target | None) -> bool:
    if target is None:
        return True
    return query.glance is not None if target is GLANCE else len(query.moments) > 0
