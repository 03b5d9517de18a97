"""Window recall: the share of queries with a window of their moment among the first n (the paper's clip retrieval)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rgnet import window_metrics
from rgnet.config import DataConfig
from vmr_common.types import Query
from vmr_train import distributed

RANKS = (1, 5, 10, 20, 50)


class Ranked(Protocol):
    """Ranked windows of a query."""

    @property
    def video(self) -> str:
        """The video that they are windows of."""

    @property
    def order(self) -> NDArray[np.int64]:
        """``(M,)`` window numbers, best first."""


@dataclass(frozen=True)
class WindowRecall:
    """Window recall over some queries.

    Attributes:
        found: Share of the queries with such a window among the first n, by n.
        queries: Their number.
        windows: Windows of a query's video, on average.
        chance: Share at n = 1 if the first window were drawn by lot.
    """

    found: dict[int, float]
    queries: int
    windows: float
    chance: float


def window_recall(
    orders: Mapping[str, NDArray[np.int64]], queries: Sequence[Query], data: DataConfig, ranks: Sequence[int]
) -> WindowRecall | None:
    """Recall of ranked windows.

    Args:
        orders: Window numbers, best first, by query id.
        queries: Those without a moment or an order do not count.
        data: Window length and feature stride.
        ranks: Values of n; those that no video has windows enough for are left out.

    Returns:
        None where no query counts.
    """
    known = [query for query in queries if query.id in orders and len(query.moments)]
    if not known:
        return None
    counts = [len(orders[query.id]) for query in known]
    ranked = np.full((len(known), max(counts)), -1)
    for row, query in enumerate(known):
        ranked[row, : counts[row]] = orders[query.id]
    positive = window_metrics.positive_windows(
        np.stack([query.moments[0] for query in known]),
        clip_length=data.stride,
        window_clips=data.window,
    )
    ranks = [rank for rank in ranks if rank < max(counts)]
    found = window_metrics.window_recall(ranked, positive, ranks)
    last = np.minimum(positive[:, 1], np.array(counts) - 1)
    chance = (last - positive[:, 0] + 1) / counts
    return WindowRecall(
        found=dict(zip(ranks, found.tolist(), strict=True)),
        queries=len(known),
        windows=float(np.mean(counts)),
        chance=float(chance.mean()),
    )


def recall_lines(windows: Mapping[str, Ranked], queries: Sequence[Query], data: DataConfig) -> list[str]:
    """The window recall of all ranks' predictions, a line below the tables; none where no query counts.

    Call it on every rank.

    Args:
        windows: Of the queries that this rank predicted, by query id; those of another video do not count.
        queries: Of the whole split.
        data: Window length and feature stride.
    """
    videos = {query.id: query.video for query in queries}
    own = {name: ranked.order for name, ranked in windows.items() if ranked.video == videos.get(name)}
    orders = {name: order for part in distributed.gather(own) for name, order in part.items()}
    recall = window_recall(orders, queries, data, RANKS)
    if recall is None:
        return []
    shown = "  ".join(f"R@{rank} {100 * value:.1f}" for rank, value in recall.found.items())
    return [
        f"windows   {shown}  (share of {recall.queries:,} queries with a window of the moment among the first n of "
        f"{recall.windows:.0f} on average; chance R@1 {100 * recall.chance:.1f})"
    ]
