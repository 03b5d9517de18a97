"""The hidden folder of finished videos beside a file of features, from which a killed extraction goes on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypedDict

from numpy.typing import NDArray

from vmr_common.errors import UserError
from vmr_common.io import LOCK, FolderLock, no_links, partial_of, read_json, write_text
from vmr_common.schema import conform
from vmr_common.whole_folder import delete_own
from vmr_video.extractor import Rows
from vmr_video.stored import load, save

_NOTE = "extraction.json"
_PART = re.compile(r"[0-9a-f]{64}\.safetensors")


class _Note(TypedDict):
    """Proof that the folder was made by an extraction."""

    what: Literal["finished videos of an extraction by vmr-extract, deleted when it is done"]


_PROOF = _Note(what="finished videos of an extraction by vmr-extract, deleted when it is done")


def folder_of(out: Path) -> Path:
    """The folder of the parts of an extraction to `out`."""
    return out.with_name(f".{out.name}.videos")


class Parts:
    """Rows of finished videos, one file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, key: str) -> dict[str, NDArray[Any]] | None:
        """The rows of a video; None where it is not finished, or its file is damaged."""
        found = load(self._folder / f"{key}.safetensors")
        return None if found is None else found[0]

    def put(self, key: str, rows: Rows) -> None:
        """Keeps the rows of a video.

        Raises:
            UserError: if they cannot be written.
        """
        save(self._folder / f"{key}.safetensors", rows, {})


def key_of(video: str, path: Path, made: str) -> str:
    """The name of a video's rows: by its id, its size, the time of its last change, and how they are made."""
    found = path.stat()
    return hashlib.sha256(json.dumps([video, found.st_size, found.st_mtime_ns, made]).encode()).hexdigest()


@contextlib.contextmanager
def parts_beside(out: Path) -> Iterator[Parts]:
    """Holds the folder of the parts of `out`, made if it is not there, for one extraction.

    When the block succeeds the parts are deleted, and the folder if nobody has put anything else there; when it fails,
    the folder stays if it holds a part.

    Raises:
        UserError: if another extraction is at work there, or the folder is not one of ours.
    """
    folder = folder_of(out)
    _refuse_foreign(folder)
    with FolderLock(folder, f"extracting to {out.name}"):
        _refuse_foreign(folder)
        write_text(folder / _NOTE, json.dumps(_PROOF) + "\n")
        try:
            yield Parts(folder)
        except BaseException:
            if not any(map(_is_part, os.listdir(folder))):
                delete_own(folder, _is_own)
            raise
        # the note last, and then the lock: what is left after a kill is still known to be ours
        for own in (_is_part, _is_own):
            delete_own(folder, own)


def _is_part(name: str) -> bool:
    return _PART.fullmatch(partial_of(name) or name) is not None


def _is_own(name: str) -> bool:
    return _is_part(name) or (partial_of(name) or name) in (_NOTE, LOCK)


def _refuse_foreign(folder: Path) -> None:
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UserError(f"{folder}: expected a folder for the parts of an extraction, found something else")
    names = sorted(os.listdir(folder)) if folder.exists() else []
    no_links(folder, filter(_is_own, names))
    if _NOTE in names:
        conform(read_json(folder / _NOTE), _Note, str(folder / _NOTE))
        return
    foreign = [name for name in names if _is_part(name) or not _is_own(name)]
    if foreign:
        raise UserError(
            f"{folder}: holds {foreign[0]}, and no {_NOTE} says that an extraction made it; "
            "move it away or name another --out"
        )
