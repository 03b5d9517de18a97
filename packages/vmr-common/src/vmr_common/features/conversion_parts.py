"""The hidden folder in which a conversion keeps what it has finished, so that it can go on after a crash."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypedDict

from vmr_common.errors import UserError
from vmr_common.io import LOCK, FolderLock, no_links, partial_of, read_json, write_text
from vmr_common.schema import conform
from vmr_common.whole_folder import delete_own

_NOTE = "conversion.json"
_PART = re.compile(r"\d{6,}\.h5")


class Note(TypedDict):
    """Proof that the folder was made by a conversion."""

    what: Literal["finished parts of a conversion by vmr-data convert, deleted when it is done"]


NOTE = Note(what="finished parts of a conversion by vmr-data convert, deleted when it is done")


def folder_of(out: Path) -> Path:
    """The folder of the parts of the conversion to `out`."""
    return out.with_name(f".{out.name}.parts")


def has_parts(out: Path) -> bool:
    """True if an earlier conversion to `out` has left parts."""
    return (folder_of(out) / _NOTE).is_file()


@contextlib.contextmanager
def parts_folder(out: Path) -> Iterator[Path]:
    """Holds the folder of the parts of `out`, made if it is not there, for one conversion.

    When the block succeeds the parts are deleted, and the folder if nobody has put anything else there.

    Raises:
        UserError: if another conversion is at work there, or the folder is a link, holds links, or was not made by a
            conversion.
    """
    folder = folder_of(out)
    _refuse_foreign(folder)
    with FolderLock(folder, f"converting to {out.name}"):
        _refuse_foreign(folder)
        write_text(folder / _NOTE, json.dumps(NOTE) + "\n")
        yield folder
        # the note last, and then the lock: what is left after a kill is still known to be ours
        for own in (_is_part, _is_own):
            delete_own(folder, own)


def part(folder: Path, number: int) -> Path:
    """The file of a part."""
    return folder / f"{number:06d}.h5"


def _is_part(name: str) -> bool:
    return _PART.fullmatch(partial_of(name) or name) is not None


def _is_own(name: str) -> bool:
    return _is_part(name) or (partial_of(name) or name) in (_NOTE, LOCK)


def _refuse_foreign(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder}: expected a folder for the parts of a conversion, found something else")
    names = sorted(os.listdir(folder)) if folder.exists() else []
    no_links(folder, filter(_is_own, names))
    if _NOTE in names:
        conform(read_json(folder / _NOTE), Note, str(folder / _NOTE))
        return
    foreign = [name for name in names if _is_part(name) or not _is_own(name)]
    if foreign:
        raise UserError(
            f"{folder}: holds {foreign[0]}, and no {_NOTE} says that a conversion made it; "
            "move it away or name another --out"
        )
