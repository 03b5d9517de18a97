"""Video files, as others made them: opened without following anything out of them, and described."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmr_common.boundary import open_regular, reason
from vmr_common.errors import UserError, is_text, quoted
from vmr_video.rotation import upright

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.stream import VideoStream

MOST_PIXELS = 1 << 26
"""Pixels of a picture at the most, also of one that is scaled: twice those of 8K."""
MOST_S = 30 * 24 * 3600.0
"""Seconds of a video at the most."""
OPEN_S = 60.0
"""Seconds that reading may take without an answer of the disk or the network that holds the file."""
PROBED = 500
"""Packets at the most in which the first picture must be found."""
_ENDINGS = (
    "3gp asf avi divx f4v flv gif m2t m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogm ogv rm rmvb ts vob webm wmv"
)
SUFFIXES = frozenset(f".{ending}" for ending in _ENDINGS.split(" "))
"""Endings of the files that are taken from a folder; a file that is named itself may have any."""

# Demuxers that read one file. Left out: playlists and descriptions, which open others (HLS, DASH, concat, SDP, IMF),
# devices, and pictures, which FFmpeg takes for videos of one frame.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,kux,asf,ogg,nut,h264,hevc,h263,h261,"
    "m4v,vc1,vvc,av1,obu,ivf,rm,ivr,mxf,gxf,dv,gif,wtv,yuv4mpegpipe,swf,cavsvideo,dirac,dnxhd,nsv,nuv,amv,bink,smk,ty,"
    "pva,lxf,mjpeg"
)
_DECLARING = frozenset({"mov", "matroska", "avi", "flv", "asf"})
"""Formats whose header says how long the video is."""
_JUMPING = frozenset({"mpegts", "mpeg", "rm", "nsv", "wtv", "ty"})
"""Formats whose times may begin anew in the middle (FFmpeg's AVFMT_TS_DISCONT)."""
_JUMP_S, _STEP_BACK_S = 10.0, 0.1
_PICTURES = {
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"BM": "BMP",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"8BPS": "Photoshop",
}
_REFERENCES = (b"#EXTM3U", b"ffconcat", b"<MPD", b"v=0", b"[playlist]", b"<?xml", b"<smil", b"<ASX", b"<asx")
_GEN_PTS = 1  # AVFMT_FLAG_GENPTS, which PyAV sets
logger = logging.getLogger(__name__)


def decoder() -> str:
    """The program and version that make pictures of videos, for manifests: ``PyAV 18.1.0, FFmpeg 8.1.2``."""
    import av

    return f"PyAV {av.__version__}, FFmpeg {av.ffmpeg_version_info.removeprefix('n')}"


def __getattr__(name: str) -> str:
    if name == "DECODER":  # PyAV is slow to import
        return decoder()
    raise AttributeError(name)


@dataclass(frozen=True, kw_only=True)
class VideoInfo:
    """What a video file says of its pictures.

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
        damage: Grows while they are decoded.
        base: Seconds of one unit of `stamp_of`.
        origin: Seconds of the container's start.
        of_pictures: Whether the declared duration is that of the pictures, not that of the whole file.
    """

    info: VideoInfo
    pictures: Iterator[VideoFrame]
    damage: Damage
    base: Fraction
    origin: Fraction
    of_pictures: bool


@dataclass
class Damage:
    """What went wrong while a video was decoded: packets that were left out, and the end of the file's last one."""

    packets: int = 0
    reason: str = ""
    end: Fraction = Fraction(0)

    def __call__(self, error: BaseException) -> None:
        """Counts a packet."""
        self.packets += 1
        self.reason = self.reason or _plain(error)


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
        pictures = _decoded(container, stream, others, path, damage)
        first = next(pictures, None)
        if first is None:
            why = f" ({damage.reason})" if damage.reason else ""
            raise UserError(f"{path}: no picture of it can be decoded{why}")
        yield _described(path, container, stream, first, itertools.chain([first], pictures), damage)


@contextlib.contextmanager
def open_container(path: Path) -> Iterator[InputContainer]:
    """Opens a regular file with demuxers that open no other.

    Raises:
        UserError: if it is no video that can be read.
    """
    head = _head(path)
    import av

    # Only this very file is opened: by a protocol that reads files, with demuxers that open no other.
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "file", "max_streams": "200"}
    try:
        container = av.open(
            f"file:{path.absolute()}",
            options=options | {"max_pixels": str(MOST_PIXELS)},
            metadata_errors="replace",
            timeout=OPEN_S,
        )
    except Exception as error:  # libraries raise what a damaged part runs into
        raise UserError(f"{path}: {_not_a_video(head, error)}") from None
    try:
        container.flags &= (
            ~_GEN_PTS
        )  # as FFmpeg's program has it: times that are missing are those of decoding
        yield container
    finally:
        container.close()


def _head(path: Path) -> bytes:
    """The first bytes of a regular file that is not empty."""
    try:
        with open_regular(path) as file:
            head = file.read(512)
    except FileNotFoundError:
        dangling = "a link to a file that does not exist" if path.is_symlink() else "no such file"
        raise UserError(f"{path}: {dangling}, expected a video file") from None
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from None
    if not head:
        raise UserError(f"{path}: the file is empty, expected a video")
    return head


def _not_a_video(head: bytes, error: BaseException) -> str:
    for magic, name in _PICTURES.items():
        if head.startswith(magic):
            return f"a {name} picture, expected a video"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP picture, expected a video"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(_REFERENCES):
        return "a list or description that refers to other files, which are never followed; expected a video"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide"):
        return f"not a video that can be read: cut off, or without its index ({reason(error)})"
    if _too_slow(error):
        return f"reading it took more than {OPEN_S:.0f} s"
    if "Invalid argument" in str(error):  # of a demuxer that is not among ours
        return "not a video of a format that is read"
    return f"not a video that can be read ({_plain(error)})"


def _too_slow(error: BaseException) -> bool:
    return "Immediate exit" in str(error)


def _plain(error: BaseException) -> str:
    """FFmpeg's reason without the file's name, which the message begins with."""
    text = reason(error)
    text = text.split(": '", 1)[0]
    return text.partition("] ")[2] or text


def best_stream(container: InputContainer, path: Path) -> VideoStream:
    """The stream that FFmpeg's program takes too: the default one if there is one, then the largest.

    Raises:
        UserError: if there is none, or its pictures are too large or cannot be decoded.
    """
    from av.stream import Disposition

    covers = Disposition.attached_pic | Disposition.timed_thumbnails
    found = [stream for stream in container.streams.video if not stream.disposition & covers]
    if not found:
        sound, pictures = bool(container.streams.audio), bool(container.streams.video)
        what = "sound alone" if sound else "nothing but a cover picture" if pictures else "no pictures"
        raise UserError(f"{path}: holds {what}, expected a video")

    def rank(stream: VideoStream) -> int:
        context = stream.codec_context
        pixels = 0 if context is None else context.width * context.height
        return pixels + 5_000_000 * bool(stream.disposition & Disposition.default)

    best = max(found, key=rank)
    if best.codec_context is None:
        raise UserError(f"{path}: its pictures are coded in a way that FFmpeg cannot decode")
    context = best.codec_context
    require_pixels(context.width, context.height, str(path))
    context.options = {"max_pixels": str(MOST_PIXELS)}
    return best


def require_pixels(width: int, height: int, where: str) -> None:
    """Raises `UserError` for pictures of more than `MOST_PIXELS`."""
    if width * height > MOST_PIXELS:
        raise UserError(f"{where}: pictures of {width} x {height} pixels, at most {MOST_PIXELS:,} are taken")


def _decoded(
    container: InputContainer, stream: VideoStream, others: Sequence[Stream], path: Path, damage: Damage
) -> Iterator[VideoFrame]:
    """The pictures in the order in which they show; packets that cannot be decoded are left out, and counted.

    Packets of `others` only tell how far the file goes.
    """
    import av

    decode, index, found = stream.codec_context.decode, stream.index, False
    steady = None if _JUMPING.isdisjoint(container.format.name.split(",")) else _Steady(stream)
    packets = container.demux(stream, *others)
    for count in itertools.count():
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:  # what comes before counts; whether it is enough is for who asked
            if _too_slow(error):
                raise UserError(f"{path}: reading it took more than {OPEN_S:.0f} s") from None
            damage(error)
            packet = None
        if (
            packet is not None and not packet.size and packet.pts is None
        ):  # the end, of one stream after the other
            packet = None
        elif packet is not None and others and packet.pts is not None:
            damage.end = max(damage.end, (packet.pts + (packet.duration or 0)) * packet.time_base)
        if packet is not None and packet.stream_index != index:
            continue
        if packet is not None and steady is not None:
            steady(packet)
        try:
            frames = decode(packet)
        except (av.FFmpegError, ValueError) as error:
            damage(error)
            frames = []
        for frame in frames:
            found = True
            yield frame
        if packet is None or (not found and count >= PROBED):
            return


class _Steady:
    """Makes the times of a stream go on where they jump, as FFmpeg's program does for formats of broadcasts."""

    def __init__(self, stream: VideoStream) -> None:
        self._base = stream.time_base or Fraction(1, 90_000)
        rate = stream.guessed_rate or Fraction(25)
        self._step = int(1 / rate / self._base)
        self._next: int | None = None
        self._offset = 0

    def __call__(self, packet: Packet[Any]) -> None:
        """Shifts the times of a packet where they must be."""
        if packet.dts is None:
            return
        if self._next is not None:
            delta = packet.dts + self._offset - self._next
            seconds = float(delta * self._base)
            if abs(seconds) > _JUMP_S or seconds < -_STEP_BACK_S:
                self._offset -= delta
        self._next = packet.dts + self._offset + (packet.duration or self._step)
        if self._offset:
            packet.dts += self._offset
            packet.pts = None if packet.pts is None else packet.pts + self._offset


def _described(
    path: Path,
    container: InputContainer,
    stream: VideoStream,
    first: VideoFrame,
    pictures: Iterator[VideoFrame],
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
    return Opened(info, pictures, damage, base, origin, of_pictures)


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
        for file in _files(path):
            name = file.stem
            if not is_text(name):
                raise UserError(f"{quoted(str(file))}: a name that is not UTF-8 text")
            other = found.setdefault(name, file)
            if other != file:
                raise UserError(
                    f"two videos with the id {quoted(name)}: {other} and {file}; rename one of them"
                )
    return sorted(found.items())


def _files(path: Path) -> list[Path]:
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
