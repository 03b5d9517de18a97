"""Features of sentences: vectors of the tokens and one of the whole, by query.

Read from feature files (the text features of CONE and RGNet) or looked up in word vectors. Nothing is ever unpickled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rgnet.query_features.backends import TOKENS, ArraySource, open_arrays
from vmr_common.errors import UserError
from vmr_common.features.checks import Features, checked
from vmr_common.features.manifest import Manifest, parse_facts
from vmr_common.features.npz import SENTENCE_KEYS
from vmr_common.text.tokens import tokenize
from vmr_common.text.vectors import WordVectors
from vmr_common.types import Query
from vmr_train.unknown_words import UnknownWords


@dataclass(frozen=True, eq=False)
class QueryVectors:
    """The vectors of one query.

    Attributes:
        tokens: ``(n, Dt)`` float32, one row per token, n at least 1.
        sentence: ``(Da,)`` float32, one vector of the whole sentence in the space of the video's frames, or None.
    """

    tokens: Features
    sentence: Features | None = None


def normalise(vectors: QueryVectors, max_tokens: int) -> QueryVectors:
    """The first `max_tokens` token rows, and the sentence vector, each divided by its length + 1e-5.

    Source: the released loader of RGNet.

    Raises:
        ValueError: if `max_tokens` is not positive.

    Example:
        >>> done = normalise(QueryVectors(np.array([[3.0, 4.0], [0.0, 0.0], [1.0, 0.0]], np.float32)), 2)
        >>> done.tokens.round(3)
        array([[0.6, 0.8],
               [0. , 0. ]], dtype=float32)
    """
    if max_tokens < 1:
        raise ValueError(f"max_tokens must be positive, found {max_tokens}")
    sentence = None if vectors.sentence is None else _unit_rows(vectors.sentence)
    return QueryVectors(_unit_rows(vectors.tokens[:max_tokens]), sentence)


def _unit_rows(rows: Features) -> Features:
    scaled: Features = rows / (np.linalg.norm(rows, axis=-1, keepdims=True) + np.float32(1e-5))
    return scaled.astype(np.float32, copy=False)


class QueryFeatures(Protocol):
    """Anything that gives the vectors of a query."""

    @property
    def name(self) -> str:
        """Name of the source of the vectors, for messages."""

    @property
    def paths(self) -> list[Path]:
        """The files behind it."""

    @property
    def token_dim(self) -> int:
        """Width Dt of a token row."""

    @property
    def sentence_dim(self) -> int | None:
        """Width Da of the sentence vector; None where there is none."""

    def of(self, query: Query) -> QueryVectors:
        """The vectors of a query."""

    def has(self, query: Query) -> bool:
        """True if there are vectors for a query."""

    def unknown_words(self, queries: Iterable[Query]) -> UnknownWords:
        """Words of queries that have no vector; of a query with vectors of its own no word counts as unknown."""


class QueryFeatureStore:
    """Vectors of many queries, ``store[query id] -> QueryVectors``.

    Sources are an HDF5 file (one group per query with ``token_features`` and ``cls_features`` or ``eot_features``, or
    one data set per query with the tokens alone), a folder of ``<query>.npz`` or one npz archive (``<query>/<name>``)
    with the same names, and an LMDB environment of such archives. The file is opened on first use, once per process,
    and only its path is pickled.

    Args:
        path: The source.
        token_dim: Expected width of a token row.
        sentence_dim: Expected width of the sentence vector; a query without one is then an error.

    Raises:
        UserError: at once if nothing is at `path`, or something of another kind.
    """

    def __init__(
        self, path: str | Path, *, token_dim: int | None = None, sentence_dim: int | None = None
    ) -> None:
        self.path = Path(path)
        self._source: ArraySource = open_arrays(self.path)
        self._expected = (token_dim, sentence_dim)
        self._found: tuple[int, int | None] | None = None

    def __repr__(self) -> str:
        return f"QueryFeatureStore({self.path})"

    @property
    def name(self) -> str:
        """The path, for messages."""
        return str(self.path)

    @property
    def paths(self) -> list[Path]:
        """The one file or folder."""
        return [self.path]

    def __getitem__(self, query: str) -> QueryVectors:
        """The vectors of the query of that id, as they stand in the file (float32).

        Raises:
            UserError: if the query is missing or unreadable, an array has another shape or width than expected, or
                holds NaN or infinity; names file, query and array.
        """
        where = f"{self.path}: query {query!r}"
        arrays = self._source.arrays(query, where)
        if TOKENS not in arrays:
            raise UserError(f"{where} has no {TOKENS} (found: {', '.join(arrays) or 'nothing'})")
        tokens = checked(arrays[TOKENS], f"{where}, {TOKENS}")
        token_dim, sentence_dim = self._expected
        if token_dim is not None and tokens.shape[1] != token_dim:
            raise UserError(f"{where}, {TOKENS} has width {tokens.shape[1]}, expected {token_dim}")
        key = next((key for key in SENTENCE_KEYS if key in arrays), None)
        if key is None and sentence_dim is not None:
            raise UserError(
                f"{where} has no {' or '.join(SENTENCE_KEYS)} (found: {', '.join(arrays)}), "
                f"expected a sentence vector of width {sentence_dim}"
            )
        return QueryVectors(
            tokens, None if key is None else _sentence(arrays[key], f"{where}, {key}", sentence_dim)
        )

    def of(self, query: Query) -> QueryVectors:
        """The vectors of a query, by its id.

        Raises:
            UserError: as ``store[query.id]``.
        """
        return self[query.id]

    def __contains__(self, query: str) -> bool:
        return self._source.has(query)

    def has(self, query: Query) -> bool:
        """True if the query's id is there."""
        return query.id in self

    def unknown_words(self, queries: Iterable[Query]) -> UnknownWords:
        """None: a query has all of its vectors, or none."""
        found = UnknownWords()
        for query in queries:
            found.add([query.id], {query.id} if self.has(query) else ())
        return found

    def queries(self) -> list[str]:
        """The ids of all queries, sorted."""
        return sorted(self._source.names())

    def _widths(self) -> tuple[int, int | None]:
        if self._found is None:
            first = next(iter(self._source.names()), None)
            if first is None:
                raise UserError(f"{self.path}: holds no query, expected {TOKENS} (n, Dt) for each")
            vectors = self[first]
            width = None if vectors.sentence is None else len(vectors.sentence)
            self._found = (vectors.tokens.shape[1], width)
        return self._found

    @property
    def token_dim(self) -> int:
        """Width of a token row: the expected one if given, else that of the first query.

        Raises:
            UserError: if the store is empty.
        """
        return self._expected[0] if self._expected[0] is not None else self._widths()[0]

    @property
    def sentence_dim(self) -> int | None:
        """Width of the sentence vector likewise; None where the first query has none.

        Raises:
            UserError: if the store is empty.
        """
        return self._expected[1] if self._expected[1] is not None else self._widths()[1]

    @property
    def manifest(self) -> Manifest | None:
        """Manifest of the vectors, or None where none is recorded.

        Raises:
            UserError: if it is recorded and not readable.
        """
        text = self._source.manifest_text()
        return None if text is None else parse_facts(text, str(self.path), Manifest)

    def close(self) -> None:
        """Closes the file of this process; a later access opens it again."""
        self._source.close()

    def __enter__(self) -> QueryFeatureStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _sentence(array: NDArray[Any], where: str, dim: int | None) -> Features:
    row = array[None] if array.ndim == 1 else array
    if row.ndim != 2 or len(row) != 1:
        raise UserError(f"{where} has shape {array.shape}, expected (Da,) or (1, Da)")
    sentence: Features = checked(row, where)[0]
    if dim is not None and len(sentence) != dim:
        raise UserError(f"{where} has width {len(sentence)}, expected {dim}")
    return sentence


class WordVectorQueries:
    """Token vectors looked up in word vectors; there is no sentence vector.

    Words are lower-cased; those without a vector are dropped.

    Args:
        vectors: The word vectors.
    """

    sentence_dim: int | None = None

    def __init__(self, vectors: WordVectors) -> None:
        self.vectors = vectors

    @property
    def name(self) -> str:
        """The file of the word vectors, for messages."""
        return self.vectors.source or "word vectors"

    @property
    def paths(self) -> list[Path]:
        """The file of the word vectors, where they come from one."""
        return [Path(self.vectors.source)] if self.vectors.source else []

    @property
    def token_dim(self) -> int:
        """Width of a word vector."""
        return self.vectors.dim

    def unknown_words(self, queries: Iterable[Query]) -> UnknownWords:
        """Words of queries that have no vector."""
        found = UnknownWords()
        for query in queries:
            found.add(map(str.lower, tokenize(query.text)), self.vectors)
        return found

    def words(self, text: str) -> list[str]:
        """The lower-cased words of a sentence that have a vector."""
        words = (word.lower() for word in tokenize(text))
        return [word for word in words if word in self.vectors]

    def of_text(self, text: str) -> QueryVectors:
        """The vectors of a sentence's known words, in order.

        Raises:
            UserError: if no word has a vector; quotes the sentence.
        """
        words = self.words(text)
        if not words:
            raise UserError(
                f"{self.name}: no word of the sentence {text[:80]!r} has a vector, expected at least one"
            )
        return QueryVectors(np.stack([self.vectors[word] for word in words]))

    def of(self, query: Query) -> QueryVectors:
        """The vectors of a query, by its text.

        Raises:
            UserError: as `of_text`.
        """
        return self.of_text(query.text)

    def has(self, query: Query) -> bool:
        """True if any word of the query has a vector."""
        return bool(self.words(query.text))


def check_queries(features: QueryFeatures, queries: Iterable[Query]) -> Iterator[str]:
    """All problems of the queries' features, one line each; none when all is well."""
    for query in queries:
        try:
            features.of(query)
        except UserError as error:
            yield str(error)
