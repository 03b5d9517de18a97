"""Steps of a run that do not depend on the paper: its `training.py` and `cli.py` call them in order."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import shlex
from argparse import Namespace
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from vmr_common.cli.entrypoint import echo, option_words
from vmr_common.errors import UserError, require
from vmr_common.splits.load import Split
from vmr_common.splits.outside import outside_of, require_mostly_inside, said_outside
from vmr_common.types import Prediction, Query, write_predictions
from vmr_train import distributed
from vmr_train import splits as run_splits
from vmr_train.checkpoint import load_checkpoint, load_meta, save_checkpoint
from vmr_train.cli.config import to_dict
from vmr_train.cli.inputs import Inputs, without_features
from vmr_train.cli.options import with_same_data
from vmr_train.cli.presence import measured
from vmr_train.cli.requests import PARTS
from vmr_train.cli.results import Results, score_all
from vmr_train.cli.write_report import RunFacts, write_report
from vmr_train.config import RunConfig
from vmr_train.device import autocast, seed_everything, select_device
from vmr_train.flops import count_flops
from vmr_train.machine import machine
from vmr_train.method import Answering, Asked, Dataset, Method, to_device
from vmr_train.predict import batches_of
from vmr_train.presence import Calibration
from vmr_train.released_weights import read_weights
from vmr_train.report import Curve, FrameOverlay
from vmr_train.run_files import CONFIG, PAGE, PREDICTIONS
from vmr_train.run_folder import RunFolder
from vmr_train.same_run import FEATURES
from vmr_train.splits import Splits
from vmr_train.trainer import FitResult, Trainer
from vmr_train.weights import load_weights

logger = logging.getLogger(__name__)
Queries = TypeVar("Queries", bound=Asked)


# --- before training ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def open_run(package: str, config: RunConfig, given: Namespace) -> Iterator[RunFolder]:
    """The folder of a run, held for the block, in which all processes of the run know each other.

    Raises:
        UserError: as `distributed.session` and `RunFolder`.
    """
    folder = Path(given.runs) / package / config.name
    with (
        distributed.session(config.train.device, config.train.peer_timeout),
        RunFolder(folder, resume=given.resume, overwrite=given.overwrite) as run,
    ):
        yield run


def load_splits(config: RunConfig, root: Path) -> Splits:
    """The splits of a run, read by one process for all; logs their sizes and irregular records.

    Raises:
        UserError: as `vmr_train.splits.load_splits`, or if most training queries lie outside their videos.
    """

    def load() -> Splits:
        loaded = run_splits.load_splits(config.data.splits, root)
        require_mostly_inside(loaded.train)
        return loaded

    splits = distributed.from_rank_zero(load)
    for part in PARTS if distributed.rank() == 0 else ():
        split: Split | None = getattr(splits, part)
        if split is not None:
            videos = len({query.video for query in split.queries})
            logger.info("%-10s  %s: %s queries, %s videos", part, split.name, len(split.queries), videos)
            if split.report.counts or split.report.notes:
                for line in split.report.lines():
                    logger.info("            %s", line)
            if outside := outside_of(split):
                logger.warning("%s", said_outside(split, outside))
    return splits


def may_change(given: Namespace, options: Sequence[str]) -> list[str]:
    """The options that a resumed training may change; with ``--allow-other-features`` its features are among them."""
    return [*options, *([FEATURES] if given.allow_other_features else [])]


def seed(config: RunConfig) -> None:
    """Seeds all random numbers with the seed of the run; initial weights are drawn after it."""
    seed_everything(config.train.seed)


def require_answerable(dataset: Queries, split: Split) -> Queries:
    """The dataset itself; logs which words of its queries the model does not know.

    Raises:
        UserError: if the model can answer no query of the split.
    """
    if distributed.rank() == 0:
        dataset.unknown.warn(split.name)
    if not dataset.unknown.answerable:
        raise UserError(f"{split.name}: the model knows no word of any of its {len(split.queries)} queries")
    return dataset


@dataclass(frozen=True)
class Datasets(Generic[Queries]):
    """The datasets of a run; `selection` chooses the epoch and is None where nothing is evaluated in training."""

    train: Queries
    selection: Queries | None
    test: Queries


def build_datasets(
    build: Callable[[Sequence[Query]], Queries], splits: Splits, selection: Split | None, inputs: Inputs
) -> Datasets[Queries]:
    """The datasets of a run, made by `build` from the queries whose videos have features.

    Raises:
        UserError: if the model can answer no query of a split.
    """

    def of(split: Split) -> Queries:
        lacking = {query.id for query in without_features(inputs, split.queries)}
        return require_answerable(build([query for query in split.queries if query.id not in lacking]), split)

    return Datasets(of(splits.train), None if selection is None else of(selection), of(splits.test))


# --- evaluation and the end of a run -----------------------------------------------------------------------


def load_best(run: RunFolder, method: Method, package: str) -> None:
    """Loads the selected weights of a run into its model; call it on every rank."""
    best = distributed.from_rank_zero(lambda: load_checkpoint(run.best, package=package, trained=True))
    load_weights(method.model, best.weights, best.path)


def evaluate(
    package: str,
    config: RunConfig,
    method: Method,
    dataset: Asked,
    split: Split,
    train_queries: Sequence[Query] | None,
    *,
    inputs: Inputs | None = None,
    presence: Calibration | None = None,
    with_flops: bool = False,
) -> Results:
    """Predicts a split and scores it by the protocols of the run, with rows of baselines. Call it on every rank.

    Args:
        package: The paper's package, label of its row.
        config: The configuration.
        method: Holds the weights.
        dataset: The queries of the split that can be answered; its own baselines have rows too (see `Answering`).
        split: All of its queries.
        train_queries: Choose the constant windows of the bias row; None leaves the row out.
        inputs: The features, where videos of the split may have none.
        presence: From evidence to a probability, which predictions then hold.
        with_flops: Count FLOPs on the first batch; they cannot be counted where the model is compiled.
    """
    counted = flops_per_query(config, method, dataset) if with_flops and not config.train.compile else None
    predictions, told = measured(config, method, dataset, split)
    if presence is not None:
        predictions = presence.applied(predictions)
    results = distributed.from_rank_zero(
        lambda: score_all(package, split, predictions, config.protocols, train_queries, _baselines(dataset))
    )
    computed = machine(select_device(config.train.device))
    return dataclasses.replace(
        results,
        flops_per_query=counted,
        machine=computed,
        train_queries=train_queries,
        presence=told,
        calibration=presence,
        without_features=0 if inputs is None else len(without_features(inputs, split.queries)),
    )


def _baselines(dataset: Asked) -> Mapping[str, list[Prediction]]:
    return dataset.baselines() if isinstance(dataset, Answering) else {}


def flops_per_query(config: RunConfig, method: Method, dataset: Dataset) -> float:
    """FLOPs of a prediction, the mean over the first evaluation batch: counting slows every operation down."""
    device, train = select_device(config.train.device), config.train
    method.model.to(device).eval()
    batch = to_device(next(batches_of(dataset, train.eval_batch)), device)
    with torch.no_grad(), autocast(device, train.precision), count_flops() as counted:
        method.predict(batch)
        return counted() / distributed.world() / len(batch.query_ids)  # all ranks count the same batch


def finish(
    run: RunFolder,
    given: Namespace,
    trainer: Trainer,
    fitted: FitResult,
    results: Results,
    *,
    curves: Callable[[Sequence[Query]], Mapping[str, list[Curve]]] | None = None,
    draw: Callable[[Sequence[Query]], FrameOverlay] | None = None,
    remarks: Sequence[str] = (),
) -> Results:
    """Ends a run: report and figures into its folder, the tables and the next commands to the terminal.

    Call it on every rank. Python (see `options.train_options`) gets the results, and nothing is printed.

    Args:
        run: The folder.
        given: The options of the command.
        trainer: Did the training.
        fitted: Its result.
        results: Of the selected weights on the test split.
        curves: Weights over time that the report draws for some queries, by query id.
        draw: Prepares what the report draws on the frames of some queries.
        remarks: Lines below the tables.
    """
    package = trainer.package
    places = {str(run.config): str(run.path / CONFIG)}
    typed = given.argv
    if typed is None:  # Python called
        typed = ["--cfg", str(run.config), "--runs", str(given.runs), *with_same_data("", given)[2:]]
    argv = [places.get(word, word) for word in typed if word != "--resume"]
    facts = RunFacts(
        package=package,
        command=shlex.join([f"{package}-train", *argv]),
        meta=distributed.from_rank_zero(lambda: load_meta(run.best, trained=True)),
        describe=trainer.describe,
        seconds=fitted.seconds,
        parameters=sum(parameter.numel() for parameter in trainer.method.model.parameters()),
    )
    write_report(run, results, facts, given.root, curves=curves, draw=draw)
    run.finish()
    if distributed.rank() != 0 or given.argv is None:
        return results
    answered = {found.query for found in results.predictions}
    example = next(query for query in results.split.queries if query.id in answered)
    where = with_same_data(run.path, given)
    written = "" if results.tables else f"predictions {run.path / PREDICTIONS}\n"
    asked = [*option_words("--video", example.video), *option_words("--query", example.text)]
    echo(
        "\n\n".join([results.text(), *remarks]),
        f"\n{written}report      {run.path / PAGE}\n"
        f"next        {shlex.join([f'{package}-eval', *where])}\n"
        f"            {shlex.join([f'{package}-predict', *where, *asked])}",
    )
    return results


# --- eval, predict and import ------------------------------------------------------------------------------


def print_results(given: Namespace, results: Results, remarks: Sequence[str] = ()) -> None:
    """Prints the tables of an evaluation (or JSON) and writes its predictions where ``--out`` says; on rank 0."""
    if distributed.rank() != 0:
        return
    try:
        if given.json:
            echo(json.dumps(results.to_dict(), indent=1))
            for line in results.remarks:
                logger.info("%s", line)
        else:
            echo("\n\n".join([results.text(), *remarks]))
        if not results.tables and not given.out:
            logger.info("--out FILE writes the predictions")
    finally:  # also where the reader of the tables has closed the pipe
        if given.out:
            write_predictions(given.out, results.predictions)


def read_released(config: Any, given: Namespace) -> dict[str, Tensor]:
    """The authors' weights that ``--weights`` names, by their names.

    Raises:
        UserError: if they cannot be read, or the configuration standardises features, which no released model does.
    """
    require(not config.data.standardise, "data.standardise", True, "false, as in the released training")
    return read_weights(given.weights)


def save_imported(
    package: str,
    config: RunConfig,
    method: Method,
    weights: Mapping[str, Tensor],
    released: Collection[str],
    given: Namespace,
) -> None:
    """Loads the authors' weights into a method, writes it as a checkpoint, and prints the next command to try.

    Args:
        package: The paper's package.
        config: The configuration that the weights fit.
        method: Takes the weights.
        weights: By our names.
        released: Names of the tensors that were read.
        given: The options of the command.

    Raises:
        UserError: if the weights do not fit the configuration.
    """
    load_weights(method.model, weights, given.weights)
    describe = {
        "package": package,
        "config": to_dict(config),
        "data_root": str(given.root.absolute()),
        "imported_from": Path(given.weights).name,
    }
    meta = {"package": package, "role": "best", "update": 0, "epoch": 0, "batch": 0}
    parts = {"model": method.model.state_dict(), "state": method.state_tensors()}
    save_checkpoint(given.out, parts, {**meta, "state": method.state(), "describe": describe})
    count = sum(parameter.numel() for parameter in method.model.parameters())
    echo(
        f"{given.out}: {len(released)} tensors read, {count:,} parameters\n"
        f"next  {shlex.join([f'{package}-eval', *with_same_data(given.out, given)])}"
    )
