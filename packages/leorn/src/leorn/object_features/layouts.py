"""Layouts of object features in HDF5 files, and the manifest of what made them. Use `store.ObjectStore`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5g, h5p
from numpy.typing import NDArray

from vmr_common.boundary import boundary
from vmr_common.errors import UserError
from vmr_common.features.checks import as_float32, first_not_finite
from vmr_common.features.hdf5 import Hdf5File, is_name
from vmr_common.features.manifest import BaseManifest

Floats = NDArray[np.float32]
BOX = 4
FEATURES, CONFIDENCE, BOXES = "features", "confidence", "boxes"
# the released loader that takes videos as long as they are reads three groups, each keyed by video
BY_KIND = ("feats", "confidence", "bbox")


@dataclass(frozen=True, eq=False)
class ObjectFrames:
    """The objects of a video's frames.

    Attributes:
        features: ``(F, O, D)`` float32.
        confidence: ``(F, O)`` float32; 0 where a frame has fewer than O objects. What counts as an object is
            the caller's threshold.
        boxes: ``(F, O, 4)`` float32, in the order and units that the manifest says.
    """

    features: Floats
    confidence: Floats
    boxes: Floats

    def __len__(self) -> int:
        """The number of frames F."""
        return len(self.features)

    @property
    def objects(self) -> int:
        """The number of object slots O."""
        return int(self.features.shape[1])


@dataclass(frozen=True, kw_only=True)
class ObjectManifest(BaseManifest):
    """Manifest of a file of object features. A field that is not known is None.

    Attributes:
        detector: Network, its training data and weights in words, e.g. ``Faster R-CNN, ResNet-101, Visual Genome``.
        weights_hash: SHA-256 of the detector's weights.
        box_order: What the four numbers of a box are, e.g. ``x1 y1 x2 y2``.
        box_units: ``normalised`` (fractions of the picture's width and height) or ``pixels``.
        frame_sampling: Which frames of the video the detector saw, in words.
        fps: Frames per second that the detector saw.
        stride_s: Seconds from one object frame to the next; None also where frames are spread over the video.
        sampling: Which pictures those frames are, see `vmr_video.recipe.FrameRecipe`.
        decoder: Program and version that made pictures of the video.
        resize: Of a picture before the detector, e.g. ``both sides to 640, bilinear``.
        crop: Likewise.
        network: Name or file that the weights came from.
        precision: Type in which the detector computed.
        frames: Frames per video; None also where videos differ.
        objects: Object slots per frame.
        object_order: Order of the slots of a frame, e.g. ``falling confidence``.
        dim: Width D of a feature.
        dtype: Type of the features in the file.
        source: Where the videos or original features come from.
        creator: Program and version that wrote the file.
    """

    detector: str | None = None
    weights_hash: str | None = None
    box_order: str | None = None
    box_units: str | None = None
    frame_sampling: str | None = None
    fps: float | None = None
    stride_s: float | None = None
    sampling: str | None = None
    decoder: str | None = None
    resize: str | None = None
    crop: str | None = None
    network: str | None = None
    precision: str | None = None
    frames: int | None = None
    objects: int | None = None
    object_order: str | None = None
    dim: int | None = None
    dtype: str | None = None
    source: str | None = None
    creator: str | None = None


ASSUMED = ObjectManifest(
    box_order="x1 y1 x2 y2", box_units="normalised", object_order="falling confidence", frames=256
)
"""Assumed of a file in the released layout; neither paper nor code says any of this, but 256 is in the file
names, the figure says "normalized position", and the slots are taken from the front."""


@dataclass(frozen=True)
class Stored:
    """One video in an open file: three data sets, or one whose last axis is features, confidence, box.

    Attributes:
        features: ``(F, K, D)``, or ``(F, K, D + 5)`` if `parts` is None.
        parts: Confidence ``(F, K)`` and boxes ``(F, K, 4)``.
        where: Begins the message of an error.
    """

    features: h5py.Dataset
    parts: tuple[h5py.Dataset, h5py.Dataset] | None
    where: str

    @property
    def shape(self) -> tuple[int, int, int]:
        """(F, K, D)."""
        frames, objects, width = self.features.shape
        return frames, objects, width - (0 if self.parts else 1 + BOX)

    def read(self, rows: slice | NDArray[np.int64], objects: int, *, check: bool) -> ObjectFrames:
        """The first `objects` slots of some frames.

        Args:
            rows: A slice, or frame numbers (any order, repetitions allowed).
            objects: At most K.
            check: Whether to look for values that are not finite.

        Raises:
            UserError: if the file is damaged, or holds NaN or infinity.
        """
        with boundary(f"{self.where} cannot be read"):
            packed, *parts = (
                _rows(dataset, rows, objects) for dataset in (self.features, *(self.parts or ()))
            )
        if check:
            for name, values in zip((FEATURES, CONFIDENCE, BOXES), (packed, *parts), strict=False):
                _check_finite(values, self.where if not parts else f"{self.where}, {name}")
        if parts:
            return ObjectFrames(packed, *parts)
        width = packed.shape[-1] - 1 - BOX
        return ObjectFrames(packed[..., :width], packed[..., width], packed[..., width + 1 :])


def _rows(dataset: h5py.Dataset, rows: slice | NDArray[np.int64], objects: int) -> Floats:
    if isinstance(rows, slice):
        return as_float32(dataset[rows, :objects])
    wanted, places = np.unique(rows, return_inverse=True)
    first, last = int(wanted[0]), int(wanted[-1])
    if 2 * len(wanted) > last - first:
        return as_float32(dataset[first : last + 1, :objects][rows - first])
    # frame by frame: HDF5 takes a list of rows apart into single ones as well, only slower
    values = np.empty((len(wanted), objects, *dataset.shape[2:]), dataset.dtype)
    for place, row in enumerate(wanted.tolist()):
        dataset.read_direct(values, np.s_[row, :objects], np.s_[place])
    return as_float32(values[places])


def _check_finite(values: Floats, where: str) -> None:
    if (place := first_not_finite(values)) is not None:
        frame, slot = place[:2]
        raise UserError(
            f"{where} holds NaN or infinity (first in frame {frame}, object {slot}), expected finite numbers"
        )


def video_names(file: Hdf5File) -> list[str]:
    """The ids of all videos of an object file, in any of the layouts."""
    return file.names(_group(file))


def has_video(file: Hdf5File, video: str) -> bool:
    """True if an object file, in any of the layouts, has a video."""
    return (
        is_name(video) and file.find(_name(_group(file), video), f"{file.path}: video {video!r}") is not None
    )


def _name(group: str, video: str) -> str:
    return f"{group}/{video}" if group else video


def _group(file: Hdf5File) -> str:
    """The group whose entries are named by the videos where there is one group per kind of array, else nothing."""
    by_kind = all(
        isinstance(file.find(name, f"{file.path}: group {name!r}"), h5g.GroupID) for name in BY_KIND
    )
    return BY_KIND[0] if by_kind else ""


def stored(file: Hdf5File, video: str, where: str) -> Stored:
    """The data sets of a video after checking that they belong together, and once what they declare.

    Raises:
        UserError: beginning with `where`, if the video is missing or the file holds something else.
    """
    group = _group(file)
    node = file.find(_name(group, video), where) if is_name(video) else None
    if node is None:
        raise UserError(f"{where} is missing (the file holds {file.count(group)} videos)")
    if group:
        found = _from_parts(file, {name: f"{name}/{video}" for name in BY_KIND}, video, where)
    elif isinstance(node, h5g.GroupID):
        names = {name: f"{video}/{name}" for name in (FEATURES, CONFIDENCE, BOXES)}
        found = _from_parts(file, names, video, where)
    else:
        found = _packed(file, node, video, where)
    file.sound[video] = video
    return found


def _packed(file: Hdf5File, node: Any, video: str, where: str) -> Stored:
    shape = file.numbers(node, where).shape if isinstance(node, h5d.DatasetID) else None
    if shape is None or len(shape) != 3 or shape[2] <= 1 + BOX:
        found = "no array" if shape is None else f"an array of shape {shape}"
        raise UserError(
            f"{where} holds {found}, expected object features: an array (frames, objects, features + 5), "
            f"or a group with {FEATURES}, {CONFIDENCE} and {BOXES}"
        )
    return Stored(_checked(file, node, video, where, fresh=video not in file.sound), None, where)


def _from_parts(file: Hdf5File, names: dict[str, str], video: str, where: str) -> Stored:
    """The three data sets, whose names in the file are those of their kinds."""
    nodes = []
    for kind, name in names.items():
        node = file.find(name, f"{where}, {kind}")
        if not isinstance(node, h5d.DatasetID):
            raise UserError(f"{where} has no data set {kind!r}, expected {', '.join(names)}")
        nodes.append(_checked(file, node, name, f"{where}, {kind}", fresh=video not in file.sound))
    features, confidence, boxes = nodes
    shape = features.shape
    if len(shape) != 3 or confidence.shape != shape[:2] or boxes.shape != (*shape[:2], BOX):
        first, second, third = names
        raise UserError(
            f"{where} has {first} {shape}, {second} {confidence.shape} and {third} {boxes.shape}, "
            "expected (F, O, D), (F, O) and (F, O, 4)"
        )
    return Stored(features, (confidence, boxes), where)


def _checked(file: Hdf5File, node: Any, name: str, where: str, *, fresh: bool) -> h5py.Dataset:
    """A data set of numbers, of which what it declares is checked if it is fresh.

    It has no chunk cache, which would read whole chunks where half of each is wanted; compressed chunks come whole
    anyway and keep the cache.
    """
    found = file.numbers(node, where)
    if not found.shape or 0 in found.shape:
        raise UserError(f"{where} has shape {found.shape}, expected at least one frame, object and feature")
    if fresh:
        file.check(found)
    dataset = h5py.Dataset(node)
    if dataset.chunks is None or dataset.compression is not None:
        return dataset
    access = h5p.create(h5p.DATASET_ACCESS)
    access.set_chunk_cache(1, 0, 1.0)
    return h5py.Dataset(file.open(name, where, access))
