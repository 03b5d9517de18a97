"""Writes the embedded videos as real files, so that the way from a video file to an answer runs with no download."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.boundary import open_regular
from vmr_common.errors import UserError, listed, quoted
from vmr_common.io import atomic_path
from vmr_shapes.generate import GENERATOR, read_spec, with_progress
from vmr_shapes.render import Frames, render
from vmr_shapes.scene import make_scene
from vmr_shapes.spec import SPLITS, ShapesSpec, split_video

if TYPE_CHECKING:
    from types import ModuleType

CRF, SCALE = 3, 8
"""Quality of H.264 (1 is best), and the pixels a side that each pixel of Shapes becomes: one block of H.264."""
FULL_RANGE, BT709 = 2, 1
"""FFmpeg's numbers of them."""
RED, BLUE = 0.2126, 0.0722
"""Weights of the colours in the brightness, BT.709."""
QUARTERS = {(0, 0): 0.125, (1, 1): 0.375, (0, 1): 0.625, (1, 0): 0.875}
"""What is added to a value, in each quarter of its square, before it is rounded down."""
X264 = {
    "preset": "superfast",
    "bf": "0",
    "x264-params": "qpmin=1:aq-mode=0:no-psy=1:no-dct-decimate=1:no-deblock=1:trellis=0:weightp=0:no-mbtree=1",
}
"""Every block is kept as it is; x264 else drops what the eye does not see, and the features do."""
KEY_S = 2
"""Seconds from one key frame to the next: players seek, and files are cut, at those."""


Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Form:
    """How videos are written.

    Attributes:
        lossless: FFV1 in Matroska, whose pixels come back as they were; else H.264 in MP4, which every browser plays.
        crf: Quality of H.264, 1 (best) to 51; 0 would be a profile that browsers do not play.
        scale: Pixels a side that each pixel becomes, so that colours at half the resolution do not smear.
    """

    lossless: bool = False
    crf: int = CRF
    scale: int = SCALE

    @property
    def ending(self) -> str:
        """Of the file's name."""
        return ".mkv" if self.lossless else ".mp4"

    def mark(self, spec: ShapesSpec) -> str:
        """Comment in a file that says what it was made from: a file with another one is made anew."""
        coded = "lossless" if self.lossless else f"crf {self.crf}"
        values = ",".join(str(value) for value in spec.to_json().values()).replace(" ", "")
        return f"vmr-shapes, generator {GENERATOR}, {coded}, scale {self.scale}, {values}"


def chosen(spec: ShapesSpec, split: str, videos: Sequence[str] | None = None) -> list[str]:
    """The videos that are named, else all of a split.

    Raises:
        UserError: for a video that the data set does not have.
    """
    if videos is None:
        return spec.videos(split)
    for video in videos:
        try:
            split_video(video, spec)
        except ValueError:
            raise UserError(
                f"--videos: no video {quoted(video)}, there are {spec.videos(SPLITS[0])[0]} to "
                f"{spec.videos(SPLITS[-1])[-1]}"
            ) from None
    return list(dict.fromkeys(videos))


def files_of(folder: str | Path, out: str | Path, videos: Sequence[str]) -> list[Path]:
    """Writes videos of a Shapes folder as files that browsers play; those that stand there stay.

    Args:
        folder: As returned by `vmr_shapes.generate.ensure`.
        out: Folder of the files.
        videos: Their ids.

    Raises:
        UserError: as `read_spec`, `chosen` and `write_videos`.
    """
    spec = read_spec(folder)
    return write_videos(Path(out), spec, chosen(spec, SPLITS[-1], videos), Form())


def write_videos(out: Path, spec: ShapesSpec, videos: Sequence[str], form: Form) -> list[Path]:
    """Writes videos into a folder, each whole or not at all; one that stands there and was made alike stays.

    Raises:
        UserError: if the folder cannot be written or holds a file of such a name that is not ours, or PyAV is lacking.
    """
    av = _library()
    mark = form.mark(spec)
    paths = {video: out / f"{video}{form.ending}" for video in videos}
    standing = {video: _mark(av, path) for video, path in paths.items() if path.exists() or path.is_symlink()}
    foreign = [paths[video].name for video, found in standing.items() if not found.startswith("vmr-shapes,")]
    if foreign:
        raise UserError(f"{out}: holds {listed(foreign, 3)}, not written by vmr-shapes; name another folder")
    missing = [video for video in videos if standing.get(video) != mark]
    for video in with_progress(missing, len(missing), "videos"):
        with atomic_path(paths[video]) as temporary:
            _write(av, temporary, render(make_scene(video, spec)), spec.fps, form, mark)
    return list(paths.values())


def _library() -> ModuleType:
    try:
        import av
    except ImportError:
        raise UserError(
            'writing and reading video files needs PyAV: pip install "vmr-shapes[video]"'
        ) from None
    return av


def _mark(av: Any, path: Path) -> str:
    """The comment in a video file; empty for other files."""
    try:
        with open_regular(path), av.open(f"file:{path.absolute()}") as file:
            tags = {key.lower(): value for key, value in file.metadata.items()}
            return str(tags.get("comment", ""))
    except (OSError, ValueError, av.FFmpegError):
        return ""


def _write(av: Any, path: Path, frames: Frames, fps: int, form: Form, mark: str) -> None:
    codec, pixels, kind = ("ffv1", "bgr0", "matroska") if form.lossless else ("libx264", "yuv420p", "mp4")
    options = {} if form.lossless else {"crf": str(form.crf), **X264, "g": str(KEY_S * fps)}
    muxing = {} if form.lossless else {"movflags": "faststart"}
    with av.open(str(path), "w", format=kind, options=muxing | {"fflags": "+bitexact"}) as file:
        file.metadata["comment"] = mark
        stream = file.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = (side * form.scale for side in frames.shape[1:3])
        stream.pix_fmt = pixels
        context = stream.codec_context
        context.thread_count = 1  # the bytes do not depend on the machine's processors
        if not form.lossless:
            context.color_range, context.colorspace = FULL_RANGE, BT709
            context.color_primaries = context.color_trc = BT709
        for number, frame in enumerate(frames):
            picture = _rgb(av, frame, form.scale) if form.lossless else _yuv(av, frame, form.scale)
            picture.pts = number
            file.mux(stream.encode(picture))
        file.mux(stream.encode(None))


def _rgb(av: Any, frame: Frames, scale: int) -> Any:
    return av.VideoFrame.from_ndarray(_larger(frame, scale), format="rgb24")


def _yuv(av: Any, frame: Frames, scale: int) -> Any:
    """A picture in the full range of values, which keeps every level of grey."""
    colours = frame.astype(np.float64)
    red, blue = colours[..., 0], colours[..., 2]
    light = colours @ (RED, 1 - RED - BLUE, BLUE)
    chroma = (blue - light) / (2 - 2 * BLUE) + 128, (red - light) / (2 - 2 * RED) + 128
    if scale % 2:  # two by two pixels share a colour
        halves = (np.rint(_halved(_larger(plane, scale))) for plane in chroma)
    else:
        halves = (_between(plane, scale // 2) for plane in chroma)
    planes = [_between(light, scale), *halves]
    height, width = planes[0].shape
    whole = np.clip(np.concatenate([plane.ravel() for plane in planes]), 0, 255).astype(np.uint8)
    picture = av.VideoFrame.from_ndarray(whole.reshape(height * 3 // 2, width), format="yuv420p")
    picture.color_range, picture.colorspace = FULL_RANGE, BT709
    return picture


def _between(plane: Floats, side: int) -> Floats:
    """Each value as a square of whole numbers whose mean is nearest to it, where the square has four quarters."""
    if side % 2:
        return _larger(np.rint(plane), side)
    height, width = plane.shape
    quarters = np.empty((height, 2, width, 2))
    for (row, column), share in QUARTERS.items():
        quarters[:, row, :, column] = np.floor(plane + share)
    return _larger(quarters.reshape(2 * height, 2 * width), side // 2)


def _halved(plane: Floats) -> Floats:
    """Means of two by two."""
    return np.asarray((plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]) / 4)


def _larger(plane: NDArray[Any], side: int) -> NDArray[Any]:
    """Each pixel as a square of so many a side."""
    return np.repeat(np.repeat(plane, side, axis=0), side, axis=1)
