"""A part of a video encoded anew, as every browser plays it: H.264 and AAC in MP4."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from vmr_common.errors import UserError
from vmr_video.answers.reading import (
    LEAD,
    TOLERANCE,
    begin,
    exact_rate,
    opened,
    seek,
    sound_stream,
    turn,
)

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer, OutputContainer
    from av.filter import Graph
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # that AAC knows, and players too
_TURNS: dict[int, list[tuple[str, str | None]]] = {
    0: [],
    90: [("transpose", "clock")],
    180: [("hflip", None), ("vflip", None)],
    270: [("transpose", "cclock")],
}
_BASE = Fraction(1, 90_000)  # of times: that of a file may be as coarse as its frames
_BAR: dict[str, Any] = {
    "bar_format": "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left",
    "delay": 2,
    "disable": None,
    "leave": False,
}
_MOST_SIDE = 4096  # level 5.1 of H.264


@dataclass(frozen=True, kw_only=True)
class Quality:
    """The settings of an encoder.

    Attributes:
        side: Pixels of the shorter side at most.
        fps: Frames per second at most.
        crf: x264's constant quality: 18 cannot be told from the original, 28 is a preview.
        kilobits: Per second, of the pictures, at the most; None: as many as it takes.
        preset: x264's.
    """

    side: int = _MOST_SIDE
    fps: float = 240.0
    crf: int = 18
    kilobits: int | None = None
    preset: str = "veryfast"


def encode(
    path: Path,
    target: Path,
    start: float,
    end: float,
    quality: Quality,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Writes what is shown and heard from `start` to `end` (seconds) of a video, upright and in square pixels.

    The first picture is the one that shows at `start`. What cannot be decoded is left out.

    Raises:
        UserError: if the video cannot be read, shows nothing there, or `stop` says so, which is asked at each packet.
    """
    import av
    from tqdm import tqdm

    with (
        opened(path) as (source, stream),
        av.open(str(target), "w", format="mp4", options={"movflags": "+faststart"}) as out,
        tqdm(desc=f"encode {path.name}", total=end - start, **_BAR) as bar,
    ):
        sound = sound_stream(source)
        parts = _Parts(source, out, stream, sound, start, end, quality)
        for packet in _packets(source, stream, sound, start, end):
            if stop():
                raise UserError(f"{path}: stopped before second {end:.2f} was encoded")
            parts.take(packet)
            bar.update(max(parts.reached - start - bar.n, 0.0))
        parts.finish()
    if not parts.shown:
        raise UserError(f"{path}: shows no picture from {start:.2f} to {end:.2f} s")


def _packets(
    source: InputContainer, stream: VideoStream, sound: AudioStream | None, start: float, end: float
) -> Iterator[Any]:
    seek(source, stream, start - LEAD)
    streams = [stream] if sound is None else [stream, sound]
    last = dict.fromkeys(streams, 0.0)
    for packet in source.demux(streams):
        yield packet
        if packet.dts is None:
            continue
        last[packet.stream] = float(packet.dts * packet.time_base) - begin(source)
        # pictures that show before the end may follow others that do not; sound may lag behind
        if last[stream] > end + LEAD or min(last.values()) > end + TOLERANCE:
            return


class _Parts:
    """Pictures and sound on their way from one file to the other."""

    def __init__(
        self,
        source: InputContainer,
        out: OutputContainer,
        stream: VideoStream,
        sound: AudioStream | None,
        start: float,
        end: float,
        quality: Quality,
    ) -> None:
        self.source, self.out, self.stream = source, out, stream
        self.start, self.end, self.quality = start, end, quality
        self.shown = 0
        self.reached = start
        self._waiting: VideoFrame | None = None
        self._encoder: VideoStream | None = None
        self._graph: Graph | None = None
        self._seen: tuple[object, ...] = ()
        self._last = -1
        # sound that comes before the first picture, when the file is not begun yet
        self._held: list[Any] = []
        audible = sound is not None and _audible(sound)
        self._sound = _Sound(source, out, sound, start, end) if sound is not None and audible else None

    def take(self, packet: Any) -> None:
        """Decodes a packet and encodes what lies in the part."""
        import av

        try:
            frames = packet.decode()
        except av.error.FFmpegError:
            return
        for frame in frames:
            if packet.stream is self.stream:
                self._picture(frame)
            elif self._sound is not None:
                self._write(self._sound.take(frame))

    def _picture(self, frame: VideoFrame) -> None:
        if frame.time is None:
            return
        time = self.reached = frame.time - begin(self.source)
        if time <= self.start + TOLERANCE:  # it may be the one that shows at the start
            self._waiting = frame
            return
        if time >= self.end - TOLERANCE:
            return
        self._release()
        self._encode(frame, time - self.start)

    def _release(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            self._encode(waiting, 0.0)

    def _encode(self, frame: VideoFrame, time: float) -> None:
        if self._encoder is None:
            self._encoder = self._new_encoder(frame)
        stamp = round(time / _BASE)
        if stamp <= self._last or (self.shown and (stamp - self._last) * _BASE < self._least):
            return
        self._last = frame.pts = stamp
        frame.time_base = _BASE
        seen = (frame.width, frame.height, frame.format.name, frame.rotation)
        if self._graph is None or seen != self._seen:
            self._graph, self._seen = self._new_graph(frame), seen
        self._graph.vpush(frame)
        done = self._graph.vpull()
        done.pict_type = 0
        self.shown += 1
        self._write(self._encoder.encode(done))

    def _new_encoder(self, frame: VideoFrame) -> VideoStream:
        rate = float(self.stream.average_rate or self.stream.guessed_rate or 25)
        rate = min(max(rate, 1.0), 240.0)
        # half a frame of slack: the times of a file may jitter
        self._least = 0.0 if rate <= self.quality.fps else 1 / self.quality.fps - 0.5 / rate
        options = {"crf": str(self.quality.crf), "preset": self.quality.preset}
        if self.quality.kilobits is not None:
            options |= {"maxrate": f"{self.quality.kilobits}k", "bufsize": f"{2 * self.quality.kilobits}k"}
        encoder = self.out.add_stream(
            "libx264", rate=exact_rate(min(rate, self.quality.fps)), options=options
        )
        encoder.width, encoder.height = self._size(frame)
        encoder.pix_fmt = "yuv420p"
        encoder.codec_context.time_base = _BASE
        # a key frame each second: to seek
        encoder.codec_context.gop_size = max(round(min(rate, self.quality.fps)), 1)
        return encoder

    def _size(self, frame: VideoFrame) -> tuple[int, int]:
        """Even width and height, upright, of square pixels."""
        aspect = float(self.stream.sample_aspect_ratio or 1) or 1.0
        wide, high = frame.width * aspect, float(frame.height)
        if turn(frame) in (90, 270):
            wide, high = high, wide
        scale = min(1.0, self.quality.side / min(wide, high), _MOST_SIDE / max(wide, high))
        return max(round(wide * scale / 2) * 2, 2), max(round(high * scale / 2) * 2, 2)

    def _new_graph(self, frame: VideoFrame) -> Graph:
        import av.filter

        assert self._encoder is not None
        graph = av.filter.Graph()
        nodes = [
            graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=_BASE)
        ]
        nodes += [graph.add(name, args) for name, args in _TURNS[turn(frame)]]
        nodes.append(graph.add("scale", f"{self._encoder.width}:{self._encoder.height}:flags=bicubic"))
        nodes += [graph.add("setsar", "1"), graph.add("format", "yuv420p"), graph.add("buffersink")]
        graph.link_nodes(*nodes).configure()
        return graph

    def finish(self) -> None:
        """Encodes what is left, and empties the encoders."""
        self._release()
        if self._sound is not None:
            self._write(self._sound.finish())
        if self._encoder is not None:
            self._write(self._encoder.encode(None))

    def _write(self, packets: list[Any]) -> None:
        if self._encoder is None:
            self._held += packets
            return
        self.out.mux([*self._held, *packets])
        self._held = []


def _audible(sound: AudioStream) -> bool:
    return bool(sound.rate and sound.codec_context.channels)


class _Sound:
    """The sound of a part, cut to the sample."""

    def __init__(
        self, source: InputContainer, out: OutputContainer, sound: AudioStream, start: float, end: float
    ) -> None:
        import av.filter

        rate = next((rate for rate in _RATES if rate >= sound.rate), _RATES[-1])
        layout = "mono" if sound.codec_context.channels == 1 else "stereo"
        self._encoder = out.add_stream("aac", rate=rate, layout=layout)
        self._graph = av.filter.Graph()
        first = begin(source) + start
        nodes = [
            self._graph.add_abuffer(template=sound),
            self._graph.add("atrim", f"start={first:.6f}:end={begin(source) + end:.6f}"),
            self._graph.add("asetpts", f"PTS-{first:.6f}/TB"),
            # times of sound may jitter and leave gaps, which the encoder does not take
            self._graph.add("aresample", "async=1:first_pts=0"),
            self._graph.add("aformat", f"sample_fmts=fltp:sample_rates={rate}:channel_layouts={layout}"),
            self._graph.add("abuffersink"),
        ]
        self._graph.link_nodes(*nodes).configure()

    def take(self, frame: Any) -> list[Any]:
        """Packets of what is left of a frame."""
        self._push(frame)
        return self._pull()

    def _push(self, frame: AudioFrame | None) -> None:
        import av

        with contextlib.suppress(av.error.EOFError):  # the filter takes nothing beyond the end of the part
            self._graph.push(frame)

    def _pull(self) -> list[Any]:
        import av

        packets: list[Any] = []
        while True:
            try:
                frame = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return packets
            packets += self._encoder.encode(cast("AudioFrame", frame))

    def finish(self) -> list[Any]:
        """Packets that filters and encoder still hold."""
        self._push(None)
        return self._pull() + self._encoder.encode(None)
