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
from vmr_train.report.data import Report, Shown
from vmr_train.report.timelines import time_end

FloatArray: TypeAlias = "NDArray[np.float64]"

HEIGHT = 48
STRIP_WIDTH = 480
BUDGET = 2_000_000


def film_strips(report: Report, shown: Sequence[Shown]) -> dict[str, list[str]]:
    """Thumbnails of the shown queries by query id; from `Report.frames`, else those of `Report.strips`.

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
    if report.frames is None:
        return list(report.strips.get(item.query.id, ()))
    found = report.frames(item.query.video)
    if found is None:
        return []
    draw = None if report.draw is None else functools.partial(report.draw, item.query)
    return thumbnails(*found, end=time_end(item.query), draw=draw)


def thumbnails(
    frames: NDArray[np.uint8],
    times: FloatArray,
    *,
    end: float,
    draw: Callable[[NDArray[np.uint8], FloatArray], NDArray[np.uint8]] | None = None,
) -> list[str]:
    """Eight (wide pictures) to twelve frames, the i-th of n being the one nearest to ``(i + 0.5) / n * end``.

    Args:
        frames: ``(F, H, W, 3)`` uint8.
        times: ``(F,)`` seconds.
        end: End of the time axis, seconds.
        draw: Draws on the chosen frames, given them and their times.

    Returns:
        PNG data URIs, at most 48 pixels high; none where there are no frames.

    Raises:
        ValueError: if the shapes do not fit.
    """
    frames, times = np.asarray(frames), np.asarray(times, dtype=np.float64)
    if (
        frames.ndim != 4
        or frames.shape[3] != 3
        or frames.dtype != np.uint8
        or times.shape != frames.shape[:1]
    ):
        raise ValueError(
            f"frames must be (F, H, W, 3) uint8 with times (F,), "
            f"found {frames.shape} {frames.dtype} and {times.shape}"
        )
    if not frames.size:
        return []
    count = int(np.clip(round(STRIP_WIDTH * frames.shape[1] / (HEIGHT * frames.shape[2])), 8, 12))
    centres = clip_centres(count, end)
    nearest = np.abs(times[None] - centres[:, None]).argmin(axis=1)
    chosen = frames[nearest] if draw is None else draw(frames[nearest], times[nearest])
    return ["data:image/png;base64," + base64.b64encode(png(shrink(frame))).decode() for frame in chosen]


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
