"""Connections that send no whole request in time are ended: some hundred of them would keep everybody out."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 20.0
"""Seconds that the line and the headers of a request may take, from its first byte or from the connection on."""


class Patient(H11Protocol):
    """HTTP of uvicorn, which by itself waits for a request that has begun for ever."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """As that of uvicorn."""
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        """As that of uvicorn."""
        super().data_received(data)
        if self._answers():
            self._forget()
        else:
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        """As that of uvicorn."""
        self._forget()
        super().connection_lost(exc)

    def _answers(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(REQUEST_S, self._end)

    def _forget(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _end(self) -> None:
        self._late = None
        if not self._answers() and not self.transport.is_closing():
            self.transport.close()
