"""The commands rgn-train, rgn-eval, rgn-predict and rgn-import."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from rgn.config import Config
from rgn.data import InputFeatures, QueryExamples, make_examples
from rgn.method import RGNMethod
from rgn.model import RGN
from rgn.official import from_official
from vmr_common.types import Query
from vmr_train import Checkpoint, load_weights
from vmr_train.cli import model
from vmr_train.cli.package import ModelPackage, add_word_list
from vmr_train.learned_inputs import Preprocessor
from vmr_train.predict import batches_of
from vmr_train.report import Curve


def create(config: Config, queries: Sequence[Query], sources: InputFeatures) -> RGNMethod:
    """A new task: the vocabulary comes from the training queries, the model is untrained.

    Raises:
        UserError: if the word vectors cannot be read or know no word of the queries, or a query has no glance.
    """
    standardised = sources.features if config.data.standardise else None
    learned = Preprocessor.learn("RGN", queries, sources.word_vectors, config.data.vocabulary, standardised)
    return _task(config, learned)


def _task(config: Config, learned: Preprocessor) -> RGNMethod:
    network = RGN(
        config.model,
        frame_dim=config.data.features.dim,
        word_dim=learned.word_vectors.shape[1],
        classes=len(learned.vocabulary) + 1,
    )
    return RGNMethod(network, config.loss, learned, config.passes_per_chunk)


def restore(config: Config, checkpoint: Checkpoint) -> RGNMethod:
    """The task of a checkpoint, before its weights are loaded."""
    columns = config.data.features.dim if config.data.standardise else None
    return _task(config, Preprocessor.restore(checkpoint, columns))


def examples(
    config: Config, task: RGNMethod, sources: InputFeatures, queries: Sequence[Query]
) -> QueryExamples:
    """Queries as batches for a task."""
    return make_examples(config, task.learned, sources, queries)


def reglance_curves(
    config: Config, task: RGNMethod, sources: InputFeatures, queries: Sequence[Query]
) -> Mapping[str, list[Curve]]:
    """The re-glance Gaussian of every query with a glance, by query id."""
    shown = examples(config, task, sources, [query for query in queries if query.glance is not None])
    task.model.eval().cpu()
    curves: dict[str, list[Curve]] = {}
    for batch in batches_of(shown, config.train.eval_batch):
        curves |= {name: [curve] for name, curve in zip(batch.query_ids, task.reglances(batch), strict=True)}
    return curves


def convert(config: Config, weights: Mapping[str, Tensor], options: Any, data_root: Path) -> RGNMethod:
    """A task with the authors' weights under our names.

    Raises:
        UserError: if the word list does not have as many words as the classifier has classes, a word has no
            vector, or the weights do not fit the configuration.
    """
    renamed = from_official(weights)
    learned = Preprocessor.from_released(renamed, options.words, data_root / config.data.word_vectors)
    task = _task(config, learned)
    load_weights(task.model, renamed, options.weights)
    return task


PACKAGE = ModelPackage(
    name="rgn",
    title="Re-Glance Networks",
    schema=Config,
    open_inputs=InputFeatures.open,
    create=create,
    restore=restore,
    examples=examples,
    convert=convert,
    import_options=add_word_list,
    curves=reglance_curves,
    may_change=("passes_per_chunk",),
)

train = PACKAGE.command(model.train)
evaluate = PACKAGE.command(model.evaluate)
predict = PACKAGE.command(model.predict)
import_official = PACKAGE.command(model.import_official)
