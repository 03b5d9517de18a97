"""The feature files of a run, and the checks that come before it: manifest, width, every video there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vmr_common.errors import UserError
from vmr_common.features.manifest import BaseManifest
from vmr_common.splits.sources import found_path
from vmr_common.types import Query
from vmr_train.ranges import PathText, Width, require_ranges

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vmr_common.features.store import FeatureStore


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """The feature files of a run."""

    path: PathText | list[PathText]
    """HDF5 file or folder of npy/npz files (relative to the data root); several are joined along the feature axis."""
    key: str | list[str] | None = None
    """Data set inside a video's group, or array of an npz file; a list gives one per path."""
    dim: Width
    """Width of a feature row."""
    expected_manifest: dict[str, Any] = field(default_factory=dict)
    """Manifest fields that this configuration expects, e.g. {extractor: CLIP ViT-B/32, fps: 1}."""

    def __post_init__(self) -> None:
        require_ranges(self, "data.features")


def open_features(config: FeaturesConfig, data_root: str | Path) -> FeatureStore:
    """Opens the feature files and compares their manifest with the one that is expected.

    Raises:
        UserError: if a file is missing, has another width, or its manifest differs; says both sides.
    """
    paths = [config.path] if isinstance(config.path, str) else config.path
    # here, so that a configuration is read without h5py
    from vmr_common.features.store import FeatureStore

    store = FeatureStore([found_path(path, data_root) for path in paths], key=config.key, dim=config.dim)
    check_manifest(config.expected_manifest, store)
    return store


class _HasManifest(Protocol):
    @property
    def name(self) -> str:
        """The path or paths, for messages."""

    @property
    def manifest(self) -> BaseManifest | None:
        """The manifest, or None."""


class VideoStore(_HasManifest, Protocol):
    """Features of videos as the commands see them: a `FeatureStore`, object features, or both together."""

    @property
    def paths(self) -> list[Path]:
        """The files and folders."""

    def __contains__(self, video: str, /) -> bool:
        """True where the video is there."""

    def length(self, video: str, /) -> int:
        """Rows or frames of a video."""


class FeatureSource(VideoStore, Protocol):
    """A `FeatureStore`, or arrays in its place."""

    def __getitem__(self, video: str, /) -> NDArray[np.float32]:
        """The features of a video, ``(T, D)``."""


def check_manifest(expected: dict[str, Any], store: _HasManifest) -> None:
    """Compares the manifest fields that a configuration expects with those of a store, where there are both.

    Raises:
        UserError: naming the store, the field and both values.
    """
    if expected and (manifest := store.manifest) is not None:
        manifest.check(expected, store.name)


def require_videos(store: VideoStore, splits: Mapping[str, Sequence[Query]]) -> None:
    """Makes sure that every query's video has features.

    Raises:
        UserError: naming the file, the split, one video and how many are missing.
    """
    for name, queries in splits.items():
        missing = [video for video in dict.fromkeys(query.video for query in queries) if video not in store]
        if missing:
            raise UserError(
                f"{store.name}: no features for {len(missing)} videos of {name}, for example {missing[0]!r} "
                "(vmr-data check, of objects leorn-objects check, lists all)"
            )
