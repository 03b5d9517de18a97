"""Where features lie: an HDF5 file, a folder of npy and npz files, an LMDB. Use `features.FeatureStore`."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Protocol

import h5py
import numpy as np
from numpy.typing import NDArray

from vmr_common import npz
from vmr_common.errors import UserError
from vmr_common.feature_checks import Features, as_float32, check_layout, checked, manifest_beside, reason
from vmr_common.lmdb_source import LmdbSource, is_lmdb

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf", ".he5")


class Source(Protocol):
    """One place with the features of many videos."""

    def read(self, video: str) -> Features:
        """The features, ``(T, D)`` float32, checked."""

    def shape(self, video: str) -> tuple[int, int]:
        """(T, D)."""

    def has(self, video: str) -> bool:
        """Whether the video is there."""

    def names(self) -> list[str]:
        """All video ids."""

    def manifest_text(self) -> str | None:
        """The manifest as JSON text, or None."""

    def close(self) -> None:
        """Closes what is open in this process."""


def open_source(path: Path, key: str | None) -> Source:
    """The source at `path`, by what is there; nothing stays open.

    Raises:
        UserError: if nothing is there, it is neither a folder nor an HDF5 file nor an LMDB, or the package that
            reads LMDB is not installed.
    """
    try:
        if is_lmdb(path):
            return LmdbSource(path, key)
        if path.is_dir():
            return FolderSource(path, key)
        with path.open("rb") as file:
            start = file.read(len(_HDF5_SIGNATURE))
    except FileNotFoundError:
        raise UserError(f"{path}: no such feature file or folder") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    # HDF5 allows a user block before the signature, so the name may vouch for it too
    if start == _HDF5_SIGNATURE or path.suffix.lower() in _HDF5_SUFFIXES:
        return Hdf5Source(path, key)
    found = "a pickle, which is never loaded" if start.startswith(npz.PICKLE_START) else "something else"
    raise UserError(
        f"{path}: expected an HDF5 file or a folder of npy or npz files or an LMDB, found {found}"
    )


class Hdf5Source:
    """An HDF5 file with one data set per video, or one group per video with the data set `key` in it."""

    def __init__(self, path: Path, key: str | None) -> None:
        self.path = path
        self.key = key
        self._file: h5py.File | None = None
        self._process = -1
        self._sound: set[str] = set()  # videos that were read and checked, from the file that is open now

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_process": -1, "_sound": set()}

    def file(self) -> h5py.File:
        """The file, open in this process.

        Raises:
            UserError: if it is missing or not readable.
        """
        # a handle inherited through fork is closed here (which leaves the parent's alone) and opened anew, so
        # that no two processes share one file position or one library state for the file
        if self._file is not None and self._process == os.getpid():
            return self._file
        self.close()
        try:
            self._file = _open_hdf5(self.path)
        except FileNotFoundError:
            raise UserError(f"{self.path}: no such feature file") from None
        except OSError as error:
            raise UserError(f"{self.path}: not a readable HDF5 file ({reason(error)})") from None
        self._process = os.getpid()
        return self._file

    def _dataset(self, video: str) -> tuple[h5py.Dataset, str]:
        file = self.file()
        where = f"{self.path}: video {video!r}"
        if not self.is_name(video):
            raise UserError(f"{where} is missing (not a name that a data set can have)")
        try:
            node = file.get(video)
            if node is None:
                raise UserError(f"{where} is missing (the file holds {len(file)} videos)")
            if isinstance(node, h5py.Group):
                return self._inside(node, where)
            if not isinstance(node, h5py.Dataset):
                raise UserError(f"{where} is not a data set")
        except (OSError, RuntimeError, KeyError) as error:
            raise UserError(f"{where} cannot be read ({reason(error)})") from None
        return node, where

    def _inside(self, group: h5py.Group, where: str) -> tuple[h5py.Dataset, str]:
        names = ", ".join(list(group)[:8]) or "nothing"
        if self.key is None:
            raise UserError(f"{where} is a group (of {names}); say which data set is meant with key")
        node = group.get(self.key)
        if not isinstance(node, h5py.Dataset):
            raise UserError(f"{where} has no data set {self.key!r} (found: {names})")
        return node, f"{where}, key {self.key!r}"

    @staticmethod
    def is_name(video: str) -> bool:
        """Whether HDF5 can hold a data set of this name."""
        return "\0" not in video and not {"", "."} & set(video.split("/"))

    def read(self, video: str) -> Features:
        """The features of a video; its values are checked when it is read for the first time."""
        values = self._read_quickly(video)
        if values is None:
            return self._read_carefully(video)
        if video in self._sound:
            return as_float32(values)
        name = "" if self.key is None else f", key {self.key!r}"
        features = checked(values, f"{self.path}: video {video!r}{name}")
        self._sound.add(video)
        return features

    def _read_carefully(self, video: str) -> Features:
        dataset, where = self._dataset(video)
        check_layout(dataset.shape or (), dataset.dtype, where)
        try:
            values = dataset[()]
        except (OSError, RuntimeError) as error:
            raise UserError(f"{where} cannot be read ({reason(error)})") from None
        return checked(values, where)

    def _read_quickly(self, video: str) -> NDArray[Any] | None:
        """The usual case by HDF5's own calls, at half the cost; None where anything is unusual."""
        if "/" in video or not self.is_name(video):
            return None
        try:
            name = video if self.key is None else f"{video}/{self.key}"
            node = h5py.h5d.open(self.file().id, name.encode())
            dtype = node.dtype
            if node.shape is None or dtype.kind not in "fiu":
                return None
            values: NDArray[Any] = np.empty(node.shape, dtype)
            if values.size:
                node.read(h5py.h5s.ALL, h5py.h5s.ALL, values)
        except (KeyError, OSError, RuntimeError, TypeError, ValueError, UnicodeEncodeError):
            return None  # the careful way says what is wrong
        return values

    def shape(self, video: str) -> tuple[int, int]:
        """(T, D), from the header alone where there is one."""
        dataset, where = self._dataset(video)
        check_layout(dataset.shape or (), dataset.dtype, where)
        return dataset.shape[0], dataset.shape[1]

    def has(self, video: str) -> bool:
        """Whether the video is there."""
        return self.is_name(video) and video in self.file()

    def names(self) -> list[str]:
        """All video ids."""
        try:
            return list(self.file())
        except (OSError, RuntimeError) as error:
            raise UserError(f"{self.path}: the list of videos cannot be read ({reason(error)})") from None

    def manifest_text(self) -> str | None:
        """The manifest as JSON text, or None."""
        value = self.file().attrs.get("manifest")
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def close(self) -> None:
        """Closes the file; the next read opens it again."""
        file, self._file = self._file, None
        self._sound.clear()
        if file is not None:
            file.close()


def _open_hdf5(path: Path) -> h5py.File:
    """Opens for reading; without a lock where the file system refuses one (many network file systems do)."""
    try:
        # with the library's own choice first: within a process all handles of a file must agree on it
        return h5py.File(path, "r")
    except BlockingIOError:
        return h5py.File(path, "r", locking=False)


class FolderSource:
    """A folder with ``<video>.npy`` or ``<video>.npz`` files, and perhaps ``manifest.json``."""

    def __init__(self, path: Path, key: str | None) -> None:
        self.path = path
        self.key = key

    def file(self, video: str) -> Path | None:
        """The file of a video, or None."""
        # an id is a file name, never a way to another folder
        if not video or "\0" in video or os.sep in video or (os.altsep and os.altsep in video):
            return None
        for suffix in (".npy", ".npz"):
            path = self.path / (video + suffix)
            if path.is_file():
                return path
        return None

    def _existing(self, video: str) -> Path:
        path = self.file(video)
        if path is None:
            raise UserError(f"{self.path}: video {video!r} is missing (no {video}.npy or {video}.npz there)")
        return path

    def read(self, video: str) -> Features:
        """The features of a video."""
        path = self._existing(video)
        with _readable(path):
            if path.suffix == ".npz":
                array, name = npz.read_array(str(path), self.key, str(path))
                return checked(array, f"{path}: array {name!r}")
            return checked(npz.read_file(path), f"{path}: the array")

    def shape(self, video: str) -> tuple[int, int]:
        """(T, D), from the header alone."""
        path = self._existing(video)
        with _readable(path):
            if path.suffix == ".npz":
                shape, dtype, name = npz.read_layout(str(path), self.key, str(path))
                check_layout(shape, dtype, f"{path}: array {name!r}")
            else:
                array = npz.read_file(path, mmap_mode="r")
                shape, dtype = array.shape, array.dtype
                check_layout(shape, dtype, f"{path}: the array")
        return shape[0], shape[1]

    def has(self, video: str) -> bool:
        """Whether the video is there."""
        return self.file(video) is not None

    def names(self) -> list[str]:
        """All video ids."""
        return sorted(
            entry.name[:-4]
            for entry in os.scandir(self.path)
            if entry.name.endswith((".npy", ".npz")) and entry.is_file()
        )

    def manifest_text(self) -> str | None:
        """The manifest as JSON text, or None."""
        return manifest_beside(self.path)

    def close(self) -> None:
        """Nothing stays open between reads."""


def _readable(path: Path) -> contextlib.AbstractContextManager[None]:
    return npz.readable(f"{path}: not a readable npy or npz file", path)
