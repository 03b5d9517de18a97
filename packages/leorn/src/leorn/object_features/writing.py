"""Writing object features as one HDF5 file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from leorn.object_features.layouts import BOX, BOXES, CONFIDENCE, FEATURES, ObjectFrames, ObjectManifest
from vmr_common.errors import UserError
from vmr_common.features import writing as h5_writing

CHUNK = 1 << 16  # bytes; frames smaller than this share a chunk


def write_objects(
    path: str | Path,
    items: Iterable[tuple[str, ObjectFrames]],
    manifest: ObjectManifest,
    dtype: str = "float16",
    objects: int | None = None,
) -> int:
    """Writes one HDF5 file with a group per video and the manifest, atomically.

    Features are chunked by whole frames and not compressed, so that a reader fetches only the frames and slots it
    wants. Confidence and boxes stay float32: they are small, and rounding could move one across a threshold.

    Args:
        path: The file; an existing one is replaced when all items are written.
        items: (video, objects) pairs; only one is held at a time.
        manifest: What made the features; `dim`, `dtype`, `objects` and `frames` (where all videos agree) are
            filled in.
        dtype: Type of the features, ``float16`` or ``float32``.
        objects: Slots to keep, the first ones; default: all.

    Returns:
        The number of videos written.

    Raises:
        UserError: if the file cannot be written, a video occurs twice, shapes do not fit or differ between
            videos, or a value is not finite or does not fit into float16.
    """
    count, layout, lengths = 0, (0, 0), set()
    with h5_writing.new_file(path, dtype) as file:
        for video, item in items:
            where = f"{path}: video {video!r}"
            h5_writing.check_name(file, video, where)
            arrays = _arrays(item, objects, dtype, where)
            frames, *slots = arrays[FEATURES].shape
            if count and tuple(slots) != layout:
                raise UserError(f"{where} has (objects, width) {tuple(slots)}, the others have {layout}")
            layout = (slots[0], slots[1])
            lengths.add(frames)
            _write_group(file.create_group(video), arrays)
            count += 1
        h5_writing.write_manifest(
            file,
            manifest,
            dim=layout[1] if count else None,
            dtype=dtype,
            objects=layout[0] if count else None,
            frames=lengths.pop() if len(lengths) == 1 else None,
        )
    return count


def _arrays(item: ObjectFrames, objects: int | None, dtype: str, where: str) -> dict[str, NDArray[Any]]:
    shape = item.features.shape
    if len(shape) != 3 or 0 in shape or item.confidence.shape != shape[:2]:
        raise UserError(
            f"{where} has features {shape} and confidence {item.confidence.shape}, expected (F, O, D)"
        )
    if item.boxes.shape != (*shape[:2], BOX):
        raise UserError(f"{where} has boxes {item.boxes.shape}, expected {(*shape[:2], BOX)}")
    if objects is not None and shape[1] < objects:
        raise UserError(f"{where} has {shape[1]} objects per frame, expected at least {objects}")
    parts = (
        (FEATURES, item.features, dtype),
        (CONFIDENCE, item.confidence, "float32"),
        (BOXES, item.boxes, "float32"),
    )
    return {name: h5_writing.cast(part[:, :objects], kind, f"{where}, {name}") for name, part, kind in parts}


def _write_group(group: h5py.Group, arrays: dict[str, NDArray[Any]]) -> None:
    features = arrays[FEATURES]
    rows = min(len(features), max(1, CHUNK // features[0].nbytes))
    group.create_dataset(FEATURES, data=features, chunks=(rows, *features.shape[1:]))
    for name in (CONFIDENCE, BOXES):
        group.create_dataset(name, data=arrays[name])
