"""The frames of a video that a recipe asks for, equal to those of the ffmpeg program to the last bit."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError
from vmr_video.media import MOST_S, Opened, VideoInfo, opened, stamp_of
from vmr_video.recipe import FrameRecipe
from vmr_video.sampling import Sampler, rate_of
from vmr_video.scaling import Scaler

if TYPE_CHECKING:
    from av import VideoFrame

Frames = NDArray[np.uint8]

CHUNK_BYTES = 64 << 20
"""Bytes of a chunk of frames at the most, but for one frame."""
MOST_GAP_S = 6 * 3600.0
"""Seconds between two pictures at the most."""
REORDERED = 16
"""Pictures that may be decoded before one that shows earlier: of H.264 at the most."""
_MISSING, _MISSING_S = 0.05, 1.0  # a video that ends by more of both earlier than it says is cut off
_BEYOND, _BEYOND_S = 0.1, 60.0  # and one that goes on for more of both has damaged times
logger = logging.getLogger(__name__)


def frames(path: str | Path, recipe: FrameRecipe, *, chunk: int = 32) -> Iterator[Frames]:
    """Frames ``(n, H, W, 3)`` uint8 RGB of a video, at most `chunk` at a time, decoded in this process.

    Raises:
        UserError: if the file is no video (see `media.probe`), ends much earlier than it says, or its frames would have
            too many pixels.
    """
    with opened(path, threads=0) as video:
        yield from FrameReader(video, recipe, chunk)


class FrameReader:
    """Iterates over chunks of the frames of one video; `info` is complete at the end.

    Calls `step` at each picture that is decoded, whether it is taken or not.
    """

    def __init__(
        self, video: Opened, recipe: FrameRecipe, chunk: int, step: Callable[[], object] = lambda: None
    ) -> None:
        self._video, self._recipe, self._chunk = video, recipe, chunk
        self._step = step
        self._rate = rate_of(recipe)
        self.info: VideoInfo = video.info
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Frames]:
        scaled = Scaler(self._recipe, str(self._video.info.path))
        parts: list[tuple[Frames, int]] = []
        count, limit = 0, self._chunk
        for picture, repeats in self._sampled():
            frame = scaled(picture)
            limit = max(1, min(self._chunk, CHUNK_BYTES // frame.nbytes))
            while repeats:
                taken = min(repeats, limit - count)
                parts.append((frame, taken))
                count, repeats = count + taken, repeats - taken
                if count == limit:
                    yield _stacked(parts, count)
                    parts, count = [], 0
        if parts:
            yield _stacked(parts, count)

    def _sampled(self) -> Iterator[tuple[VideoFrame, int]]:
        """The pictures that are taken, each with how often."""
        video, base, origin = self._video, self._video.base, self._video.origin
        shift = round(origin / base)
        sampler: Sampler[VideoFrame] = Sampler(self._rate * base, self._recipe.sampling)
        rate = max(Fraction(video.info.fps or 25).limit_denominator(100_000), Fraction(1, 100_000))
        spare = round(1 / (rate * base))
        end, unit, declared = 0, float(base), self.info.declared
        most = min(MOST_S, math.inf if declared is None else declared * (1 + _BEYOND) + _BEYOND_S)
        add, step = sampler.add, self._step
        video.decoding.needless = _Needless(sampler, shift)
        for picture in video.pictures:
            step()
            stamp = stamp_of(picture)
            stamp = end if stamp is None else stamp - shift
            end = stamp + (picture.duration or spare)
            now, before = stamp * unit, self.seconds
            self.seconds = now
            if now > most or now - before > MOST_GAP_S:  # it would be filled with copies of one picture
                raise UserError(f"{self.info.path}: {self._strange(before)}: its times are damaged")
            yield from add(stamp, picture)
        if end * unit > most:  # nor by the length that the last one claims
            raise UserError(
                f"{self.info.path}: its last picture ends at second {end * unit:.6g}: its times are damaged"
            )
        yield from sampler.end(end)
        if sampler.taken == 0:
            raise UserError(
                f"{self.info.path}: lasts {float(end * base):.3g} s, too short for one frame at "
                f"{self._recipe.fps:g} a second"
            )
        self._finish(float(end * base), float(video.damage.end - origin))

    def _strange(self, before: float) -> str:
        if self.seconds - before > MOST_GAP_S:
            return f"nothing from second {before:.6g} to second {self.seconds:.6g}"
        lasts = MOST_S if self.info.declared is None else self.info.declared
        return f"a picture at second {self.seconds:.6g} of {lasts:.6g}"

    def _finish(self, end: float, packets_end: float) -> None:
        video, info = self._video, self.info
        damage, declared = video.damage, info.declared
        if damage.packets:
            what = f"{damage.packets} damaged packet{'s' if damage.packets > 1 else ''} left out"
            logger.warning("%s: %s (%s)", info.path, what, damage.reason)
        if declared is not None:
            reached = end if video.of_pictures else max(end, packets_end)
            if declared - reached > max(_MISSING * declared, _MISSING_S):
                raise UserError(
                    f"{info.path}: ends at second {reached:.1f} of {declared:.1f}: cut off or damaged"
                    + (f" ({damage.reason})" if damage.reason else "")
                )
        if info.duration == 0:
            self.info = replace(info, duration=end)


class _Needless:
    """Knows of a picture that another one, which shows later and is decoded already, stands for the same frame."""

    def __init__(self, sampler: Sampler[VideoFrame], shift: int) -> None:
        self._sampler, self._shift = sampler, shift
        self._known: deque[tuple[int, int]] = deque(maxlen=REORDERED)

    def __call__(self, stamp: int) -> bool:
        """Asked for each picture in the order of decoding."""
        time = stamp - self._shift
        place = self._sampler.place(time)
        needless = any(time < other and place == there for other, there in self._known)
        self._known.append((time, place))
        return needless


def _stacked(parts: list[tuple[Frames, int]], count: int) -> Frames:
    chunk = np.empty((count, *parts[0][0].shape), np.uint8)
    at = 0
    for frame, repeats in parts:
        chunk[at : at + repeats] = frame
        at += repeats
    return chunk
