"""The command that trains: its run from the first check to the report."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vmr_common.cli.entrypoint import echo
from vmr_common.errors import UserError, said_once
from vmr_common.evaluation import protocol
from vmr_common.features.config import require_videos
from vmr_common.splits.config import Splits, load_splits
from vmr_common.splits.load import Split, data_root
from vmr_common.types import Prediction, Query
from vmr_train import distributed
from vmr_train.checkpoint import load_checkpoint, load_meta, load_weights
from vmr_train.cli.config import to_dict
from vmr_train.cli.package import ModelPackage, RunConfig, VideoInputs
from vmr_train.cli.requests import PARTS, resumed_config
from vmr_train.cli.steps import answerable, read_config, remarks_of, same_data, scored
from vmr_train.cli.write_report import RunFacts, write_report
from vmr_train.config import TrainConfig
from vmr_train.device import seed_everything, select_device
from vmr_train.distributed import session
from vmr_train.fingerprint import Fingerprint, fingerprint
from vmr_train.flops import count_flops
from vmr_train.method import Dataset
from vmr_train.run_files import CONFIG, PAGE
from vmr_train.run_folder import RunFolder
from vmr_train.trainer import Trainer

logger = logging.getLogger(__name__)


def train(package: ModelPackage[Any, Any, Any], argv: list[str]) -> None:
    """Trains, evaluates the selected weights on the test split and writes the report."""
    parser = package.parser(
        "train", "train, evaluate and report. Every field of the configuration is an option."
    )
    parser.add_argument("--runs", type=str, default="runs", help="folder of all run folders")
    parser.add_argument("--resume", action="store_true", help="continue the run from its last checkpoint")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace an earlier run of this name, once all is done"
    )
    argv = [*resumed_config(package.name, package.default, argv), *argv]
    with said_once():
        config, options = read_config(package, parser, argv)
    root = data_root(options.data_root)
    folder = Path(options.runs) / package.name / config.name
    with (
        session(config.train.device, config.train.peer_timeout),
        RunFolder(folder, resume=options.resume, overwrite=options.overwrite) as run,
    ):
        splits = distributed.from_rank_zero(lambda: load_splits(config.data.splits, root))
        _log_splits(splits)
        ready = distributed.everywhere(lambda: _prepare(package, config, splits, root))
        task, inputs = ready.task, ready.inputs
        earlier = distributed.from_rank_zero(lambda: _earlier(run) if options.resume else {})
        describe = _description(package, config, splits, inputs, earlier)
        trainer = distributed.everywhere(
            lambda: Trainer(
                task,
                ready.learnt,
                validation=ready.chosen_on,
                evaluate=ready.evaluate,
                config=config.train,
                optim=config.optim,
                run=run,
                describe=describe,
                may_change=package.may_change,
            )
        )
        run.start()
        result = trainer.fit(resume=options.resume)
        best = distributed.from_rank_zero(
            lambda: load_checkpoint(run.best, package=package.name, trained=True)
        )
        load_weights(task.model, best.weights, best.path)
        # what runs in compiled graphs cannot be counted
        with contextlib.nullcontext() if config.train.compile else count_flops() as counted:
            results = scored(package, config, task, ready.reported, splits.test, splits.train.queries)
        flops = None if counted is None else counted()
        remarks = remarks_of(package, config, task, splits.test)
        facts = RunFacts(
            package=package.name,
            command=_anew(package.name, argv, run),
            meta=best.meta,
            describe=trainer.describe,
            seconds=result.seconds,
            parameters=sum(parameter.numel() for parameter in task.model.parameters()),
        )
        curves = None if package.curves is None else functools.partial(package.curves, config, task, inputs)
        draw = None if package.draw is None else functools.partial(package.draw, config, task, inputs)
        results = dataclasses.replace(results, flops=flops)
        write_report(run, results, facts, root, curves=curves, draw=draw)
        run.finish()
        if distributed.rank() == 0:
            echo("\n\n".join([results.text(), *remarks]))
            where = same_data(run.path, options)
            example = splits.test.queries[0]
            echo(
                f"\nreport      {run.path / PAGE}\n"
                f"next        {package.name}-eval {where}\n"
                f"            {package.name}-predict {where} "
                f"--video {shlex.quote(example.video)} --query {shlex.quote(example.text)}"
            )


@dataclass(frozen=True)
class _Ready:
    """What a training begins with."""

    inputs: VideoInputs
    task: Any
    learnt: Dataset
    chosen_on: Dataset | None
    evaluate: Callable[[list[Prediction]], Mapping[str, float]] | None
    reported: Dataset


def _prepare(package: ModelPackage[Any, Any, Any], config: Any, splits: Splits, root: Path) -> _Ready:
    """The data and the untrained task; whatever can be wrong is found out before features are read for minutes."""
    select_device(config.train.device)
    selection = _selection_split(config.train, splits)
    _check_scoring(config, splits, selection)
    inputs = package.open_inputs(config, root)
    _read_all(inputs, splits, config)
    seed_everything(config.train.seed)
    task = package.create(config, splits.train.queries, inputs)

    def queries(split: Split) -> Dataset:
        return answerable(package, config, task, inputs, split)

    return _Ready(
        inputs,
        task,
        learnt=queries(splits.train),
        chosen_on=None if selection is None else queries(selection),
        evaluate=None if selection is None else _metrics_of(selection, config.protocols[0]),
        reported=queries(splits.test),
    )


def _anew(package: str, argv: list[str], run: RunFolder) -> str:
    """The command that gives the same figures again, from the beginning."""
    places = {str(run.config): str(run.path / CONFIG)}
    return shlex.join([f"{package}-train", *(places.get(word, word) for word in argv if word != "--resume")])


def _selection_split(config: TrainConfig, splits: Splits) -> Split | None:
    if config.select == "test":
        return splits.test
    if config.select == "validation" and splits.validation is None:
        raise UserError("train.select is validation, but data.splits holds no validation videos out")
    return splits.validation


def _check_scoring(config: Any, splits: Splits, selection: Split | None) -> None:
    """Scores whole videos once, so that rules that do not suit a split are not found out after hours."""
    for rules in config.protocols:
        protocol(rules).score(splits.test.queries, [_whole_video(query) for query in splits.test.queries])
    if selection is not None and config.train.select != "last":
        measured = _metrics_of(selection, config.protocols[0])([_whole_video(q) for q in selection.queries])
        if config.train.select_metric not in measured:
            raise UserError(
                f"train.select_metric: found {config.train.select_metric!r}, expected one of {', '.join(measured)}"
            )


def _whole_video(query: Query) -> Prediction:
    return Prediction(
        query=query.id, video=query.video, moments=np.array([[0.0, query.duration]]), scores=np.zeros(1)
    )


def _metrics_of(split: Split, rules: str) -> Callable[[list[Prediction]], Mapping[str, float]]:
    judge = protocol(rules)
    return lambda predictions: judge.score(split.queries, predictions).values


def _read_all(inputs: VideoInputs, splits: Splits, config: RunConfig) -> None:
    """Reads every video once, so that a missing, damaged or misshapen one is known before training."""
    parts = {part: split for part in PARTS if (split := getattr(splits, part)) is not None}
    require_videos(inputs.store, {split.name: split.queries for split in parts.values()})
    videos = list(dict.fromkeys(query.video for split in parts.values() for query in split.queries))
    quiet = None if distributed.rank() == 0 else True
    for video in tqdm(videos, desc="read features", unit="video", delay=2, disable=quiet, leave=False):
        inputs[video]


def _log_splits(splits: Splits) -> None:
    if distributed.rank() == 0:
        for part in PARTS:
            split: Split | None = getattr(splits, part)
            if split is not None:
                videos = len({query.video for query in split.queries})
                logger.info("%-10s  %s: %s queries, %s videos", part, split.name, len(split.queries), videos)
                for line in _report_lines(split):
                    logger.info("            %s", line)


def _report_lines(split: Split) -> Iterator[str]:
    yield from (line for line in split.report.lines() if split.report.counts or split.report.notes)


def _earlier(run: RunFolder) -> dict[str, Any]:
    """What the checkpoint that is resumed knows of its files."""
    describe = load_meta(run.last)["describe"] if run.last.exists() else {}
    return {
        part: value
        for part in ("features", "words")
        if isinstance(value := describe.get(part), dict) and "times" in value
    }


def _description(
    package: ModelPackage[Any, Any, Any],
    config: Any,
    splits: Splits,
    inputs: VideoInputs,
    earlier: Mapping[str, Any],
) -> dict[str, Any]:
    """What checkpoints say about where they come from; call it on every rank."""
    store = inputs.store

    def of(paths: list[Path], part: str) -> Fingerprint:
        return distributed.from_rank_zero(lambda: fingerprint(paths, earlier.get(part)))

    return {
        "package": package.name,
        "config": to_dict(config),
        "splits": {part: _provenance(getattr(splits, part)) for part in PARTS},
        "features": {
            **of(store.paths, "features"),
            "manifest": None if store.manifest is None else dataclasses.asdict(store.manifest),
        },
        "words": of(inputs.words, "words"),
    }


def _provenance(split: Split | None) -> dict[str, Any] | None:
    return None if split is None else {"name": split.name, "queries": len(split.queries), "hash": split.hash}
