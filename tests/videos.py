"""Videos made on the spot, of every kind that files come in."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

CRISP = {"libx264": {"crf": "18", "preset": "veryfast"}, "libx265": {"log-level": "error", "preset": "fast"}}


def pictures(count: int, width: int = 64, height: int = 48, seed: int = 0) -> np.ndarray:
    """``(count, height, width, 3)`` uint8: a gradient that moves, with a bright square; no two pictures alike."""
    drawn = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    out = np.empty((count, height, width, 3), np.uint8)
    for n in range(count):
        out[n] = np.stack([(4 * x + 9 * n) % 256, (5 * y + 5 * n) % 256, (x + y + 17 * n) % 256], axis=-1)
        top, left = (drawn.integers(0, max(1, side - 8)) for side in (height, width))
        out[n, top : top + 8, left : left + 8] = (255, 255 - n % 256, n * 7 % 256)
    return out


class Pictures:
    """A sequence of pictures, each drawn when it is asked for."""

    def __init__(self, draw: Callable[[int], np.ndarray], count: int) -> None:
        self.draw, self.count = draw, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> np.ndarray:
        if place >= self.count:
            raise IndexError(place)
        return self.draw(place)


def write_video(
    path: Path,
    frames: np.ndarray | Sequence[np.ndarray],
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    rate: int | Fraction = 10,
    times: Sequence[int] | None = None,
    base: Fraction | None = None,
    options: dict[str, str] | None = None,
    rotation: int | None = None,
    sound: float = 0.0,
    late: float = 0.0,
    change: Callable[[Any], None] = lambda stream: None,
    container: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Writes pictures to a video.

    Args:
        times: Of each picture, in units of `base`; None: one after the other at `rate`.
        sound: Seconds of a tone beside the pictures.
        late: Seconds by which the pictures begin after the sound.
        change: Sets what else the stream of pictures has.
    """
    try:
        av.codec.Codec(codec, "w")
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"this build of FFmpeg has no encoder {codec}")
    base = base or 1 / Fraction(rate)
    with av.open(str(path), "w", options=container or {}) as file:
        file.metadata.update(metadata or {})
        stream = file.add_stream(codec, rate=rate, options=options or CRISP.get(codec, {}))
        stream.width, stream.height, stream.pix_fmt = frames[0].shape[1], frames[0].shape[0], pixels
        stream.codec_context.time_base = base
        stream.time_base = base
        stream.codec_context.thread_count = 1
        if rotation is not None:
            stream.set_display_rotation(rotation)
        change(stream)
        voice = file.add_stream("aac", rate=16_000, layout="mono") if sound else None
        first = round(late / base)
        for n, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = first + (n if times is None else times[n]), base
            file.mux(stream.encode(frame))
        if voice is not None:
            hum(file, voice, sound)
        file.mux(stream.encode(None))
    return path


def hum(file: Any, voice: Any, seconds: float) -> None:
    """A tone."""
    for at in range(0, round(seconds * 16_000), 1024):
        wave = np.sin((at + np.arange(1024)) / 20)[None].astype(np.float32)
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, at, Fraction(1, 16_000)
        file.mux(voice.encode(frame))
    file.mux(voice.encode(None))


def write_sound(path: Path, seconds: float = 1.0) -> Path:
    """A file without pictures."""
    with av.open(str(path), "w") as file:
        hum(file, file.add_stream("aac", rate=16_000, layout="mono"), seconds)
    return path
