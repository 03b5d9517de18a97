"""The four commands that every model package has: train, eval, predict and import.

A package describes itself with a `ModelPackage`; everything that does not depend on the paper is here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import logging
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser
from tqdm import tqdm

from vmr_common.cli.config import parse, stored_values, to_dict, to_yaml
from vmr_common.cli.package import ModelPackage, RunConfig, VideoInputs
from vmr_common.cli.publish import RunFacts, publish
from vmr_common.cli.requests import PARTS, option, requested_split, resumed_config
from vmr_common.cli.results import Results, moment_table, score_all
from vmr_common.cli.run import say
from vmr_common.errors import UserError, require
from vmr_common.experiment import (
    Splits,
    features_hash,
    load_splits,
    require_videos,
)
from vmr_common.protocols import protocol
from vmr_common.records import Prediction, Query, prediction_row, write_predictions
from vmr_common.run_files import PAGE, PREDICTIONS
from vmr_common.splits import Split, data_root
from vmr_common.timeline import format_clock
from vmr_common.training import (
    Checkpoint,
    Examples,
    RunFolder,
    TrainConfig,
    Trainer,
    distributed,
    load_checkpoint,
    load_weights,
    predict_all,
    save_checkpoint,
    seed_everything,
    select_device,
    session,
)
from vmr_common.training.cost import count_flops
from vmr_common.training.official import read_weights

logger = logging.getLogger(__name__)


def train(package: ModelPackage[Any, Any, Any], argv: list[str]) -> None:
    """Trains, evaluates the selected weights on the test split and writes the report."""
    parser = package.parser(
        "train", "train, evaluate and report. Every field of the configuration is an option."
    )
    parser.add_argument("--runs", type=str, default="runs", help="folder of all run folders")
    parser.add_argument("--resume", action="store_true", help="continue the run from its last checkpoint")
    parser.add_argument("--overwrite", action="store_true", help="delete an earlier run of this name")
    config, options = _parse(package, parser, [*resumed_config(package.name, package.default, argv), *argv])
    root = data_root(options.data_root)
    folder = Path(options.runs) / package.name / config.name
    with session(config.train.device):
        # whatever can be wrong is found out before features are read for minutes, let alone a run deleted
        select_device(config.train.device)
        distributed.from_rank_zero(
            lambda: RunFolder.check(folder, resume=options.resume, overwrite=options.overwrite)
        )
        splits = distributed.from_rank_zero(lambda: load_splits(config.data.splits, root))
        _log_splits(splits)
        selection = _selection_split(config.train, splits)
        _check_scoring(config, splits, selection)
        inputs = package.open_inputs(config, root)
        _read_all(inputs, splits, config)
        seed_everything(config.train.seed)
        task = package.create(config, splits.train.queries, inputs, root)
        learnt = _examples(package, config, task, inputs, splits.train)
        chosen_on = None if selection is None else _examples(package, config, task, inputs, selection)
        reported = _examples(package, config, task, inputs, splits.test)
        run = RunFolder(folder, resume=options.resume, overwrite=options.overwrite)
        if (
            not options.resume
        ):  # a run keeps its configuration until a resumed training has shown that another fits
            run.write_config(to_yaml(config))
        describe = {
            "package": package.name,
            "config": to_dict(config),
            "splits": {part: _provenance(getattr(splits, part)) for part in PARTS},
            "features": {
                "files": [path.name for path in inputs.store.paths],
                "hash": distributed.from_rank_zero(lambda: features_hash(inputs.store)),
                "manifest": None
                if inputs.store.manifest is None
                else dataclasses.asdict(inputs.store.manifest),
            },
        }
        result = Trainer(
            task,
            learnt,
            validation=chosen_on,
            evaluate=None if selection is None else _metrics_of(selection, config.protocols[0]),
            config=config.train,
            optim=config.optim,
            run=run,
            describe=describe,
        ).fit(resume=options.resume)
        run.write_config(to_yaml(config))
        best = load_checkpoint(result.best_checkpoint, package=package.name)
        load_weights(task.model, best.weights, best.path)
        # what runs in compiled graphs cannot be counted
        with contextlib.nullcontext() if config.train.compile else count_flops() as counted:
            results = _evaluate(package, config, task, reported, splits.test, splits.train.queries)
        flops = None if counted is None else counted()
        remarks = _remarks(package, config, task, splits.test)
        if distributed.rank() == 0:
            facts = RunFacts(
                package=package.name,
                command=shlex.join([f"{package.name}-train", *argv]),
                checkpoint=best,
                seconds=result.seconds,
                parameters=sum(parameter.numel() for parameter in task.model.parameters()),
                flops=flops,
            )
            curves = (
                None if package.curves is None else functools.partial(package.curves, config, task, inputs)
            )
            draw = None if package.draw is None else functools.partial(package.draw, config, task, inputs)
            publish(run.path, results, facts, curves, root, draw)
            say("\n\n".join([results.text(), *remarks]))
            where = _again(run.path, options)
            example = splits.test.queries[0]
            say(
                f"\nreport      {run.path / PAGE}\n"
                f"next        {package.name}-eval {where}\n"
                f"            {package.name}-predict {where} "
                f"--video {shlex.quote(example.video)} --query {shlex.quote(example.text)}"
            )


def evaluate(package: ModelPackage[Any, Any, Any], argv: list[str]) -> None:
    """Scores a checkpoint on a split."""
    parser = package.parser("eval", "score a checkpoint on a split.")
    _add_checkpoint(parser)
    parser.add_argument(
        "--split",
        type=str,
        default="test",
        help="test, validation or train of the run, or a registered split",
    )
    parser.add_argument("--annotations", type=str, default=None, help="an annotation file instead of a split")
    parser.add_argument("--out", type=str, default=None, help="write the predictions here (JSON lines)")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON")
    config, options, checkpoint = _restore_config(package, parser, argv)
    root = data_root(options.data_root)
    with session(config.train.device):
        split, train_queries = distributed.from_rank_zero(lambda: requested_split(config, options, root))
        inputs = package.open_inputs(config, root)
        require_videos(inputs.store, {split.name: split.queries})
        task = _restore_task(package, config, checkpoint)
        examples = _examples(package, config, task, inputs, split)
        results = _evaluate(package, config, task, examples, split, train_queries)
        remarks = _remarks(package, config, task, split)
        if distributed.rank() != 0:
            return
        if options.json:
            say(json.dumps(results.to_dict(), indent=1))
        else:
            say("\n\n".join([results.text(), *remarks]))
        if options.out:
            write_predictions(options.out, results.predictions)


def predict(package: ModelPackage[Any, Any, Any], argv: list[str]) -> None:
    """Finds the moments of one sentence in one video, or of a file of sentences."""
    parser = package.parser("predict", "find moments for a sentence.")
    _add_checkpoint(parser)
    parser.add_argument("--video", type=str, default=None, help="video id, as in the feature files")
    parser.add_argument("--query", type=str, default=None, help="the sentence")
    parser.add_argument("--duration", type=float, default=None, help="length of the video in seconds")
    parser.add_argument(
        "--queries", type=str, default=None, help="an annotation file with many queries instead"
    )
    parser.add_argument("-k", type=int, default=5, help="moments per query")
    parser.add_argument("--json", action="store_true", help=f"print JSON lines, as in {PREDICTIONS}")
    if package.predict_options is not None:
        package.predict_options(parser)
    config, options, checkpoint = _restore_config(package, parser, argv)
    if options.k < 1:
        raise UserError(f"-k must be at least 1, found {options.k}")
    root = data_root(options.data_root)
    inputs = package.open_inputs(config, root)
    queries = package.requested(config, options, inputs.store, root)
    require_videos(inputs.store, {"the request": queries})
    task = _restore_task(package, config, checkpoint)
    examples = package.examples(config, task, inputs, queries)
    if not len(examples):
        raise UserError(
            "the model knows no word of the query; its vocabulary comes from the training queries"
        )
    predictions = [_first(prediction, options.k) for prediction in _predict(config, task, examples)]
    if options.json:
        say(
            "\n".join(
                json.dumps(prediction_row(prediction), ensure_ascii=False) for prediction in predictions
            )
        )
    else:
        show = (
            _moment_table if package.moment_table is None else functools.partial(package.moment_table, task)
        )
        say("\n\n".join(show(prediction) for prediction in predictions))
    if package.explain is not None:
        asked = list(zip(queries, predictions, strict=True))
        for line in package.explain(config, task, inputs, asked, options, root):
            logger.info(line)


def import_official(package: ModelPackage[Any, Any, Any], argv: list[str]) -> None:
    """Turns an authors' checkpoint into one of ours."""
    parser = package.parser(
        "import", "turn the authors' weights into a checkpoint that eval and predict take."
    )
    parser.add_argument("--weights", type=str, required=True, help="PyTorch, safetensors or npz file")
    parser.add_argument("--out", type=str, required=True, help="the checkpoint to write")
    if package.import_options is not None:
        package.import_options(parser)
    config, options = _parse(package, parser, argv)
    require(not config.data.standardise, "data.standardise", True, "false, as in the released training")
    weights = read_weights(options.weights)
    task = package.convert(config, weights, options, data_root(options.data_root))
    describe = {
        "package": package.name,
        "config": to_dict(config),
        "imported_from": Path(options.weights).name,
    }
    meta = {
        "package": package.name,
        "role": "best",
        "update": 0,
        "epoch": 0,
        "batch": 0,
        "state": task.state(),
        "describe": describe,
    }
    save_checkpoint(options.out, {"model": task.model.state_dict(), "state": task.state_tensors()}, meta)
    count = sum(parameter.numel() for parameter in task.model.parameters())
    say(
        f"{options.out}: {len(weights)} tensors read, {count:,} parameters\n"
        f"next  {package.name}-eval {_again(options.out, options)}"
    )


def _parse(
    package: ModelPackage[Any, Any, Any],
    parser: ArgumentParser,
    argv: Sequence[str],
    checkpoint: Checkpoint | None = None,
) -> tuple[Any, Any]:
    """The configuration and the other options; with a checkpoint its configuration is where fields start."""
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
    if config.name in ("", ".", "..") or set(config.name) & set("/\\\0"):
        raise UserError(f"name: found {config.name!r}, expected the name of a folder")
    if not config.protocols:
        raise UserError("protocols: found none, expected at least one")
    for rules in config.protocols:
        protocol(rules)
    return config, parsed.options


def _add_checkpoint(parser: ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=str, required=True, help="a checkpoint file, or a run folder")


def _restore_config(
    package: ModelPackage[Any, Any, Any], parser: ArgumentParser, argv: list[str]
) -> tuple[Any, Any, Checkpoint | None]:
    path = option(argv, "--checkpoint", "")
    # without one there is nothing to restore, but --help and the error must still work
    checkpoint = load_checkpoint(path, package=package.name) if path else None
    return *_parse(package, parser, argv, checkpoint), checkpoint


def _restore_task(package: ModelPackage[Any, Any, Any], config: Any, checkpoint: Checkpoint | None) -> Any:
    if checkpoint is None:
        raise UserError("--checkpoint needs a checkpoint file or a run folder")
    task = package.restore(config, checkpoint)
    load_weights(task.model, checkpoint.weights, checkpoint.path)
    return task


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


def _examples(
    package: ModelPackage[Any, Any, Any], config: Any, task: Any, inputs: Any, split: Split
) -> Examples:
    found = package.examples(config, task, inputs, split.queries)
    if not len(found):
        raise UserError(f"{split.name}: the model knows no word of any of its {len(split.queries)} queries")
    return found


def _again(checkpoint: str | Path, options: Any) -> str:
    """The options with which the next command finds the same weights and data."""
    root = [] if options.data_root is None else ["--data-root", options.data_root]
    return shlex.join(["--checkpoint", str(checkpoint), *root])


def _metrics_of(split: Split, rules: str) -> Callable[[list[Prediction]], Mapping[str, float]]:
    judge = protocol(rules)
    return lambda predictions: judge.score(split.queries, predictions).values


def _evaluate(
    package: ModelPackage[Any, Any, Any],
    config: Any,
    task: Any,
    examples: Examples,
    split: Split,
    train_queries: Sequence[Query],
) -> Results:
    predictions = _predict(config, task, examples)
    return distributed.from_rank_zero(
        lambda: score_all(package.name, split, predictions, config.protocols, train_queries)
    )


def _remarks(package: ModelPackage[Any, Any, Any], config: Any, task: Any, split: Split) -> list[str]:
    return [] if package.remarks is None else package.remarks(config, task, split.queries)


def _predict(config: Any, task: Any, examples: Examples) -> list[Prediction]:
    device = select_device(config.train.device)
    task.model.to(device)
    return predict_all(
        task, examples, batch_size=config.train.eval_batch, device=device, precision=config.train.precision
    )


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


def _provenance(split: Split | None) -> dict[str, Any] | None:
    return None if split is None else {"name": split.name, "queries": len(split.queries), "hash": split.hash}


def _first(prediction: Prediction, k: int) -> Prediction:
    return dataclasses.replace(prediction, moments=prediction.moments[:k], scores=prediction.scores[:k])


def _moment_table(prediction: Prediction) -> str:
    rows = [
        (str(rank), format_clock(start), format_clock(end), f"{score:.3f}")
        for rank, ((start, end), score) in enumerate(
            zip(prediction.moments.tolist(), prediction.scores.tolist(), strict=True), 1
        )
    ]
    columns = {"rank": ">4", "start": ">8", "end": ">8", "score": ">8"}
    return moment_table(f"{prediction.video}  {prediction.text}", columns, rows)
