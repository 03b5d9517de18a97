"""``rgnet-data``: checking and converting the features of queries, and joining short videos into long streams."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from rgnet.query_features.config import QueryFeaturesConfig, open_query_features
from rgnet.query_features.convert import convert_query_features
from rgnet.query_features.store import QueryFeatures, QueryFeatureStore, WordVectorQueries, check_queries
from rgnet.streams import FEATURES, STREAMS, write_concat
from vmr_common.cli import query_options
from vmr_common.cli.entrypoint import command, echo, free_text
from vmr_common.cli.numbers import seconds, whole
from vmr_common.cli.query_options import chosen_split, require_given
from vmr_common.cli.shared import (
    PATHS,
    Commands,
    add_conversion,
    add_features,
    add_manifest,
    bar,
    conclude,
    echo_each,
    feature_store,
    stated,
)
from vmr_common.errors import UserError, counted, require
from vmr_common.features.manifest import Manifest, creator
from vmr_common.splits.load import Split
from vmr_common.splits.sources import found_path
from vmr_common.text.vectors import WordVectors

WHOLE = "all"  # name of the only part of joined streams where none is given


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``rgnet-data``."""
    _commands().run(argv)


def _commands() -> Commands:
    commands = Commands("rgnet-data", f"Features of queries, and long streams of short videos. {PATHS}")

    about = "List every problem of the features of queries; status 2 if there is one."
    check = commands.add("check", _check, about)
    query_options.add_options(check)
    _add_query_features(check)
    add = check.add_argument
    add("--word-vectors", help="word vectors instead (GloVe text): queries without a known word are listed")
    add("--token-dim", type=whole(1), help="expected width of a token vector")
    add("--sentence-dim", type=whole(1), help="expected width of the sentence vector (cls_features)")

    convert = commands.add("convert", _convert, "Write the features of queries as one HDF5 file.")
    query_options.add_options(convert)
    _add_query_features(convert)
    add_conversion(convert, "float32")
    add_manifest(convert)

    about = "Join the features of many videos into long streams, and shift the moments along."
    concat = commands.add("concat", _concat, about)
    query_options.add_options(concat)
    add_features(concat)
    _add_concat(concat)

    return commands


def _add_query_features(parser: argparse.ArgumentParser) -> None:
    about = "token_features and cls_features by query: HDF5, npz folder or file, LMDB"
    parser.add_argument("--query-features", help=about)


# --- features of queries ------------------------------------------------------------------------------------


def _check(arguments: argparse.Namespace) -> None:
    if not (arguments.query_features or arguments.word_vectors):
        raise UserError("nothing to check: give --query-features or --word-vectors")
    if arguments.query_features and arguments.word_vectors:
        raise UserError("give --query-features or --word-vectors, and not both")
    if arguments.word_vectors and arguments.split is None and arguments.annotations is None:
        raise UserError("--word-vectors needs --split or --annotations, the sentences to look up")
    split = chosen_split(arguments, arguments.split)
    if split is not None:
        echo(*split.report.lines())
    name, count, problems = _judged(arguments, split)
    conclude(name, echo_each(problems), counted(count, "query"))


def _judged(arguments: argparse.Namespace, split: Split | None) -> tuple[str, int, Iterator[str]]:
    """The name of the features, how many queries are judged, and their problems one by one.

    Raises:
        UserError: if the options contradict each other or a file cannot be opened.
    """
    if arguments.word_vectors:
        assert split is not None
        words = _word_vectors(arguments, split)
        return words.name, len(split.queries), check_queries(words, split.queries)
    store = _open_store(arguments, token_dim=arguments.token_dim, sentence_dim=arguments.sentence_dim)
    if split is None:
        queries = store.queries()
        return store.name, len(queries), _stored_problems(store, queries)
    return store.name, len(split.queries), check_queries(store, split.queries)


def _open_store(arguments: argparse.Namespace, **dims: int | None) -> QueryFeatureStore:
    return QueryFeatureStore(found_path(arguments.query_features, arguments.data_root), **dims)


def _word_vectors(arguments: argparse.Namespace, split: Split) -> QueryFeatures:
    root: Path = arguments.data_root
    if arguments.token_dim is None:
        return WordVectorQueries(WordVectors.read(found_path(arguments.word_vectors, root)))
    config = QueryFeaturesConfig(
        word_vectors=arguments.word_vectors,
        token_dim=arguments.token_dim,
        sentence_dim=arguments.sentence_dim,
    )
    return open_query_features(config, root, (query.text for query in split.queries))


def _stored_problems(store: QueryFeatureStore, queries: Iterable[str]) -> Iterator[str]:
    for query in queries:
        try:
            store[query]
        except UserError as error:
            yield str(error)


def _convert(arguments: argparse.Namespace) -> None:
    split = chosen_split(arguments, arguments.split)
    if not arguments.query_features:
        raise UserError("nothing to convert: give --query-features")
    out = Path(arguments.out)
    with _open_store(arguments) as store:
        queries = store.queries() if split is None else [query.id for query in split.queries]
        with bar(len(queries), "query") as done:
            given = stated(arguments)
            made = dataclasses.replace(store.manifest or Manifest(), creator=creator(), **given)
            count = convert_query_features(
                store, out, made, dtype=arguments.dtype, queries=queries, step=done.update
            )
    echo(f"{out}: {counted(count, 'query')} written as {arguments.dtype}")


# --- streams ------------------------------------------------------------------------------------------------


def _add_concat(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--out", required=True, help=f"folder (from the current one) for PART.jsonl, {FEATURES}, {STREAMS}")
    add(
        "--parts",
        nargs="+",
        metavar="PART=NAME",
        help="parts to write, e.g. train=dev_train test=dev_test: NAME is a list of --videos, "
        "or without --videos a registered split (default: one part, all)",
    )
    add("--per-stream", type=whole(1), default=20, help="about how many videos make a stream (default 20)")
    add(
        "--stride-s",
        type=seconds,
        help="seconds per feature row (default: what the manifest says, or rows and durations tell)",
    )
    add("--seed", type=whole(0), default=0, help="decides which videos lie together and in which order")
    add("--dtype", choices=("float16", "float32"), default="float32", help="default float32")
    add("--source", type=free_text, help="manifest: where videos and sentences come from")


def _concat(arguments: argparse.Namespace) -> None:
    if not arguments.features:
        raise UserError("nothing to join: give --features, the features of the single videos")
    parts = _parts(arguments)
    require_given(arguments, arguments.split, *([] if arguments.videos else filter(None, parts.values())))
    store = feature_store(arguments)
    splits = _splits(arguments, parts)
    with store, tqdm(desc="joining", unit="stream", delay=2, disable=None, leave=False) as shown:
        joined = write_concat(
            arguments.out,
            {name: split.queries for name, split in splits.items()},
            store,
            stride_s=arguments.stride_s,
            videos_per_stream=arguments.per_stream,
            seed=arguments.seed,
            dtype=arguments.dtype,
            source=arguments.source,
            step=shown.update,
        )
    echo(*(line for split in splits.values() for line in split.report.lines()))
    for name, made in joined.items():
        first, *counts = made.lines()
        echo(f"{Path(arguments.out) / f'{name}.jsonl'}: {first}", *counts)


def _parts(arguments: argparse.Namespace) -> dict[str, str | None]:
    """The names that ``--parts`` gives, by part."""
    if arguments.parts is None:
        return {WHOLE: None}
    parts: dict[str, str | None] = dict(_part(text) for text in arguments.parts)
    require(len(parts) == len(arguments.parts), "--parts", "a name twice", "different names")
    if arguments.videos is None and (arguments.split is not None or arguments.annotations is not None):
        raise UserError(
            "--parts names lists of --videos, or registered splits without --split or --annotations"
        )
    return parts


def _splits(arguments: argparse.Namespace, parts: Mapping[str, str | None]) -> dict[str, Split]:
    given = arguments.split is not None or arguments.annotations is not None
    splits = {}
    for part, name in parts.items():
        lists = arguments.videos is not None
        chosen = argparse.Namespace(**vars(arguments))
        chosen.videos_key = (name if lists else None) or arguments.videos_key
        split = chosen_split(chosen, arguments.split if given or lists else name)
        if split is None:
            raise UserError(
                "nothing to join: give --split or --annotations, or --parts with registered splits"
            )
        splits[part] = split
    return splits


def _part(text: str) -> tuple[str, str]:
    part, _, name = text.partition("=")
    good = bool(name) and part.replace("-", "").replace("_", "").isalnum() and part.isascii()
    require(good, "--parts", repr(text), "PART=NAME with letters and digits, - and _ in PART")
    return part, name
