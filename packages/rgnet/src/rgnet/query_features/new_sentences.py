"""Vectors of new sentences for a model that reads those of its queries from a file: made as that file's were."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from rgnet.query_features.config import QueryFeaturesConfig, open_query_features
from rgnet.query_features.store import QueryFeatures, QueryVectors
from vmr_common.errors import UserError
from vmr_common.features.manifest import Manifest
from vmr_common.types import Query
from vmr_train.unknown_words import UnknownWords
from vmr_train.video_files import Making


@dataclass(frozen=True, eq=False)
class NewSentences:
    """Vectors of queries by their text; of others those of a file, where there is one.

    Attributes:
        vectors: By sentence.
        token_dim: Width Dt of a token row.
        sentence_dim: Width Da of the sentence vector, or None.
        stored: The file.
    """

    vectors: Mapping[str, QueryVectors]
    token_dim: int
    sentence_dim: int | None
    stored: QueryFeatures | None = None
    name: str = "new sentences"
    paths: list[Path] = field(default_factory=list)

    def of(self, query: Query) -> QueryVectors:
        """The vectors of a query."""
        if query.text in self.vectors or self.stored is None:
            return self.vectors[query.text]
        return self.stored.of(query)

    def has(self, query: Query) -> bool:
        """True if there are vectors for a query."""
        return query.text in self.vectors or (self.stored is not None and self.stored.has(query))

    def unknown_words(self, queries: Iterable[Query]) -> UnknownWords:
        """None: an encoder of sentences reads them all."""
        found = UnknownWords()
        for query in queries:
            found.add([query.text], [query.text])
        return found


def encoded(
    texts: Sequence[str],
    config: QueryFeaturesConfig,
    making: Making,
    stored: QueryFeatures | None = None,
) -> NewSentences:
    """The vectors of new sentences, made as those that the model was trained on.

    Args:
        texts: The sentences.
        config: The query features of the model, which are in a file.
        making: Knows the manifest of that file.
        stored: The file, for queries in it.

    Raises:
        UserError: if they cannot be made alike, or are of another width than the configuration says.
    """
    manifest = making.manifest(
        "queries",
        Manifest,
        partial(open_query_features, config, making.root),
        f"give --query-id with an entry of {config.path}",
    )
    found: dict[str, QueryVectors] = {}
    try:
        made = making.sentences(texts, manifest)
    except UserError as error:
        raise UserError(
            f"this model reads the vectors of its queries from {config.path}, and a new sentence has none made "
            f"alike: {error}; --query-id takes an entry of that file"
        ) from None
    for text, (tokens, sentence) in zip(texts, made, strict=True):
        kept = None if config.sentence_dim is None else sentence
        width = None if kept is None else len(kept)
        if (tokens.shape[1], width) != (config.token_dim, config.sentence_dim):
            raise UserError(
                f"sentence {text[:60]!r}: made vectors of widths {tokens.shape[1]} and {width}, expected "
                f"{config.token_dim} and {config.sentence_dim}, as the model was trained on"
            )
        found[text] = QueryVectors(tokens, kept)
    return NewSentences(found, config.token_dim, config.sentence_dim, stored)


def of_texts(texts: Sequence[str], config: QueryFeaturesConfig, making: Making) -> NewSentences | None:
    """Vectors of texts that are ids of entries of the model's file, or else new sentences; None: all are entries.

    Raises:
        UserError: as `encoded`.
    """
    try:
        stored = open_query_features(config, making.root)
    except UserError:  # the file need not be at hand for new sentences
        stored = None
    entries = [Query(id=text, video="", text=text, duration=1.0) for text in dict.fromkeys(texts)]
    new = [entry.text for entry in entries if stored is None or not stored.has(entry)]
    return encoded(new, config, making, stored) if new else None
