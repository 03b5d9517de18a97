"""The part of a video that a page carries: the file itself, a small copy, or clips around moments."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vmr_common.io import writing
from vmr_video.answers.encode import Quality, encode
from vmr_video.answers.reading import begin, opened, sound_stream

if TYPE_CHECKING:
    from vmr_video.media import VideoInfo

WHOLE_BYTES = 40_000_000
"""Bytes of a video that a page carries as it is, at the most; also of a copy that is made for it."""
PAGE_BYTES = 120_000_000
"""Bytes of all videos of a page."""
PREVIEW_S = 20 * 60.0
"""Seconds of a video of which the whole is encoded for a page; of a longer one, seconds of all clips."""
AROUND_S = 5.0
"""Seconds that a clip shows before and after its moment."""
_LATE_S = 0.05
_SIDE, _FPS, _CRF = 480, 30.0, 27
_SOUND_KILOBITS, _LEAST_KILOBITS, _MOST_KILOBITS = 128, 60, 2_500
_MP4 = ({"h264", "vp9", "av1"}, {"aac", "mp3", "opus", "flac"})
_WEBM = ({"vp8", "vp9", "av1"}, {"opus", "vorbis"})
_COLOURS = ("yuv420p", "yuvj420p")


@dataclass(frozen=True)
class Piece:
    """A stretch of a video, playable.

    Attributes:
        start: Seconds of the video, of its first picture.
        end: Likewise, of its last.
        address: Data URI.
    """

    start: float
    end: float
    address: str


@dataclass(frozen=True)
class Playing:
    """The part of a video that a page plays.

    Attributes:
        pieces: In the order of time.
        note: What was done to it, in words.
    """

    pieces: list[Piece]
    note: str


def playing(video: VideoInfo, moments: Sequence[tuple[float, float]], room: int) -> Playing:
    """The video itself where browsers play it and it fits, else an encoded copy of all or of what lies around moments.

    Args:
        video: The file.
        moments: ``(start, end)`` seconds, those first that must be there.
        room: Bytes.

    Raises:
        UserError: if the video cannot be read.
    """
    room = min(room, WHOLE_BYTES)
    # players differ in where time 0 is of a file whose pictures begin late
    kind = _plays(video.path) if video.start < _LATE_S else None
    if kind is not None and video.path.stat().st_size <= room:
        return Playing([Piece(0.0, video.duration, _address(video.path.read_bytes(), kind))], "")
    if video.duration <= PREVIEW_S and _kilobits(video.duration, room) >= _LEAST_KILOBITS:
        return Playing(
            [_encoded(video, 0.0, video.duration, _kilobits(video.duration, room))],
            f"A copy made for this page, at most {_SIDE} pixels high.",
        )
    stretches = clips(
        moments, video.duration, min(PREVIEW_S, room * 8 / 1000 / (_LEAST_KILOBITS + _SOUND_KILOBITS))
    )
    if not stretches:
        return Playing([], "The video does not fit into this page.")
    rate = _kilobits(sum(end - start for start, end in stretches), room)
    return Playing(
        [_encoded(video, start, end, rate) for start, end in stretches],
        f"The video is too long for this page, which holds the moments and {AROUND_S:.0f} seconds around them, at "
        f"most {_SIDE} pixels high.",
    )


def clips(
    moments: Sequence[tuple[float, float]], duration: float, seconds: float
) -> list[tuple[float, float]]:
    """Stretches around moments, `seconds` in all at the most, in the order of time and apart from each other.

    Example:
        >>> clips([(100.0, 110.0), (108.0, 120.0), (500.0, 501.0)], 600.0, 60.0)
        [(95.0, 125.0), (495.0, 506.0)]
    """
    chosen: list[tuple[float, float]] = []
    for start, end in moments:
        wanted = (max(start - AROUND_S, 0.0), min(end + AROUND_S, duration))
        joined = _joined([*chosen, wanted])
        if sum(last - first for first, last in joined) <= seconds:
            chosen = joined
    return chosen


def _joined(stretches: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    joined: list[tuple[float, float]] = []
    for start, end in sorted(stretches):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _kilobits(seconds: float, room: int) -> int:
    """Kilobits of pictures per second, so that they fit with their sound."""
    return min(int(room * 8 / 1000 / max(seconds, 1.0) * 0.95) - _SOUND_KILOBITS, _MOST_KILOBITS)


def _plays(path: Path) -> str | None:
    """The media type of a file that browsers play, or None of one that they do not."""
    with opened(path) as (container, stream):
        sound = sound_stream(container)
        picture, heard = stream.codec.canonical_name, None if sound is None else sound.codec.canonical_name
        names = set(container.format.name.split(","))
        if stream.codec_context.pix_fmt not in _COLOURS or abs(begin(container)) > _LATE_S:
            return None
    if "mp4" in names:
        kind, (pictures, sounds) = "video/mp4", _MP4
    elif "webm" in names and path.suffix.lower() == ".webm":
        kind, (pictures, sounds) = "video/webm", _WEBM
    else:
        return None
    return kind if picture in pictures and (heard is None or heard in sounds) else None


def _encoded(video: VideoInfo, start: float, end: float, kilobits: int) -> Piece:
    quality = Quality(side=_SIDE, fps=_FPS, crf=_CRF, kilobits=max(kilobits, _LEAST_KILOBITS))
    with tempfile.TemporaryDirectory() as folder, writing(Path(folder)):
        file = Path(folder) / "copy.mp4"
        encode(video.path, file, start, end, quality)
        return Piece(start, end, _address(file.read_bytes(), "video/mp4"))


def _address(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
