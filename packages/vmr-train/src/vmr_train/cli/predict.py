"""Predictions of a run's method on the device of its configuration, which must be finite."""

from __future__ import annotations

import numpy as np

from vmr_common.errors import UserError, quoted
from vmr_common.types import Prediction
from vmr_train import distributed
from vmr_train.config import RunConfig
from vmr_train.device import select_device
from vmr_train.method import Dataset, Method
from vmr_train.predict import Evaluator
from vmr_train.presence import evidence_of


def predict(
    config: RunConfig, method: Method, dataset: Dataset, *, evidence: bool = False
) -> list[Prediction]:
    """Predictions for all queries of a dataset, on every rank; with `evidence` they hold that of the method.

    Raises:
        UserError: if one holds what is not a finite number, so that no score would mean anything.
    """
    device, train = select_device(config.train.device), config.train
    method.model.to(device)
    evaluator = Evaluator(
        method,
        dataset,
        batch_size=train.eval_batch,
        device=device,
        precision=train.precision,
        evidence=evidence,
    )
    found = evaluator.predict()
    distributed.from_rank_zero(lambda: _require_finite(found))
    return found


def _require_finite(predictions: list[Prediction]) -> None:
    for found in predictions:
        numbers = (found.moments, found.scores, evidence_of(found) if len(found.scores) else 0.0)
        if not all(np.isfinite(part).all() for part in numbers):
            raise UserError(
                f"the model's answer to query {quoted(found.query, 60)} is not made of finite numbers: its weights, or "
                f"the features of video {quoted(found.video, 60)}, cannot be right"
            )
