"""The vectors of a run's queries: a feature file, or word vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmr_common.errors import UserError
from vmr_common.splits.sources import found_path
from vmr_common.types import Query
from vmr_train.ranges import PathText, Width, require_ranges

if TYPE_CHECKING:
    from rgnet.query_features.store import QueryFeatures


@dataclass(frozen=True, kw_only=True)
class QueryFeaturesConfig:
    """The vectors of a run's queries: either a file with features, or word vectors."""

    path: PathText | None = None
    """HDF5 file, folder of npz files, npz file or LMDB with `token_features` and `cls_features` of each query."""
    word_vectors: PathText | None = None
    """Word vectors instead (GloVe text, may end in .gz): a query is the vectors of its words."""
    token_dim: Width
    """Width of a token vector."""
    sentence_dim: Width | None = None
    """Width of the sentence vector (of `path`); null where there is none."""
    expected_manifest: dict[str, Any] = field(default_factory=dict)
    """Manifest fields that this configuration expects, e.g. {extractor: CLIP ViT-B/32 text}."""

    def __post_init__(self) -> None:
        require_ranges(self, "data.queries")
        if (self.path is None) == (self.word_vectors is None):
            raise UserError(
                "query features: give either path (a feature file) or word_vectors (GloVe text), and not both"
            )
        if self.word_vectors is not None and self.sentence_dim is not None:
            raise UserError(
                f"query features: sentence_dim {self.sentence_dim} needs path, word vectors give no sentence vector"
            )


def open_query_features(
    config: QueryFeaturesConfig, data_root: str | Path, texts: Iterable[str] | None = None
) -> QueryFeatures:
    """Opens the query features.

    Args:
        config: The section of the configuration.
        data_root: What relative paths are relative to.
        texts: Sentences whose words are loaded of a table of word vectors; None loads the whole table, for
            sentences that are not known yet.

    Raises:
        UserError: if a file is missing, or of no known kind.
    """
    # here, so that a configuration is read without h5py
    from rgnet.query_features.store import QueryFeatureStore, WordVectorQueries
    from vmr_common.text.tokens import tokenize
    from vmr_common.text.vectors import WordVectors

    if config.word_vectors is not None:
        keep = None if texts is None else {word.lower() for text in texts for word in tokenize(text)}
        vectors = WordVectors.read(found_path(config.word_vectors, data_root), keep)
        if vectors.dim != config.token_dim:
            raise UserError(f"{vectors.source}: vectors of width {vectors.dim}, expected {config.token_dim}")
        return WordVectorQueries(vectors)
    assert config.path is not None
    return QueryFeatureStore(
        found_path(config.path, data_root), token_dim=config.token_dim, sentence_dim=config.sentence_dim
    )


def require_queries(features: QueryFeatures, splits: Mapping[str, Sequence[Query]]) -> None:
    """Makes sure that every query has features.

    Raises:
        UserError: naming the file, the split, one query and how many are missing.
    """
    for name, queries in splits.items():
        missing = [query for query in queries if not features.has(query)]
        if missing:
            raise UserError(
                f"{features.name}: no features for {len(missing)} queries of {name}, for example "
                f"{missing[0].id!r} ({missing[0].text[:60]!r}; rgnet-data check lists all)"
            )
