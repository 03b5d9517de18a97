"""What ``vmr-data`` does with the features of queries: options, checking, converting."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

from rgnet.query_features.config import QueryFeaturesConfig, open_query_features
from rgnet.query_features.store import QueryFeatures, QueryFeatureStore, WordVectorQueries, check_queries
from vmr_common.cli.numbers import whole
from vmr_common.errors import UserError
from vmr_common.splits.load import Split, found_path, given_path
from vmr_common.text.vectors import WordVectors


def add_options(parser: argparse.ArgumentParser, *, word_vectors: bool) -> None:
    """The options that say where the features of queries are."""
    add = parser.add_argument
    add("--query-features", help="token_features and cls_features by query: HDF5, npz folder or file, LMDB")
    if word_vectors:
        add(
            "--word-vectors",
            help="word vectors instead (GloVe text): queries without a known word are listed",
        )
        add("--token-dim", type=whole(1), help="expected width of a token vector")
        add("--sentence-dim", type=whole(1), help="expected width of the sentence vector (cls_features)")


def open_store(arguments: argparse.Namespace, **dims: int | None) -> QueryFeatureStore:
    """The file of ``--query-features``."""
    return QueryFeatureStore(found_path(arguments.query_features, arguments.data_root), **dims)


def check(arguments: argparse.Namespace, split: Split | None) -> tuple[str, int, Iterator[str]]:
    """Judges the features of a split's queries, or all that a file holds.

    Returns:
        The name of the features, how many queries are judged, and their problems one by one.

    Raises:
        UserError: if the options contradict each other or a file cannot be opened.
    """
    if arguments.query_features and arguments.word_vectors:
        raise UserError("give --query-features or --word-vectors, and not both")
    if arguments.word_vectors:
        if split is None:
            raise UserError("--word-vectors needs --split or --annotations, the sentences to look up")
        words = _word_vectors(arguments, split)
        return words.name, len(split.queries), check_queries(words, split.queries)
    store = open_store(arguments, token_dim=arguments.token_dim, sentence_dim=arguments.sentence_dim)
    if split is None:
        queries = store.queries()
        return store.name, len(queries), _stored_problems(store, queries)
    return store.name, len(split.queries), check_queries(store, split.queries)


def _word_vectors(arguments: argparse.Namespace, split: Split) -> QueryFeatures:
    root: Path = arguments.data_root
    if arguments.token_dim is None:
        return WordVectorQueries(WordVectors.read(found_path(arguments.word_vectors, root)))
    config = QueryFeaturesConfig(
        word_vectors=given_path(arguments.word_vectors, root),
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
