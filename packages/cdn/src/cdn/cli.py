"""The commands cdn-train, cdn-eval, cdn-predict and cdn-import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from cdn.config import Config
from cdn.data import Dataset, InputFeatures, Preprocessor, build_dataset
from cdn.method import CDNMethod
from cdn.model import CDN
from cdn.official import from_official
from vmr_common.types import Query
from vmr_train.checkpoint import Checkpoint, load_weights
from vmr_train.cli import model
from vmr_train.cli.package import ModelPackage


def create(config: Config, queries: Sequence[Query], sources: InputFeatures) -> CDNMethod:
    """A new task: it keeps the words of the training queries, the model is untrained.

    Raises:
        UserError: if the word vectors cannot be read or know no word of the queries, or a query has no moment.
    """
    inputs = Preprocessor.learn(
        "CDN",
        queries,
        sources.word_vectors,
        config.data.words_of,
        features=sources.features if config.data.standardise else None,
    )
    return _task(config, inputs)


def _task(config: Config, inputs: Preprocessor) -> CDNMethod:
    network = CDN(config.model, frame_dim=config.data.features.dim, word_dim=inputs.words.dim)
    return CDNMethod(network, config.loss, config.decode, inputs, released=config.quirks == "released")


def restore(config: Config, checkpoint: Checkpoint) -> CDNMethod:
    """The task of a checkpoint, before its weights are loaded."""
    columns = config.data.features.dim if config.data.standardise else None
    return _task(config, Preprocessor.restore(checkpoint, columns))


def examples(config: Config, task: CDNMethod, sources: InputFeatures, queries: Sequence[Query]) -> Dataset:
    """Queries as batches for a task."""
    return build_dataset(config, task.inputs, sources, queries)


def convert(config: Config, weights: Mapping[str, Tensor], options: Any, data_root: Path) -> CDNMethod:
    """A task with the authors' weights under our names; words are looked up in the vector file when needed.

    Raises:
        UserError: if the weights do not fit the configuration.
    """
    renamed = from_official(weights)
    task = _task(config, Preprocessor.from_released(renamed, "text.lstm.weight_ih_l0", options.weights))
    load_weights(task.model, renamed, options.weights)
    return task


PACKAGE = ModelPackage(
    name="cdn",
    title="Cross-modal Dynamic Networks",
    schema=Config,
    open_inputs=InputFeatures.open,
    create=create,
    restore=restore,
    examples=examples,
    convert=convert,
    may_change=("model.recompute",),
)

train = PACKAGE.command(model.train)
evaluate = PACKAGE.command(model.evaluate)
predict = PACKAGE.command(model.predict)
import_official = PACKAGE.command(model.import_official)
