"""Files of videos, as others made them: opened without following anything out of them, one line where they are none."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmr_common.boundary import open_regular, reason
from vmr_common.errors import UserError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

MOST_PIXELS = 1 << 26
"""Pixels of a picture at the most, also of one that is scaled: twice those of 8K."""
OPEN_S = 60.0
"""Seconds that reading may take without an answer of the disk or the network that holds the file."""
# Demuxers that read one file. Left out: playlists and descriptions, which open others (HLS, DASH, concat, SDP, IMF),
# devices, and pictures, which FFmpeg takes for videos of one frame.
_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,kux,asf,ogg,nut,h264,hevc,h263,h261,"
    "m4v,vc1,vvc,av1,obu,ivf,rm,ivr,mxf,gxf,dv,gif,wtv,yuv4mpegpipe,swf,cavsvideo,dirac,dnxhd,nsv,nuv,amv,bink,smk,ty,"
    "pva,lxf,mjpeg"
)
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
            timeout=OPEN_S,
            **_broken_text_allowed(),
        )
    except Exception as error:  # libraries raise what a damaged part runs into
        raise UserError(f"{path}: {_not_a_video(head, error)}") from None
    try:
        # as FFmpeg's program has it: times that are missing are those of decoding
        container.flags &= ~_GEN_PTS
        yield container
    finally:
        container.close()


def _broken_text_allowed() -> dict[str, Any]:
    """What makes `av.open` take titles that are not UTF-8; PyAV 19 always does, and knows no such option."""
    import av

    return {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


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
    if too_slow(error):
        return f"reading it took more than {OPEN_S:.0f} s"
    if "Invalid argument" in str(error):  # of a demuxer that is not among ours
        return "not a video of a format that is read"
    return f"not a video that can be read ({plain(error)})"


def too_slow(error: BaseException) -> bool:
    """True for what ends reading after `OPEN_S`."""
    return "Immediate exit" in str(error)


def plain(error: BaseException) -> str:
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
