"""The feature files of a run, and the checks that come before it: manifest, width, every video there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from vmr_common.errors import UserError, require
from vmr_common.features.sameness import HasManifest
from vmr_common.splits.sources import found_path
from vmr_common.types import Query
from vmr_train.ranges import PathText, Width, require_ranges

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from vmr_common.features.store import FeatureStore

Missing = Literal["error", "drop"]
"""What becomes of queries of videos without features."""


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """The feature files of a run."""

    path: PathText | list[PathText]
    """HDF5 file, LMDB, or folder with a file per video (npy, npz, h5, pt), relative to the data root; several are
    joined along the feature axis."""
    key: str | list[str] | None = None
    """Data set inside a video's group, or array of a video's file; a list gives one per path."""
    ending: str | list[str] | None = None
    """What follows the video's id in the names of files, such as _clip; a list gives one per path."""
    resample: bool = False
    """Bring joined files to the stride of the first; else other stated strides are an error."""
    dim: Width
    """Width of a feature row."""
    expected_manifest: dict[str, Any] = field(default_factory=dict)
    """Manifest fields that this configuration expects, e.g. {extractor: CLIP ViT-B/32, fps: 1}."""
    missing: Missing = "error"
    """`drop`: queries of videos without features are left out of training and validation, and count as misses in a
    test."""

    def __post_init__(self) -> None:
        require_ranges(self, "data.features")
        require_missing("data.features", self.missing)


def require_missing(section: str, value: str) -> None:
    """Raises `UserError` for a value that a section's `missing` cannot have."""
    require(value in get_args(Missing), f"{section}.missing", value, f"one of {', '.join(get_args(Missing))}")


def open_features(config: FeaturesConfig, data_root: str | Path) -> FeatureStore:
    """Opens the feature files; what made them is another check (`known_features.require_known`).

    Raises:
        UserError: if a file is missing, or of no known kind.
    """
    paths = [config.path] if isinstance(config.path, str) else config.path
    # here, so that a configuration is read without h5py
    from vmr_common.features.store import FeatureStore

    return FeatureStore(
        [found_path(path, data_root) for path in paths],
        key=config.key,
        dim=config.dim,
        ending=config.ending,
        resample=config.resample,
    )


class VideoStore(HasManifest, Protocol):
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


def parts_of(store: VideoStore) -> Mapping[str, VideoStore]:
    """The stores behind the features of videos, by the part of the inputs (`video_files.PARTS`)."""
    parts: Mapping[str, VideoStore] = getattr(store, "parts", {"features": store})
    return parts


def require_videos(
    store: VideoStore, splits: Mapping[str, Sequence[Query]], option: str | None = None
) -> None:
    """Makes sure that every query's video has features.

    Args:
        store: The features.
        splits: Queries by the name of their split.
        option: Of the configuration, which would leave such queries out.

    Raises:
        UserError: naming the file, the split, one video and how many are missing.
    """
    for name, queries in splits.items():
        missing = [video for video in dict.fromkeys(query.video for query in queries) if video not in store]
        if missing:
            raise UserError(
                f"{store.name}: no features for {len(missing)} video{'s' * (len(missing) > 1)} of {name}, for example "
                f"{missing[0]!r}{_instead(store, missing[0])} "
                "(vmr-data check, of objects leorn-objects check, lists all"
                + (")" if option is None else f"; {option}: drop leaves them out)")
            )


def _instead(store: VideoStore, video: str) -> str:
    """The names of videos that a store of frame features has instead of one, in words."""
    from vmr_common.features.store import FeatureStore

    return f": {store.instead(video)}" if isinstance(store, FeatureStore) else ""


def with_features(config: Any, store: VideoStore, name: str, queries: Sequence[Query]) -> list[Query]:
    """The queries whose videos have features; only where `missing` of the inputs says so are there fewer than before.

    Args:
        config: Of a paper; `data.<part>.missing` is read.
        store: The features.
        name: Of the split, for messages.
        queries: Its queries.

    Raises:
        UserError: as `require_videos`, or if there are none.
    """
    for part, inputs in parts_of(store).items():
        if getattr(config.data, part).missing == "error":
            require_videos(inputs, {name: queries}, f"data.{part}.missing")
    there = {video for video in dict.fromkeys(query.video for query in queries) if video in store}
    kept = [query for query in queries if query.video in there]
    if queries and not kept:
        raise UserError(
            f"{store.name}: no features for any video of {name}, for example {queries[0].video!r}"
        )
    return kept
