"""The hidden folder of finished parts beside a file, from which work that was killed goes on."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from vmr_common.errors import UserError, quoted
from vmr_common.folder_lock import LOCK, FolderLock
from vmr_common.io import no_links, partial_of, read_json, write_text
from vmr_common.schema import conform
from vmr_common.whole_folder import delete_own


class _Note(TypedDict):
    """Proof that a folder was made by work of ours."""

    what: str


@dataclass(frozen=True)
class PartsKind:
    """The parts of one kind of work.

    Attributes:
        work: Its name in messages, such as ``a conversion``.
        note: Name of the file that proves whose folder it is.
        what: Content of that file, in words.
        part: Names of parts.
    """

    work: str
    note: str
    what: str
    part: re.Pattern[str]

    def is_part(self, name: str) -> bool:
        """True for the name of a part, or of one that is being written."""
        return self.part.fullmatch(partial_of(name) or name) is not None

    def is_own(self, name: str) -> bool:
        """True for the name of any file that the work writes into the folder."""
        return self.is_part(name) or (partial_of(name) or name) in (self.note, LOCK)


@contextlib.contextmanager
def parts_folder(folder: Path, kind: PartsKind, doing: str) -> Iterator[Path]:
    """Holds the folder of parts, made if it is not there, for one process.

    When the block succeeds the parts are deleted, and the folder if nobody has put anything else there; when it fails,
    the folder stays if it holds a part.

    Args:
        folder: Its place.
        kind: Of the parts.
        doing: What the process does, for others that find the folder held.

    Raises:
        UserError: if another process is at work there, or the folder is not one of this kind.
    """
    _refuse_foreign(folder, kind)
    with FolderLock(folder, doing):
        _refuse_foreign(folder, kind)
        write_text(folder / kind.note, json.dumps(_Note(what=kind.what)) + "\n")
        try:
            yield folder
        except BaseException:
            if not any(map(kind.is_part, os.listdir(folder))):
                delete_own(folder, kind.is_own)
            raise
        # the note last, and then the lock: what is left after a kill is still known to be ours
        for own in (kind.is_part, kind.is_own):
            delete_own(folder, own)


def _refuse_foreign(folder: Path, kind: PartsKind) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder}: expected a folder for the parts of {kind.work}, found something else")
    names = sorted(os.listdir(folder)) if folder.exists() else []
    no_links(folder, filter(kind.is_own, names))
    if kind.note in names:
        found = conform(read_json(folder / kind.note), _Note, str(folder / kind.note))["what"]
        if found != kind.what:
            raise UserError(
                f"{folder / kind.note}: what: found {quoted(found, 60)}, expected {quoted(kind.what)}"
            )
        return
    foreign = [name for name in names if kind.is_part(name) or not kind.is_own(name)]
    if foreign:
        raise UserError(
            f"{folder}: holds {foreign[0]}, and no {kind.note} says that {kind.work} made it; "
            "move it away or name another --out"
        )
