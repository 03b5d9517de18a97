"""Region features as detectors leave them, an npy or npz file per video or per frame, read as `ObjectFrames`."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from leorn.object_features.box_form import BoxForm
from leorn.object_features.layouts import ASSUMED, BOX, Floats, ObjectFrames, ObjectManifest
from vmr_common.boundary import PICKLED, boundary
from vmr_common.errors import UserError, require, some_of
from vmr_common.features import npz
from vmr_common.features.checks import as_float32, manifest_beside
from vmr_common.features.manifest import MANIFEST, parse_facts

FEATURE_NAMES = ("features", "x", "feats", "feat", "roi_features", "region_features")
BOX_NAMES = ("boxes", "bbox", "bboxes", "box")
CONFIDENCE_NAMES = ("conf", "confidence", "confidences", "scores", "score", "objects_conf")
COUNT_NAMES = ("num_boxes", "num_bbox", "num_objects")
SIZE_NAMES = (
    ("image_w", "image_h"),
    ("image_width", "image_height"),
    ("img_w", "img_h"),
    ("width", "height"),
)
_KNOWN = {
    *FEATURE_NAMES,
    *BOX_NAMES,
    *CONFIDENCE_NAMES,
    *COUNT_NAMES,
    *(name for pair in SIZE_NAMES for name in pair),
}
SUFFIXES = (".npy", ".npz")
SLOTS = 36  # objects kept per frame, as many as the common detector gives
MOST_SLOTS = 4096

Arrays = Mapping[str, NDArray[Any]]


class RegionFolder:
    """A folder of region features, ``folder.read(video) -> ObjectFrames`` in the form that we store.

    Either one file per video, ``<video>.npz`` with features ``(T, n, D)``, or one folder per video with a file per
    frame, features ``(n, D)``, n differing from frame to frame; frames are in the order of the last number in their
    names. Boxes ``(.., n, 4)`` and confidences ``(.., n)`` lie in the same file, under one of the usual names; an
    npy file is features alone, or with `dim` given ``D + 5`` columns: feature, confidence, box. Each frame's objects
    are sorted by falling confidence, cut to `objects`, and padded with confidence 0.

    Args:
        path: The folder.
        objects: Slots per frame.
        dim: Width D of a feature; needed where a whole video shows no object.
        boxes: How boxes are written.
        missing: What to do about files without confidences or boxes: ``error``, or ``fill`` with confidence 1 and a
            box around the whole picture.

    Raises:
        UserError: at once if the folder is not there.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        objects: int = SLOTS,
        dim: int | None = None,
        boxes: BoxForm | None = None,
        missing: Literal["error", "fill"] = "error",
    ) -> None:
        require(1 <= objects <= MOST_SLOTS, "objects per frame", objects, f"1 to {MOST_SLOTS:,}")
        self.path = Path(path)
        if not self.path.is_dir():
            raise UserError(f"{self.path}: no such folder of region features")
        self.objects = objects
        self.dim = dim
        self.boxes = boxes or BoxForm()
        self.missing = missing

    @property
    def name(self) -> str:
        """The path, for messages."""
        return str(self.path)

    @property
    def paths(self) -> list[Path]:
        """The folder."""
        return [self.path]

    @property
    def manifest(self) -> ObjectManifest:
        """Manifest in the folder, as far as it still holds; boxes are ours once they are read."""
        known, text = ObjectManifest(), manifest_beside(self.path)
        if text is not None:
            known = parse_facts(text, str(self.path / f"{MANIFEST}.json"), ObjectManifest)
        return ObjectManifest(
            detector=known.detector,
            weights_hash=known.weights_hash,
            frame_sampling=known.frame_sampling,
            source=known.source,
            object_order=ASSUMED.object_order if self.missing == "error" else None,
            box_order=ASSUMED.box_order,
            box_units=ASSUMED.box_units,
        )

    def videos(self) -> list[str]:
        """The ids of all videos, sorted."""
        entries = [entry for entry in _entries(self.path) if entry.is_dir() or _is_region_file(entry)]
        names = [entry.name if entry.is_dir() else entry.stem for entry in entries]
        return sorted({name for name in names if not name.startswith(".")})

    def _files(self, video: str) -> list[Path]:
        """The file of a video, or those of its frames in order."""
        if video in ("", ".", "..") or "/" in video or "\0" in video:
            raise UserError(f"{self.path}: video {video!r} is missing (not a file name)")
        for suffix in SUFFIXES:
            if os.path.isfile(path := self.path / (video + suffix)):
                return [path]
        folder = self.path / video
        files = [path for path in _entries(folder) if _is_region_file(path)] if os.path.isdir(folder) else []
        if not files:
            raise UserError(
                f"{self.path}: video {video!r} is missing (no {video}.npz there, no folder with frames)"
            )
        return sorted(files, key=lambda path: (_numbers(path.stem), path.name))

    def length(self, video: str) -> int:
        """Number of frames of a video.

        Raises:
            UserError: as `read`.
        """
        files = self._files(video)
        if files[0].parent != self.path:
            return len(files)
        shape = _features_shape(files[0])
        return shape[0] if len(shape) == 3 else 1

    def read(self, video: str, frames: NDArray[np.int64] | None = None) -> ObjectFrames:
        """The objects of some frames, or of all, see the class.

        Raises:
            UserError: if the video is missing or a file is not what the class describes; names file and array.
        """
        files = self._files(video)
        if files[0].parent == self.path:
            found = self._slots(self._parse(files[0]))
            return found if frames is None else _take(found, frames)
        wanted = files if frames is None else [files[frame] for frame in frames]
        kept = {path: self._slots(self._parse(path)) for path in dict.fromkeys(wanted)}
        return self._joined(video, [kept[path] for path in wanted])

    __getitem__ = read

    def close(self) -> None:
        """Nothing stays open between reads."""

    def _joined(self, video: str, frames: Sequence[ObjectFrames]) -> ObjectFrames:
        widths = {frame.features.shape[2] for frame in frames if frame.features.shape[2]}
        if self.dim is not None:
            widths |= {self.dim}
        where = f"{self.path}: video {video!r}"
        if len(widths) > 1:
            raise UserError(
                f"{where} has features of width {', '.join(map(str, sorted(widths)))}, expected one width"
            )
        if not widths:
            raise UserError(f"{where} has no object in any frame; say how wide features are with --dim")
        empty = np.zeros((1, self.objects, widths.pop()), np.float32)
        return ObjectFrames(
            np.concatenate([frame.features if frame.features.shape[2] else empty for frame in frames]),
            np.concatenate([frame.confidence for frame in frames]),
            np.concatenate([frame.boxes for frame in frames]),
        )

    def _slots(self, found: ObjectFrames) -> ObjectFrames:
        """Sorted by falling confidence, cut and padded to `objects`."""
        best = np.argsort(-found.confidence, axis=1, kind="stable")[:, : self.objects]  # (T, n)
        parts = []
        for values in (found.features, found.confidence, found.boxes):
            index = best.reshape(best.shape + (1,) * (values.ndim - 2))
            padding = [(0, 0), (0, self.objects - best.shape[1]), (0, 0)][: values.ndim]
            parts.append(np.pad(np.take_along_axis(values, index, axis=1), padding))
        return ObjectFrames(*parts)

    def _parse(self, path: Path) -> ObjectFrames:
        """The objects of one file, as many as it has, boxes in our form."""
        features, arrays = self._arrays(path)
        frames, count = features.shape[:2]
        confidence = self._part(path, arrays, CONFIDENCE_NAMES, (frames, count))
        boxes = self._part(path, arrays, BOX_NAMES, (frames, count, BOX))
        size = _size(path, arrays, frames)
        if confidence is None:
            confidence = np.ones((frames, count), np.float32)
        valid = _first(path, arrays, COUNT_NAMES)
        if valid is not None:
            if valid.size not in (1, frames):
                raise UserError(
                    f"{path}: array of {COUNT_NAMES[0]} has shape {valid.shape}, expected {(frames,)}"
                )
            confidence = np.where(np.arange(count) < valid.reshape(-1, 1), confidence, np.float32(0))
        if boxes is None:
            whole = np.array([0, 0, 1, 1], np.float32)
            return ObjectFrames(features, confidence, np.broadcast_to(whole, (frames, count, BOX)))
        boxes = self.boxes.standard(boxes, confidence > 0, size, str(path))
        return ObjectFrames(features, confidence, boxes)

    def _arrays(self, path: Path) -> tuple[Floats, Arrays]:
        """The features ``(T, n, D)`` of a file, and its other arrays."""
        arrays = _load(path)
        features = _first(path, arrays, FEATURE_NAMES)
        if features is None:
            raise _no_features(path, list(arrays))
        boxes = _first(path, arrays, BOX_NAMES)
        if boxes is not None and features.ndim == 2 and len(features) != len(boxes) == features.shape[1]:
            features = features.T  # some extractors keep a column per object
        if features.shape == (0,):
            features = features.reshape(0, 0)
        if features.ndim == 2:
            features = features[None]
        if features.ndim != 3:
            raise UserError(f"{path}: features of shape {features.shape}, expected (n, D) or (T, n, D)")
        width = features.shape[2]
        if self.dim is not None and width == self.dim + 1 + BOX and path.suffix == ".npy":
            arrays = {"conf": features[..., self.dim], "boxes": features[..., self.dim + 1 :]}
            features = features[..., : self.dim]
        elif self.dim is not None and width not in (0, self.dim):
            raise UserError(f"{path}: features of width {width}, expected {self.dim}")
        return as_float32(features), arrays

    def _part(
        self, path: Path, arrays: Arrays, names: Sequence[str], shape: tuple[int, ...]
    ) -> Floats | None:
        """Confidences or boxes of this shape; None where there are none and they may be filled in."""
        values = _first(path, arrays, names)
        if values is not None and values.size == np.prod(shape):
            return as_float32(values.reshape(shape))
        if values is not None:
            expected = shape if values.ndim == len(shape) else shape[1:]
            raise UserError(f"{path}: array of {names[0]} has shape {values.shape}, expected {expected}")
        if shape[1] == 0:
            return np.zeros(shape, np.float32)
        if self.missing == "fill":
            return None
        pickled = [name for name, array in arrays.items() if array.dtype.hasobject]
        hint = f"; array {pickled[0]!r} {PICKLED}" if pickled else ""
        raise UserError(
            f"{path}: no array of {names[0]} (looked for {', '.join(names)}){hint}; --missing fill goes without, and "
            "--dim says how wide features are where an npy file has confidence and box as its last five columns"
        )


def _is_region_file(path: Path) -> bool:
    # <frame>_info.npy beside <frame>.npy is a pickle of what else the detector said
    return path.suffix in SUFFIXES and not path.stem.endswith("_info") and path.is_file()


def _numbers(stem: str) -> int:
    """The last number in a name, by which frames are ordered; names without one come first."""
    found = re.findall(r"\d+", stem)
    return int(found[-1]) if found else -1


def _entries(folder: Path) -> list[Path]:
    with boundary(f"cannot read {folder}"):
        return list(folder.iterdir())


def _load(path: Path) -> Arrays:
    """The arrays of a file that have a known name; of all others, and of pickled objects, only the type.

    Raises:
        UserError: if the file is not readable, or an npy file holds pickled objects.
    """
    if path.suffix == ".npy":
        return {FEATURE_NAMES[0]: npz.read_file(path)}
    with npz.Archive(path, str(path)) as archive:
        types = {name: archive.layout(name)[1] for name in archive.names}
        wanted = [name for name, dtype in types.items() if name in _KNOWN and not dtype.hasobject]
        return {name: np.empty(0, dtype) for name, dtype in types.items()} | {
            name: archive.read(name) for name in wanted
        }


def _features_shape(path: Path) -> tuple[int, ...]:
    """The shape of a file's features, from their header alone.

    Raises:
        UserError: if the file is not readable or has none.
    """
    if path.suffix == ".npy":
        return npz.read_file_layout(path)[0]
    with npz.Archive(path, str(path)) as archive:
        for name in FEATURE_NAMES:
            if name in archive:
                return archive.layout(name)[0]
        raise _no_features(path, archive.names)


def _no_features(path: Path, names: Sequence[str]) -> UserError:
    return UserError(
        f"{path}: no array of features (looked for {', '.join(FEATURE_NAMES)}; found: {some_of(names, 8)})"
    )


def _first(path: Path, arrays: Arrays, names: Sequence[str]) -> NDArray[Any] | None:
    """The first array of one of these names that is not pickled; None where there is none.

    Raises:
        UserError: if it holds no numbers.
    """
    found = next((name for name in names if name in arrays and not arrays[name].dtype.hasobject), None)
    return None if found is None else _numbers_of(path, arrays, found)


def _numbers_of(path: Path, arrays: Arrays, name: str) -> NDArray[Any]:
    if arrays[name].dtype.kind not in "fiu":
        raise UserError(f"{path}: array {name!r} holds values of type {arrays[name].dtype}, expected numbers")
    return arrays[name]


def _size(path: Path, arrays: Arrays, frames: int) -> NDArray[Any] | None:
    """Width and height of the picture, ``(1 or T, 2)``; None where the file does not say them.

    Raises:
        UserError: if they are no sizes, or neither one nor one per frame.
    """
    for names in SIZE_NAMES:
        if all(name in arrays for name in names):
            sides = [_numbers_of(path, arrays, name).reshape(-1) for name in names]
            if len(sides[0]) != len(sides[1]) or len(sides[0]) not in (1, frames):
                raise UserError(
                    f"{path}: {' and '.join(names)} say {len(sides[0])} and {len(sides[1])} sizes"
                )
            size = np.stack(sides, axis=1)
            if not (np.isfinite(size).all() and (size > 0).all()):
                raise UserError(f"{path}: {' and '.join(names)} hold {size.min()}, expected sizes in pixels")
            return size
    return None


def _take(found: ObjectFrames, frames: NDArray[np.int64]) -> ObjectFrames:
    return ObjectFrames(found.features[frames], found.confidence[frames], found.boxes[frames])
