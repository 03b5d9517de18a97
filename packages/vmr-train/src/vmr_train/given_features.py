"""Features of videos that are not in a model's files: arrays, files with one video, and video files."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, quoted

if TYPE_CHECKING:
    from vmr_common.features.manifest import BaseManifest, Manifest
    from vmr_train.feature_files import FeaturesConfig
    from vmr_train.video_files import Making

FEATURE_FILES = (".npy", ".npz", ".h5", ".hdf5", ".pt", ".pth", ".lmdb", ".mdb")
"""Endings of feature files; of other files the content tells."""


@dataclass(frozen=True, eq=False)
class GivenFeatures:
    """Arrays in the place of a feature file.

    Attributes:
        arrays: ``(T, D)`` float32 by video.
        manifest: Of the file that they come from, if any.
        durations: Seconds of the videos that they were made of, where there were any.
    """

    arrays: Mapping[str, NDArray[np.float32]]
    manifest: BaseManifest | None = None
    durations: Mapping[str, float] = dataclasses.field(default_factory=dict)
    name: str = "the given features"
    paths: list[Path] = dataclasses.field(default_factory=list)

    def __getitem__(self, video: str) -> NDArray[np.float32]:
        return self.arrays[video]

    def __contains__(self, video: str) -> bool:
        return video in self.arrays

    def length(self, video: str) -> int:
        """Rows of a video."""
        return len(self.arrays[video])


def given_features(
    video: Any, config: FeaturesConfig, making: Making | None = None
) -> tuple[str, GivenFeatures]:
    """One video's features that are not in the model's files: an array, a file with one video, or a video file.

    `GivenFeatures` are handed through.

    The id of an array is made of its content alone: what is kept by it is never another video's, and draws that it
    seeds are those of any file with these rows. That of a video file is its name without the ending.

    Raises:
        UserError: if they cannot be read or made, or are of another shape than the configuration says.
    """
    if isinstance(video, GivenFeatures):
        return next(iter(video.arrays)), video
    if making is not None and is_video_file(video):
        store = frame_features([Path(video)], config, making)
        return next(iter(store.arrays)), store
    manifest, where, name = None, "video", "the given features"
    if isinstance(video, str | os.PathLike):
        array, manifest = _read_file(Path(video), config)
        where = name = os.fspath(video)
    else:
        array = _as_array(video)
    made_up, rows = _named(array, config, where)
    return made_up, GivenFeatures({made_up: rows}, manifest, name=name)


def several_features(
    arrays: Sequence[Any], config: FeaturesConfig | None, manifest: Manifest | None = None
) -> tuple[list[str], GivenFeatures]:
    """The features of several videos that are given as arrays, and the id of each, see `given_features`.

    Raises:
        UserError: if one is of another shape than the configuration says, or the model reads no such features.
    """
    if config is None:
        raise UserError(
            "video: the model reads objects and no array of features; expected ids of its own data"
        )
    named = [_named(_as_array(array), config, "video") for array in arrays]
    return [name for name, _ in named], GivenFeatures(dict(named), manifest)


def _named(array: NDArray[Any], config: FeaturesConfig, where: str) -> tuple[str, NDArray[np.float32]]:
    """Rows of the width that the model was trained on, and an id that is made of them."""
    from vmr_common.features.checks import checked

    rows = checked(array, where)
    if rows.shape[1] != config.dim:
        raise UserError(
            f"{where}: found features {rows.shape}, expected (T, {config.dim}), the width that the model was trained on"
        )
    return f"features-{content_hash(rows)}", rows


def is_video_file(video: Any) -> bool:
    """True for the path of a file that is there and holds no features; a text without an ending is the id of a video.

    Example:
        >>> is_video_file("test-0000"), is_video_file("features.h5")
        (False, False)
    """
    if not isinstance(video, str | os.PathLike) or (isinstance(video, str) and not Path(video).suffix):
        return False
    path = Path(video)
    if path.suffix.lower() in FEATURE_FILES or not path.is_file():
        return False
    import h5py

    return not h5py.is_hdf5(path)


def frame_features(paths: Sequence[Path], config: FeaturesConfig, making: Making) -> GivenFeatures:
    """The frame features of video files, made as those that a model was trained on.

    Raises:
        UserError: if they cannot be made alike, or are of another width than the configuration says.
    """
    from vmr_common.features.manifest import Manifest
    from vmr_train.feature_files import open_features
    from vmr_video.extractor import FEATURES

    manifest = making.manifest("features", Manifest, partial(open_features, config, making.root))
    videos = making.alike(paths, manifest)
    for video in videos.values():
        if (width := video.rows[FEATURES].shape[1]) != config.dim:
            raise UserError(
                f"{video.path}: its features have {width} columns, expected {config.dim}, the width that the model was "
                "trained on"
            )
    return GivenFeatures(
        {name: video.rows[FEATURES] for name, video in videos.items()},
        manifest,
        {name: video.duration for name, video in videos.items()},
        name="the video files",
    )


def content_hash(*arrays: NDArray[Any]) -> str:
    """A short name for the content of arrays."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]


def _as_array(video: Any) -> NDArray[Any]:
    with contextlib.suppress(TypeError, ValueError):  # rows of several lengths, and what torch cannot give
        array = np.asarray(video.detach().cpu() if hasattr(video, "detach") else video)
        if array.ndim > 0:
            return array
    raise unknown_form(video, "an array of its features (T, D)")


def unknown_form(video: Any, arrays: str) -> UserError:
    """The error for a video that is given in no form that a model takes; `arrays` is the one without a file."""
    found = " ".join(quoted(video, 60).split())  # an array's has several lines
    return UserError(
        f"video: found {found}, expected the id of a video in the model's data, {arrays}, or the path of a file that "
        "holds those of one video, or of a video"
    )


def _read_file(path: Path, config: FeaturesConfig) -> tuple[NDArray[np.float32], BaseManifest | None]:
    from vmr_common.features.store import FeatureStore

    if not path.is_file():
        raise UserError(f"{path}: no such feature file")
    key = config.key if isinstance(config.key, str) else None
    if path.suffix.lower() in (".npy", ".npz", ".pt", ".pth"):
        store, name = FeatureStore(path.parent, key=key, ending=""), path.stem
    else:
        store = FeatureStore(path, key=key)
        names = store.videos()
        if len(names) != 1:
            raise UserError(
                f"{path}: holds {len(names):,} videos, expected one; take the array of one of them "
                "(vmr_common.FeatureStore), or load the model with data.features.path"
            )
        name = names[0]
    with store:
        return store[name], store.manifest
