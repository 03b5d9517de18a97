"""Steps of a run that find out before the first update what would else show after hours."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import overload

import numpy as np

from vmr_common.errors import UserError
from vmr_common.evaluation import measurable
from vmr_common.splits.load import Split
from vmr_common.types import Prediction, Query
from vmr_train import distributed
from vmr_train.cli.results import rules_for
from vmr_train.config import RunConfig, TrainConfig
from vmr_train.device import select_device
from vmr_train.splits import Splits
from vmr_train.trainer import Evaluate

logger = logging.getLogger(__name__)


def selection_split(config: TrainConfig, splits: Splits) -> Split | None:
    """The split that chooses the epoch (`train.select`), or None where nothing is evaluated during training.

    Raises:
        UserError: if validation is to choose and no videos are held out, or nothing can be measured on the split that
            is to choose.
    """
    found = splits.test if config.select == "test" else splits.validation
    if config.select == "validation" and found is None:
        raise UserError("train.select is validation, but data.splits holds no validation videos out")
    if found is None or measurable(found.queries) is not None:
        return found
    if config.select != "last":
        raise UserError(
            f"train.select is {config.select}, but {found.name} has neither moments nor glances to choose by; "
            "choose train.select last"
        )
    if distributed.rank() == 0:
        logger.info("%s has neither moments nor glances: it is not evaluated in training", found.name)
    return None


def check_run(config: RunConfig, splits: Splits, selection: Split | None) -> TrainConfig:
    """Makes sure that the device is there and that the protocols suit the splits, which else shows after hours.

    Returns:
        The options of training; where `selection` has no moments, with a metric of its glances that chooses the epoch,
        which is logged.

    Raises:
        UserError: if not; names what was found and expected.
    """
    train = config.train
    select_device(train.device)
    for rules in rules_for(config.protocols, splits.test)[0]:
        rules.score(splits.test.queries, [_whole_video(query) for query in splits.test.queries])
    if selection is None or train.select == "last":
        return train
    measured = metrics_of(selection, config.protocols[0])([_whole_video(q) for q in selection.queries])
    rising = [name for name in measured if not name.startswith("distance")]
    if train.select_metric in rising:
        return train
    if measurable(selection.queries) == "moments":
        raise UserError(
            f"train.select_metric: found {train.select_metric!r}, expected one of {', '.join(rising)}"
        )
    if distributed.rank() == 0:
        logger.info(
            "%s has glances and no moments: %s chooses the epoch, in place of %s",
            *(selection.name, rising[0], train.select_metric),
        )
    return dataclasses.replace(train, select_metric=rising[0])


def _whole_video(query: Query) -> Prediction:
    moments = np.array([[0.0, query.duration]])
    return Prediction(query=query.id, video=query.video, moments=moments, scores=np.zeros(1))


@overload
def metrics_of(split: Split, rules: str) -> Evaluate: ...
@overload
def metrics_of(split: None, rules: str) -> None: ...
def metrics_of(split: Split | None, rules: str) -> Evaluate | None:
    """Function from the predictions for a split to its metrics (fractions) by one protocol; None for no split.

    Of a split without moments they are those of its glances.
    """
    if split is None:
        return None
    (judge,), _ = rules_for([rules], split)
    return lambda predictions: judge.score(split.queries, predictions).values


def require_glances(method: str, queries: Sequence[Query]) -> None:
    """Makes sure that there is a glance for every training query of a glance-supervised method.

    Raises:
        UserError: naming one query without.
    """
    without = [query.id for query in queries if query.glance is None]
    if without:
        raise UserError(
            f"{method} learns from glances, but {len(without)} training queries have none, for example {without[0]!r}"
        )


def require_moments(method: str, queries: Sequence[Query]) -> None:
    """Makes sure that there is a moment for every training query of a fully supervised method.

    Raises:
        UserError: naming one query without.
    """
    without = [query.id for query in queries if not len(query.moments)]
    if without:
        raise UserError(
            f"{method} learns from moments, but {len(without)} training queries have none, for example {without[0]!r}"
        )
