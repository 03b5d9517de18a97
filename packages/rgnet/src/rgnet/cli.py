"""``rgnet-eval``, ``rgnet-predict`` and ``rgnet-import``."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from rgnet.config import DEFAULT, TITLE, Config
from vmr_common.cli.entrypoint import free_text
from vmr_common.errors import UserError
from vmr_common.types import Prediction, Query
from vmr_train.cli import options, requests, video_files
from vmr_train.clock import format_clock

if TYPE_CHECKING:
    from rgnet.method import RGNetMethod
    from rgnet.query_features.new_sentences import NewSentences
    from vmr_train import prepared
    from vmr_train.checkpoint import Checkpoint


@options.command
def evaluate(argv: list[str]) -> None:
    """Scores a checkpoint on a split."""
    parser = options.evaluate_parser("rgnet", TITLE)
    config, given, checkpoint = options.read_checkpoint(parser, Config, argv, "rgnet", DEFAULT)

    from rgnet.data import build_dataset, open_frames, query_store
    from rgnet.method import RGNetMethod
    from rgnet.search.window_recall import recall_lines
    from rgnet.stride import with_stride
    from vmr_train import distributed
    from vmr_train.cli import commands, inputs

    with distributed.session(config.train.device, config.train.peer_timeout):
        split, train_queries = distributed.from_rank_zero(
            lambda: requests.requested_split(config, given, given.root)
        )
        with distributed.agreement():
            frames, vectors = open_frames(config, given.root), query_store(config, given.root)
            queries = inputs.of_evaluation(config, given, checkpoint, frames, split, queries=vectors)
            config = with_stride(config, frames.store, queries, allow=given.allow_other_features)
            method = RGNetMethod.restore(config, checkpoint)
            dataset = build_dataset(config, method.scale, frames, given.root, queries)
            commands.require_answerable(dataset, split)
        results = commands.evaluate(
            "rgnet",
            config,
            method,
            dataset,
            split,
            train_queries,
            inputs=frames,
            presence=checkpoint.presence,
        )
        commands.print_results(given, results, recall_lines(method.windows, split.queries, config.data))


@options.command
def predict(argv: list[str]) -> None:
    """Finds the moments of one sentence in one video, or of a file of sentences."""
    parser = options.predict_parser("rgnet", TITLE)
    about = "entry of the query feature file to use as the query, for models that read such a file"
    parser.add_argument("--query-id", type=free_text, default=None, help=about)
    config, given, checkpoint = options.read_checkpoint(parser, Config, argv, "rgnet", DEFAULT)

    from rgnet.data import build_dataset, open_frames
    from rgnet.method import RGNetMethod
    from rgnet.stride import with_stride
    from vmr_train.cli.moments import find_moments, print_moments

    features = video_files.frame_features(config, given, checkpoint)
    frames = open_frames(config, given.root, features)
    queries = requested_queries(config, given, frames, checkpoint)
    config = with_stride(config, frames.store, queries, allow=given.allow_other_features)
    method = RGNetMethod.restore(config, checkpoint)
    vectors = new_sentences(config, given, checkpoint, queries)
    dataset = build_dataset(config, method.scale, frames, given.root, queries, vectors)
    found = find_moments(config, method, dataset, queries, given.k, checkpoint.presence)
    print_moments(given, found, partial(moment_table, method))


@options.command
def import_official(argv: list[str]) -> None:
    """Turns the authors' weights into a checkpoint of ours."""
    parser = options.import_parser("rgnet", TITLE)
    config, given = options.read_config(parser, Config, argv, "rgnet", DEFAULT)

    from rgnet.method import RGNetMethod
    from rgnet.official import from_official
    from vmr_train.cli import commands

    released = commands.read_released(config, given)
    method = RGNetMethod.build(config, None)
    commands.save_imported("rgnet", config, method, from_official(released), released, given)


def requested_queries(
    config: Config, given: Namespace, frames: prepared.PreparedFeatures, checkpoint: Checkpoint
) -> list[Query]:
    """The queries to find moments for: entries of the query feature file (``--query-id``), or sentences.

    Raises:
        UserError: if an entry is asked for, and the model reads none.
    """
    from rgnet.data import query_store

    entry, file = given.query_id, config.data.queries.path
    vectors = query_store(config, given.root) if _reads_entries(given) else None
    ask = partial(requests.requested_queries, config, given, frames.store, checkpoint, queries=vectors)
    if entry is None:
        return ask()
    if file is None:
        raise UserError(f"--query-id {entry}: this model reads sentences (word vectors); give --query")
    if given.queries is not None:
        raise UserError("give either --queries (a file) or --query-id")
    if given.query is None:
        given.query = [entry]
    return [dataclasses.replace(query, id=entry) for query in ask()]


def _reads_entries(given: Namespace) -> bool:
    """True where queries are entries of the model's file of query features, if it reads one."""
    return given.query_id is not None or (given.queries is not None and given.video_file is None)


def new_sentences(
    config: Config, given: Namespace, checkpoint: Checkpoint, queries: Sequence[Query]
) -> NewSentences | None:
    """Vectors of sentences that the model's file of query features does not hold; None where it reads what is there.

    Raises:
        UserError: if they cannot be made as those of the file were; says what to do.
    """
    if config.data.queries.path is None or _reads_entries(given):
        return None
    from rgnet.query_features.new_sentences import encoded

    texts = list(dict.fromkeys(query.text for query in queries))
    return encoded(texts, config.data.queries, video_files.making(config, given, checkpoint))


def moment_table(method: RGNetMethod, prediction: Prediction) -> str:
    """Ranked moments with the rank of their window and all scores, as a table for the terminal."""
    from rgnet.search import ranking
    from vmr_train.cli import results

    known = method.windows[prediction.query]
    rank_of = {int(number): rank for rank, number in enumerate(known.order, 1)}
    matched = method.config.data.queries.sentence_dim is not None
    rows = []
    for place, (start, end) in enumerate(prediction.moments.tolist()):
        row, window = known.moments[place], int(known.moment_windows[place])
        cells = [
            str(place + 1),
            format_clock(start),
            format_clock(end),
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
