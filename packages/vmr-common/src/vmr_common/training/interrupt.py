"""Ctrl-C and SIGTERM end training between two updates, all saved; the second one ends it at once."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType, TracebackType
from typing import Any

from vmr_common.training import distributed

_SAME_KEYSTROKE_S = 0.5  # launchers relay a signal that the terminal has already sent to everyone
_NOTICE = b"\nstopping after this update, then saving; once more to stop at once\n"


class Stopped(Exception):  # noqa: N818 - not an error
    """Evaluation was abandoned because a stop was requested on some rank."""


class StopRequest:
    """Inside the block, `requested` tells whether SIGINT or SIGTERM has arrived (main thread only)."""

    def __init__(self) -> None:
        self._at: float | None = None
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has arrived."""
        return self._at is not None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is signal.SIG_IGN:  # as nohup and background jobs want it
                    continue
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._at is None:
            self._at = now
            if distributed.rank() == 0:
                os.write(2, _NOTICE)  # sys.stderr must not be entered twice
        elif now - self._at > _SAME_KEYSTROKE_S:
            raise KeyboardInterrupt("stopped at once; the last checkpoint stays as it was")
