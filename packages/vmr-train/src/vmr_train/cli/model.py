"""The four commands that every model package has: train, eval, predict and import.

A package describes itself with a `ModelPackage`; everything that does not depend on the paper is here.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import logging
from pathlib import Path
from typing import Any

from vmr_common.cli.entrypoint import echo
from vmr_common.cli.numbers import seconds, whole
from vmr_common.errors import UserError, require, said_once
from vmr_common.features.config import require_videos
from vmr_common.splits.load import data_root
from vmr_common.timeline import format_clock
from vmr_common.types import Prediction, prediction_row, write_predictions
from vmr_train import distributed
from vmr_train.checkpoint import Checkpoint, load_checkpoint, restored, save_checkpoint
from vmr_train.cli.config import to_dict
from vmr_train.cli.package import ModelPackage
from vmr_train.cli.requests import option, requested_split
from vmr_train.cli.results import moment_table
from vmr_train.cli.steps import answerable, finite, predicted, read_config, remarks_of, same_data, scored
from vmr_train.cli.train import train
from vmr_train.distributed import session
from vmr_train.method import Dataset
from vmr_train.released_weights import read_weights
from vmr_train.run_files import PREDICTIONS

__all__ = ["evaluate", "import_official", "predict", "train"]

logger = logging.getLogger(__name__)


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
    with said_once():
        config, options, checkpoint = _restore_config(package, parser, argv)
    root = data_root(options.data_root)

    def prepare() -> tuple[Any, Dataset]:
        inputs = package.open_inputs(config, root)
        require_videos(inputs.store, {split.name: split.queries})
        task = _restore_task(package, config, checkpoint)
        return task, answerable(package, config, task, inputs, split)

    with session(config.train.device, config.train.peer_timeout):
        split, train_queries = distributed.from_rank_zero(lambda: requested_split(config, options, root))
        task, examples = distributed.everywhere(prepare)
        results = scored(package, config, task, examples, split, train_queries)
        remarks = remarks_of(package, config, task, split)
        if distributed.rank() != 0:
            return
        if options.json:
            echo(json.dumps(results.to_dict(), indent=1))
        else:
            echo("\n\n".join([results.text(), *remarks]))
        if options.out:
            write_predictions(options.out, results.predictions)


def predict(package: ModelPackage[Any, Any, Any], argv: list[str]) -> None:
    """Finds the moments of one sentence in one video, or of a file of sentences."""
    parser = package.parser("predict", "find moments for a sentence.")
    _add_checkpoint(parser)
    parser.add_argument("--video", type=str, default=None, help="video id, as in the feature files")
    parser.add_argument("--query", type=str, default=None, help="the sentence")
    parser.add_argument("--duration", type=seconds, default=None, help="length of the video in seconds")
    parser.add_argument(
        "--queries", type=str, default=None, help="an annotation file with many queries instead"
    )
    parser.add_argument("-k", type=whole(1), default=5, help="moments per query")
    parser.add_argument("--json", action="store_true", help=f"print JSON lines, as in {PREDICTIONS}")
    if package.predict_options is not None:
        package.predict_options(parser)
    config, options, checkpoint = _restore_config(package, parser, argv)
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
    found = finite(predicted(config, task, examples))
    predictions = [_first(prediction, options.k) for prediction in found]
    if options.json:
        echo(
            "\n".join(
                json.dumps(prediction_row(prediction), ensure_ascii=False) for prediction in predictions
            )
        )
    else:
        show = (
            _moment_table if package.moment_table is None else functools.partial(package.moment_table, task)
        )
        echo("\n\n".join(show(prediction) for prediction in predictions))
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
    config, options = read_config(package, parser, argv)
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
    echo(
        f"{options.out}: {len(weights)} tensors read, {count:,} parameters\n"
        f"next  {package.name}-eval {same_data(options.out, options)}"
    )


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--checkpoint", type=str, required=True, help="a checkpoint file, or a run folder")


def _restore_config(
    package: ModelPackage[Any, Any, Any], parser: argparse.ArgumentParser, argv: list[str]
) -> tuple[Any, Any, Checkpoint | None]:
    path = option(argv, "--checkpoint", "")
    # without one there is nothing to restore, but --help and the error must still work
    checkpoint = load_checkpoint(path, package=package.name) if path else None
    return *read_config(package, parser, argv, checkpoint), checkpoint


def _restore_task(package: ModelPackage[Any, Any, Any], config: Any, checkpoint: Checkpoint | None) -> Any:
    if checkpoint is None:
        raise UserError("--checkpoint needs a checkpoint file or a run folder")
    return restored(lambda: package.restore(config, checkpoint), checkpoint)


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
