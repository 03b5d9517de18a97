"""Folders that are either whole or absent: written beside their place, and put there by renaming."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from vmr_common.io import no_links, sweep_partials, sync_folder, umask

logger = logging.getLogger(__name__)
_NEW, _OLD = "new", "old"
Own = Callable[[str], bool]
"""Test of a file name: True if the program writes it into such a folder."""


@contextlib.contextmanager
def held(folder: Path, own: Own, doing: str = "writes there") -> Iterator[None]:
    """Lets one process at a time write beside `folder`, and clears what killed ones have left of it there.

    Others wait, and log that they do. The system frees the lock when its holder dies; where it has no locks, nothing
    is cleared, and the last rename decides.

    Args:
        folder: Its parent is made if it is not there.
        own: See `whole_folder`.
        doing: What the process does that others wait for, for their log line.

    Raises:
        OSError: if the parent cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    handle = -1
    try:
        with contextlib.suppress(OSError, ImportError):
            import fcntl

            handle = os.open(folder.parent, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                logger.info("%s: waiting for another process that %s", folder, doing)
                fcntl.flock(handle, fcntl.LOCK_EX)
            form = re.compile(rf"\.{re.escape(folder.name)}\.[a-z0-9_]{{8}}\.partial")
            for name in os.listdir(folder.parent):
                if form.fullmatch(name):  # of a killed process: a living one would hold the lock
                    _clear(folder.parent / name, folder, own)
        yield
    finally:
        if handle >= 0:
            os.close(handle)


@contextlib.contextmanager
def whole_folder(folder: Path, own: Own) -> Iterator[Path]:
    """Yields an empty folder that takes the place of `folder` when the block succeeds.

    Of what was there before, own files are deleted. Killed at any instant, the next `held` puts the earlier folder
    back if neither is in place.

    Args:
        folder: Its name; if it is there, it holds own files only.
        own: Test of a file name: True if the program writes it into such a folder.

    Raises:
        OSError: if the files cannot be moved; the earlier folder is in its place then.
        UserError: if the earlier folder holds a symbolic link.
    """
    if folder.exists():
        no_links(folder, sorted(os.listdir(folder)))
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.parent))
    try:
        (work / _NEW).mkdir()
        yield work / _NEW
        os.chmod(work / _NEW, 0o777 & ~umask())
        sync_folder(work / _NEW)
        if folder.exists():
            folder.rename(work / _OLD)
        (work / _NEW).rename(folder)
        sync_folder(folder.parent)
    finally:
        _clear(work, folder, own)


def _clear(work: Path, folder: Path, own: Own) -> None:
    """Deletes own files from a folder of `whole_folder`; what is not in place of `folder` goes back there."""
    if work.is_symlink():
        return
    with contextlib.suppress(OSError):
        if (work / _OLD).is_dir() and not (work / _OLD).is_symlink() and not os.path.lexists(folder):
            (work / _OLD).rename(folder)
    for part in (work / _NEW, work / _OLD):
        delete_own(part, own)
    with contextlib.suppress(OSError):
        work.rmdir()


def delete_own(folder: Path, own: Own) -> None:
    """Deletes regular files with names of our own from a folder, and the folder if nothing else is in it.

    A symbolic link is neither followed nor deleted.
    """
    if folder.is_symlink():
        return
    sweep_partials(folder, own)
    with contextlib.suppress(OSError):
        with os.scandir(folder) as entries:
            names = [
                entry.name for entry in entries if own(entry.name) and entry.is_file(follow_symlinks=False)
            ]
        for name in names:
            (folder / name).unlink()
        folder.rmdir()
