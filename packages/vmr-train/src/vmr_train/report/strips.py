"""Film strips: small frames of a video, evenly spread along the time axis, as data URIs."""

from __future__ import annotations

import base64
import functools
import io
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vmr_common.timeline import clip_centres
from vmr_train.report.data import Pictures, Report, Shown
from vmr_train.report.timelines import time_end

FloatArray: TypeAlias = "NDArray[np.float64]"

HEIGHT = 96
"""Pixels that a picture is high at most: twice what a strip shows, for when it is enlarged."""
SMALL, QUALITY = 64, 60
STRIP_WIDTH = 480
BUDGET = 2_000_000


def film_strips(report: Report, shown: Sequence[Shown]) -> dict[str, list[str]]:
    """Thumbnails of the shown queries by query id: those of `Report.strips`, else from `Report.frames`.

    Together they stay under 2 MB: queries after that get none.
    """
    strips: dict[str, list[str]] = {}
    room = BUDGET
    for item in shown:
        strip = _strip(report, item)
        room -= sum(map(len, strip))
        if strip and room >= 0:
            strips[item.query.id] = strip
    return strips


def _strip(report: Report, item: Shown) -> list[str]:
    saved = report.strips.get(item.query.id)
    if saved or report.frames is None:
        return list(saved or ())
    found = report.frames(item.query.video)
    if found is None:
        return []
    end, overlay = time_end(item.query), report.draw
    if overlay is None:
        return thumbnails(*found, end=end)
    draw = functools.partial(overlay.draw, item.query)
    return thumbnails(*found, end=end, draw=draw, known=overlay.times(item.query))


def thumbnails(
    frames: Pictures,
    times: FloatArray,
    *,
    end: float,
    draw: Callable[[NDArray[np.uint8], FloatArray], NDArray[np.uint8]] | None = None,
    known: FloatArray | None = None,
) -> list[str]:
    """Eight (wide pictures) to twelve frames, the i-th of n being the one nearest to ``(i + 0.5) / n * end``.

    Args:
        frames: ``(F, H, W, 3)`` uint8, or what gives such an array for an array of rows; only what is shown is read.
        times: ``(F,)`` seconds.
        end: End of the time axis, seconds.
        draw: Draws on the chosen frames, given them and their times.
        known: ``(n,)`` times to one of which each frame is to be nearest, seconds; None: any frame will do.

    Returns:
        Data URIs: PNG of small pictures as they are, JPEG of others, at most 96 pixels high; none where there are no
        frames.

    Raises:
        ValueError: if the shapes do not fit.
    """
    times = np.asarray(times, dtype=np.float64)
    if times.shape != (len(frames),):
        raise ValueError(f"frames must be as many as times, found {len(frames)} and {times.shape}")
    if not len(times):
        return []
    high, wide = _checked(frames[np.zeros(1, np.int64)]).shape[1:3]
    if not high * wide:
        return []
    count = int(np.clip(round(2 * STRIP_WIDTH * high / (HEIGHT * wide)), 8, 12))
    centres = clip_centres(count, end)
    if known is not None and len(known):
        centres = known[_nearest(known, centres)]
    nearest = _nearest(times, centres)
    chosen = _checked(frames[nearest])
    drawn = chosen if draw is None else draw(chosen, times[nearest])
    return list(map(_data_uri, drawn))


def _nearest(times: FloatArray, wanted: FloatArray) -> NDArray[np.int64]:
    rows: NDArray[np.int64] = np.abs(times[None] - wanted[:, None]).argmin(axis=1)
    return rows


def _checked(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames must be (F, H, W, 3) uint8, found {frames.shape} {frames.dtype}")
    return frames


def _data_uri(frame: NDArray[np.uint8]) -> str:
    if len(frame) <= SMALL:
        kind, data = "png", png(frame)
    else:
        kind, data = "jpeg", _jpeg(shrink(frame, HEIGHT))
    return f"data:image/{kind};base64," + base64.b64encode(data).decode()


def _jpeg(frame: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def png(frame: NDArray[np.uint8]) -> bytes:
    """A frame ``(H, W, 3)`` as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "PNG", optimize=True)
    return file.getvalue()


def shrink(frame: NDArray[np.uint8], height: int = HEIGHT) -> NDArray[np.uint8]:
    """A frame ``(H, W, 3)`` averaged down to `height` rows, aspect kept; a smaller one stays as it is."""
    rows, columns = frame.shape[:2]
    if rows <= height:
        return frame
    size = (max(1, round(columns * height / rows)), height)
    return np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BOX))
