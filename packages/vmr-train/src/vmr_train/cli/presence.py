"""Steps of a run that measure a model's evidence and keep in its checkpoint how it becomes a probability."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

from vmr_common.splits.load import Split
from vmr_common.types import Prediction, Query
from vmr_train import distributed
from vmr_train.checkpoint import amend_checkpoint, load_meta
from vmr_train.cli.predict import predict
from vmr_train.config import RunConfig
from vmr_train.method import Asked, Method
from vmr_train.presence import Calibration, Separation, draw_pairs, separation
from vmr_train.run_folder import RunFolder

logger = logging.getLogger(__name__)


class Elsewhere:
    """Some queries of a dataset, in other videos than there: their words are not read again.

    Args:
        dataset: Holds the queries by their ids.
        queries: The same with other videos.
    """

    def __init__(self, dataset: Asked, queries: Sequence[Query]) -> None:
        changed = {query.id: query for query in queries}
        row_of = {query.id: row for row, query in enumerate(dataset.queries)}
        self._dataset = copy.copy(dataset)
        self._dataset.queries = [changed.get(query.id, query) for query in dataset.queries]
        self._rows = [row_of[query.id] for query in queries]

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, indices: Sequence[int], epoch: int | None) -> Any:
        """The batch of some of the queries."""
        return self._dataset.batch([self._rows[index] for index in indices], epoch)


def calibrate(
    run: RunFolder, config: RunConfig, method: Method, dataset: Asked | None, split: Split | None
) -> Calibration | None:
    """From evidence to a probability, by the queries that chose the epoch and the same in other videos; kept in `best`.

    Call it on every rank, with the selected weights. These and all else in the checkpoint stay as they are, and it is
    replaced in one step: killed before, a run that is resumed comes here again.

    Args:
        run: The folder.
        config: The configuration.
        method: Holds the selected weights.
        dataset: The queries of the split that can be answered.
        split: The validation split; None gives no probability, and says so.
    """
    found = None
    if split is not None and dataset is not None:
        pairs = draw_pairs(dataset.queries, split.queries)
        own, other = (_predictions(config, method, dataset, side) for side in (pairs.own, pairs.other))
        found = Calibration.fit(split.name, own, other)
    if distributed.rank() == 0:
        if found is None:
            why = "no validation videos" if split is None else f"no two videos to compare in {split.name}"
            logger.info("presence: %s, so answers will not say how likely there is such a moment", why)
        else:
            logger.info("%s, on %s", found.figures.text(), found.split)
    distributed.from_rank_zero(lambda: _keep(run, found))
    return found


def _keep(run: RunFolder, found: Calibration | None) -> None:
    kept = None if found is None else found.to_json()
    if load_meta(run.best).get("presence") != kept:
        run.guard()
        amend_checkpoint(run.best, {"presence": kept})


def measured(
    config: RunConfig, method: Method, dataset: Asked, split: Split
) -> tuple[list[Prediction], Separation | None]:
    """Predictions for all queries of a dataset, and how well their evidence tells them from the same in other videos.

    Call it on every rank.

    Args:
        config: The configuration.
        method: Holds the weights; what it keeps of its last predictions is of the queries in their own videos.
        dataset: The queries of the split that can be answered.
        split: All of its queries.
    """
    pairs = draw_pairs(dataset.queries, split.queries)
    other = _predictions(config, method, dataset, pairs.other)
    every = predict(config, method, dataset, evidence=True)
    drawn = {query.id for query in pairs.own}
    return every, separation([found for found in every if found.query in drawn], other)


def _predictions(
    config: RunConfig, method: Method, dataset: Asked, queries: Sequence[Query]
) -> list[Prediction]:
    return predict(config, method, Elsewhere(dataset, queries), evidence=True) if queries else []
