"""Answers of a server in bounded memory and time, whatever it is that answers at the address."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from vmr_common.errors import UserError

MOST_BYTES = 256 << 20
"""Of an answer: the vectors of some hundred windows as JSON are some megabytes."""
PLAIN = {"Accept-Encoding": "identity"}
"""Header of requests whose answers are bounded: a packed one could be unpacked to anything."""


def bounded(seconds: float, most: int = MOST_BYTES) -> Callable[[Any], None]:
    """A hook of httpx for answers, to be called before they are read: they raise `UserError` beyond a bound.

    Args:
        seconds: That the body of an answer may take.
        most: Bytes of it.
    """
    import httpx

    class Bounded(httpx.SyncByteStream):
        def __init__(self, stream: httpx.SyncByteStream) -> None:
            self._stream, self._end = stream, time.monotonic() + seconds

        def __iter__(self) -> Iterator[bytes]:
            size = 0
            for part in self._stream:
                size += len(part)
                if size > most:
                    raise UserError(f"an answer of more than {most:,} bytes, which is none of this engine")
                if time.monotonic() > self._end:
                    raise UserError(f"an answer that takes more than {seconds:g} s")
                yield part

        def close(self) -> None:
            self._stream.close()

    def hook(response: Any) -> None:
        packed = response.headers.get("Content-Encoding", "identity")
        if packed != "identity":
            raise UserError(f"an answer packed by {packed[:20]!r}, expected one that is not packed")
        response.stream = Bounded(response.stream)

    return hook
