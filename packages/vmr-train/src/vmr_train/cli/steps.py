"""Steps that several of the model commands take."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vmr_common.errors import UserError, quoted
from vmr_common.evaluation import protocol
from vmr_common.splits.load import Split
from vmr_common.types import Prediction, Query
from vmr_train import distributed
from vmr_train.checkpoint import Checkpoint
from vmr_train.cli.config import parse, stored_values
from vmr_train.cli.package import ModelPackage, RunConfig
from vmr_train.cli.results import Results, score_all
from vmr_train.device import select_device
from vmr_train.method import Dataset
from vmr_train.predict import predict_all


def read_config(
    package: ModelPackage[Any, Any, Any],
    parser: argparse.ArgumentParser,
    argv: Sequence[str],
    checkpoint: Checkpoint | None = None,
) -> tuple[Any, Any]:
    """The configuration and the other options; with a checkpoint its configuration is where fields start.

    Raises:
        UserError: as `parse`, and for protocols that do not exist.
    """
    base = None if checkpoint is None else stored_values(checkpoint)
    where = "" if checkpoint is None else f"configuration in {checkpoint.path}"
    parsed = parse(
        parser,
        package.schema,
        argv,
        package=package.name,
        base=base,
        base_name=where,
        default=package.default,
    )
    config: RunConfig = parsed.config
    if not config.protocols:
        raise UserError("protocols: found none, expected at least one")
    for rules in config.protocols:
        protocol(rules)
    return config, parsed.options


def answerable(
    package: ModelPackage[Any, Any, Any], config: Any, task: Any, inputs: Any, split: Split
) -> Dataset:
    """The queries of a split as batches.

    Raises:
        UserError: if the model can answer none of them.
    """
    found = package.examples(config, task, inputs, split.queries)
    if not len(found):
        raise UserError(f"{split.name}: the model knows no word of any of its {len(split.queries)} queries")
    return found


def scored(
    package: ModelPackage[Any, Any, Any],
    config: Any,
    task: Any,
    examples: Dataset,
    split: Split,
    train_queries: Sequence[Query],
) -> Results:
    """Predicts a split and scores it by the protocols of the run."""
    predictions = predicted(config, task, examples)
    return distributed.from_rank_zero(
        lambda: score_all(package.name, split, finite(predictions), config.protocols, train_queries)
    )


def finite(predictions: list[Prediction]) -> list[Prediction]:
    """The predictions themselves.

    Raises:
        UserError: if one holds what is not a finite number, so that no score would mean anything.
    """
    for found in predictions:
        if not (np.isfinite(found.moments).all() and np.isfinite(found.scores).all()):
            raise UserError(
                f"the model's answer to query {quoted(found.query, 60)} is not made of finite numbers: its weights, or "
                f"the features of video {quoted(found.video, 60)}, cannot be right"
            )
    return predictions


def predicted(config: Any, task: Any, examples: Dataset) -> list[Prediction]:
    """Predictions for all examples, on the device of the configuration."""
    device = select_device(config.train.device)
    task.model.to(device)
    return predict_all(
        task, examples, batch_size=config.train.eval_batch, device=device, precision=config.train.precision
    )


def remarks_of(package: ModelPackage[Any, Any, Any], config: Any, task: Any, split: Split) -> list[str]:
    """What the package has to say below the tables of a split that was just predicted."""
    return [] if package.remarks is None else package.remarks(config, task, split.queries)


def same_data(checkpoint: str | Path, options: Any) -> str:
    """The options with which the next command finds the same weights and data."""
    root = [] if options.data_root is None else ["--data-root", options.data_root]
    return shlex.join(["--checkpoint", str(checkpoint), *root])
