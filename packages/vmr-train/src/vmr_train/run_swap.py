"""A run, or what the end of a run leaves, takes the place of what was there: seen at once, and whole after any kill.

A run that overwrites another is trained in `.new` inside the run folder; the last files of any run are written in
`.final`. When all is there, one rename to `.ready` makes it count: from then on our commands read a file in `.ready`
before the one of the same name outside, and whoever opens the run folder next moves on what a kill has left there. Only
files with names of a run are ever moved or deleted, and no symbolic link is followed.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

from vmr_common.errors import UserError
from vmr_common.io import no_links, sweep_partials, sync_folder, writing
from vmr_train.run_files import EVENT_FILES, EVENTS, FILES, FINAL, FOLDERS, NEW, READY

_ALONE = ".alone"  # in NEW and READY until the files of the earlier run that it lacks are deleted


def refuse_foreign(folder: Path) -> None:
    """Makes sure that every name of a run in a folder is the file or folder that it should be, or free.

    Raises:
        UserError: for the first that is a symbolic link or anything else.
    """
    _require_kind(folder, (NEW, FINAL, READY), stat.S_ISDIR, "folder")
    for place in (folder, folder / NEW, folder / FINAL, folder / READY):
        _require_kind(place, FOLDERS, stat.S_ISDIR, "folder")
        _require_kind(place, FILES, stat.S_ISREG, "file")


def _require_kind(folder: Path, names: tuple[str, ...], fits: Callable[[int], bool], expected: str) -> None:
    no_links(folder, names)
    for name in names:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if not fits(os.lstat(folder / name).st_mode):
                raise UserError(f"{folder / name}: expected a {expected} of a run, found something else")


def own_files(folder: Path) -> list[str]:
    """The files of a run that lie in a folder, relative to it."""
    events: list[str] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder / EVENTS) as entries:
        events = sorted(
            f"{EVENTS}/{entry.name}"
            for entry in entries
            if entry.name.startswith(EVENT_FILES) and entry.is_file(follow_symlinks=False)
        )
    return [*(name for name in FILES if (folder / name).is_file()), *events]


def sweep(folder: Path) -> None:
    """Deletes what killed processes left of half-written files of a run."""
    for place in (folder, *(folder / name for name in FOLDERS)):
        prefix = "" if place == folder else f"{place.name}/"
        sweep_partials(place, lambda name, prefix=prefix: prefix + name in FILES)  # type: ignore[misc]


def discard(folder: Path) -> None:
    """Deletes a run that is to replace another, or unfinished last files; what others put there stays."""
    sweep(folder)
    for name in own_files(folder):
        (folder / name).unlink()
    (folder / _ALONE).unlink(missing_ok=True)
    _remove_if_empty(folder)


def put_in_place(folder: Path, finished: str) -> None:
    """Makes a finished run (`NEW`), or finished last files (`FINAL`), those of the folder.

    Raises:
        UserError: if the disk fails; when it happens after the files count, the next who opens the run goes on.
    """
    with writing(folder):
        if finished == NEW:
            (folder / NEW / _ALONE).touch()
        sync_folder(folder / finished)
        os.rename(folder / finished, folder / READY)
        sync_folder(folder)
        complete(folder)


def complete(folder: Path) -> None:
    """Moves files that count already to their places; to be called by who holds the folder's lock.

    Killed at any instant, it can be called again: what was moved is not there to be moved any more, and what the
    earlier run has beyond the new one is deleted before anything moves.
    """
    ready = folder / READY
    if not ready.is_dir():
        return
    if (ready / _ALONE).exists():
        for name in set(own_files(folder)) - set(own_files(ready)):
            (folder / name).unlink()
        (ready / _ALONE).unlink()
        sync_folder(ready)
    for name in own_files(ready):
        (folder / name).parent.mkdir(exist_ok=True)
        os.replace(ready / name, folder / name)
    for name in FOLDERS:
        with contextlib.suppress(OSError):
            (folder / name).rmdir()
    sync_folder(folder)
    _remove_if_empty(ready)


def _remove_if_empty(folder: Path) -> None:
    for place in (*(folder / name for name in FOLDERS), folder):
        with contextlib.suppress(OSError):  # not empty, or not there
            place.rmdir()
