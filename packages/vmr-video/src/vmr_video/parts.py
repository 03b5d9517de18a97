"""The hidden folder of finished videos beside a file of features, from which a killed extraction goes on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vmr_common.parts_folder import PartsKind, parts_folder
from vmr_video.extractor import Rows
from vmr_video.stored import load, save

_PARTS = PartsKind(
    work="an extraction",
    note="extraction.json",
    what="finished videos of an extraction by vmr-extract, deleted when it is done",
    part=re.compile(r"[0-9a-f]{64}\.safetensors"),
)


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
    with parts_folder(folder_of(out), _PARTS, f"extracting to {out.name}") as folder:
        yield Parts(folder)
