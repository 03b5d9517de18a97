"""Video files, as others made them: opened without following anything out of them, and described."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from vmr_common.boundary import reason
from vmr_common.errors import UserError, is_text, quoted
from vmr_video.containers import best_stream, open_container, require_pixels
from vmr_video.pictures import Damage, Decoding, decoded
from vmr_video.rotation import upright

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

MOST_S = 30 * 24 * 3600.0
"""Seconds of a video at the most."""
_ENDINGS = (
    "3gp asf avi divx f4v flv gif m2t m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogm ogv rm rmvb ts vob webm wmv"
)
SUFFIXES = frozenset(f".{ending}" for ending in _ENDINGS.split(" "))
"""Endings of the files that are taken from a folder; a file that is named itself may have any."""

_DECLARING = frozenset({"mov", "matroska", "avi", "flv", "asf"})
"""Formats whose header says how long the video is."""
logger = logging.getLogger(__name__)


def decoder() -> str:
    """The program and version that make pictures of videos, for manifests: ``PyAV 18.1.0, FFmpeg 8.1.2``."""
    import av

    return f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info.removeprefix('n')}"


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """The facts that a video file states about its pictures.

    Attributes:
        path: The file.
        duration: Seconds from the container's start, which is time 0 of players, to the end of the last picture.
        start: Seconds from there to the first picture.
        width: Pixels, of a picture as it is shown: rotated as the file says.
        height: Likewise.
        fps: Pictures per second on average; 0 where the file does not say.
        codec: FFmpeg's name of it, e.g. ``h264``.
        rotation: Degrees by which the stored pictures are turned to be shown, counter-clockwise.
        declared: Seconds that the file's header says it lasts; None where it says nothing that can be held against it.
    """

    path: Path
    duration: float
    start: float
    width: int
    height: int
    fps: float
    codec: str
    rotation: int = 0
    declared: float | None = None


@dataclass
class Opened:
    """A video that is open.

    Attributes:
        pictures: All its pictures from the first on, decoded one after the other; times stand in `stamp_of`.
        decoding: Says which of them need not be decoded.
        damage: Grows while they are decoded.
        base: Seconds of one unit of `stamp_of`.
        origin: Seconds of the container's start.
        of_pictures: Whether the declared duration is that of the pictures, not that of the whole file.
    """

    info: VideoInfo
    pictures: Iterator[VideoFrame]
    decoding: Decoding
    damage: Damage
    base: Fraction
    origin: Fraction
    of_pictures: bool


def probe(path: str | Path) -> VideoInfo:
    """Describes a video file.

    Raises:
        UserError: if it cannot be read, is no regular file or no video, or no picture of it can be decoded.
    """
    with opened(path) as video:
        info = video.info
    return replace(info, duration=_scanned(info.path)) if info.duration == 0 else info


@contextlib.contextmanager
def opened(path: str | Path, threads: int = 1) -> Iterator[Opened]:
    """Opens a video and decodes its first picture; nothing that it refers to is opened.

    Its `info` has the duration 0 where nothing declares one. Decoding takes so many `threads`; 0: as many as there are
    processors.

    Raises:
        UserError: as `probe`; also while `pictures` are read.
    """
    from av.stream import Discard

    path = Path(path)
    with open_container(path) as container:
        stream = best_stream(container, path)
        stream.codec_context.thread_count = threads
        stream.codec_context.thread_type = "AUTO"
        damage = Damage()
        others = [] if _length(container, stream)[1] else list(container.streams.audio)
        for other in container.streams:
            if other is not stream and other not in others:
                other.discard = Discard.all  # nothing of it is read from the disk
        decoding = Decoding()
        pictures = decoded(container, stream, others, path, decoding, damage)
        first = next(pictures, None)
        if first is None:
            why = f" ({damage.reason})" if damage.reason else ""
            raise UserError(f"{path}: no picture of it can be decoded{why}")
        yield _described(path, container, stream, first, itertools.chain([first], pictures), decoding, damage)


def _described(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    first: VideoFrame,
    pictures: Iterator[VideoFrame],
    decoding: Decoding,
    damage: Damage,
) -> Opened:
    width, height = upright(first)
    require_pixels(width, height, str(path))
    base, origin = _clock(container, stream)
    stamp = stamp_of(first)
    start = max(0.0, float(stamp * base - origin)) if stamp is not None else 0.0
    length, of_pictures = _length(container, stream)
    if not 0 <= (length or 0) <= MOST_S:
        raise UserError(f"{path}: says that it lasts {length:.6g} s, expected at most {MOST_S:.0f}")
    rate = stream.average_rate or stream.guessed_rate
    info = VideoInfo(
        path=path,
        duration=length or 0.0,
        start=start,
        width=width,
        height=height,
        fps=float(rate) if rate else 0.0,
        codec=str(stream.codec_context.codec.canonical_name),
        rotation=first.rotation,
        declared=None if _DECLARING.isdisjoint(container.format.name.split(",")) else length,
    )
    return Opened(info, pictures, decoding, damage, base, origin, of_pictures)


def _clock(container: InputContainer, stream: VideoStream) -> tuple[Fraction, Fraction]:
    """Seconds of a unit of the stream's times, and seconds of the container's start."""
    return stream.time_base or Fraction(1, 1_000_000), Fraction(container.start_time or 0, 1_000_000)


def stamp_of(frame: VideoFrame) -> int | None:
    """The time at which a picture shows, in units of its stream."""
    stamp = frame.pts if frame.pts is not None else frame.dts
    return None if stamp is None else int(stamp)


def _length(container: InputContainer, stream: VideoStream) -> tuple[float | None, bool]:
    """Seconds from the container's start to the end of the pictures as declared, and whether of the pictures alone."""
    base, origin = _clock(container, stream)
    if stream.duration is not None and stream.duration > 0:
        first = stream.start_time * base if stream.start_time is not None else origin
        return float(first + stream.duration * base - origin), True
    tag = _seconds(next((v for k, v in stream.metadata.items() if k.upper() == "DURATION"), ""))
    if tag:
        return tag, True  # of Matroska: the end of the last picture
    if container.duration is not None and container.duration > 0:
        return container.duration / 1e6, False
    return None, False


def _seconds(text: str) -> float | None:
    """The seconds of ``HH:MM:SS.fraction``, or None for another text."""
    parts = text.split(":")
    try:
        hours, minutes, seconds = int(parts[0]), int(parts[1]), float(parts[2])
    except (ValueError, IndexError):
        return None
    total = hours * 3600 + minutes * 60 + seconds
    return total if math.isfinite(total) and total > 0 else None


def _scanned(path: Path) -> float:
    """The end of the last picture by its packets, where nothing else says it."""
    import av

    end, count = Fraction(0), 0
    with open_container(path) as container:
        stream = best_stream(container, path)
        origin = Fraction(container.start_time or 0, 1_000_000)
        try:
            for packet in container.demux(stream):
                count += packet.size > 0
                if packet.pts is not None:
                    end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base - origin)
        except av.FFmpegError as error:
            logger.debug("%s: %s", path, error)
        return float(end if end > 0 else count / (stream.guessed_rate or stream.average_rate or Fraction(25)))


def video_files(paths: Iterable[str | Path]) -> list[tuple[str, Path]]:
    """The videos of files and folders, by id: the file's name without its ending; sorted by it.

    Folders are searched through, but for hidden ones and links to folders; files in them are told by `SUFFIXES`. That
    one of them cannot be opened is found out when it is read, so that a bad file does not stop a thousand.

    Raises:
        UserError: if a path is not there or neither a regular file nor a folder, a folder holds no video, or two files
            have one id.
    """
    found: dict[str, Path] = {}
    for path in map(Path, paths):
        for file in files_of(path):
            name = file.stem
            if not is_text(name):
                raise UserError(f"{quoted(str(file))}: a name that is not UTF-8 text")
            other = found.setdefault(name, file)
            if other != file and not _same(other, file):
                raise UserError(
                    f"two videos with the id {quoted(name)}: {other} and {file}; rename one of them"
                )
    return sorted(found.items())


def _same(left: Path, right: Path) -> bool:
    """True if two names are of one file."""
    with contextlib.suppress(OSError):  # a link to nothing
        return os.path.samefile(left, right)
    return False


def files_of(path: Path) -> list[Path]:
    """A file, or the videos of a folder, whatever their ids; see `video_files`."""
    try:
        kind = os.stat(path).st_mode
    except FileNotFoundError:
        what = "a link to a file that does not exist" if path.is_symlink() else "no such file or folder"
        raise UserError(f"{path}: {what}, expected videos") from None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from None
    if stat.S_ISREG(kind):
        return [path]
    if not stat.S_ISDIR(kind):
        raise UserError(f"{path}: expected a video file or a folder of videos, found a pipe or a device")
    found = []
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        shown = (name for name in names if not name.startswith("."))
        found += [Path(folder, name) for name in shown if Path(name).suffix.lower() in SUFFIXES]
    if not found:
        raise UserError(f"{path}: holds no video, expected files ending in {', '.join(sorted(SUFFIXES))}")
    return found
