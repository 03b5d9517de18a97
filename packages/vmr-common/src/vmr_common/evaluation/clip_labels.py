"""Evaluation of clip scores against clip labels: TVSum and YouTube Highlights, which have no moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from vmr_common import metrics
from vmr_common.errors import UserError, quoted
from vmr_common.evaluation.packing import predictions_by_row
from vmr_common.evaluation.recall import PerQuery, Protocol
from vmr_common.evaluation.scores import Scores
from vmr_common.types import Prediction, Query


@dataclass(frozen=True, kw_only=True)
class ClipLabels(Protocol):
    """Average precision of the clips of each video, ranked by their predicted scores.

    Per annotator, `metrics.trapezoid_precision` of the first `top` clips; the mean over annotators, then over videos.
    Scores past the labels are cut, lacking ones rank last, of equal ones the earlier clip is first. A query without
    scores is a miss; one without labels is left out.

    Example:
        >>> labels = {"saliency": np.array([[0.0], [3.0], [1.0]]), "saliency_clips": np.arange(3)}
        >>> query = Query(id="1", video="v", text="a dog runs", duration=6.0, **labels)
        >>> found = Prediction(query="1", video="v", moments=[], scores=[], saliency=np.array([0.1, 0.9, 0.2]))
        >>> ClipLabels(name="mine").score([query], [found]).values
        {'mAP': 1.0}
    """

    top: int | None = None  # clips that count, the best ones; None: all
    # a clip is positive for an annotator whose label is above that: 0, or the median of the labels of the video (of an
    # even number the lower one of the middle)
    above: Literal["0", "median"] = "0"

    def describe(self) -> str:
        """What counts as right in words, for the header of a table."""
        about = "median of the annotator" if self.above == "median" else "0"
        return f"clips whose label is above {'the ' * (about != '0')}{about}"

    def score(
        self, queries: Sequence[Query], predictions: Sequence[Prediction], *, split: str = ""
    ) -> Scores:
        """See `Protocol.score`; the key is ``mAP``, or ``top-5 mAP`` where five clips count."""
        parts = self.per_query(queries, predictions)
        found, (key, values) = predictions_by_row(queries, predictions), next(iter(parts.items()))
        counts = ~np.isnan(values)
        answered = np.array([one is not None and one.saliency is not None for one in found])
        return Scores(
            protocol=self.name,
            compare=self.describe(),
            split=split,
            num_queries=int(counts.sum()),
            num_missing=int((counts & ~answered).sum()),
            num_left_out=int((~counts).sum()),
            values={key: float(np.nanmean(values))},
        )

    def per_query(self, queries: Sequence[Query], predictions: Sequence[Prediction]) -> PerQuery:
        """See `Protocol.per_query`; not-a-number where a query has no labels."""
        found = predictions_by_row(queries, predictions)
        values = np.full(len(queries), np.nan)
        for row, (query, one) in enumerate(zip(queries, found, strict=True)):
            if query.saliency is not None and query.saliency.size:
                scores = None if one is None else one.saliency
                values[row] = 0.0 if scores is None else self._precision(query, scores)
        if np.isnan(values).all():
            raise UserError(
                f"protocol {self.name}: none of the {len(queries)} queries has labels of clips (key 'label')"
            )
        return {"mAP" if self.top is None else f"top-{self.top} mAP": values}

    def _precision(self, query: Query, scores: NDArray[np.float64]) -> float:
        assert query.saliency is not None
        if not np.isfinite(scores).all():
            raise UserError(f"a clip score of query {quoted(query.id)} is not finite")
        labels = query.saliency.T  # (A, C)
        clips = np.arange(labels.shape[1]) if query.saliency_clips is None else query.saliency_clips
        given = np.full(len(clips), -np.inf)
        inside = (clips >= 0) & (clips < len(scores))
        given[inside] = scores[clips[inside]]
        ranked = labels[:, np.argsort(-given, kind="stable")[: self.top]]
        middle = np.sort(labels, axis=1)[:, (labels.shape[1] - 1) // 2, None]
        positive = ranked > (middle if self.above == "median" else 0)
        return float(metrics.trapezoid_precision(positive).mean())
