"""Objects, clip features and queries as LEORN's tensors (as the released loaders make them).

Batches are those of `vmr_train.map_supervised`, which CDN makes too, with objects in place of features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from leorn.config import Config
from leorn.model import Videos
from leorn.object_features.config import open_objects
from leorn.object_features.prepare import ObjectInputs, ObjectManifest, ObjectStore, PreparedObjects
from leorn.objects import Objects
from vmr_common.features.config import open_features
from vmr_common.features.pooling import FeaturesByVideo, PreparedFeatures, pooled_features
from vmr_common.features.store import FeatureStore
from vmr_common.text.vectors import WordLookup
from vmr_common.types import Query
from vmr_train.map_supervised import MapBatch, MapExamples, MapInputs

Batch = MapBatch[Videos]
QueryExamples = MapExamples[Videos]


class VideoArrays(NamedTuple):
    """What the network reads of one video: its objects, and its clip features ``(F, C)`` where it has two streams."""

    objects: ObjectInputs
    clips: NDArray[np.float32] | None


@dataclass(frozen=True)
class Stores:
    """The files of object features and, with two streams, those of clip features, as one."""

    objects: ObjectStore
    features: FeatureStore | None

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
        """Of the objects."""
        return self.objects.manifest

    def length(self, video: str) -> int:
        """Frames with objects of a video."""
        return self.objects.length(video)

    def __contains__(self, video: str) -> bool:
        return video in self.objects and (self.features is None or video in self.features)


@dataclass(frozen=True)
class InputFeatures:
    """Where the inputs of a run come from; ``sources[video] -> VideoArrays``.

    Attributes:
        objects: Objects by video, prepared and kept in memory.
        clips: Clip features by video, pooled to F rows and kept in memory; None: objects alone.
        word_vectors: GloVe text file.
    """

    objects: PreparedObjects
    clips: PreparedFeatures | None
    word_vectors: Path

    @classmethod
    def open(cls, config: Config, data_root: Path) -> InputFeatures:
        """The files that a configuration names under a data root.

        Raises:
            UserError: as `open_objects` and `open_features`.
        """
        data = config.data
        objects = PreparedObjects(
            open_objects(data.objects, data_root),
            frames=data.frames,
            threshold=data.objects.threshold,
            budget=int(data.cache_gb * 1e9),
            memory=data.cache_dtype,
        )
        clips = None
        if data.features is not None:
            clips = pooled_features(open_features(data.features, data_root), data.frames, unit=True)
        return cls(objects, clips, data_root / data.word_vectors)

    @property
    def store(self) -> Stores:
        """The files."""
        return Stores(self.objects.store, None if self.clips is None else self.clips.store)

    @property
    def words(self) -> list[Path]:
        """The files behind the words of queries."""
        return [self.word_vectors]

    def __getitem__(self, video: str) -> VideoArrays:
        """What the network reads of one video."""
        return VideoArrays(self.objects[video], None if self.clips is None else self.clips[video])

    def scaled(self, learned: MapInputs) -> Scaled:
        """The same with the clip features as the model reads them."""
        return Scaled(self.objects, None if self.clips is None else learned.apply_scale(self.clips))


@dataclass(frozen=True)
class Scaled:
    """Objects, and clip features that are standardised where training measured their columns."""

    objects: PreparedObjects
    clips: FeaturesByVideo | None

    def __getitem__(self, video: str) -> VideoArrays:
        """What the network reads of one video."""
        return VideoArrays(self.objects[video], None if self.clips is None else self.clips[video])


def stack(videos: Sequence[VideoArrays]) -> Videos:
    """The arrays of V videos as tensors."""
    clips: list[Any] = [video.clips for video in videos if video.clips is not None]
    objects = [video.objects for video in videos]
    return Videos(
        objects=Objects(
            features=torch.from_numpy(np.stack([one.features for one in objects])),
            mask=torch.from_numpy(np.stack([one.mask for one in objects])),
            boxes=torch.from_numpy(np.stack([one.boxes for one in objects])),
        ),
        clips=torch.from_numpy(np.stack(clips)) if clips else None,
    )


def make_examples(
    config: Config, learned: MapInputs, sources: InputFeatures, queries: Sequence[Query]
) -> QueryExamples:
    """Queries as batches; the vectors of words that training did not meet are read now."""
    return QueryExamples(
        queries,
        sources.scaled(learned),
        WordLookup(learned.words, sources.word_vectors),
        config.words_of,
        clips=config.model.clips,
        stack=stack,
    )
