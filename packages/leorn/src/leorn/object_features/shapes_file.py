"""Makes ``objects.h5`` in a Shapes folder when it is first asked for; everything else there stays as it is."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from leorn.object_features.layouts import ObjectFrames, ObjectManifest
from leorn.object_features.shapes_objects import object_frames
from leorn.object_features.store import ObjectStore
from leorn.object_features.writing import write_objects
from vmr_common.errors import UserError
from vmr_common.features.manifest import creator
from vmr_common.io import no_links, read_json, sha256, write_text, writing
from vmr_common.schema import conform
from vmr_shapes.generate import GENERATOR, OBJECTS, OBJECTS_NOTE, ensure, locked, with_progress
from vmr_shapes.render import render
from vmr_shapes.scene import make_scene
from vmr_shapes.spec import SHORT, SPLITS, ShapesSpec

VERSION = 1  # raised whenever the same spec gives other objects
DETECTOR = f"connected patches of one hue, pixel statistics, version {VERSION}"
_SOURCE = "Shapes, generator "
logger = logging.getLogger(__name__)


def ensure_objects(folder: str | Path, spec: ShapesSpec = SHORT, *, verify: bool = False) -> Path:
    """Returns the file with the object features of a Shapes data set, making it if it is not there or is damaged.

    The data set itself is generated before, if need be. Beside ``objects.h5`` stands ``objects.json`` with its size
    and SHA-256, which is written last; of several callers at once one makes the file and the others wait.

    Args:
        folder: The folder of the data set, see `ensure`.
        spec: What the data set consists of.
        verify: Also compare the file's SHA-256 (its size is always compared).

    Raises:
        UserError: as `ensure`.
    """
    folder = ensure(folder, spec)
    if not _sound(folder, verify):
        with writing(folder / OBJECTS), locked(folder):
            if not _sound(folder, verify):  # another process may have been faster
                _make(folder, spec)
    return folder / OBJECTS


class Note(TypedDict):
    """Content of ``objects.json``, on the file beside it."""

    generator: int
    version: int
    sha256: str
    bytes: int


def _note(folder: Path) -> Note | None:
    try:
        return conform(read_json(folder / OBJECTS_NOTE), Note, str(folder / OBJECTS_NOTE))
    except UserError:
        return None


def _sound(folder: Path, verify: bool) -> bool:
    path, note = folder / OBJECTS, _note(folder)
    if note is None or not path.is_file() or path.stat().st_size != note["bytes"]:
        return False
    same = (note["generator"], note["version"]) == (GENERATOR, VERSION)
    return same and not (verify and sha256(path) != note["sha256"])


def _refuse_foreign(folder: Path) -> None:
    """Raises `UserError` for object features that are not of Shapes: neither a note nor their manifest says so."""
    no_links(folder, (OBJECTS, OBJECTS_NOTE))
    path = folder / OBJECTS
    if not path.exists() or _note(folder) is not None:
        return
    try:
        with ObjectStore(path) as store:
            if store.manifest is not None and (store.manifest.source or "").startswith(_SOURCE):
                return
    except UserError:
        pass
    raise UserError(f"{path}: not the object features of Shapes, for which the place is needed; move it away")


def _make(folder: Path, spec: ShapesSpec) -> None:
    """Writes the file and then its note, each whole or not at all."""
    logger.info("making the object features of the Shapes data set in %s", folder)
    _refuse_foreign(folder)
    path = folder / OBJECTS
    source = f"{_SOURCE}{GENERATOR}, seed {spec.seed}"
    write_objects(path, _items(spec), shapes_manifest(float(spec.fps), spec.stride, source))
    note = Note(generator=GENERATOR, version=VERSION, sha256=sha256(path), bytes=path.stat().st_size)
    write_text(folder / OBJECTS_NOTE, json.dumps(note, indent=1) + "\n")


def _items(spec: ShapesSpec) -> Iterator[tuple[str, ObjectFrames]]:
    videos = [video for split in SPLITS for video in spec.videos(split)]
    for video in with_progress(videos, len(videos), "Shapes objects"):
        yield video, object_frames(render(make_scene(video, spec)), spec.frames_per_row)


def shapes_manifest(fps: float, stride: float, source: str | None) -> ObjectManifest:
    """The manifest of object features of Shapes: pictures per second, seconds of a row, where the videos come from."""
    return ObjectManifest(
        detector=DETECTOR,
        box_order="x1 y1 x2 y2",
        box_units="normalised",
        frame_sampling=f"one per feature row of {stride:g} s: the last frame in it that shows the object",
        fps=fps,
        stride_s=stride,
        object_order="by arrival; an object keeps its slot while it is followed",
        source=source,
        creator=creator(),
    )
