"""Object features straight from videos: the extractors ``shapes-objects``, ``faster-rcnn`` and ``rt-detr``.

`vmr_video` finds them by their entry points, for ``vmr-extract`` and for ``leorn-predict --video-file``. None of them
makes the features of the paper, which are not published.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leorn.object_features.layouts import BOXES, CONFIDENCE, FEATURES, ObjectFrames, ObjectManifest
from vmr_common.features.manifest import BaseManifest, creator
from vmr_shapes.spec import LONG, SHORT, ShapesSpec
from vmr_shapes.video_features import recipe_of
from vmr_video.extractor import ExtractorKind, ExtractorOptions, Rows
from vmr_video.recipe import FrameRecipe, Sampling

if TYPE_CHECKING:
    from leorn.object_features.detectors import Detector

ORDER = "falling confidence"
FASTER_RCNN, RT_DETR = "torchvision Faster R-CNN", "transformers RT-DETR"
"""Beginnings of `detector` in the manifests of their files."""
FPS = 1.0
"""Frames per second that a detector sees by default."""


def object_rows(frames: ObjectFrames) -> dict[str, NDArray[np.float32]]:
    """Objects as the arrays that an extractor gives."""
    return {FEATURES: frames.features, CONFIDENCE: frames.confidence, BOXES: frames.boxes}


def frames_of_rows(rows: Rows) -> ObjectFrames:
    """Objects of the arrays that an extractor gave."""
    return ObjectFrames(*(np.asarray(rows[name], np.float32) for name in (FEATURES, CONFIDENCE, BOXES)))


def write(path: Path, videos: Iterable[tuple[str, Rows]], manifest: BaseManifest, dtype: str) -> None:
    """Writes a file of object features; confidences and boxes stay float32, see `write_objects`."""
    from leorn.object_features.writing import write_objects

    assert isinstance(manifest, ObjectManifest)
    write_objects(path, ((video, frames_of_rows(rows)) for video, rows in videos), manifest, dtype)


# --- shapes-objects ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class ShapesObjects:
    """The objects of rendered videos, as the embedded data set has them; a row needs the whole video.

    Attributes:
        spec: Of the data set: rate and size of its pictures, and how many make a row.
    """

    spec: ShapesSpec = SHORT
    context: tuple[int, int] | None = None  # slots follow objects over the whole video

    @property
    def row_frames(self) -> int:
        """As in the spec."""
        return self.spec.frames_per_row

    @property
    def recipe(self) -> FrameRecipe:
        """As ``shapes-pixels`` takes them."""
        return recipe_of(self.spec)

    def __call__(self, frames: NDArray[np.uint8], before: int, after: int) -> Rows:
        """The objects of a whole video."""
        from leorn.object_features.shapes_objects import object_frames

        return object_rows(object_frames(frames, self.row_frames))

    def manifest(self) -> ObjectManifest:
        """As that of the data set's own file, with how frames were taken."""
        from leorn.object_features.shapes_file import shapes_manifest

        made = shapes_manifest(float(self.spec.fps), self.spec.stride, source=None)
        from vmr_video.media import decoder

        frames: dict[str, Any] = {**self.recipe.to_manifest(), "decoder": decoder()}
        return dataclasses.replace(made, **frames)


def _load_shapes(options: ExtractorOptions) -> ShapesObjects:
    if options.weights is not None:  # the folder of a data set, as for shapes-pixels
        from vmr_shapes.generate import read_spec

        return ShapesObjects(read_spec(options.weights))
    return ShapesObjects(LONG if options.fps == LONG.fps else SHORT)


def _like_shapes(manifest: BaseManifest) -> ExtractorOptions | None:
    from leorn.object_features.shapes_file import DETECTOR

    if not isinstance(manifest, ObjectManifest) or manifest.detector != DETECTOR:
        return None
    # files of version 0.1 say neither
    return ExtractorOptions(fps=manifest.fps or float(SHORT.fps), sampling="middle")


# --- detectors ---------------------------------------------------------------------------------------------


def _load_faster_rcnn(options: ExtractorOptions) -> Detector:
    from leorn.object_features.detectors import FasterRCNN

    return FasterRCNN.load(options)


def _load_rt_detr(options: ExtractorOptions) -> Detector:
    from leorn.object_features.detectors import RTDetr

    return RTDetr.load(options)


def _like_detector(manifest: BaseManifest, begins: str) -> ExtractorOptions | None:
    if not isinstance(manifest, ObjectManifest) or not (manifest.detector or "").startswith(begins):
        return None
    sampling: Sampling = "start" if manifest.sampling == "start" else "middle"
    return ExtractorOptions(weights=manifest.network, fps=manifest.fps or FPS, sampling=sampling)


def _like_faster_rcnn(manifest: BaseManifest) -> ExtractorOptions | None:
    return _like_detector(manifest, FASTER_RCNN)


def _like_rt_detr(manifest: BaseManifest) -> ExtractorOptions | None:
    return _like_detector(manifest, RT_DETR)


def detector_manifest(detector: str, recipe: FrameRecipe, **more: str | None) -> ObjectManifest:
    """The manifest of a detector's file."""
    from vmr_video.media import decoder

    facts: dict[str, Any] = {**recipe.to_manifest(), "decoder": decoder(), **more}
    return ObjectManifest(
        detector=detector,
        box_order="x1 y1 x2 y2",
        box_units="normalised",
        frame_sampling=f"one frame every {1 / recipe.fps:g} s, its {recipe.sampling}",
        stride_s=1 / recipe.fps,
        object_order=ORDER,
        creator=creator(),
        **facts,
    )


SHAPES_OBJECTS = ExtractorKind(
    name="shapes-objects",
    about="objects of the rendered videos of Shapes, for leorn (no weights)",
    load=_load_shapes,
    like=_like_shapes,
    write=write,
)
FASTER_RCNN_KIND = ExtractorKind(
    name="faster-rcnn",
    about="objects for leorn: torchvision's Faster R-CNN, ResNet-50 FPN, 1,024 columns of its box head",
    load=_load_faster_rcnn,
    like=_like_faster_rcnn,
    write=write,
)
RT_DETR_KIND = ExtractorKind(
    name="rt-detr",
    about="objects for leorn: transformers' RT-DETR, the last states of its decoder",
    load=_load_rt_detr,
    like=_like_rt_detr,
    write=write,
)
