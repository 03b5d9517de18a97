"""Frames of many videos, chunk by chunk; a video that cannot be read fails alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vmr_common.errors import UserError
from vmr_video.frames import FrameReader, Frames
from vmr_video.media import VideoInfo, opened
from vmr_video.recipe import FrameRecipe


@dataclass(frozen=True, eq=False)
class Decoded:
    """Some frames of a video ``(n, H, W, 3)``, in order; `info` comes with the last."""

    video: str
    frames: Frames
    last: bool
    info: VideoInfo | None


@dataclass(frozen=True)
class Failed:
    """A video that cannot be read, and why, in one line."""

    video: str
    reason: str


def decode_all(
    videos: Sequence[tuple[str, Path]], recipe: FrameRecipe, *, workers: int, chunk: int, time_limit: float
) -> Iterator[Decoded | Failed]:
    """Yields the frames of all videos, in this process, one video after the other."""
    for video, path in videos:
        try:
            with opened(path) as source:
                reader = FrameReader(source, recipe, chunk)
                held: Frames | None = None
                for taken in reader:
                    if held is not None:
                        yield Decoded(video, held, False, reader.info)
                    held = taken
                size = (recipe.size, recipe.size) if recipe.crop else (0, 0)
                yield Decoded(
                    video, np.empty((0, *size, 3), np.uint8) if held is None else held, True, reader.info
                )
        except UserError as error:
            yield Failed(video, str(error))
