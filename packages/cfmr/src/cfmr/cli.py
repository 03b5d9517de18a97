"""The commands cfmr-train, cfmr-eval, cfmr-predict and cfmr-import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser
from numpy.typing import NDArray
from torch import Tensor

from cfmr.config import Config
from cfmr.data import KeptClips, QueryExamples
from cfmr.model import CFMR
from cfmr.official import from_official
from cfmr.task import CFMRTask
from vmr_common.cli import model
from vmr_common.cli.package import ModelPackage
from vmr_common.errors import UserError
from vmr_common.experiment import open_features
from vmr_common.records import Query
from vmr_common.text import Vocabulary
from vmr_common.training import Checkpoint, load_weights
from vmr_common.training.point_supervised import learn_vocabulary, read_vocabulary


def open_inputs(config: Config, data_root: Path) -> KeptClips:
    """The clip features of a run, pooled and thinned out to what the model reads, kept in memory."""
    return KeptClips(open_features(config.data.features, data_root), config.data.clips)


def create(config: Config, queries: Sequence[Query], inputs: KeptClips, data_root: Path) -> CFMRTask:
    """A new task: the vocabulary comes from the training queries, the model is untrained.

    Raises:
        UserError: if the word vectors cannot be read or know no word of the queries, or a query has no glance.
    """
    word_vectors = data_root / config.data.word_vectors
    return _task(config, *learn_vocabulary("CFMR", queries, word_vectors, config.data.vocabulary))


def _task(config: Config, vocabulary: Vocabulary, word_vectors: NDArray[np.float32]) -> CFMRTask:
    network = CFMR(
        config.model,
        frame_dim=config.data.features.dim,
        word_dim=word_vectors.shape[1],
        classes=len(vocabulary) + 1,
        learned_summary=config.quirks == "fixed",
    )
    return CFMRTask(network, config.loss, vocabulary, word_vectors, config.passes_per_chunk)


def restore(config: Config, checkpoint: Checkpoint) -> CFMRTask:
    """The task of a checkpoint, before its weights are loaded."""
    try:
        words, vectors = checkpoint.state["words"], checkpoint.state_tensors["word_vectors"]
    except KeyError as error:
        raise UserError(f"{checkpoint.path}: {error} is missing, not a CFMR checkpoint") from None
    return _task(config, Vocabulary(tuple(words)), vectors.numpy())


def examples(config: Config, task: CFMRTask, inputs: KeptClips, queries: Sequence[Query]) -> QueryExamples:
    """Queries as batches; those without a known word are left out with a warning."""
    found = QueryExamples(
        queries,
        inputs,
        task.vocabulary,
        task.word_vectors,
        max_words=config.data.max_words,
        seed=config.train.seed,
    )
    found.warn_of_unknown()
    return found


def import_options(parser: ArgumentParser) -> None:
    """What a released checkpoint lacks: its word list."""
    parser.add_argument(
        "--words",
        type=str,
        required=True,
        help="the model's words in class order, one per line (class 1 first; a tab ends the word)",
    )


def convert(config: Config, weights: Mapping[str, Tensor], options: Any, data_root: Path) -> CFMRTask:
    """A task with the authors' weights under our names.

    Raises:
        UserError: if the configuration is not of the released kind, the word list does not have as many words
            as the classifier has classes, a word has no vector, or the weights do not fit.
    """
    if config.quirks != "released":
        raise UserError("quirks: found fixed, but the authors' weights need released (--quirks released)")
    renamed = from_official(weights)
    classes = renamed["classifier.bias"].shape[0] if "classifier.bias" in renamed else 0
    task = _task(config, *read_vocabulary(options.words, data_root / config.data.word_vectors, classes))
    load_weights(task.model, renamed, options.weights)
    return task


PACKAGE = ModelPackage(
    name="cfmr",
    title="Cheaper and Faster Moment Retrieval",
    schema=Config,
    open_inputs=open_inputs,
    create=create,
    restore=restore,
    examples=examples,
    convert=convert,
    import_options=import_options,
)

train = PACKAGE.command(model.train)
evaluate = PACKAGE.command(model.evaluate)
predict = PACKAGE.command(model.predict)
import_official = PACKAGE.command(model.import_official)
