"""How often a window that holds part of the moment is among the first ones (the paper's clip retrieval)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rgnet.config import DataConfig
from vmr_common import metrics
from vmr_common.types import Query


@dataclass(frozen=True)
class WindowRecall:
    """Over some queries.

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
        data: How videos were cut into windows.
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
    positive = metrics.positive_windows(
        np.stack([query.moments[0] for query in known]),
        clip_length=data.seconds_per_row,
        window_clips=data.window,
    )
    ranks = [rank for rank in ranks if rank < max(counts)]
    found = metrics.window_recall(ranked, positive, ranks)
    last = np.minimum(positive[:, 1], np.array(counts) - 1)
    chance = (last - positive[:, 0] + 1) / counts
    return WindowRecall(
        found=dict(zip(ranks, found.tolist(), strict=True)),
        queries=len(known),
        windows=float(np.mean(counts)),
        chance=float(chance.mean()),
    )
