"""The commands leorn-train, leorn-eval, leorn-predict and leorn-import."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from leorn.config import Config
from leorn.data import Dataset, InputFeatures, Preprocessor, build_dataset
from leorn.explain import draw_attention, explain
from leorn.initial import load_pretrained
from leorn.method import LEORNMethod
from leorn.model import LEORN
from leorn.official import from_official
from vmr_common.types import Query
from vmr_train.checkpoint import Checkpoint, load_weights
from vmr_train.cli import model
from vmr_train.cli.package import ModelPackage


def create(config: Config, queries: Sequence[Query], sources: InputFeatures) -> LEORNMethod:
    """A new task: it keeps the words of the training queries; the model is untrained or begins as `init` says.

    Raises:
        UserError: if the word vectors cannot be read or know no word of the queries, a query has no moment, or
            the weights to begin with do not fit.
    """
    inputs = Preprocessor.learn(
        "LEORN",
        queries,
        sources.word_vectors,
        config.words_of,
        features=sources.clips if config.data.standardise else None,
    )
    task = _task(config, inputs)
    load_pretrained(task.model, config.init)
    return task


def _task(config: Config, inputs: Preprocessor) -> LEORNMethod:
    network = LEORN(
        config.model,
        object_dim=config.data.objects.dim,
        word_dim=inputs.words.dim,
        clip_dim=None if config.data.features is None else config.data.features.dim,
    )
    released = config.quirks == "released"
    return LEORNMethod(network, config.loss, config.decode, inputs, released=released)


def restore(config: Config, checkpoint: Checkpoint) -> LEORNMethod:
    """The task of a checkpoint, before its weights are loaded."""
    clips = config.data.features if config.data.standardise else None
    return _task(config, Preprocessor.restore(checkpoint, None if clips is None else clips.dim))


def examples(config: Config, task: LEORNMethod, sources: InputFeatures, queries: Sequence[Query]) -> Dataset:
    """Queries as batches for a task."""
    return build_dataset(config, task.inputs, sources, queries)


def convert(config: Config, weights: Mapping[str, Tensor], options: Any, data_root: Path) -> LEORNMethod:
    """A task with the authors' weights under our names; words are looked up in the vector file when needed.

    Raises:
        UserError: if the weights do not fit the configuration.
    """
    renamed = from_official(weights)
    task = _task(config, Preprocessor.from_released(renamed, "text.gru.weight_ih_l0", options.weights))
    load_weights(task.model, renamed, options.weights)
    return task


def predict_options(parser: argparse.ArgumentParser) -> None:
    """What the predict command can draw."""
    parser.add_argument(
        "--explain",
        type=str,
        default=None,
        help="draw the objects that mattered in the best moment here (PNG)",
    )
    parser.add_argument(
        "--frames",
        type=str,
        default=None,
        help="folder with VIDEO.npy or a folder VIDEO of pictures, for --explain (Shapes needs none)",
    )


PACKAGE = ModelPackage(
    name="leorn",
    title="Language-enhanced Object Reasoning Networks",
    schema=Config,
    open_inputs=InputFeatures.open,
    create=create,
    restore=restore,
    examples=examples,
    convert=convert,
    predict_options=predict_options,
    explain=explain,
    draw=draw_attention,
    may_change=(
        "model.recompute",
        "data.cache_gb",
    ),
)

train = PACKAGE.command(model.train)
evaluate = PACKAGE.command(model.evaluate)
predict = PACKAGE.command(model.predict)
import_official = PACKAGE.command(model.import_official)
