"""Rule sets that count hits among the first n windows: one class, its switches, and the named presets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vmr_common import metrics, timeline
from vmr_common.errors import UserError
from vmr_common.evaluation.packing import Packed, mask, pack
from vmr_common.evaluation.scores import Scores
from vmr_common.types import Prediction, Query

PerQuery = dict[str, NDArray[np.float64]]
Floats = metrics.Floats


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A rule set of temporal grounding: recall at n and mean overlap.

    Rules that hold for all: windows are ranked as given; several targets count by the best match; an overlap
    that is not a number (0/0) is 0; a window that starts after it ends overlaps nothing; windows past the
    end of the video are used as they are unless `clamp_predictions`. The defaults are those of ``strict``.

    Example:
        >>> from vmr_common.types import Prediction, Query
        >>> query = Query(id="1", video="kitchen", text="she opens the fridge", duration=30.0, moments=[[3, 9]])
        >>> found = Prediction(query="1", video="kitchen", moments=[[3, 8]], scores=[0.9])
        >>> Protocol(name="mine", thresholds=(0.7,), ranks=(1,)).score([query], [found]).values["R@1,IoU@0.7"]
        1.0
    """

    name: str  # what a table calls it
    thresholds: tuple[float, ...] = (0.3, 0.5, 0.7)  # overlaps m of the recalls
    ranks: tuple[int, ...] = (1, 5)  # numbers n of the recalls, increasing
    miou_ranks: tuple[int, ...] = (1, 5)  # numbers n whose mean overlap is given
    # `"best"` averages the best overlap among the first n, `"rank"` that of the n-th window
    miou: Literal["best", "rank"] = "best"
    compare: metrics.Compare = ">="  # whether a hit reaches (`>=`) or exceeds (`>`) the threshold
    union: metrics.Union = "true"  # form of the overlap (see `metrics.iou`)
    eps: float = 0.0  # added to both parts of the overlap (see `metrics.iou`)
    # `"float64"`, `"float32"`, or `"mixed"` (float32 windows, float64 targets)
    precision: Literal["float64", "float32", "mixed"] = "float64"
    units: Literal["seconds", "fractions"] = "seconds"  # `"seconds"` or `"fractions"` of the duration
    clamp_gt: bool = False  # limit targets to the video
    clamp_predictions: bool = False  # limit windows to the video
    round_to: int | None = None  # decimals to which targets are rounded, before `clamp_gt`; None: not at all
    drop_zero_length: bool = False  # leave out queries none of whose targets starts before it ends
    nms: float | None = (
        None  # overlap above which `metrics.nms` removes a window before scoring; None: none is
    )
    # `"queries"`: one without prediction is a miss. `"predictions"`: it does not count.
    denominator: Literal["queries", "predictions"] = "queries"
    # if no query has n windows, the recall at n is that at the largest number, and named so
    cap_ranks: bool = False
    decimals: int | None = None  # decimals to which recalls are rounded; None: not at all

    def score(
        self, queries: Sequence[Query], predictions: Sequence[Prediction], *, split: str = ""
    ) -> Scores:
        """Evaluates predictions against the targets of the queries.

        Args:
            queries: All queries of the split; those without target are left out, and counted (`Scores.num_left_out`).
            predictions: In any order, windows best first; a query may be absent.
            split: Name for the header of a table.

        Returns:
            Fractions with the keys ``R@n,IoU@m`` and ``R@n,mIoU`` (``rank n,mIoU`` with ``miou="rank"``).

        Raises:
            UserError: for an unknown or repeated query id, no target at all, a time that is not finite.

        Example:
            >>> query = Query(id="a", video="v", text="a dog runs", duration=20.0, moments=[[0, 10]])
            >>> prediction = Prediction(query="a", video="v", moments=[[0, 6]], scores=[0.9])
            >>> Protocol(name="mine").score([query], [prediction]).values["R@1,IoU@0.5"]
            1.0
        """
        return self.score_packed(self.pack(queries, predictions), split=split)

    def per_query(self, queries: Sequence[Query], predictions: Sequence[Prediction]) -> PerQuery:
        """The share of each query in each value of `score`: ``(N,)`` float64 per key, in the order of `queries`.

        The mean over a key (leaving out not-a-number, which marks queries that do not count) is its value before
        rounding. ``R@1,mIoU`` is the overlap of the first window, ``R@5,mIoU`` the best of five. Raises `UserError` as
        `score`.
        """
        return self.per_query_packed(self.pack(queries, predictions))

    def score_packed(self, packed: Packed, *, split: str = "") -> Scores:
        """`score` for arrays that are packed already (see `Packed`)."""
        return self._scores(packed, self.per_query_packed(packed), split)

    def _scores(self, packed: Packed, parts: PerQuery, split: str) -> Scores:
        return Scores(
            protocol=self.name,
            compare=self.describe(),
            split=split,
            num_queries=int(packed.located.sum()),
            num_missing=int((packed.located & (packed.counts == 0)).sum()),
            num_left_out=int((~packed.located).sum()),
            values={key: self._value(key, array) for key, array in parts.items()},
        )

    def per_query_packed(self, packed: Packed) -> PerQuery:
        """`per_query` for arrays that are packed already (see `Packed`)."""
        blocks = [self._per_query_block(block) for block in packed.blocks(packed.moments.shape[1])]
        contributions = {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}
        if all(np.isnan(array).all() for array in contributions.values()):
            raise UserError(
                f"protocol {self.name}: no query counts (none has a prediction, or none a usable target)"
            )
        return contributions

    # times beyond float32 are infinite there, and overlap nothing
    @np.errstate(over="ignore", invalid="ignore")
    def _per_query_block(self, packed: Packed) -> PerQuery:
        targets, counts = self._targets(packed), packed.counts
        windows = self._windows(packed)
        included = packed.located & (packed.given | (self.denominator == "queries"))
        if self.drop_zero_length:
            real = mask(packed.num_truth, targets.shape[1])
            included = included & ((targets[..., 1] > targets[..., 0]) & real).any(axis=1)
        if self.nms is not None:
            windows, counts = self._suppressed(windows, packed)
        overlaps = self._overlaps(windows, counts, targets, packed.num_truth)
        contributions = self._contributions(overlaps)
        for array in contributions.values():
            array[~included] = np.nan
        return contributions

    def describe(self) -> str:
        """The comparison in words, for the header of a table.

        Example:
            >>> Protocol(name="mine", compare=">", nms=0.5).describe()
            'IoU > m in seconds, after NMS 0.5'
        """
        parts = [f"IoU {self.compare} m in {self.units}"]
        if self.precision == "float32":
            parts.append("float32")
        if self.nms is not None:
            parts.append(f"after NMS {self.nms:g}")
        if self.denominator == "predictions":
            parts.append("over queries with a prediction")
        if self.drop_zero_length:
            parts.append("without zero-length targets")
        return ", ".join(parts)

    def pack(self, queries: Sequence[Query], predictions: Sequence[Prediction]) -> Packed:
        """What `score` needs to know of queries and predictions, as arrays."""
        return pack(queries, predictions, self._limit())

    def _limit(self) -> int | None:
        """Number of given windows that can matter; suppression may reach any."""
        return None if self.nms is not None else max((*self.ranks, *self.miou_ranks))

    def _targets(self, packed: Packed) -> Floats:
        targets: Floats = packed.truth
        if self.units == "fractions":
            targets = timeline.to_normalised(targets, packed.duration)
        if self.round_to is not None:
            targets = np.round(targets, self.round_to)
        if self.clamp_gt:
            targets = np.clip(targets, 0.0, self._ends(packed))
        return targets.astype(np.float32) if self.precision == "float32" else targets

    def _windows(self, packed: Packed) -> Floats:
        windows: Floats = packed.moments
        if self.units == "fractions":
            windows = timeline.to_normalised(windows, packed.duration)
        if self.precision != "float64":
            windows = windows.astype(np.float32)
        if self.clamp_predictions:
            windows = np.clip(windows, 0.0, self._ends(packed).astype(windows.dtype))
        return windows

    def _ends(self, packed: Packed) -> Floats:
        """Ends of the videos, broadcastable to ``(N, K, 2)``."""
        return packed.duration[:, None, None] if self.units == "seconds" else np.ones((1, 1, 1))

    def _suppressed(self, windows: Floats, packed: Packed) -> tuple[Floats, NDArray[np.int64]]:
        """Windows ``(N, L, 2)`` that survive, best first, and their numbers ``(N,)``."""
        assert self.nms is not None
        most = max((*self.ranks, *self.miou_ranks))
        kept = metrics.nms(windows, self.nms, limit=most, counts=packed.counts)
        survivors = np.take_along_axis(windows, np.maximum(kept, 0)[..., None], axis=1)
        return survivors, (kept >= 0).sum(axis=1)

    def _overlaps(
        self, windows: Floats, counts: NDArray[np.int64], targets: Floats, num_truth: NDArray[np.int64]
    ) -> Floats:
        """Overlap ``(N, K)`` of each window with its best target, 0 for padding and not-a-number."""
        best: Floats = metrics.iou(windows, targets[:, :1], self.union, self.eps, empty=0.0)
        rows = np.arange(len(targets))
        for column in range(1, int(num_truth.max(initial=0))):
            rows = rows[num_truth[rows] > column]  # most queries have few targets
            further = metrics.iou(windows[rows], targets[rows, column, None], self.union, self.eps, empty=0.0)
            best[rows] = np.maximum(best[rows], further)
        if counts.size and counts.min() < windows.shape[1]:
            best[~mask(counts, windows.shape[1])] = 0.0
        return best

    def _contributions(self, overlaps: Floats) -> PerQuery:
        ranks, miou_ranks = self.ranks, self.miou_ranks
        if self.cap_ranks:
            most = max(overlaps.shape[1], 1)
            ranks = tuple(dict.fromkeys(min(rank, most) for rank in ranks))
            miou_ranks = tuple(dict.fromkeys(min(rank, most) for rank in miou_ranks))
        every = sorted({*ranks, *miou_ranks})
        best = dict(zip(every, metrics.best_at(overlaps, every).T, strict=True))
        contributions: PerQuery = {}
        for rank in every:
            if rank in ranks:
                for threshold in self.thresholds:
                    hit = metrics.hits(best[rank], threshold, self.compare)
                    contributions[f"R@{rank},IoU@{threshold:g}"] = hit.astype(np.float64)
            if rank in miou_ranks and self.miou == "best":
                contributions[f"R@{rank},mIoU"] = best[rank].astype(np.float64)
            elif rank in miou_ranks:
                at_rank = overlaps[:, rank - 1] if rank <= overlaps.shape[1] else np.zeros(len(overlaps))
                contributions["R@1,mIoU" if rank == 1 else f"rank {rank},mIoU"] = at_rank.astype(np.float64)
        return contributions

    def _value(self, key: str, contributions: NDArray[np.float64]) -> float:
        value = float(np.nanmean(contributions))
        return value if self.decimals is None or key.endswith("mIoU") else round(value, self.decimals)
