"""What can be measured where a split has glances and no moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from vmr_common.errors import UserError
from vmr_common.evaluation.packing import Packed, pack
from vmr_common.evaluation.recall import PerQuery, Protocol
from vmr_common.evaluation.scores import Scores
from vmr_common.types import Prediction, Query, as_moments


def measurable(queries: Sequence[Query]) -> Literal["moments", "glance"] | None:
    """What predictions for queries can be held against: moments where any has one, else glances, else nothing.

    Example:
        >>> query = Query(id="1", video="v", text="a dog runs", duration=30.0, glance=4.0)
        >>> measurable([query]), measurable([])
        ('glance', None)
    """
    if any(len(query.moments) for query in queries):
        return "moments"
    return "glance" if any(query.glance is not None for query in queries) else None


@dataclass(frozen=True, kw_only=True)
class Glance(Protocol):
    """The first window against the glance: does it hold the point, and how far is its middle from it?

    Keys: ``R@1,glance``, the share of queries whose first window holds the glance, its ends included; ``distance,mean``
    and ``distance,median``, from the middle of the window to the glance as a share of the video. A query without
    prediction is a miss at the distance of the farther end of the video. A window of the whole video holds every
    glance, so that the first figure says little without the row of chance.

    Example:
        >>> query = Query(id="1", video="v", text="a dog runs", duration=20.0, glance=4.0)
        >>> found = Prediction(query="1", video="v", moments=[[2, 10]], scores=[0.9])
        >>> Glance(name="mine").score([query], [found]).values
        {'R@1,glance': 1.0, 'distance,mean': 0.1, 'distance,median': 0.1}
    """

    thresholds: tuple[float, ...] = ()
    ranks: tuple[int, ...] = (1,)
    miou_ranks: tuple[int, ...] = ()

    def describe(self) -> str:
        """The comparison in words, for the header of a table."""
        return "first window holds the glance, distance from its middle as a share of the video"

    def pack(self, queries: Sequence[Query], predictions: Sequence[Prediction]) -> Packed:
        """What `score` needs to know; the target of a query is its glance, as a window of no length."""
        if queries and all(query.glance is None for query in queries):
            raise UserError(f"protocol {self.name}: none of the {len(queries)} queries has a glance")
        points = [[] if query.glance is None else [[query.glance] * 2] for query in queries]
        targets = map(as_moments, points)
        return pack([replace(q, moments=m) for q, m in zip(queries, targets, strict=True)], predictions, 1)

    def _per_query_block(self, packed: Packed) -> PerQuery:
        glance, duration = packed.truth[:, 0, 0], packed.duration
        hit, distance = np.zeros(len(packed)), np.maximum(glance, duration - glance)
        answered = packed.counts > 0
        if answered.any():
            start, end = packed.moments[answered, 0].T
            hit[answered] = (start <= glance[answered]) & (glance[answered] <= end)
            distance[answered] = np.abs((start + end) / 2 - glance[answered])
        parts = {"R@1,glance": hit, "distance,mean": distance / duration}
        return {key: np.where(packed.located, array, np.nan) for key, array in parts.items()}

    def _scores(self, packed: Packed, parts: PerQuery, split: str) -> Scores:
        scores = super()._scores(packed, parts, split)
        scores.values["distance,median"] = float(np.nanmedian(parts["distance,mean"]))
        return scores
