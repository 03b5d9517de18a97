"""Queries and predictions as padded arrays, so that an evaluation needs no loop over queries."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, first_repeated, quoted
from vmr_common.predictions import require_video
from vmr_common.types import Prediction, Query, rank_scores

FloatArray = NDArray[np.float64]

_FREE, _UNEVEN = 1 << 30, 8  # bytes that a table of ragged rows may take, and how many times what they hold
_ROWS = 1 << 12  # queries that are put into a table at once
_BLOCK = 1 << 16  # windows judged at once: what is computed on the way then stays in the processor's cache


@dataclass(frozen=True, kw_only=True, eq=False)
class Packed:
    """N queries with up to M targets and up to K ranked windows each; times in seconds, padding is 0."""

    truth: FloatArray  # `(N, M, 2)` float64, targets
    num_truth: NDArray[np.int64]  # `(N,)` int64, how many of the M are real; 0 does not count
    duration: FloatArray  # `(N,)` float64
    moments: FloatArray  # `(N, K, 2)` float64, predicted windows, best first
    scores: FloatArray  # `(N, K)` float64
    counts: NDArray[np.int64]  # `(N,)` int64, how many of the K are real; 0 where nothing was predicted
    # `(N,)` bool, True where the predictions name the query, even with an empty list
    given: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.duration)

    @property
    def located(self) -> NDArray[np.bool_]:
        """``(N,)`` bool, True where a query has a target; the others are left out of every figure."""
        return self.num_truth > 0

    @property
    def valid(self) -> NDArray[np.bool_]:
        """``(N, K)`` bool, True where a window is real."""
        return mask(self.counts, self.moments.shape[1])

    def answered(self, windows: FloatArray) -> Packed:
        """The same queries, all answered by windows ``(N, k, 2)``, best first."""
        rows, width = windows.shape[:2]
        return replace(
            self,
            moments=windows,
            scores=np.broadcast_to(rank_scores(width), (rows, width)),
            counts=np.full(rows, width),
            given=np.ones(rows, dtype=bool),
        )

    def blocks(self, width: int) -> Iterator[Packed]:
        """The same rows in turn, some at a time, as views; fewer the more numbers (`width`) are computed for each."""
        rows = max(1, _BLOCK // max(width, 1))
        for begin in range(0, max(len(self), 1), rows):
            part = slice(begin, begin + rows)
            yield Packed(**{field.name: getattr(self, field.name)[part] for field in fields(self)})


def mask(counts: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    """``(N, width)`` bool, True in the first ``counts[n]`` places of row n.

    Example:
        >>> mask(np.array([1, 2]), 2).tolist()
        [[True, False], [True, True]]
    """
    return np.asarray(np.arange(width) < counts[:, None])


def pack(queries: Sequence[Query], predictions: Sequence[Prediction], limit: int | None = None) -> Packed:
    """Joins predictions to queries by id; queries keep their order.

    Args:
        queries: One at least with a target; those without are left out (see `Packed.located`).
        predictions: In any order; at most one per query.
        limit: Keep only the first `limit` windows of each.

    Example:
        >>> query = Query(id="a", video="v", text="", duration=9.0, moments=[[0, 4]])
        >>> packed = pack([query], [])
        >>> len(packed), packed.counts.tolist(), packed.moments.shape
        (1, [0], (1, 0, 2))
    """
    found = predictions_by_row(queries, predictions)
    ids = [query.id for query in queries]
    num_truth = np.fromiter((len(query.moments) for query in queries), dtype=np.int64, count=len(queries))
    if not num_truth.any():
        raise UserError(
            f"none of the {len(queries)} queries has a target to score against: {_instead(queries)}"
        )
    truth = _table(num_truth, (2,), "targets of query", ids)
    _fill(truth, num_truth, (query.moments for query in queries))
    _require_finite(truth, "the target of query", ids)
    lengths = (0 if one is None else len(one.scores) for one in found)
    counts = np.fromiter(lengths, dtype=np.int64, count=len(queries))
    if limit is not None:
        counts = np.minimum(counts, limit)
    moments = _table(counts, (2,), "windows predicted for query", ids)
    scores = np.zeros(moments.shape[:2])
    width = moments.shape[1]
    _fill(moments, counts, (_NO_WINDOWS if one is None else one.moments[:width] for one in found))
    _fill(scores, counts, (_NO_SCORES if one is None else one.scores[:width] for one in found))
    _require_finite(moments, "a window predicted for query", ids)
    return Packed(
        truth=truth,
        num_truth=num_truth,
        duration=np.fromiter((query.duration for query in queries), dtype=np.float64, count=len(queries)),
        moments=moments,
        scores=scores,
        counts=counts,
        given=np.fromiter((prediction is not None for prediction in found), dtype=bool, count=len(queries)),
    )


def _instead(queries: Sequence[Query]) -> str:
    """What queries without any moment have."""
    if any(query.saliency is not None for query in queries):
        return (
            "there are no moments, but labels of clips (--protocol tvsum or youtube-highlights scores these)"
        )
    if any(query.glance is not None for query in queries):
        return "there are no moments, but glances (--protocol glance scores these)"
    return "the truth is hidden"


def predictions_by_row(
    queries: Sequence[Query], predictions: Sequence[Prediction]
) -> list[Prediction | None]:
    """The prediction for each query ``(N,)``, or None.

    Raises `UserError` for no query, a repeated id on either side, a prediction for an unknown query or about another
    video than its query.
    """
    require_matching([query.id for query in queries], [prediction.query for prediction in predictions])
    given = {prediction.query: prediction for prediction in predictions}
    found = [given.get(query.id) for query in queries]
    for query, prediction in zip(queries, found, strict=True):
        if prediction is not None:
            require_video(query.id, prediction.video, query.video, "predictions")
    return found


def require_matching(queries: Sequence[str], predictions: Sequence[str]) -> None:
    """Makes sure that predictions, by the ids of their queries, are about queries of a split, each about another one.

    Raises `UserError` for no query, an id that is there twice on either side, or one that the split does not have.
    """
    if not queries:
        raise UserError("there are no queries to evaluate")
    if (twice := first_repeated(queries)) is not None:
        raise UserError(f"query id {quoted(twice)} occurs twice in the split")
    known = set(queries)
    if unknown := [name for name in predictions if name not in known]:
        raise UserError(
            f"{len(unknown):,} of {len(predictions):,} predictions are for queries that the split does not have "
            f"(first: {quoted(unknown[0])}; the split's first: {quoted(queries[0])}; --ignore-unknown skips them)"
        )
    if (twice := first_repeated(predictions)) is not None:
        raise UserError(f"query {quoted(twice)} has two predictions")


def _table(counts: NDArray[np.int64], tail: tuple[int, ...], what: str, ids: Sequence[str]) -> FloatArray:
    """Zeros ``(N, max k, *tail)`` for ragged rows of `counts` ``(N,)`` entries."""
    width, cell = int(counts.max(initial=0)), 8 * math.prod(tail)
    size = len(counts) * width * cell
    if size > max(_FREE, _UNEVEN * int(counts.sum()) * cell):
        raise UserError(
            f"{width:,} {what} {quoted(ids[int(counts.argmax())])} are too many beside the others: "
            f"a table of them takes {size:,} bytes"
        )
    return np.zeros((len(counts), width, *tail))


def _fill(table: FloatArray, counts: NDArray[np.int64], rows: Iterator[FloatArray]) -> None:
    """Puts ragged rows of `counts` ``(N,)`` entries into their table, some rows at a time."""
    for begin in range(0, len(table), _ROWS):
        part, numbers = table[begin : begin + _ROWS], counts[begin : begin + _ROWS]
        flat = np.concatenate(list(itertools.islice(rows, len(numbers))))
        if (numbers == table.shape[1]).all():
            part[:] = flat.reshape(part.shape)
        else:
            part[mask(numbers, table.shape[1])] = flat


_NO_WINDOWS = np.zeros((0, 2))
_NO_SCORES = np.zeros(0)


def _require_finite(times: FloatArray, what: str, ids: Sequence[str]) -> None:
    finite = np.isfinite(times).all(axis=(1, 2))
    if not finite.all():
        raise UserError(f"{what} {quoted(ids[int(finite.argmin())])} holds a time that is not finite")
