"""Evaluation of QVHighlights: moments by recall and average precision, highlights by clip scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vmr_common import metrics
from vmr_common.errors import UserError, quoted
from vmr_common.evaluation.packing import Packed, mask
from vmr_common.evaluation.recall import PerQuery, Protocol
from vmr_common.evaluation.scores import Scores
from vmr_common.timeline import highlight_clips
from vmr_common.types import Prediction, Query

FloatArray = NDArray[np.float64]
Floats = metrics.Floats

LENGTHS = {"": (-np.inf, np.inf), "short ": (0.0, 10.0), "middle ": (10.0, 30.0), "long ": (30.0, 150.0)}
AVERAGED = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""Overlaps over which the mean average precision is taken, whatever further ones are asked for."""
LEVELS = {"Fair": 2, "Good": 3, "VeryGood": 4}


@dataclass(frozen=True, kw_only=True)
class QVHighlights(Protocol):
    """Official evaluation of QVHighlights.

    Moments: R@1 is the overlap of the first window with the best of several targets; average precision per
    query over the first ten windows, sorted by score, each target claimed once; thresholds 0.5 to 0.95; also
    for targets of (0, 10], (10, 30] and (30, 150] seconds alone, over the queries that have one (windows of
    another length then count as wrong). Highlights (where predictions carry `saliency`): for clips called
    Fair, Good or VeryGood, per annotator, `metrics.step_precision` averaged, and whether the best clip is one
    for any annotator. Values are rounded to hundredths of a percent.

    The original breaks on a query without windows and demands exactly the split's queries; here a missing one
    is a miss, and counted. As there, clip scores without any window are judged alone, with no figure about moments.
    """

    thresholds: tuple[float, ...] = ()  # overlaps that are given beside those of `AVERAGED`

    windows: int = 10  # how many windows per query count for average precision

    def score(
        self, queries: Sequence[Query], predictions: Sequence[Prediction], *, split: str = ""
    ) -> Scores:
        """See `Protocol.score`; keys ``R@1,IoU@m``, ``mAP,IoU@m``, ``mAP,mean``, the same with ``short ``,
        ``middle `` or ``long `` before, and ``HL-Fair,mAP``, ``HL-Fair,Hit@1``, ...
        """
        packed = self.pack(queries, predictions)
        scores = self._scores(packed, parts := self._parts(packed, queries, predictions), split)
        if "mAP,mean" in parts:
            return scores
        return replace(scores, num_missing=len(queries) - sum(p.saliency is not None for p in predictions))

    def _scores(self, packed: Packed, parts: PerQuery, split: str) -> Scores:
        parts = {key: array for key, array in parts.items() if not np.isnan(array).all()}
        recalls = sorted({0.5, 0.7, *self.thresholds})
        shown = [f"R@1,IoU@{m:g}" for m in recalls] + [f"mAP,IoU@{m:g}" for m in (0.5, 0.75)]
        shown += [f"{name}mAP,mean" for name in LENGTHS]
        shown += [f"HL-{level},{figure}" for level in LEVELS for figure in ("mAP", "Hit@1")]
        return replace(
            super()._scores(packed, parts, split), shown=tuple(key for key in shown if key in parts)
        )

    def per_query(self, queries: Sequence[Query], predictions: Sequence[Prediction]) -> PerQuery:
        """See `Protocol.per_query`; not-a-number where a query has no target of the length."""
        return self._parts(self.pack(queries, predictions), queries, predictions)

    def _parts(self, packed: Packed, queries: Sequence[Query], predictions: Sequence[Prediction]) -> PerQuery:
        highlights = _highlights(queries, predictions)
        only = highlights and not packed.counts.any()
        return highlights if only else {**self.per_query_packed(packed), **highlights}

    def per_query_packed(self, packed: Packed) -> PerQuery:
        """The moment part of `per_query`, for arrays that are packed already."""
        blocks = [
            self._per_query_block(block) for block in packed.blocks(self.windows * packed.truth.shape[1])
        ]
        return {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}

    # times beyond float32 are infinite there, and overlap nothing
    @np.errstate(over="ignore", invalid="ignore")
    def _per_query_block(self, packed: Packed) -> PerQuery:
        valid = packed.valid[:, : self.windows]
        windows = packed.moments[:, : self.windows]
        order = np.argsort(np.where(valid, -packed.scores[:, : self.windows], np.inf), axis=1, kind="stable")
        ranked = np.take_along_axis(windows, order[..., None], axis=1)
        overlaps = metrics.iou(ranked[:, :, None], packed.truth[:, None], "true", empty=0.0)
        overlaps[~valid] = 0.0  # sorting left padding where it was, behind the rest
        if windows.shape[1]:
            first = metrics.iou(windows[:, :1], packed.truth, "hull", empty=0.0) * valid[:, :1]
        else:  # nothing is predicted for any query
            first = np.zeros(packed.truth.shape[:2])
        length = packed.truth[..., 1] - packed.truth[..., 0]
        real = mask(packed.num_truth, packed.truth.shape[1])
        parts: PerQuery = {}
        for name, (low, high) in LENGTHS.items():
            chosen = real & (length > low) & (length <= high)
            parts.update(self._of_length(name, first, overlaps, chosen))
        return parts

    def _limit(self) -> int:
        return self.windows

    def _of_length(self, name: str, first: Floats, overlaps: Floats, chosen: NDArray[np.bool_]) -> PerQuery:
        """Values of the queries that have a `chosen` ``(N, G)`` target, from overlaps ``(N, P, G)``."""
        rows = np.flatnonzero(chosen.any(axis=1))
        chosen, counts = chosen[rows], chosen[rows].sum(axis=1)
        # the chosen targets to the front, in their order
        front = np.argsort(~chosen, axis=1, kind="stable")[:, : int(counts.max(initial=0))]
        best = np.where(chosen, first[rows], 0.0).max(axis=1, initial=0.0)
        ordered = np.take_along_axis(overlaps[rows], front[:, None], axis=2)
        thresholds = sorted({*AVERAGED, *self.thresholds})
        precision = metrics.average_precision(metrics.match(ordered, counts, thresholds), counts)
        parts: PerQuery = {}

        def put(key: str, values: Floats) -> None:
            parts[name + key] = np.full(len(first), np.nan)
            parts[name + key][rows] = values

        for threshold in thresholds:
            put(f"R@1,IoU@{threshold:g}", metrics.hits(best, threshold).astype(np.float64))
        for column, threshold in enumerate(thresholds):
            put(f"mAP,IoU@{threshold:g}", precision[:, column])
        put("mAP,mean", precision[:, [thresholds.index(one) for one in AVERAGED]].mean(axis=1))
        return parts

    def _value(self, key: str, contributions: FloatArray) -> float:
        return round(100 * float(np.nanmean(contributions)), 2) / 100


def _highlights(queries: Sequence[Query], predictions: Sequence[Prediction]) -> PerQuery:
    """Highlight values per query; nothing if no prediction has clip scores or no query has labels."""
    given = {prediction.query: prediction.saliency for prediction in predictions}
    lists = [given.get(query.id) for query in queries]
    labelled = np.array(
        [query.saliency is not None and query.saliency_clips is not None for query in queries]
    )
    if all(scores is None for scores in lists) or not labelled.any():
        return {}
    for query, scores in zip(queries, lists, strict=True):
        if scores is not None and not np.isfinite(scores).all():
            raise UserError(f"a clip score of query {quoted(query.id)} is not finite")
    annotators = _annotators(queries)
    clips = np.array([highlight_clips(query.duration) for query in queries])
    width = max(int(clips.max()), 1)
    rows = max(1, _CELLS // (width * annotators))
    blocks = [
        _highlight_block(queries[part], lists[part], clips[part], (annotators, width))
        for part in (slice(begin, begin + rows) for begin in range(0, len(queries), rows))
    ]
    parts = {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}
    for array in parts.values():
        array[~labelled] = np.nan
    return parts


_CELLS = 1 << 18  # labels of clips judged at once
_NONE = np.zeros(0)


def _highlight_block(
    queries: Sequence[Query],
    lists: Sequence[FloatArray | None],
    clips: NDArray[np.int64],
    shape: tuple[int, int],
) -> PerQuery:
    """Highlight values of some queries, of which the labels are ``(N, *shape)``: annotators and clips."""
    given = [_NONE if scores is None else scores for scores in lists]
    labels = _labels(queries, shape)
    counts = np.array([len(scores) for scores in given])
    ranked = _fitted(given, clips, shape[1])
    # the best clip is sought in the list as given; past the last clip it is no highlight
    best = np.array([int(scores.argmax()) if len(scores) else 0 for scores in given])
    inside = (counts > 0) & (best < clips)
    at_best = labels[np.arange(len(labels)), :, np.minimum(best, shape[1] - 1)]
    parts: PerQuery = {}
    levels = np.array(list(LEVELS.values()), dtype=np.float64)
    reached = labels[:, None] >= levels[:, None, None]  # (N, levels, annotators, C)
    precision = metrics.step_precision(ranked, reached.reshape(len(labels), -1, shape[1]))
    precision = precision.reshape(len(labels), -1, shape[0]).mean(axis=2)
    for column, (name, level) in enumerate(LEVELS.items()):
        hit = (at_best >= level).any(axis=1) & inside
        parts[f"HL-{name},mAP"] = np.where(counts > 0, precision[:, column], 0.0)
        parts[f"HL-{name},Hit@1"] = hit.astype(np.float64)
    return parts


def _annotators(queries: Sequence[Query]) -> int:
    """Number of annotators who scored the clips of the split."""
    columns = set()
    for query in queries:
        if query.saliency is not None and len(query.saliency):
            fit = query.saliency_clips is not None and len(query.saliency_clips) == len(query.saliency)
            columns.add(query.saliency.shape[1] if fit and query.saliency.ndim == 2 else 0)
    if len(columns) > 1 or 0 in columns:
        raise UserError("clip scores of the split: expected one row per clip, one column per annotator")
    return columns.pop() if columns else 1


def _labels(queries: Sequence[Query], shape: tuple[int, int]) -> FloatArray:
    """Annotators' scores as ``(N, *shape)``, 0 for clips without one."""
    labels = np.zeros((len(queries), *shape))
    for row, query in enumerate(queries):
        if query.saliency is not None and query.saliency_clips is not None and len(query.saliency):
            inside = (query.saliency_clips >= 0) & (query.saliency_clips < shape[1])
            labels[row, :, query.saliency_clips[inside]] = query.saliency[inside]
    return labels


def _fitted(given: Sequence[FloatArray], clips: NDArray[np.int64], width: int) -> FloatArray:
    """Clip scores ``(N, width)`` cut or filled with 0 to the number of clips; -inf past it."""
    fitted = np.zeros((len(given), width))
    for row, scores in enumerate(given):
        fitted[row, : len(scores)] = scores[:width]
    return np.where(mask(clips, width), fitted, -np.inf)
