"""A video file read from any second on: its streams, its key frames, its pictures with their times."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmr_common.boundary import reason
from vmr_common.errors import UserError
from vmr_video.containers import best_stream, open_container

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

TOLERANCE = 0.001
"""Seconds by which two times may differ that are the same: containers round to milliseconds."""
LEAD = 1.0
"""Seconds by which a container may hold sound before the pictures of the same time."""
_BACK = (0.0, 2.0, 10.0, 60.0)  # seconds before a wanted one, until a jump lands before it
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))
_BROKEN = 100  # packets in a row that cannot be decoded


@contextlib.contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The open file, and the stream of its pictures.

    Raises:
        UserError: if it is no video; also for what cannot be read within the block.
        OSError: if what is written within the block fills the disk.
    """
    import av

    with open_container(path) as container:
        try:
            stream = best_stream(container, path)
            stream.thread_type = "AUTO"
            yield container, stream
        except (av.error.FFmpegError, IndexError) as error:  # the latter of streams that appear on the way
            require_room(error)
            raise UserError(f"{path}: cannot be read to its end ({reason(error)})") from None


def require_room(error: BaseException) -> None:
    """Raises `OSError` for what FFmpeg says of a full disk: not the video that is read is at fault."""
    if getattr(error, "errno", None) in _FULL:
        raise OSError(*error.args[:2])


def sound_stream(container: InputContainer) -> AudioStream | None:
    """The stream of sound that players choose, or None."""
    return next((stream for stream in container.streams.audio if stream.codec_context is not None), None)


def begin(container: InputContainer) -> float:
    """The time at which the file's clock begins: what players show as 0, seconds."""
    return (container.start_time or 0) / 1_000_000


def seek(container: InputContainer, stream: VideoStream, second: float) -> None:
    """Goes to a key frame at this second or before it; to the first packet where there is none."""
    for back in _BACK:
        _jump(container, stream, second - back)
        found = _next_key(container, stream)
        if second <= back or (found is not None and found <= second + TOLERANCE):
            _jump(container, stream, second - back)
            return
    _jump(container, stream, 0.0)


def _jump(container: InputContainer, stream: VideoStream, second: float) -> None:
    import av

    assert stream.time_base is not None
    second = max(second, 0.0) + begin(container)
    # packets may stand before the time at which they show: the first one is found from ahead of the start
    for early in (LEAD, 0.0) if second <= begin(container) else (0.0,):
        # a stream without an index is read from where it stands
        with contextlib.suppress(av.error.FFmpegError):
            container.seek(int((second - early) / stream.time_base), stream=stream, backward=True)
            return


def _next_key(container: InputContainer, stream: VideoStream) -> float | None:
    """The time of the first key frame from here on: broadcasts have no index, and a jump may land too late."""
    for packet in container.demux(stream):
        if packet.is_keyframe and (time := packet_time(container, packet)) is not None:
            return time
    return None


def packet_time(container: InputContainer, packet: Packet[Any]) -> float | None:
    """The time at which what a packet holds is shown, seconds of the video; None of the mark at the end of a stream."""
    stamp = packet.pts if packet.pts is not None else packet.dts
    return None if stamp is None else float(stamp * packet.time_base) - begin(container)


def key_frame(container: InputContainer, stream: VideoStream, second: float) -> float | None:
    """The time of the last key frame at this second or before it, else of the first of all; None without any."""
    seek(container, stream, second)
    found: float | None = None
    for packet in container.demux(stream):
        time = packet_time(container, packet)
        if time is None:
            continue
        late = time > second + TOLERANCE
        if packet.is_keyframe and not (late and found is not None):
            found = time
        if late and found is not None:
            break
    return found


def pictures(
    container: InputContainer, stream: VideoStream, second: float
) -> Iterator[tuple[float, VideoFrame]]:
    """Times (seconds of the video) and pictures from a key frame before this second on; what is damaged is skipped."""
    import av

    seek(container, stream, second)
    broken = 0
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
            broken = 0
        except av.error.FFmpegError:
            broken += 1
            if broken > _BROKEN:
                return
            continue
        for frame in frames:
            if frame.time is not None:
                yield frame.time - begin(container), frame


def turn(frame: VideoFrame) -> int:
    """Degrees clockwise, 0, 90, 180 or 270, by which a picture is turned before it is shown."""
    return round(-frame.rotation / 90) % 4 * 90


def exact_rate(fps: float) -> Fraction:
    """The rate of frames that a rounded one stands for.

    Example:
        >>> exact_rate(29.97), exact_rate(23.976023976), exact_rate(25.0), exact_rate(12.5)
        (Fraction(30000, 1001), Fraction(24000, 1001), Fraction(25, 1), Fraction(25, 2))
    """
    whole = round(fps)
    for rate in (Fraction(whole), Fraction(whole * 1000, 1001)):
        if whole and abs(fps - rate) < 2e-4 * fps:
            return rate
    return Fraction(fps).limit_denominator(1001)
