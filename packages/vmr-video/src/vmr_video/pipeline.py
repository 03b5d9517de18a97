"""Rows of many videos: decoded frames are cut into calls of an extractor, the same ones however they arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError
from vmr_video.decoding import Failed, decode_all
from vmr_video.extractor import Extractor, Frames, Rows
from vmr_video.media import VideoInfo

BATCH = 32
"""Frames in one call of an extractor."""

TIME_LIMIT = 120.0
"""Seconds without a new frame after which a video is given up."""

_LEAST_ROWS = 64


@dataclass(frozen=True)
class Extracted:
    """All rows of a video."""

    video: str
    rows: dict[str, NDArray[Any]]
    info: VideoInfo


def extract(
    extractor: Extractor,
    videos: Sequence[tuple[str, Path]],
    *,
    workers: int = 1,
    batch: int = BATCH,
    across: bool = False,
    time_limit: float = TIME_LIMIT,
    seen: Callable[[str, int, float], object] = lambda video, frames, share: None,
) -> Iterator[Extracted | Failed]:
    """Yields each video as it is done, or why it failed; memory does not grow with the length of a video's frames.

    Calls of the extractor are the same for a video whatever is decoded beside it, so that rows are equal to the last
    bit on one machine, unless `across`.

    Args:
        extractor: Makes the rows.
        videos: Pairs of id and path.
        workers: Processes that decode; 0: this one does.
        batch: Frames in one call of the extractor, context included; at least one row is made.
        across: Fill a call with pictures of several videos, where the extractor sees single ones of one size.
        time_limit: See `decode_all`.
        seen: Called with a video, how many of its frames have just arrived, and which share of the video they are
            (0 where its length is not known).
    """
    mixed = across and extractor.row_frames == 1 and extractor.context == (0, 0) and extractor.recipe.crop
    calls = _Mixed(extractor, batch) if mixed else None
    streams: dict[str, _Stream] = {}
    for piece in decode_all(videos, extractor.recipe, workers=workers, chunk=batch, time_limit=time_limit):
        if isinstance(piece, Failed):
            streams.pop(piece.video, None)
            yield piece
            continue
        stream = streams.get(piece.video)
        if stream is None:
            stream = streams[piece.video] = _Stream(piece.video, extractor, batch, calls)
        seen(piece.video, len(piece.frames), _share(len(piece.frames), extractor, piece.info))
        try:
            stream.add(piece.frames)
            if piece.last:
                del streams[piece.video]
                stream.finish(piece.info)
        except UserError as error:
            streams.pop(piece.video, None)
            yield Failed(piece.video, str(error))
            continue
        yield from _done(calls, stream if piece.last else None)
    if calls is not None:
        calls.flush()
        yield from _done(calls, None)


def _share(frames: int, extractor: Extractor, info: VideoInfo) -> float:
    length = info.duration * extractor.recipe.fps
    return frames / length if length > 0 else 0.0


def _done(calls: _Mixed | None, stream: _Stream | None) -> Iterator[Extracted]:
    """The finished videos that wait for no call any more."""
    if calls is None:
        if stream is not None:
            yield stream.extracted()
        return
    if stream is not None:
        calls.finished.append(stream)
    waiting = {id(other) for other, _ in calls.pending}
    for ready in [other for other in calls.finished if id(other) not in waiting]:
        calls.finished.remove(ready)
        yield ready.extracted()


class _Mixed:
    """Pictures of several videos that wait for one call."""

    def __init__(self, extractor: Extractor, batch: int) -> None:
        self._extractor, self._batch = extractor, batch
        self.pending: list[tuple[_Stream, Frames]] = []
        self.finished: list[_Stream] = []
        self._count = 0

    def add(self, stream: _Stream, frames: Frames) -> None:
        """Takes pictures of a video, and calls the extractor when there are enough."""
        while len(frames):
            taken = frames[: self._batch - self._count]
            self.pending.append((stream, taken))
            self._count += len(taken)
            frames = frames[len(taken) :]
            if self._count == self._batch:
                self.flush()

    def flush(self) -> None:
        """Makes the rows of all that wait."""
        if not self.pending:
            return
        rows = self._extractor(np.concatenate([frames for _, frames in self.pending]), 0, 0)
        place = 0
        for stream, frames in self.pending:
            stream.rows.add({name: array[place : place + len(frames)] for name, array in rows.items()})
            place += len(frames)
        self.pending, self._count = [], 0


class _Stream:
    """Frames of one video on their way; only those that a later row needs are kept."""

    def __init__(self, video: str, extractor: Extractor, batch: int, calls: _Mixed | None) -> None:
        self.video, self._extractor, self._mixed = video, extractor, calls
        self._step, self._context = extractor.row_frames, extractor.context
        before, after = self._context or (0, 0)
        self._per_call = max(1, (batch - before - after) // self._step)
        self._held: list[Frames] = []
        self._first = 0  # number of the first frame that is held
        self._seen = 0  # frames that came
        self._row = 0  # rows that are made
        self.rows = _Grown()
        self._info: VideoInfo | None = None

    def add(self, frames: Frames) -> None:
        """Takes the next frames, and makes the rows that are complete."""
        if self._mixed is not None:
            self._seen += len(frames)
            self._mixed.add(self, frames)
            return
        if len(frames):
            self._held.append(frames)
            self._seen += len(frames)
        if self._context is None:
            return
        while (self._row + self._per_call) * self._step + self._context[1] <= self._seen:
            self._call(self._per_call)

    def finish(self, info: VideoInfo) -> None:
        """Makes the rows that are left: as many as whole strides, one where there is not even one."""
        self._info = info
        if not self._seen:
            raise UserError("it has no picture")
        if self._mixed is not None:
            return
        if self._seen < self._step:
            self.add(np.repeat(self._held[-1][-1:], self._step - self._seen, axis=0))
        if self._context is None:
            self.rows.add(self._extractor(self._taken(0, self._seen), 0, 0))
            return
        left = self._seen // self._step - self._row
        while left:
            count = min(left, self._per_call)
            self._call(count)
            left -= count

    def _call(self, count: int) -> None:
        assert self._context is not None
        begin, end = self._row * self._step, (self._row + count) * self._step
        start, stop = max(0, begin - self._context[0]), min(self._seen, end + self._context[1])
        frames = self._taken(start, stop)
        self.rows.add(self._extractor(frames, begin - start, stop - end))
        self._row += count
        keep = max(0, end - self._context[0])
        while self._held and self._first + len(self._held[0]) <= keep:
            self._first += len(self._held.pop(0))

    def _taken(self, start: int, stop: int) -> Frames:
        whole = self._held[0] if len(self._held) == 1 else np.concatenate(self._held)
        self._held = [whole]
        return whole[start - self._first : stop - self._first]

    def extracted(self) -> Extracted:
        """The video with all its rows."""
        assert self._info is not None
        return Extracted(self.video, self.rows.arrays(), self._info)


class _Grown:
    """Rows that are added to, in arrays that double.

    Thousands of small arrays would be scattered over the memory that pixels and activations are allocated in again and
    again, which the system then never gets back: gigabytes for hours of video at a high rate.
    """

    def __init__(self) -> None:
        self._room: dict[str, NDArray[Any]] = {}
        self._count = 0

    def add(self, rows: Rows) -> None:
        """Copies rows behind those that are there."""
        count = 0
        for name, array in rows.items():
            count = len(array)
            room = self._room.get(name)
            if room is None or self._count + count > len(room):
                larger = np.empty(
                    (max(_LEAST_ROWS, 2 * (self._count + count)), *array.shape[1:]), array.dtype
                )
                if room is not None:
                    larger[: self._count] = room[: self._count]
                self._room[name] = room = larger
            room[self._count : self._count + count] = array
        self._count += count

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All rows."""
        return {name: room[: self._count].copy() for name, room in self._room.items()}
