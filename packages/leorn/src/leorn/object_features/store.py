"""Object features of many videos, from an HDF5 file or from arrays in its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from leorn.object_features.layouts import (
    BOXES,
    CONFIDENCE,
    FEATURES,
    ObjectFrames,
    ObjectManifest,
    Stored,
    has_video,
    stored,
    video_names,
)
from vmr_common.errors import UserError
from vmr_common.features.hdf5 import Hdf5File
from vmr_common.features.manifest import parse_facts

if TYPE_CHECKING:
    from leorn.object_features.config import ObjectsConfig
    from vmr_video.alike import VideoFeatures


class ObjectStore:
    """Object features of many videos in one HDF5 file, ``store[video] -> ObjectFrames``.

    Three layouts are read: a group per video with `features` ``(F, K, D)``, `confidence` ``(F, K)`` and `boxes`
    ``(F, K, 4)`` (what `write_objects` writes); the released one, an array ``(F, K, D + 5)`` per video with
    feature, confidence and box in the last axis; and three groups `feats`, `confidence`, `bbox` with an array
    per video each. The file is opened on first use, once per process; a pickled copy opens its own.

    Args:
        path: The file.
        objects: Object slots O to read, the first ones; None reads all.
        dim: Expected width D; another width is an error.

    Raises:
        UserError: at once if there is no such file or it is no HDF5 file.
    """

    def __init__(self, path: str | Path, *, objects: int | None = None, dim: int | None = None) -> None:
        if objects is not None and objects < 1:
            raise UserError(f"{path}: objects must be at least 1, found {objects}")
        self.path = Path(path)
        if not self.path.exists():
            raise UserError(f"{self.path}: expected an HDF5 file of object features, no such file")
        if not self.path.is_file() or not h5py.is_hdf5(self.path):
            raise UserError(f"{self.path}: expected an HDF5 file of object features, found something else")
        self._file = Hdf5File(self.path)
        self._objects = objects
        self._dim = dim
        self._sound: set[str] = set()  # videos whose values were checked in this process

    def __repr__(self) -> str:
        return f"ObjectStore({self.path})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sound": set()}

    @property
    def name(self) -> str:
        """The path, for messages."""
        return str(self.path)

    @property
    def paths(self) -> list[Path]:
        """The file."""
        return [self.path]

    def _stored(self, video: str) -> Stored:
        where = f"{self.path}: video {video!r}"
        found = stored(self._file, video, where)
        _, objects, dim = found.shape
        if self._dim is not None and dim != self._dim:
            raise UserError(f"{where} has features of width {dim}, expected {self._dim}")
        if self._objects is not None and objects < self._objects:
            raise UserError(f"{where} has {objects} objects per frame, expected at least {self._objects}")
        return found

    def read(self, video: str, frames: NDArray[np.int64] | None = None) -> ObjectFrames:
        """The objects of some frames, or of all, with the first O slots of each.

        Args:
            video: The video.
            frames: Frame numbers, ``(F,)``, in any order; only these are read.

        Raises:
            UserError: if the video is missing or unreadable, has another width or fewer objects than expected,
                or holds NaN or infinity; names file and video.
        """
        found = self._stored(video)
        rows = slice(None) if frames is None else frames
        check = frames is not None or video not in self._sound
        objects = found.read(rows, self._objects or found.shape[1], check=check)
        if frames is None:
            self._sound.add(video)
        return objects

    __getitem__ = read

    def __contains__(self, video: str) -> bool:
        return has_video(self._file, video)

    def length(self, video: str) -> int:
        """Number of frames of a video, without reading them.

        Raises:
            UserError: as `read` for a missing or unreadable video.
        """
        return self._stored(video).shape[0]

    def videos(self) -> list[str]:
        """The ids of all videos, sorted."""
        return sorted(video_names(self._file))

    def _first(self) -> Stored:
        names = self.videos()
        if not names:
            raise UserError(f"{self.path}: holds no video, expected object features")
        return self._stored(names[0])

    @property
    def dim(self) -> int:
        """Width D: the expected one if given, else that of the first video.

        Raises:
            UserError: if the file is empty or its first video cannot be read.
        """
        return self._first().shape[2] if self._dim is None else self._dim

    @property
    def objects(self) -> int:
        """Object slots O per frame: those asked for, else those of the first video.

        Raises:
            UserError: as `dim`.
        """
        return self._first().shape[1] if self._objects is None else self._objects

    @property
    def manifest(self) -> ObjectManifest | None:
        """The manifest, or None where the file has none.

        Raises:
            UserError: if it is not readable.
        """
        text = self._file.manifest_text()
        return None if text is None else parse_facts(text, str(self.path), ObjectManifest)

    def close(self) -> None:
        """Closes the file of this process; a later access opens it again."""
        self._sound.clear()
        self._file.close()

    def __enter__(self) -> ObjectStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class ObjectSource(Protocol):
    """An `ObjectStore`, or arrays in its place."""

    @property
    def name(self) -> str:
        """The path, for messages."""

    @property
    def paths(self) -> list[Path]:
        """The files."""

    @property
    def manifest(self) -> ObjectManifest | None:
        """The manifest, or None."""

    def read(self, video: str, frames: NDArray[np.int64] | None = None) -> ObjectFrames:
        """The objects of some frames, or of all."""

    def __getitem__(self, video: str, /) -> ObjectFrames:
        """The objects of all frames."""

    def __contains__(self, video: str, /) -> bool:
        """True where the video is there."""

    def length(self, video: str, /) -> int:
        """Number of frames of a video."""


@dataclass(frozen=True, eq=False)
class GivenObjects:
    """Objects in the place of a file, by video.

    Attributes:
        objects: By video.
        manifest: Of the file that they come from, if any.
        durations: Seconds of the video files that they were made of, where there were any.
        files: Those files.
    """

    objects: Mapping[str, ObjectFrames]
    manifest: ObjectManifest | None = None
    durations: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)
    name: str = "the given objects"
    paths: list[Path] = field(default_factory=list)

    @classmethod
    def of_rows(
        cls, videos: Mapping[str, VideoFeatures], manifest: ObjectManifest, config: ObjectsConfig
    ) -> GivenObjects:
        """The objects that an extractor made of video files.

        Raises:
            UserError: if they are of another width, or fewer, than a configuration says.
        """
        made: dict[str, ObjectFrames] = {}
        for name, video in videos.items():
            parts = [np.asarray(video.rows[part], np.float32) for part in (FEATURES, CONFIDENCE, BOXES)]
            _, slots, dim = parts[0].shape
            if dim != config.dim or slots < config.objects:
                raise UserError(
                    f"{video.path}: {slots} objects per frame of {dim} columns were made of it, expected at least "
                    f"{config.objects} of {config.dim}, as the model was trained on"
                )
            made[name] = ObjectFrames(*(part[:, : config.objects] for part in parts))
        return cls(
            made,
            manifest,
            {name: video.duration for name, video in videos.items()},
            {name: video.path for name, video in videos.items()},
        )

    def read(self, video: str, frames: NDArray[np.int64] | None = None) -> ObjectFrames:
        """The objects of some frames, or of all."""
        found = self.objects[video]
        if frames is None:
            return found
        return ObjectFrames(found.features[frames], found.confidence[frames], found.boxes[frames])

    __getitem__ = read

    def __contains__(self, video: str) -> bool:
        return video in self.objects

    def length(self, video: str) -> int:
        """Number of frames of a video."""
        return len(self.objects[video])
