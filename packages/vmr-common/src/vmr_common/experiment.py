"""What every model's configuration says about its data, and loading it: splits, held-out videos, features."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from leorn.object_features.prepare import ObjectStore
from rgnet.query_features.store import QueryFeatures, QueryFeatureStore, WordVectorQueries
from vmr_common.errors import UserError
from vmr_common.features.manifest import BaseManifest
from vmr_common.features.store import FeatureStore
from vmr_common.ranges import Layers, Margin, PathText, Probability, Width, require_ranges
from vmr_common.splits.load import Split, SplitConfig, load, split_hash
from vmr_common.splits.registry import SHAPES
from vmr_common.text.vectors import WordVectors, tokenize
from vmr_common.types import Query

SHAPES_OBJECTS = Path(SHAPES) / "objects.h5"


@dataclass(frozen=True, kw_only=True)
class SplitsConfig:
    """The queries of a run."""

    train: SplitConfig
    """Queries to learn from."""
    test: SplitConfig
    """Queries to report on."""
    validation: SplitConfig | None = None
    """Queries that choose the epoch; null holds videos of `train` out (see `held_out`)."""
    held_out: Probability = 0.1
    """Share of the training videos held out for validation where `validation` is null, in [0, 1)."""

    def __post_init__(self) -> None:
        require_ranges(self, "data.splits")


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """The feature files of a run."""

    path: PathText | list[PathText]
    """HDF5 file or folder of npy/npz files (relative to the data root); several are joined along the feature axis."""
    key: str | list[str] | None = None
    """Data set inside a video's group, or array of an npz file; a list gives one per path."""
    dim: Width
    """Width of a feature row."""
    made_for: dict[str, Any] = field(default_factory=dict)
    """Manifest fields that this configuration was made for, e.g. {extractor: CLIP ViT-B/32, fps: 1}."""

    def __post_init__(self) -> None:
        require_ranges(self, "data.features")


@dataclass(frozen=True, kw_only=True)
class ObjectsConfig:
    """The object features of a run."""

    path: PathText
    """HDF5 file of object features (relative to the data root); shapes/objects.h5 is made on first use."""
    dim: Width
    """Width of an object's feature."""
    objects: Layers
    """Object slots per frame, the first ones."""
    threshold: Margin = 0.0
    """An object counts where the detector's confidence is above this."""
    made_for: dict[str, Any] = field(default_factory=dict)
    """Manifest fields that this configuration was made for, e.g. {box_units: normalised}."""

    def __post_init__(self) -> None:
        require_ranges(self, "data.objects")


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
    made_for: dict[str, Any] = field(default_factory=dict)
    """Manifest fields that this configuration was made for, e.g. {extractor: CLIP ViT-B/32 text}."""

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


@dataclass(frozen=True)
class Splits:
    """Loaded splits; `validation` is None where nothing is held out."""

    train: Split
    validation: Split | None
    test: Split


def load_splits(config: SplitsConfig, data_root: str | Path) -> Splits:
    """Loads the splits of a configuration and holds validation videos out where none are published.

    Raises:
        UserError: as `splits.load`, or if training and test share a video's query.
    """
    train, test = load(config.train, data_root), load(config.test, data_root)
    if config.validation is not None:
        return Splits(train, load(config.validation, data_root), test)
    if config.held_out == 0:
        return Splits(train, None, test)
    kept, held = hold_out(train.queries, config.held_out)
    if not kept or not held:
        raise UserError(
            f"data.splits.held_out {config.held_out}: {train.name} has too few videos to hold some out"
        )
    name = f"held out of {train.name}"
    return Splits(_part(train, train.name, kept), _part(train, name, held), test)


def hold_out(queries: Sequence[Query], share: float) -> tuple[list[Query], list[Query]]:
    """Divides queries by video: those kept, and those of about `share` of the videos.

    A video's side depends on its id alone, so it does not change when other videos come or go.

    Example:
        >>> queries = [Query(id=str(n), video=f"v{n % 50}", text="", duration=1.0) for n in range(100)]
        >>> kept, held = hold_out(queries, 0.1)
        >>> len(kept) + len(held), {q.video for q in kept} & {q.video for q in held}
        (100, set())
    """
    kept: list[Query] = []
    held: list[Query] = []
    for query in queries:
        digest = hashlib.sha256(f"held out\x1f{query.video}".encode()).digest()
        (held if int.from_bytes(digest[:8], "big") < share * 2**64 else kept).append(query)
    return kept, held


def _part(split: Split, name: str, queries: list[Query]) -> Split:
    return Split(name, queries, split.report, split.protocol, split_hash(queries))


def open_features(config: FeaturesConfig, data_root: str | Path) -> FeatureStore:
    """Opens the feature files and compares their manifest with what the configuration was made for.

    Raises:
        UserError: if a file is missing, has another width, or its manifest differs; says both sides.
    """
    paths = [config.path] if isinstance(config.path, str) else config.path
    store = FeatureStore([Path(data_root) / path for path in paths], key=config.key, dim=config.dim)
    _check_made_for(config.made_for, store)
    return store


def open_objects(config: ObjectsConfig, data_root: str | Path) -> ObjectStore:
    """Opens the object features and compares their manifest with what the configuration was made for.

    The objects of the embedded data set are made when they are opened for the first time.

    Raises:
        UserError: if the file is missing, has another width or fewer objects, or its manifest differs; says both
            sides.
    """
    path = Path(data_root) / config.path
    if Path(config.path) == SHAPES_OBJECTS:
        from vmr_shapes import ensure_objects

        path = ensure_objects(Path(data_root) / SHAPES)
    store = ObjectStore(path, objects=config.objects, dim=config.dim)
    _check_made_for(config.made_for, store)
    return store


def _check_made_for(made_for: dict[str, Any], store: FeatureStore | ObjectStore | QueryFeatureStore) -> None:
    """Compares what a configuration was made for with the manifest, where there are both."""
    if made_for and store.manifest is not None:
        store.manifest.check(made_for, store.name)


def open_query_features(
    config: QueryFeaturesConfig, data_root: str | Path, texts: Iterable[str] | None = None
) -> QueryFeatures:
    """Opens the query features and compares their manifest with what the configuration was made for.

    Args:
        config: The section of the configuration.
        data_root: What relative paths are relative to.
        texts: Sentences whose words are loaded of a table of word vectors; None loads the whole table, for
            sentences that are not known yet.

    Raises:
        UserError: if a file is missing, has another width, or its manifest differs; says both sides.
    """
    if config.word_vectors is not None:
        keep = None if texts is None else {word.lower() for text in texts for word in tokenize(text)}
        vectors = WordVectors.read(Path(data_root) / config.word_vectors, keep)
        if vectors.dim != config.token_dim:
            raise UserError(f"{vectors.source}: vectors of width {vectors.dim}, expected {config.token_dim}")
        return WordVectorQueries(vectors)
    assert config.path is not None
    store = QueryFeatureStore(
        Path(data_root) / config.path, token_dim=config.token_dim, sentence_dim=config.sentence_dim
    )
    _check_made_for(config.made_for, store)
    return store


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
                f"{missing[0].id!r} ({missing[0].text[:60]!r}; vmr-data check lists all)"
            )


class HasVideos(Protocol):
    """Anything that has something for each of many videos: a `FeatureStore`, an `ObjectStore`."""

    @property
    def name(self) -> str:
        """Where it lies, for messages."""

    def __contains__(self, video: str, /) -> bool:
        """Whether a video is there."""


def require_videos(store: HasVideos, splits: Mapping[str, Sequence[Query]]) -> None:
    """Makes sure that every query's video has features.

    Raises:
        UserError: naming the file, the split, one video and how many are missing.
    """
    for name, queries in splits.items():
        missing = [video for video in dict.fromkeys(query.video for query in queries) if video not in store]
        if missing:
            raise UserError(
                f"{store.name}: no features for {len(missing)} videos of {name}, for example {missing[0]!r} "
                "(vmr-data check lists all)"
            )


class VideoStore(HasVideos, Protocol):
    """The features of videos as the commands see them: a `FeatureStore`, an `ObjectStore`, or both together."""

    @property
    def paths(self) -> list[Path]:
        """The files and folders."""

    @property
    def manifest(self) -> BaseManifest | None:
        """What made the features."""

    def length(self, video: str, /) -> int:
        """Rows or frames of a video."""
