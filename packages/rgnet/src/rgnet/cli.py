"""The commands rgnet-train, rgnet-eval, rgnet-predict and rgnet-import."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from rgnet.config import Config
from rgnet.data import InputFeatures, QueryExamples, make_examples
from rgnet.method import RGNetMethod
from rgnet.model import RGNet
from rgnet.official import from_official
from rgnet.search import ranking
from rgnet.search.window_recall import window_recall
from vmr_common.errors import UserError
from vmr_common.features.store import FeatureStore
from vmr_common.timeline import format_hours
from vmr_common.types import Prediction, Query
from vmr_train import distributed
from vmr_train.checkpoint import Checkpoint, load_checkpoint, load_weights
from vmr_train.cli import model, results
from vmr_train.cli.package import ModelPackage
from vmr_train.cli.requests import requested_queries
from vmr_train.method import to_device
from vmr_train.preprocessing import measured_scale, stored_scale
from vmr_train.report import Curve

WINDOW_RANKS = (1, 5, 10, 20, 50)


def create(config: Config, queries: Sequence[Query], sources: InputFeatures) -> RGNetMethod:
    """A new task, untrained or with the weights that the configuration starts from.

    Raises:
        UserError: if the weights to start from cannot be read or do not fit.
    """
    scale = measured_scale(sources.features, queries) if config.data.standardise else None
    task = RGNetMethod(_network(config), config, scale)
    if config.init is not None:
        start = load_checkpoint(config.init, package="rgnet")
        load_weights(task.model, start.weights, start.path)
    return task


def _network(config: Config) -> RGNet:
    return RGNet(
        config.model,
        frame_dim=config.data.features.dim,
        token_dim=config.data.queries.token_dim,
        sentence_dim=config.data.queries.sentence_dim or 0,
        released_mask=config.quirks == "released",
    )


def restore(config: Config, checkpoint: Checkpoint) -> RGNetMethod:
    """The task of a checkpoint, before its weights are loaded.

    Raises:
        UserError: if features are standardised and the checkpoint holds no constants for it.
    """
    columns = config.data.features.dim if config.data.standardise else None
    return RGNetMethod(_network(config), config, stored_scale(checkpoint, columns))


def examples(
    config: Config, task: RGNetMethod, sources: InputFeatures, queries: Sequence[Query]
) -> QueryExamples:
    """Queries as batches for a task."""
    return make_examples(config, task.scale, sources, queries)


def convert(config: Config, weights: Mapping[str, Tensor], options: Any, data_root: Path) -> RGNetMethod:
    """A task with the authors' weights under our names.

    Raises:
        UserError: if the weights do not fit the configuration.
    """
    task = RGNetMethod(_network(config), config, None)
    load_weights(task.model, from_official(weights), options.weights)
    return task


def predict_options(parser: argparse.ArgumentParser) -> None:
    """For models that read their queries from a feature file."""
    parser.add_argument(
        "--query-id",
        type=str,
        default=None,
        help="entry of the query feature file to use as the query, for models that read such a file",
    )


def requested(config: Config, options: Any, store: FeatureStore, root: Path) -> list[Query]:
    """The queries to find moments for.

    Raises:
        UserError: if the query cannot be turned into what the model reads; says what can.
    """
    given, file = options.query_id, config.data.queries.path
    if given is not None and file is None:
        raise UserError(f"--query-id {given}: this model reads sentences (word vectors); give --query")
    if given is not None and options.queries is not None:
        raise UserError("give either --queries (a file) or --query-id")
    if given is not None and options.query is None:
        options.query = given
    if given is None and options.queries is None and file is not None and options.query is not None:
        raise UserError(
            f"--query: this model reads the vectors of its queries from {file}, so a new sentence has none; give "
            "--query-id with an entry of that file"
        )
    queries = requested_queries(config, options, store, root)
    return queries if given is None else [dataclasses.replace(query, id=given) for query in queries]


def moment_table(task: RGNetMethod, prediction: Prediction) -> str:
    """Ranked moments with the window that each was found in and all scores."""
    known = task.windows[prediction.query]
    rank_of = {int(number): rank for rank, number in enumerate(known.order, 1)}
    matched = task.config.data.queries.sentence_dim is not None
    rows = []
    for place, (start, end) in enumerate(prediction.moments.tolist()):
        row, window = known.moments[place], int(known.moment_windows[place])
        cells = [
            str(place + 1),
            format_hours(start),
            format_hours(end),
            f"{prediction.scores[place]:.3f}",
            f"{rank_of[window]}/{len(known.order)}",
            f"{known.retrieval[window]:.3f}",
            f"{row[ranking.PROPOSAL]:.3f}",
            *([f"{row[ranking.MATCHING]:.3f}"] if matched else []),
        ]
        rows.append(cells)
    titles = ["rank", "start", "end", "score", "window", "retrieval", "proposal"]
    columns = dict.fromkeys([*titles, "matching"] if matched else titles, ">9")
    return results.moment_table(f"{prediction.video}  {prediction.text}", columns, rows)


def window_curves(
    config: Config, task: RGNetMethod, sources: InputFeatures, queries: Sequence[Query]
) -> Mapping[str, list[Curve]]:
    """The retrieval score of every window over the whole video, by query id, from its lowest to its highest."""
    missing = [query for query in queries if query.id not in task.windows]
    if missing:
        task.model.eval()
        shown = examples(config, task, sources, missing)
        device = task.model.retrieval_head.weight.device
        for index in range(len(shown)):
            task.predict(to_device(shown.batch([index], None), device))
    curves = {}
    for query in queries:
        found = task.windows.get(query.id)
        if found is not None:
            scores = ranking.spread(np.nan_to_num(found.retrieval, nan=np.nanmin(found.retrieval)))
            curves[query.id] = [Curve(name="windows", times=found.centres, values=scores)]
    return curves


def remarks(config: Config, task: RGNetMethod, queries: Sequence[Query]) -> list[str]:
    """Window recall: how often a window that holds part of the moment is among the first ones."""
    orders = {name: order for part in distributed.gather(_orders(task)) for name, order in part.items()}
    recall = window_recall(orders, queries, config.data, WINDOW_RANKS)
    if recall is None:
        return []
    shown = "  ".join(f"R@{rank} {100 * value:.1f}" for rank, value in recall.found.items())
    return [
        f"windows   {shown}  (share of {recall.queries:,} queries with a window of the moment among the first n of "
        f"{recall.windows:.0f} on average; chance R@1 {100 * recall.chance:.1f})"
    ]


def _orders(task: RGNetMethod) -> dict[str, Any]:
    return {name: scores.order for name, scores in task.windows.items()}


PACKAGE = ModelPackage(
    name="rgnet",
    title="RGNet",
    schema=Config,
    open_inputs=InputFeatures.open,
    create=create,
    restore=restore,
    examples=examples,
    convert=convert,
    curves=window_curves,
    default="shapes-long",
    predict_options=predict_options,
    requested=requested,
    moment_table=moment_table,
    remarks=remarks,
    may_change=(
        "data.kept_gb",
        "search.pairs_at_once",
        "search.cached_videos",
    ),
)

train = PACKAGE.command(model.train)
evaluate = PACKAGE.command(model.evaluate)
predict = PACKAGE.command(model.predict)
import_official = PACKAGE.command(model.import_official)
