"""The pictures of a video, one after the other, past what is damaged."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmr_common.errors import UserError
from vmr_video.containers import OPEN_S, plain, too_slow

if TYPE_CHECKING:
    from av import Packet, VideoFrame
    from av.container import InputContainer
    from av.stream import Stream
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream

PROBED = 500
"""Packets at the most in which the first picture must be found."""
_SKIPPING = frozenset({"h264"})
"""Codecs whose pictures say whether any other depends on them, and whose decoder heeds it."""
_JUMPING = frozenset({"mpegts", "mpeg", "rm", "nsv", "wtv", "ty"})
"""Formats whose times may begin anew in the middle (FFmpeg's AVFMT_TS_DISCONT)."""
_JUMP_S, _STEP_BACK_S = 10.0, 0.1


@dataclass
class Decoding:
    """The choice of the pictures of a video that are decoded.

    Attributes:
        needless: True for the time of a picture, in units of its stream, that nobody wants; it is asked for each of
            them in the order of the file. Those on which no other picture depends are then left out.
    """

    needless: Callable[[int], bool] | None = None


@dataclass
class Damage:
    """The damage met while a video was decoded: packets that were left out, and the end of the file's last one."""

    packets: int = 0
    reason: str = ""
    end: Fraction = Fraction(0)

    def __call__(self, error: BaseException) -> None:
        """Counts a packet."""
        self.packets += 1
        self.reason = self.reason or plain(error)


def decoded(
    container: InputContainer,
    stream: VideoStream,
    others: Sequence[Stream],
    path: Path,
    decoding: Decoding,
    damage: Damage,
) -> Iterator[VideoFrame]:
    """The pictures in the order in which they show; packets that cannot be decoded are left out, and counted.

    Packets of `others` only tell how far the file goes.
    """
    import av

    context, index, found = stream.codec_context, stream.index, False
    skip = _Skip(context, decoding, damage)
    steady = None if _JUMPING.isdisjoint(container.format.name.split(",")) else _Steady(stream)
    packets = container.demux(stream, *others)
    for count in itertools.count():
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:  # what comes before counts; whether it is enough is for who asked
            if too_slow(error):
                raise UserError(f"{path}: reading it took more than {OPEN_S:.0f} s") from None
            damage(error)
            packet = None
        # the end, of one stream after the other
        if packet is not None and not packet.size and packet.pts is None:
            packet = None
        elif packet is not None and others and packet.pts is not None:
            damage.end = max(damage.end, (packet.pts + (packet.duration or 0)) * packet.time_base)
        if packet is not None and packet.stream_index != index:
            continue
        if packet is not None and steady is not None:
            steady(packet)
        if packet is not None and found:
            skip(packet)
        try:
            frames = context.decode(packet)
        except (av.FFmpegError, ValueError) as error:
            damage(error)
            frames = []
        for frame in frames:
            found = True
            yield frame
        if packet is None or (not found and count >= PROBED):
            return


class _Skip:
    """Tells a decoder to leave out pictures that nobody wants and on which no other depends."""

    def __init__(self, context: VideoCodecContext, decoding: Decoding, damage: Damage) -> None:
        self._context, self._decoding, self._damage = context, decoding, damage
        self._able = context.codec.canonical_name in _SKIPPING
        self._now = False

    def __call__(self, packet: Packet[Any]) -> None:
        """Asked before each packet is decoded."""
        if not self._able or self._decoding.needless is None:
            return
        # a picture that is not shown, or cannot be decoded, stands for no frame: the one before it does
        shown = packet.pts is not None and not packet.is_discard and not packet.is_corrupt
        skip = shown and not self._damage.packets and self._decoding.needless(packet.pts or 0)
        if skip != self._now:
            self._context.skip_frame, self._now = "NONREF" if skip else "DEFAULT", skip


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
