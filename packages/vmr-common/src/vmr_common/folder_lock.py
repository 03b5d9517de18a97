"""A folder that one process at a time writes into."""

from __future__ import annotations

import os
import platform
import stat
from pathlib import Path

from vmr_common.errors import UserError, quoted
from vmr_common.io import locked, no_links, writing

LOCK = ".lock"
"""Name of the file in a folder that is locked while somebody writes there."""

_held: set[int] = set()


def _let_go() -> None:
    """A forked process would hold its parent's locks beyond the parent's death."""
    for handle in _held:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, handle, inheritable=False)
        os.close(nothing)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def _is_at(handle: int, path: Path) -> bool:
    """True if an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except OSError:
        return False


class FolderLock:
    """A folder held by one process, until the block or the process ends, however it does.

    Args:
        folder: Is created if it is not there.
        doing: What the holder does, for the message that others get: ``training``.

    Raises:
        UserError: if another process holds it (names the host, the process and what it does), the lock is a link, or
            the folder cannot be written.
    """

    def __init__(self, folder: str | Path, doing: str) -> None:
        self.path = Path(folder) / LOCK
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        no_links(self.path.parent, [LOCK])
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(self.path, flags, 0o666)
        if not stat.S_ISREG(os.fstat(self._handle).st_mode):
            self.close()
            raise UserError(f"{self.path}: expected a file, found something else")
        if locked(self._handle) is False:
            holder = os.pread(self._handle, 300, 0).decode("utf-8", "replace").strip()
            self.close()
            raise UserError(
                f"{folder}: another process is at work there ({quoted(holder) if holder else 'it has just begun'})"
            )
        _held.add(self._handle)
        if not _is_at(self._handle, self.path):  # the holder before has deleted it
            self.close()
            raise UserError(f"{folder}: another process was at work there and has just ended; try again")
        with writing(self.path):
            os.ftruncate(self._handle, 0)
            os.pwrite(self._handle, f"{doing}, process {os.getpid()} on {platform.node()}\n".encode(), 0)

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets others in."""
        if self._handle >= 0:
            _held.discard(self._handle)
            os.close(self._handle)
            self._handle = -1
