"""Pictures of videos, kept in memory: one at a time of a video, or a film strip of a moment as one picture."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from vmr_search.server.errors import Refused
from vmr_search.server.limits import PICTURE_BYTES

STRIP_HEIGHT = 96
"""Pixels that a film strip is high."""


class Pictures:
    """JPEG pictures of video files; the last ones that were asked for are kept.

    Args:
        room: Bytes that are kept at the most.
    """

    def __init__(self, room: int = PICTURE_BYTES) -> None:
        self._room, self._size = room, 0
        self._kept: OrderedDict[tuple[object, ...], bytes] = OrderedDict()
        self._lock = threading.Lock()

    def thumb(self, path: Path, time: float, height: int) -> bytes:
        """The picture at a time (seconds).

        Raises:
            Refused: if there is none, or pictures cannot be made here.
            UserError: if the file cannot be read.
        """
        return self._of(path, ("thumb", time, height), lambda: _grabbed(path, [time], height)[0])

    def strip(self, path: Path, start: float, end: float, count: int) -> bytes:
        """Pictures from `start` to `end` (seconds) side by side, each in the middle of its share of the time.

        Raises:
            Refused: if there is none, or pictures cannot be made here.
            UserError: if the file cannot be read.
        """
        step = (end - start) / count
        times = [round(start + (number + 0.5) * step, 3) for number in range(count)]
        return self._of(path, ("strip", *times), lambda: _joined(_grabbed(path, times, STRIP_HEIGHT), count))

    def _of(self, path: Path, what: tuple[object, ...], make: Callable[[], bytes]) -> bytes:
        try:
            facts = path.stat()
        except OSError:
            raise Refused(404, "file_gone", "the file of this video is gone", "video") from None
        key = (str(path), facts.st_mtime_ns, facts.st_size, *what)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._size += len(made)
            while self._size > self._room:
                self._size -= len(self._kept.popitem(last=False)[1])
        return made


def _grabbed(path: Path, times: list[float], height: int) -> list[bytes]:
    """The pictures at these times."""
    try:
        from vmr_video.answers.strip import grab

        found = grab(path, times, height)
    except ModuleNotFoundError:
        raise Refused(501, "not_available", "pictures need PyAV, which is not installed") from None
    if not found:
        raise Refused(404, "no_picture", "the video shows nothing there", "t")
    return [found[time] for time in times if time in found]


def _joined(pictures: list[bytes], count: int) -> bytes:
    """Pictures side by side, as JPEG; the last one again where there are fewer than `count`."""
    from PIL import Image

    opened = [Image.open(io.BytesIO(data)) for data in pictures]
    opened += [opened[-1]] * (count - len(opened))
    width = opened[0].width
    strip = Image.new("RGB", (width * count, STRIP_HEIGHT))
    for number, picture in enumerate(opened):
        strip.paste(picture, (number * width, 0))
    file = io.BytesIO()
    strip.save(file, "JPEG", quality=70)
    return file.getvalue()
