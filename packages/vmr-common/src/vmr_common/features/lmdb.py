"""Features in LMDB, the layout of CONE and RGNet: the key is the id, the value is an npz archive.

Needs the package ``lmdb`` (``pip install 'vmr-common[lmdb]'``), which is imported when such a store is opened.
"""

from __future__ import annotations

import functools
import weakref
from pathlib import Path
from typing import Any

from vmr_common.boundary import boundary, open_regular
from vmr_common.errors import UserError, quoted
from vmr_common.features import npz
from vmr_common.features.checks import Features, check_layout, checked, manifest_beside
from vmr_common.features.lmdb_pages import MAGIC, MAGIC_AT, check_pages
from vmr_common.features.nearby import nearby
from vmr_common.features.per_process import PerProcess

DATA_FILE = "data.mdb"


def is_lmdb(path: Path) -> bool:
    """True if an LMDB environment lies at `path`: a folder with ``data.mdb``, or one file.

    Raises `OSError` if there is a file that cannot be read.
    """
    if path.is_dir():
        return (path / DATA_FILE).is_file()
    if not path.is_file():
        return False
    with open_regular(path) as file:
        return file.read(MAGIC_AT + len(MAGIC))[MAGIC_AT:] == MAGIC


def _package(path: Path) -> Any:
    try:
        import lmdb
    except ImportError:
        raise UserError(
            f"{path} is an LMDB; reading it needs the package lmdb: pip install 'vmr-common[lmdb]'"
        ) from None
    return lmdb


def _open(path: Path) -> Any:
    lmdb = _package(path)
    folder = path.is_dir()
    check_pages(path / DATA_FILE if folder else path)
    with boundary(f"{path}: not a readable LMDB"):
        # without a lock file: stores often lie on read-only disks, and nobody writes while we read
        return lmdb.open(str(path), subdir=folder, readonly=True, lock=False, create=False, readahead=False)


_ENVIRONMENTS: weakref.WeakValueDictionary[Path, PerProcess[Any]] = weakref.WeakValueDictionary()
"""The environments in use; the library allows only one per path and process, so sources share it."""


class LmdbBackend:
    """An LMDB environment whose values are npz archives, one per video or query."""

    def __init__(self, path: Path, key: str | None) -> None:
        _package(path)
        self.path = path
        self.key = key
        self._shared: PerProcess[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "key": self.key, "_shared": None}

    def _environment(self) -> Any:
        if self._shared is None:
            place = self.path.resolve()
            self._shared = _ENVIRONMENTS.setdefault(place, PerProcess(functools.partial(_open, place)))
        return self._shared.get()

    def _archive(self, video: str) -> npz.Archive:
        where = f"{self.path}: video {video!r}"
        value = self.entry(video)
        if value is None:
            raise UserError(f"{where} is missing ({self.instead(video)})")
        return self.opened(value, where)

    @staticmethod
    def opened(value: bytes, where: str) -> npz.Archive:
        """The archive that an entry is."""
        return npz.Archive(value, where, " is not a readable npz archive")

    def entry(self, video: str) -> bytes | None:
        """The bytes stored for a video (or query), or None."""
        lmdb, environment = _package(self.path), self._environment()
        try:
            key = video.encode()
        except UnicodeEncodeError:
            return None  # not a name that an entry can have
        with boundary(f"{self.path}: video {video!r} cannot be read"):
            try:
                # a copy, so that the array outlives the transaction and the environment
                with environment.begin() as transaction:
                    value: bytes | None = transaction.get(key)
                    return value
            except lmdb.BadValsizeError:
                return None  # likewise

    def count(self) -> int:
        """The number of entries."""
        return int(self._environment().stat()["entries"])

    def read(self, video: str) -> Features:
        """The features of a video (or query)."""
        with self._archive(video) as archive:
            array, name = archive.features(self.key)
        return checked(array, f"{archive.where}, array {name!r}")

    def shape(self, video: str) -> tuple[int, int]:
        """(T, D), from the header alone."""
        with self._archive(video) as archive:
            shape, dtype, name = archive.features_layout(self.key)
        check_layout(shape, dtype, f"{archive.where}, array {name!r}")
        return shape[0], shape[1]

    def has(self, video: str) -> bool:
        """True if there is an entry of that name."""
        return self.entry(video) is not None

    def instead(self, video: str) -> str:
        """What is there instead of a video that is missing."""
        return nearby(video, self.names()) or f"the LMDB holds {self.count():,} entries"

    def names(self) -> list[str]:
        """All ids."""
        environment = self._environment()
        with boundary(f"{self.path}: the list of ids cannot be read"), environment.begin() as transaction:
            keys = [bytes(key) for key in transaction.cursor().iternext(values=False)]
        try:
            return [key.decode() for key in keys]
        except UnicodeDecodeError as error:
            raise UserError(f"{self.path}: the key {quoted(error.object, 60)} is not UTF-8 text") from None

    def manifest_text(self) -> str | None:
        """The manifest as JSON text, beside the data in the environment's folder, or None."""
        return manifest_beside(self.path)

    def close(self) -> None:
        """Lets go of the environment, which closes when nobody in this process uses it; the next read opens it."""
        self._shared = None
