"""The progress over many videos: a bar with the time left in a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)

EVERY = 30.0
"""Seconds between two log lines."""
_DELAY, _BLINK = 2.0, 0.2  # seconds before the bar shows, and between two of its states


class Progress:
    """Counts videos by their bytes, which are known before any is opened; of one at work, by its length.

    Args:
        sizes: Bytes of each video that is to be done.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self._sizes = dict(sizes)
        self._total = max(1, sum(sizes.values()))
        self._whole = 0  # bytes of finished videos
        self._part: dict[str, float] = {}  # seconds seen of those at work, over their duration
        self._frames = self._done = 0
        self._start = self._said = time.monotonic()
        self._bar: Any = None
        if sys.stderr.isatty() and sizes:
            from tqdm import tqdm

            form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left{postfix}"
            self._bar = tqdm(total=self._total, bar_format=form, delay=_DELAY, leave=False, smoothing=0)

    def see(self, video: str, frames: int, share: float) -> None:
        """Frames of a video have come, `share` of the whole video (0 where that is not known)."""
        self._frames += frames
        self._part[video] = min(1.0, self._part.get(video, 0.0) + share)
        self._show()

    def done(self, video: str) -> None:
        """A video is finished, or has failed."""
        self._part.pop(video, None)
        self._whole += self._sizes.get(video, 0)
        self._done += 1
        self._show()

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()

    def _show(self) -> None:
        at = self._whole + sum(self._sizes.get(video, 0) * share for video, share in self._part.items())
        count = f"{self._done:,} of {len(self._sizes):,} videos"
        now = time.monotonic()
        if self._bar is not None:
            if now - self._said < _BLINK or now - self._start < _DELAY:
                return
            self._said = now
            self._bar.set_description_str(count, refresh=False)
            self._bar.set_postfix_str(f"{self._frames:,} frames", refresh=False)
            self._bar.n = at
            self._bar.refresh()
            return
        if now - self._said < EVERY:
            return
        self._said, passed = now, now - self._start
        left = f", about {_words(passed * (self._total - at) / at)} left" if at else ""
        logger.info("%s, %.0f %%, %s frames%s", count, 100 * at / self._total, f"{self._frames:,}", left)


def _words(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    return f"{hours:.1f} h" if hours >= 2 else f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"
