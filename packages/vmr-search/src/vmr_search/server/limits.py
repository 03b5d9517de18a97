"""The bounds of the server: sizes of requests, and how much works at a time."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import anyio.to_thread

from vmr_search.server.errors import Refused

MOST_PAGE = 100
"""Moments of one answer."""
MOST_NAMES = 100
"""Videos or folders that one request may name."""
MOST_TARGET = 8192
"""Bytes of path and query of a request."""
MOST_CLIP_S = 600.0
"""Seconds of a clip."""
MOST_PICTURES = 16
"""Pictures of a film strip."""
MOST_MARKED = 100
"""Moments of one file of markers."""
PICTURE_BYTES = 64 << 20
"""Bytes of pictures that are kept."""
MOST_WAITING = 512
"""Requests that wait for a place, of each kind."""

MOST_TOGETHER = 32
"""Sentences that share a scan."""
MOST_CONNECTIONS = 600
"""Connections at a time; those beyond are answered 503."""

T = TypeVar("T")
Gone = Callable[[], Awaitable[bool]]


class Gate:
    """Lets so many pieces of work run at a time, each in a thread; others wait, but not for ever.

    Args:
        running: At a time.
        waiting_s: Seconds that one waits at the most.
        what: Is busy, for the message.
    """

    def __init__(self, running: int, waiting_s: float, what: str) -> None:
        self.running, self.waiting_s, self.what = running, waiting_s, what
        self._places = asyncio.Semaphore(running)
        self._threads: anyio.CapacityLimiter | None = None
        self._waiting = 0

    @contextlib.asynccontextmanager
    async def place(self, gone: Gone | None = None) -> AsyncIterator[None]:
        """A place to work in, once one is free.

        Args:
            gone: True if nobody waits for the work any more; asked before it begins.

        Raises:
            Refused: 503 if no place became free in time, 499 if the client has gone.
        """
        if self._waiting >= MOST_WAITING:
            raise self._busy()
        self._waiting += 1
        try:
            await asyncio.wait_for(self._places.acquire(), self.waiting_s)
        except TimeoutError:
            raise self._busy() from None
        finally:
            self._waiting -= 1
        try:
            if gone is not None and await gone():
                raise Refused(499, "gone", "the client has closed the connection")
            yield
        finally:
            self._places.release()

    async def thread(self, work: Callable[..., T], *arguments: object) -> T:
        """Does the work in a thread, for who has a place; returns what it does."""
        if self._threads is None:  # belongs to the loop that runs
            self._threads = anyio.CapacityLimiter(self.running)
        return await anyio.to_thread.run_sync(functools.partial(work, *arguments), limiter=self._threads)

    async def run(self, work: Callable[..., T], *arguments: object, gone: Gone | None = None) -> T:
        """Does the work in a thread, in a place of its own; returns what it does; see `place`."""
        async with self.place(gone):
            return await self.thread(work, *arguments)

    def _busy(self) -> Refused:
        return Refused(503, "busy", f"{self.what} is busy, try again", headers={"Retry-After": "2"})
