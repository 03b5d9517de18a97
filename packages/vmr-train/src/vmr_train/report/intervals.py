"""Bootstrap intervals: how far a figure would move if other videos had been drawn for the split."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vmr_common.errors import UserError
from vmr_common.evaluation import protocol
from vmr_common.evaluation.paired import Difference, paired_differences
from vmr_common.evaluation.recall import PerQuery
from vmr_common.types import Prediction, Query

DRAWS = 1000
FEWEST_VIDEOS = 2


class Estimate(NamedTuple):
    """A mean over queries and its 95 % interval, fractions."""

    value: float
    low: float
    high: float


def estimates(values: PerQuery, videos: Sequence[str]) -> dict[str, Estimate]:
    """The mean of every value with its 95 % percentile interval from 1,000 bootstrap samples, seed 0.

    Whole videos are drawn, because queries of one video stand or fall together. Where all queries have 0, or all have
    1, samples do not differ, and the interval ends where so many equal videos would be seen one time in forty. A value
    whose queries are of one video has no interval and is left out, as is one for which no query counts.

    Args:
        values: ``(N,)`` in [0, 1] per key, not-a-number where a query does not count (`Protocol.per_query`).
        videos: ``(N,)`` video of each query.
    """
    group = np.unique(np.asarray(videos), return_inverse=True)[1]
    counted = {key: len(np.unique(group[~np.isnan(array)])) for key, array in values.items()}
    enough = {key: array for key, array in values.items() if counted[key] >= FEWEST_VIDEOS}
    nothing = {key: np.zeros_like(array) for key, array in enough.items()}
    found = paired_differences(nothing, enough, videos, draws=DRAWS)
    return {key: _estimate(gain, counted[key]) for key, gain in found.items()}


def _estimate(found: Difference, videos: int) -> Estimate:
    value, room = found.second, 1 - 0.025 ** (1 / videos)
    if found.low < found.high or value not in (0, 1):
        return Estimate(value, found.low, found.high)
    return Estimate(value, 0.0, room) if value == 0 else Estimate(value, 1 - room, 1.0)


def protocol_estimates(
    name: str, queries: Sequence[Query], predictions: Sequence[Prediction]
) -> dict[str, Estimate]:
    """`estimates` of the values of a named protocol; none where it is unknown or cannot score these queries."""
    try:
        values = protocol(name).per_query(queries, predictions)
    except UserError:
        return {}
    return estimates(values, [query.video for query in queries])
