"""File backends of features: an HDF5 file, a folder of files, an LMDB. Use `store.FeatureStore`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from h5py import h5d, h5g

from vmr_common.boundary import PICKLE_START, open_regular, reason
from vmr_common.errors import UserError, listed, quoted, some_of
from vmr_common.features import npz
from vmr_common.features.checks import Features, as_float32, check_layout, checked
from vmr_common.features.folder import SUFFIXES, FolderBackend
from vmr_common.features.hdf5 import Hdf5File
from vmr_common.features.lmdb import LmdbBackend, is_lmdb
from vmr_common.features.nearby import nearby

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")


class FeatureBackend(Protocol):
    """One place with the features of many videos."""

    def read(self, video: str) -> Features:
        """The features, ``(T, D)`` float32, checked."""

    def shape(self, video: str) -> tuple[int, int]:
        """(T, D)."""

    def has(self, video: str) -> bool:
        """True if the video is there."""

    def instead(self, video: str) -> str:
        """What is there instead of a video that is missing."""

    def names(self) -> list[str]:
        """All video ids."""

    def manifest_text(self) -> str | None:
        """The manifest as JSON text, or None."""

    def close(self) -> None:
        """Closes what is open in this process."""


def open_backend(path: Path, key: str | None) -> FeatureBackend:
    """The source at `path`, by what is there; nothing stays open."""
    try:
        if is_lmdb(path):
            return LmdbBackend(path, key)
        if path.is_dir():
            return FolderBackend(path, key)
        with open_regular(path) as file:
            start = file.read(len(_HDF5_SIGNATURE))
    except FileNotFoundError:
        raise UserError(f"{path}: no such feature file or folder") from None
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        if isinstance(error, UserError):
            raise
        raise UserError(f"cannot read {path}: {reason(error)}") from error
    # HDF5 allows a user block before the signature, so the name may vouch for it too
    if start == _HDF5_SIGNATURE or path.suffix.lower() in _HDF5_SUFFIXES:
        return Hdf5Backend(path, key)
    found = "a pickle, which is never loaded" if start.startswith(PICKLE_START) else "something else"
    if path.suffix in SUFFIXES:
        found = f"one {path.suffix} file, of which a video has one each: give its folder, {path.parent}"
    raise UserError(
        f"{path}: expected an HDF5 file, an LMDB, or a folder with a file per video "
        f"({', '.join(SUFFIXES)}), found {found}"
    )


class Hdf5Backend:
    """An HDF5 file with one data set per video, or one group per video with the data set `key` in it.

    Without a key that of a group is the first of `npz.DEFAULT_KEYS` that is there, else the only one.
    """

    def __init__(self, path: Path, key: str | None) -> None:
        self.hdf5 = Hdf5File(path)
        self.key = key

    def _dataset(self, video: str) -> tuple[Any, str, str]:
        """The data set of a video, its name in the file, and what to call it."""
        where = f"{self.hdf5.path}: video {video!r}"
        name = video if self.key is None else f"{video}/{self.key}"
        if (node := self.hdf5.find_quickly(name)) is not None:
            return node, name, where if self.key is None else f"{where}, key {self.key!r}"
        node = self.hdf5.find(video, where)
        if node is None:
            raise UserError(f"{where} is missing ({self.instead(video)})")
        if isinstance(node, h5g.GroupID):
            return self._inside(video, where)
        if not isinstance(node, h5d.DatasetID):
            raise UserError(f"{where} is not a data set")
        return node, video, where

    def _inside(self, video: str, where: str) -> tuple[Any, str, str]:
        names = self.hdf5.names(video)
        key = self.key or npz.chosen(names, None)
        if key is not None:
            name, called = f"{video}/{key}", f"{where}, key {key!r}"
            if isinstance(node := self.hdf5.find(name, called), h5d.DatasetID):
                return node, name, called
        found = f"is a group (of {some_of(names, 8)})"
        if self.key is not None:
            found = f"has no data set {self.key!r} (found: {some_of(names, 8)})"
        raise UserError(f"{where} {found}{npz.key_hint(names)}")

    def read(self, video: str) -> Features:
        """The features of a video; its values are checked when it is read for the first time."""
        sound = self.hdf5.sound
        if video in sound:
            return as_float32(self.hdf5.again(sound[video], f"{self.hdf5.path}: video {video!r}"))
        node, name, where = self._dataset(video)
        found = self.hdf5.numbers(node, where)
        check_layout(found.shape, found.dtype, where)
        self.hdf5.check(found)
        features = checked(self.hdf5.values(found), where)
        sound[video] = name
        return features

    def shape(self, video: str) -> tuple[int, int]:
        """(T, D), from the header alone where there is one."""
        node, _, where = self._dataset(video)
        found = self.hdf5.numbers(node, where)
        check_layout(found.shape, found.dtype, where)
        return found.shape[0], found.shape[1]

    def has(self, video: str) -> bool:
        """True if the video is there."""
        return self.hdf5.find(video, f"{self.hdf5.path}: video {video!r}") is not None

    def instead(self, video: str) -> str:
        """What is there instead of a video that is missing."""
        names = self.hdf5.names()
        return (
            nearby(video, names)
            or f"the file holds {listed([quoted(name, 60) for name in names], 3) or 'nothing'}"
        )

    def names(self) -> list[str]:
        """All video ids."""
        return self.hdf5.names()

    def manifest_text(self) -> str | None:
        """The manifest as JSON text, or None."""
        return self.hdf5.manifest_text()

    def close(self) -> None:
        """Closes the file; the next read opens it again."""
        self.hdf5.close()
