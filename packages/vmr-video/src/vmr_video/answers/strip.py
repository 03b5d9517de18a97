"""Small pictures of a video at chosen times, as JPEG."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vmr_video.answers.reading import TOLERANCE, opened, pictures, turn

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

HEIGHT = 96
"""Pixels that a picture is high: twice what a page shows."""
_WIDEST = 4.0  # widths of a picture in heights
_QUALITY = 62
_AHEAD = 8.0  # seconds that are rather decoded than jumped over


def grab(path: Path, times: Sequence[float], height: int = HEIGHT) -> dict[float, bytes]:
    """The pictures that show at these times (seconds), upright, as JPEG files; none where there is none.

    The video is gone through once, with a jump to a key frame wherever two times lie far apart.

    Raises:
        UserError: if the video cannot be read.
    """
    found: dict[float, bytes] = {}
    with opened(path) as (container, stream):
        aspect = float(stream.sample_aspect_ratio or 1) or 1.0
        frames: Iterator[tuple[float, VideoFrame]] = iter(())
        now: tuple[float, VideoFrame] | None = None
        after: tuple[float, VideoFrame] | None = None
        jumps, ended = True, False
        for time in sorted(set(times)):
            if not ended and jumps and (after is None or time > after[0] + _AHEAD):
                reached = -1.0 if after is None else after[0]
                frames = pictures(container, stream, time)
                now, after = None, next(frames, None)
                # without a key frame on the way the file is read from its beginning each time: once is enough
                jumps = after is None or after[0] > reached
            while after is not None and after[0] <= time + TOLERANCE:
                now, after = after, next(frames, None)
            ended = after is None
            shown = now or after
            if shown is not None:
                found[time] = _jpeg(shown[1], height, aspect)
    return found


def _jpeg(frame: VideoFrame, height: int, aspect: float) -> bytes:
    from PIL import Image

    picture = frame.to_image()
    turned = turn(frame)
    width = frame.width * aspect
    wide, high = (frame.height, width) if turned in (90, 270) else (width, frame.height)
    if turned:
        picture = picture.transpose(
            {90: Image.Transpose.ROTATE_270, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_90}[
                turned
            ]
        )
    size = (max(1, round(min(wide / max(high, 1), _WIDEST) * height)), height)
    file = io.BytesIO()
    picture.resize(size, Image.Resampling.BOX if high > 2 * height else Image.Resampling.BICUBIC).save(
        file, "JPEG", quality=_QUALITY
    )
    return file.getvalue()
