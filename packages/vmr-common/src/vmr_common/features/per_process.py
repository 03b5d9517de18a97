"""Resources that each process opens for itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar


class Closeable(Protocol):
    """Anything that can be closed."""

    def close(self) -> None:
        """Closes it."""


Handle = TypeVar("Handle", bound=Closeable)


class PerProcess(Generic[Handle]):
    """A handle that every process opens for itself on first use. A pickled copy starts closed.

    A handle inherited through fork is closed (which leaves the parent's alone) and opened anew, so that no two
    processes share one file position or one library state for a file. What opens it is pickled with the rest.
    """

    def __init__(self, opened: Callable[[], Handle]) -> None:
        self._opened = opened
        self._handle: Handle | None = None
        self._process = -1

    def get(self) -> Handle:
        """The handle, open in this process."""
        if self._handle is None or self._process != os.getpid():
            self.close()
            self._handle, self._process = self._opened(), os.getpid()
        return self._handle

    def close(self) -> None:
        """Closes the handle; the next use opens it again."""
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None, "_process": -1}
