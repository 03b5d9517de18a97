"""Signals end training between two updates, all saved; a second Ctrl-C or SIGTERM ends it at once, even in a wait."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType, TracebackType
from typing import Any

ENDING = tuple(
    getattr(signal, name)
    # a cluster sends one of the last three before the time of a job is over
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    if hasattr(signal, name)
)
"""Signals that ask for the end."""
# the others may come once a second, and mean the same every time
_INSISTING = (signal.SIGINT, signal.SIGTERM)

GRACE_S = 20.0
"""How long a process that was asked to end goes on waiting for one that no longer answers."""
_AT_ONCE_S = 1.0  # for the main thread to take notice of a second signal
_SAME_KEYSTROKE_S = 0.5  # launchers relay a signal that the terminal has already sent to everyone
_NOTICE = b"\nstopping after this update, then saving; once more to stop at once\n"
AT_ONCE = "stopped at once; the last checkpoint stays as it was"
"""The message where nothing could be saved."""
_STATUS = 130

_waiting_since: float | None = None


class Stopped(Exception):  # noqa: N818 - not an error
    """Evaluation was abandoned because a stop was requested on some rank."""


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """The block waits for other processes, inside a library that lets no signal handler run (main thread only)."""
    global _waiting_since
    before, _waiting_since = _waiting_since, time.monotonic()
    try:
        yield
    finally:
        _waiting_since = before


def heard() -> None:
    """The process that is waited for has just shown that it is at work."""
    global _waiting_since
    if _waiting_since is not None:
        _waiting_since = time.monotonic()


class StopRequest:
    """Inside the block, `requested` tells whether a signal that asks for the end has arrived (main thread only).

    Signals that are ignored when the block begins, as nohup and background jobs want it, stay ignored.

    Args:
        at_once: The first one raises `KeyboardInterrupt` already.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self._at_once = at_once
        self._at: float | None = None
        self._insisted: float | None = None
        self._handled = 0.0
        self._previous: dict[signal.Signals, Any] = {}
        self._watch: _Watch | None = None

    @property
    def requested(self) -> bool:
        """True once a signal has arrived."""
        return self._at is not None

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._watch = _Watch(self)
            for number in ENDING:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
        if self._watch is not None:
            self._watch.close()
            self._watch = None

    def ignored_by(self, since: float) -> bool:
        """True if the main thread has not come to handle a signal that arrived at this time."""
        return self._handled < since

    def _receive(self, number: int, frame: FrameType | None) -> None:
        now = self._handled = time.monotonic()
        first, self._at = self._at is None, self._at or now
        if number in _INSISTING:
            if self._insisted is not None and now - self._insisted > _SAME_KEYSTROKE_S:
                raise KeyboardInterrupt(AT_ONCE)
            self._insisted = self._insisted or now
        if self._at_once:
            raise KeyboardInterrupt
        if first and os.environ.get("RANK", "0") == "0":
            os.write(2, _NOTICE)  # sys.stderr must not be entered twice


class _Watch:
    """Ends the process where the main thread cannot, because it waits inside a library.

    Python runs handlers in the main thread alone, between two of its instructions. But the system's part of a handler
    writes the signal's number into a pipe at once, and a thread reads it there.
    """

    def __init__(self, request: StopRequest) -> None:
        self._request = request
        self._first: float | None = None
        self._insisted: float | None = None
        self._second: float | None = None
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="signals")
        self._thread.start()

    def close(self) -> None:
        """Stops watching."""
        signal.set_wakeup_fd(self._before)
        self._closing.set()
        os.write(self._write, b"\0")
        self._thread.join()
        os.close(self._read)
        os.close(self._write)

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._read], [], [], None if self._first is None else 0.2)
            if self._closing.is_set():
                return
            for number in os.read(self._read, 100) if ready else b"":
                if number in ENDING:
                    self._note(number, time.monotonic())
            self._end_if_stuck(time.monotonic())

    def _note(self, number: int, now: float) -> None:
        self._first = self._first or now
        if number in _INSISTING:
            if self._insisted is not None and now - self._insisted > _SAME_KEYSTROKE_S:
                self._second = self._second or now
            self._insisted = self._insisted or now

    def _end_if_stuck(self, now: float) -> None:
        second, first, since = self._second, self._first, _waiting_since
        if second is not None and now - second > _AT_ONCE_S and self._request.ignored_by(second):
            _end(AT_ONCE)
        if first is not None and since is not None and now - max(first, since) > GRACE_S:
            _end("stopped: another process does not answer; the last checkpoint stays as it was")


def _end(message: str) -> None:
    with contextlib.suppress(OSError):
        os.write(2, f"interrupted: {message}\n".encode())
    os._exit(_STATUS)
