"""Object features: for every frame of a video some objects, each with a feature, a confidence and a box.

`store.ObjectStore` reads HDF5 files of the layouts in `layouts`; `PreparedObjects` makes of them what a model takes
and keeps it in memory. All of Charades-STA at 36 objects is half a terabyte, so only what is asked for is read:
the first O slots of the wanted frames.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from leorn.object_features.layouts import Floats, ObjectFrames
from leorn.object_features.store import ObjectSource
from vmr_common.timeline import pooling_bounds
from vmr_train.caches import LRUCache

EPS = 1e-12  # least norm that a feature is divided by
BUDGET = 2 << 30  # bytes
Arrays = tuple[NDArray[Any], NDArray[np.bool_], Floats]


def sampled_frames(stored_frames: int, frames: int) -> NDArray[np.int64]:
    """The stored frame from which each of `frames` frames is taken, ``(frames,)``.

    Frame k covers the stored frames from ``s = round(k * T / frames)`` to ``e = round((k + 1) * T / frames)``, both
    at most ``T - 1``, and takes the middle one, ``s + (e - s) // 2``. Equal numbers give every frame once; a
    shorter video repeats frames. Source: an unused resampler of the released code of LEORN.

    Raises:
        ValueError: if either number is not positive.

    Example:
        >>> sampled_frames(10, 4).tolist(), sampled_frames(2, 4).tolist(), sampled_frames(3, 3).tolist()
        ([1, 3, 6, 8], [0, 0, 1, 1], [0, 1, 2])
    """
    bounds = pooling_bounds(stored_frames, frames)
    middles: NDArray[np.int64] = bounds[:-1] + np.diff(bounds) // 2
    return middles


class ObjectInputs(NamedTuple):
    """Objects of a video as a model takes them.

    Attributes:
        features: ``(F, O, D)`` float32, each of length 1, zeros where `mask` is false.
        mask: ``(F, O)`` bool, true where there is an object. A frame may have none.
        boxes: ``(F, O, 4)`` float32 as stored, zeros where `mask` is false.
    """

    features: Floats
    mask: NDArray[np.bool_]
    boxes: Floats


def prepare(objects: ObjectFrames, threshold: float) -> ObjectInputs:
    """Masks by confidence, brings features to length 1, and zeroes what is masked (in this order).

    Args:
        objects: The objects of a video.
        threshold: An object counts if its confidence is above this, strictly.

    Source: the released loaders of LEORN.
    """
    mask = objects.confidence > np.float32(threshold)
    norms = np.sqrt(np.einsum("fod,fod->fo", objects.features, objects.features))
    features = objects.features / np.maximum(norms, np.float32(EPS))[..., None]  # (F, O, D)
    features[~mask] = 0
    return ObjectInputs(features, mask, np.where(mask[..., None], objects.boxes, np.float32(0)))


class PreparedObjects:
    """Objects as a model takes them, kept in memory: ``prepared[video] -> ObjectInputs``.

    The first access of a video reads it, takes `frames` frames by `sampled_frames` and prepares them; later ones
    find it in memory as long as the budget allows, those used longest ago go first. The arrays may be shared
    between callers, who must not write into them. A pickled copy starts with an empty memory.

    Args:
        store: The objects; its `objects` says how many slots are read.
        frames: Frames F to give, or None for those stored.
        threshold: See `prepare`.
        budget: Most bytes to keep.
        memory: Type in which features are kept. ``float16`` halves the memory for some time at each access; the
            features are then rounded to it always, also at the first access.
    """

    def __init__(
        self,
        store: ObjectSource,
        *,
        frames: int | None,
        threshold: float,
        budget: int = BUDGET,
        memory: Literal["float16", "float32"] = "float32",
    ) -> None:
        if frames is not None and frames < 1:
            raise ValueError(f"frames must be positive, found {frames}")
        self.store = store
        self.frames = frames
        self.threshold = threshold
        self.memory = memory
        self._held: LRUCache[str, Arrays] = LRUCache(budget, _nbytes)

    def __getitem__(self, video: str) -> ObjectInputs:
        """The objects of a video.

        Raises:
            UserError: as `ObjectStore.read`.
        """
        found = self._held.get(video)
        if found is None:
            features, mask, boxes = self._read(video)
            found = (features.astype(self.memory, copy=False), mask, boxes)
            if _nbytes(found) <= self._held.limit:
                self._held[video] = found
        return ObjectInputs(found[0].astype(np.float32, copy=False), found[1], found[2])

    def _read(self, video: str) -> ObjectInputs:
        count = None if self.frames is None else self.store.length(video)
        if count is None or count == self.frames:
            objects = self.store[video]
        else:
            assert self.frames is not None
            objects = self.store.read(video, sampled_frames(count, self.frames))
        return prepare(objects, self.threshold)

    @property
    def held(self) -> int:
        """Bytes in memory now."""
        return int(self._held.size)

    def __contains__(self, video: str) -> bool:
        return video in self._held or video in self.store


def _nbytes(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays)
