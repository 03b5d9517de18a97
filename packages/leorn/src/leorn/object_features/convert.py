"""Object features of any layout into one HDF5 file."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

from leorn.object_features.box_form import BoxForm
from leorn.object_features.layouts import ObjectFrames, ObjectManifest
from leorn.object_features.prepare import sampled_frames
from leorn.object_features.regions import RegionFolder
from leorn.object_features.store import ObjectStore
from leorn.object_features.writing import write_objects
from vmr_common.features.conversion import PART_SIZE, Conversion


def convert_objects(
    source: ObjectStore | RegionFolder,
    out: str | Path,
    manifest: ObjectManifest,
    *,
    dtype: str = "float16",
    frames: int | None = None,
    boxes: BoxForm | None = None,
    videos: Sequence[str] | None = None,
    step: Callable[[int], object] | None = None,
) -> int:
    """Writes object features into one HDF5 file (see `write_objects`), as `convert_features` does.

    Args:
        source: Where objects come from; it also says how many slots are kept.
        out: The file.
        manifest: What made the objects.
        dtype: ``float16`` or ``float32``.
        frames: Frames per video, taken by `sampled_frames`; None keeps those that there are.
        boxes: How the source gives boxes, which then become x1 y1 x2 y2 in fractions; None leaves them.
        videos: Which videos, by default all.
        step: Called with the number of videos that were just finished.

    Returns:
        The number of videos written.

    Raises:
        UserError: if there is no video, one cannot be read, or the file cannot be written.
    """
    write = functools.partial(write_objects, manifest=manifest, dtype=dtype)
    conversion = Conversion("video", Path(out), dtype, write, ObjectStore, PART_SIZE, step)
    chosen = source.videos() if videos is None else videos
    return conversion.run(_Sampled(source, frames, boxes), source.paths, chosen)


@dataclasses.dataclass(frozen=True)
class _Sampled:
    """Object features of a source, with so many frames per video and boxes in our form."""

    source: ObjectStore | RegionFolder
    frames: int | None
    boxes: BoxForm | None

    @property
    def name(self) -> str:
        return self.source.name

    def __getitem__(self, video: str) -> ObjectFrames:
        rows = None if self.frames is None else sampled_frames(self.source.length(video), self.frames)
        found = self.source.read(video, rows)
        if self.boxes is None:
            return found
        where = f"{self.source.name}: video {video!r}"
        return dataclasses.replace(
            found, boxes=self.boxes.standard(found.boxes, found.confidence > 0, None, where)
        )

    def close(self) -> None:
        self.source.close()
