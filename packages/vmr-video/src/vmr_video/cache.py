"""Rows of videos kept between commands, by the content of the video and all that decides the rows."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from vmr_common.errors import UserError
from vmr_common.features.manifest import BaseManifest
from vmr_common.io import no_links, partial_of, write_text
from vmr_common.whole_folder import delete_own
from vmr_video.extractor import Rows
from vmr_video.stored import load, save

FORM = "1"
"""Changes with the arithmetic of this package, so that older entries are not taken."""

_NOTE = "vmr-cache.txt"
_TEXT = "Rows of videos, kept by vmr-video so that a video is encoded once; this folder may be deleted at any time.\n"
_ENTRY = re.compile(r"[0-9a-f]{64}\.safetensors")
_FREE = ("source", "creator", "dim", "dtype")  # fields of a manifest that decide no row


def default_folder() -> Path:
    """``$XDG_CACHE_HOME/vmr``, else ``~/.cache/vmr``.

    Raises:
        UserError: if there is no home folder.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(given):
        return Path(given) / "vmr"
    try:
        return Path.home() / ".cache" / "vmr"
    except RuntimeError:
        raise UserError("cache: there is no home folder; name a folder by --cache") from None


def identity(manifest: BaseManifest, **more: object) -> str:
    """All that decides the rows of a video, as one text: the manifest's fields, and what it does not say."""
    facts = {key: value for key, value in dataclasses.asdict(manifest).items() if key not in _FREE}
    if facts.get("weights_hash"):  # wherever they came from
        facts.pop("network", None)
    return json.dumps({"form": FORM, **facts, **more}, sort_keys=True)


class Cache:
    """A folder of rows, an entry per content of a video and `identity`.

    Entries are written atomically; a damaged one counts as missing. Nothing is deleted but by `clear`, and by it only
    entries: the folder's size is the rows' (of 1 row per second and 512 numbers, 7 MB per hour).

    Args:
        folder: Is made on the first write; None for `default_folder`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = default_folder() if folder is None else folder
        self._rows = self.folder / "rows"

    def get(self, content: str, made: str) -> tuple[dict[str, NDArray[Any]], dict[str, str]] | None:
        """The rows of a video and what was written about them; None where they are not there."""
        return load(self._path(content, made))

    def put(self, content: str, made: str, rows: Rows, facts: Mapping[str, str]) -> None:
        """Keeps rows.

        Raises:
            UserError: if the folder cannot be written, or is a link.
        """
        no_links(self.folder, ["rows", _NOTE])
        save(self._path(content, made), rows, facts)
        if not (self.folder / _NOTE).exists():
            write_text(self.folder / _NOTE, _TEXT)

    def clear(self) -> tuple[int, int]:
        """Deletes all entries, and nothing else; returns their number and bytes."""
        no_links(self.folder, ["rows", _NOTE])
        sizes = [path.stat().st_size for path in self._rows.glob("*.safetensors") if _is_own(path.name)]
        delete_own(self._rows, _is_own)
        return len(sizes), sum(sizes)

    def _path(self, content: str, made: str) -> Path:
        name = hashlib.sha256(f"{content}\n{made}".encode()).hexdigest()
        return self._rows / f"{name}.safetensors"


def _is_own(name: str) -> bool:
    return _ENTRY.fullmatch(partial_of(name) or name) is not None
