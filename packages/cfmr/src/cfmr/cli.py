"""The commands cfmr-train, cfmr-eval, cfmr-predict and cfmr-import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from cfmr.config import Config
from cfmr.data import InputFeatures, QueryExamples, make_examples
from cfmr.method import CFMRMethod
from cfmr.model import CFMR
from cfmr.official import from_official
from vmr_common.errors import require
from vmr_common.types import Query
from vmr_train.checkpoint import Checkpoint, load_weights
from vmr_train.cli import model
from vmr_train.cli.package import ModelPackage, add_word_list
from vmr_train.preprocessing import Preprocessor


def create(config: Config, queries: Sequence[Query], sources: InputFeatures) -> CFMRMethod:
    """A new task: the vocabulary comes from the training queries, the model is untrained.

    Raises:
        UserError: if the word vectors cannot be read or know no word of the queries, or a query has no glance.
    """
    standardised = sources.features if config.data.standardise else None
    learned = Preprocessor.learn(queries, sources.word_vectors, config.data.vocabulary, standardised)
    return _task(config, learned)


def _task(config: Config, learned: Preprocessor) -> CFMRMethod:
    network = CFMR(
        config.model,
        frame_dim=config.data.features.dim,
        word_dim=learned.word_vectors.shape[1],
        classes=len(learned.vocabulary) + 1,
        learned_summary=config.quirks == "fixed",
    )
    return CFMRMethod(network, config.loss, learned, config.passes_per_chunk)


def restore(config: Config, checkpoint: Checkpoint) -> CFMRMethod:
    """The task of a checkpoint, before its weights are loaded."""
    columns = config.data.features.dim if config.data.standardise else None
    return _task(config, Preprocessor.restore(checkpoint, columns))


def examples(
    config: Config, task: CFMRMethod, sources: InputFeatures, queries: Sequence[Query]
) -> QueryExamples:
    """Queries as batches for a task."""
    return make_examples(config, task.learned, sources, queries)


def convert(config: Config, weights: Mapping[str, Tensor], options: Any, data_root: Path) -> CFMRMethod:
    """A task with the authors' weights under our names.

    Raises:
        UserError: if the configuration is not of the released kind, the word list does not have as many words
            as the classifier has classes, a word has no vector, or the weights do not fit.
    """
    expected = "released or released-torch, as the authors' weights need it"
    require(config.quirks != "fixed", "quirks", config.quirks, expected)
    renamed = from_official(weights)
    learned = Preprocessor.from_released(renamed, options.words, data_root / config.data.word_vectors)
    task = _task(config, learned)
    load_weights(task.model, renamed, options.weights)
    return task


PACKAGE = ModelPackage(
    name="cfmr",
    title="Cheaper and Faster Moment Retrieval",
    schema=Config,
    open_inputs=InputFeatures.open,
    create=create,
    restore=restore,
    examples=examples,
    convert=convert,
    import_options=add_word_list,
    may_change=("passes_per_chunk",),
)

train = PACKAGE.command(model.train)
evaluate = PACKAGE.command(model.evaluate)
predict = PACKAGE.command(model.predict)
import_official = PACKAGE.command(model.import_official)
