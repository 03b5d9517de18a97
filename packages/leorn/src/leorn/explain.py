"""The objects that the model attended to, drawn on the frames of a video.

A frame is a mean of its slots, weighted by their likeness to the query (the paper's attentive object fusion). Those
weights are drawn; what the objects leave is the sentinel's, whose share says that no object of the frame mattered.
"""

from __future__ import annotations

import logging
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from leorn.boxes import box_strip, draw_boxes
from leorn.config import Config
from leorn.data import Dataset, build_dataset
from leorn.inputs import InputFeatures
from leorn.method import LEORNMethod
from leorn.object_features.config import SHAPES_OBJECTS
from leorn.object_features.prepare import sampled_frames
from leorn.object_features.shapes_objects import patch_boxes
from vmr_common.errors import UserError
from vmr_common.features import npz
from vmr_common.io import atomic_path
from vmr_common.timeline import clip_centres
from vmr_common.types import Prediction, Query
from vmr_train.predict import batches_of
from vmr_train.report import FrameOverlay
from vmr_train.report.pictures import picture_folder
from vmr_train.report.strips import HEIGHT, shrink

logger = logging.getLogger(__name__)
FRAMES = 8
"""Most frames that are drawn of a moment."""
Pictures = NDArray[np.uint8]


@dataclass(frozen=True)
class View:
    """The attention over the objects of a video, for one query.

    Attributes:
        weights: ``(F, O)`` weight of each object of a frame.
        sentinel: ``(F,)`` weight of what is no object; zeros where the model has no sentinel.
        boxes: ``(F, O, 4)`` x1 y1 x2 y2 as stored.
        times: ``(F,)`` when the stored frames were seen that the model's frames were taken from, seconds.
        pixels: Whether the boxes are in pixels, not in fractions of the frame.
        shapes: Whether the video is one of Shapes, whose things can be found in its pictures.
    """

    weights: NDArray[np.float32]
    sentinel: NDArray[np.float32]
    boxes: NDArray[np.float32]
    times: NDArray[np.float64]
    pixels: bool = False
    shapes: bool = False

    def at(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        """The model's frame nearest to each time, seconds."""
        rows: NDArray[np.int64] = np.abs(self.times - np.asarray(times)[:, None]).argmin(axis=1)
        return rows

    def boxes_at(self, rows: NDArray[np.int64], pictures: Pictures) -> NDArray[np.float32]:
        """The boxes of some of the model's frames as fractions of the pictures that show them."""
        height, width = pictures.shape[1:3] if self.pixels else (1, 1)
        scale = np.array([width, height, width, height])
        boxes: NDArray[np.float32] = (self.boxes[rows] / scale).astype(np.float32)
        return where_seen(boxes, pictures) if self.shapes else boxes


def views(config: Config, method: LEORNMethod, videos: InputFeatures, dataset: Dataset) -> dict[str, View]:
    """The attention over objects for the queries of a dataset, by query id."""
    method.model.eval().cpu()
    manifest = videos.store.manifest
    pixels = manifest is not None and manifest.box_units == "pixels"
    shapes = Path(config.data.objects.path) == SHAPES_OBJECTS
    found: dict[str, View] = {}
    for batch in batches_of(dataset, config.train.eval_batch):
        with torch.no_grad():
            attention = method.attention(batch)  # (B, F, S)
        for query, weights in zip(batch.queries, attention, strict=True):
            boxes = videos.objects[query.video].boxes
            first = weights.shape[1] - boxes.shape[1]  # 1 with a sentinel in front
            sentinel = weights[:, :first].sum(axis=1)
            stored = videos.objects.store.length(query.video)
            times = clip_centres(stored, query.duration)[sampled_frames(stored, len(weights))]
            found[query.id] = View(weights[:, first:], sentinel, boxes, times, pixels, shapes)
    return found


def draw_attention(
    config: Config, method: LEORNMethod, videos: InputFeatures, glove: Path, queries: Sequence[Query]
) -> FrameOverlay:
    """Function with which the report draws the objects that mattered on the film strips of some queries."""
    dataset = build_dataset(config, method.preprocessor, videos, glove, queries)
    known = views(config, method, videos, dataset)

    def draw(query: Query, pictures: Pictures, times: NDArray[np.float64]) -> Pictures:
        view = known.get(query.id)
        if view is None:
            return pictures
        rows = view.at(times)
        strength = view.weights[rows] / max(float(view.weights.max()), 1e-12)
        small = np.stack([shrink(picture, HEIGHT) for picture in pictures])
        boxes = view.boxes_at(rows, pictures)
        return np.stack([draw_boxes(*each) for each in zip(small, boxes, strength, strict=True)])

    def times(query: Query) -> NDArray[np.float64] | None:
        return known[query.id].times if query.id in known else None

    return FrameOverlay(draw, times)


def where_seen(boxes: NDArray[np.float32], pictures: Pictures) -> NDArray[np.float32]:
    """Boxes of things of Shapes, moved to where each picture shows the thing; empty where it does not.

    An object stands for several frames, with the box of one of them: in the others the thing may be elsewhere, or not
    be seen at all while it blinks.

    Args:
        boxes: ``(n, O, 4)`` fractions of the frame.
        pictures: ``(n, H, W, 3)``.
    """
    found = np.zeros_like(boxes)
    for row, picture in enumerate(pictures):
        shown = patch_boxes(picture)
        if len(shown):
            overlap = _overlap(boxes[row], shown)  # (O, M)
            there = overlap.max(axis=1) > 0
            found[row, there] = shown[overlap.argmax(axis=1)[there]]
    return found


def _overlap(boxes: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Area that each of ``(O, 4)`` boxes shares with each of ``(M, 4)`` others, by the area of both, ``(O, M)``."""
    sides = np.minimum(boxes[:, None, 2:], others[None, :, 2:]) - np.maximum(
        boxes[:, None, :2], others[None, :, :2]
    )
    shared = sides.clip(0).prod(axis=2)
    areas = [(each[:, 2:] - each[:, :2]).prod(axis=1) for each in (boxes, others)]
    ratio: NDArray[np.float32] = shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-9)
    return ratio


def moment_picture(
    view: View, moment: NDArray[np.float64], pictures: Pictures, times: NDArray[np.float64]
) -> tuple[bytes, str]:
    """The frames of a moment that hold the most attended objects, as a PNG file, and a line about them.

    Args:
        view: The attention over its objects.
        moment: Start and end, seconds.
        pictures: ``(n, H, W, 3)`` frames of the video.
        times: ``(n,)`` their times, seconds.
    """
    inside = np.flatnonzero((view.times >= moment[0]) & (view.times <= moment[1]))
    if not len(inside):  # shorter than a frame of the model
        inside = view.at(np.array([moment.mean()]))
    best = np.argsort(-view.weights[inside].max(axis=1, initial=0.0), kind="stable")[:FRAMES]
    rows = inside[np.sort(best)]
    shown = pictures[np.abs(times[None] - view.times[rows, None]).argmin(axis=1)]
    weights = view.weights[rows]
    strength = weights / max(float(weights.max(initial=0.0)), 1e-12)
    objects, sentinel = view.weights[inside].sum(axis=1).mean(), view.sentinel[inside].mean()
    line = (
        f"{len(rows)} of {len(inside)} frames of {moment[0]:.1f} to {moment[1]:.1f} s; of the attention in the moment "
        f"{objects:.0%} is on objects, {sentinel:.0%} on the sentinel"
    )
    return box_strip(shown, view.boxes_at(rows, shown), strength), line


def explain(
    config: Config,
    method: LEORNMethod,
    videos: InputFeatures,
    dataset: Dataset,
    predictions: Sequence[Prediction],
    given: Namespace,
) -> None:
    """Writes ``--explain OUT.png``, if asked for, for the best moment of the one query, and logs a line about it.

    Raises:
        UserError: if more than one query is asked, or the video's frames are not at hand.
    """
    if given.explain is None:
        if given.frames is not None:
            raise UserError("--frames says where the frames for --explain are: give --explain OUT.png too")
        return
    if len(predictions) != 1:
        raise UserError(
            f"--explain draws one query, found {len(predictions)}: give one video and one --query"
        )
    query, prediction = dataset.queries[0], predictions[0]
    folder = None if given.frames is None else Path(given.frames)
    found = frames_of(config, given.root, videos, query, prediction.moments[0], folder)
    if found is None:
        raise UserError("--explain needs the frames of the video: give their folder with --frames")
    pictures, times = found
    view = views(config, method, videos, dataset)[query.id]
    png, line = moment_picture(view, prediction.moments[0], pictures, times)
    with atomic_path(given.explain) as temporary:
        temporary.write_bytes(png)
    logger.info("%s: %s", given.explain, line)


def frames_of(
    config: Config,
    root: Path,
    videos: InputFeatures,
    query: Query,
    moment: NDArray[np.float64],
    folder: Path | None,
) -> tuple[Pictures, NDArray[np.float64]] | None:
    """Frames of a query's video and their times: of a folder, of the video file, or rendered; None without any.

    Of a video file they are those of the moment alone.

    Raises:
        UserError: as `read_frames`, or if Shapes has no such video.
    """
    if folder is not None:
        return read_frames(folder, query)
    if (path := videos.store.files.get(query.video)) is not None:
        manifest = videos.store.manifest
        return file_frames(path, moment, square=bool(manifest and (manifest.crop or "").startswith("centre")))
    if Path(config.data.objects.path) != SHAPES_OBJECTS or query.video.startswith("objects-"):
        return None
    from vmr_shapes import frames

    return frames(root / SHAPES_OBJECTS.parent, query.video)


def file_frames(
    path: Path, moment: NDArray[np.float64], *, square: bool
) -> tuple[Pictures, NDArray[np.float64]]:
    """Frames of a moment of a video file, some more than are drawn, and their times; `square` ones of its middle."""
    from vmr_video.frames import frames
    from vmr_video.recipe import FrameRecipe

    start, end = moment.tolist()
    fps = min(max(4 * FRAMES / max(end - start, 0.1), 0.1), 8.0)
    recipe = FrameRecipe(fps=fps, sampling="start", size=2 * HEIGHT, crop=square, filter="area")
    found: list[Pictures] = []
    times: list[float] = []
    seen = 0
    for chunk in frames(path, recipe):
        now = (seen + np.arange(len(chunk))) / fps
        seen += len(chunk)
        # the frame that shows when the moment begins is the last one before it
        kept = (now > start - 1 / fps) & (now < end)
        found.append(chunk[kept])
        times += now[kept].tolist()
        if now[-1] >= end:
            break
    return np.concatenate(found), np.array(times)


def read_frames(folder: Path, query: Query) -> tuple[Pictures, NDArray[np.float64]]:
    """The frames of a query's video and their times, taken to be evenly spread over the video.

    Args:
        folder: Holds ``VIDEO.npy``, ``(n, H, W, 3)`` uint8, or a folder ``VIDEO`` of pictures in the order of their
            names.
        query: Names the video and its duration.

    Raises:
        UserError: if there are no such frames or they cannot be read.
    """
    array, pictures = folder / f"{query.video}.npy", folder / query.video
    if array.is_file():
        found = npz.read_file(array, "r", "not an array of frames")
        if found.ndim != 4 or found.shape[3] != 3 or found.dtype != np.uint8 or 0 in found.shape:
            raise UserError(f"{array}: expected frames (n, H, W, 3) uint8, found {found.shape} {found.dtype}")
    elif pictures.is_dir():
        files = picture_folder(pictures)
        found = files[np.arange(len(files))]
    else:
        raise UserError(
            f"{folder}: no frames of video {query.video!r} (neither {array.name} nor a folder of pictures)"
        )
    return found, clip_centres(len(found), query.duration)
