"""The inputs of LEORN's videos: objects and, with two streams, clip features, from files, arrays or video files.

Shapes: F frames, C clip feature size.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from leorn.config import Config
from leorn.object_features.config import open_objects
from leorn.object_features.layouts import ObjectManifest
from leorn.object_features.prepare import ObjectInputs, PreparedObjects
from leorn.object_features.store import GivenObjects, ObjectSource
from vmr_train import prepared
from vmr_train.feature_files import FeatureSource, VideoStore, open_features
from vmr_train.given_features import frame_features
from vmr_train.video_files import Making


class VideoArrays(NamedTuple):
    """The inputs of one video: its objects, and its clip features ``(F, C)`` where there are two streams."""

    objects: ObjectInputs
    clips: NDArray[np.float32] | None


@dataclass(frozen=True)
class Stores:
    """The files of object features and, with two streams, those of clip features, as one."""

    objects: ObjectSource
    features: FeatureSource | None

    @property
    def name(self) -> str:
        """The paths, for messages."""
        return self.objects.name if self.features is None else f"{self.objects.name} and {self.features.name}"

    @property
    def paths(self) -> list[Path]:
        """All files."""
        return [*self.objects.paths, *([] if self.features is None else self.features.paths)]

    @property
    def manifest(self) -> ObjectManifest | None:
        """The manifest of the object file."""
        return self.objects.manifest

    @property
    def parts(self) -> dict[str, VideoStore]:
        """The files by the part of the inputs."""
        features = {} if self.features is None else {"features": self.features}
        return {"objects": self.objects, **features}

    @property
    def durations(self) -> Mapping[str, float]:
        """Seconds of the video files that the objects were made of, where there were any."""
        return self.objects.durations if isinstance(self.objects, GivenObjects) else {}

    @property
    def files(self) -> Mapping[str, Path]:
        """The video files that the objects were made of, where there were any."""
        return self.objects.files if isinstance(self.objects, GivenObjects) else {}

    def length(self, video: str) -> int:
        """Frames with objects of a video."""
        return self.objects.length(video)

    def __contains__(self, video: str) -> bool:
        return video in self.objects and (self.features is None or video in self.features)


@dataclass(frozen=True)
class InputFeatures:
    """The input files of a run; ``features[video] -> VideoArrays``.

    Attributes:
        objects: Objects by video, prepared and kept in memory.
        clips: Clip features by video, pooled to F rows and kept in memory; None: objects alone.
        store: The files of both.
    """

    objects: PreparedObjects
    clips: prepared.FeaturesByVideo | None
    store: Stores

    @classmethod
    def open(cls, config: Config, data_root: Path) -> InputFeatures:
        """The files that a configuration names under a data root.

        Raises:
            UserError: as `open_objects` and `open_features`.
        """
        features = config.data.features
        return cls.of(
            config,
            open_objects(config.data.objects, data_root),
            None if features is None else open_features(features, data_root),
        )

    @classmethod
    def of(cls, config: Config, source: ObjectSource, features: FeatureSource | None) -> InputFeatures:
        """The inputs that come from opened files, or from arrays in their place."""
        data = config.data
        objects = PreparedObjects(
            source,
            frames=data.frames,
            threshold=data.objects.threshold,
            budget=int(data.cache_gb * 1e9),
            memory=data.cache_dtype,
        )
        clips = None if features is None else prepared.pooled_features(features, data.frames, unit=True)
        return cls(objects, clips, Stores(objects.store, features))

    @classmethod
    def of_video_files(cls, config: Config, paths: Sequence[Path], making: Making) -> InputFeatures:
        """The inputs of video files by name without ending, made as those that the model was trained on.

        Raises:
            UserError: if they cannot be made alike, or are of another shape than the configuration says.
        """
        features, root = config.data.features, making.root
        open_files = functools.partial(open_objects, config.data.objects, root)
        manifest = making.manifest("objects", ObjectManifest, open_files)
        videos = making.alike(paths, manifest)
        clips = None
        if features is not None:
            clips = frame_features([video.path for video in videos.values()], features, making)
            videos = {name: video for name, video in videos.items() if name in clips}
        return cls.of(config, GivenObjects.of_rows(videos, manifest, config.data.objects), clips)

    def __getitem__(self, video: str) -> VideoArrays:
        """The inputs of one video."""
        return VideoArrays(self.objects[video], None if self.clips is None else self.clips[video])
