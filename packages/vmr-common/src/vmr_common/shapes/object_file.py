"""Makes ``objects.h5`` in a Shapes folder when it is first asked for; everything else there stays as it is."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from vmr_common.errors import UserError
from vmr_common.files import read_json, sha256, write_text
from vmr_common.manifest import creator
from vmr_common.objects import ObjectFrames, ObjectManifest, write_objects
from vmr_common.shapes.generate import GENERATOR, OBJECTS, OBJECTS_NOTE, ensure, locked
from vmr_common.shapes.objects import object_frames
from vmr_common.shapes.render import render
from vmr_common.shapes.scene import make_scene
from vmr_common.shapes.spec import SHORT, SPLITS, ShapesSpec

VERSION = 1  # raised whenever the same spec gives other objects
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
        try:
            with locked(folder):
                if not _sound(folder, verify):  # another process may have been faster
                    _make(folder, spec)
        except OSError as error:
            raise UserError(f"cannot write {folder / OBJECTS}: {error.strerror or error}") from error
    return folder / OBJECTS


def _sound(folder: Path, verify: bool) -> bool:
    path = folder / OBJECTS
    try:
        note = read_json(folder / OBJECTS_NOTE)
        same = [note["generator"], note["version"]] == [GENERATOR, VERSION]
        intact = path.stat().st_size == note["bytes"] and not (verify and sha256(path) != note["sha256"])
    except (UserError, OSError, KeyError, TypeError):
        return False
    return same and intact


def _make(folder: Path, spec: ShapesSpec) -> None:
    """Writes beside the folder and moves both files into it, the note last."""
    logger.info("making the object features of the Shapes data set in %s", folder)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        write_objects(work / OBJECTS, _items(spec), _manifest(spec))
        fresh = work / OBJECTS
        note = {
            "generator": GENERATOR,
            "version": VERSION,
            "sha256": sha256(fresh),
            "bytes": fresh.stat().st_size,
        }
        write_text(work / OBJECTS_NOTE, json.dumps(note, indent=1) + "\n")
        (folder / OBJECTS_NOTE).unlink(missing_ok=True)
        os.replace(fresh, folder / OBJECTS)
        os.replace(work / OBJECTS_NOTE, folder / OBJECTS_NOTE)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _items(spec: ShapesSpec) -> Iterator[tuple[str, ObjectFrames]]:
    videos = [video for split in SPLITS for video in spec.videos(split)]
    for video in tqdm(videos, "Shapes objects", unit="video", delay=2, leave=False, disable=None):
        yield video, object_frames(render(make_scene(video, spec)), spec.frames_per_row)


def _manifest(spec: ShapesSpec) -> ObjectManifest:
    return ObjectManifest(
        detector=f"connected patches of one hue, pixel statistics, version {VERSION}",
        box_order="x1 y1 x2 y2",
        box_units="normalised",
        frame_sampling=f"one per feature row of {spec.stride:g} s: the last frame in it that shows the object",
        object_order="by arrival; an object keeps its slot while it is followed",
        source=f"Shapes, generator {GENERATOR}, seed {spec.seed}",
        creator=creator(),
    )
