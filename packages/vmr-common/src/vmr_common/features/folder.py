"""Folders with one file of features per video: npy, npz, HDF5, or tensors of torch."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from pathlib import Path
from typing import Any

from h5py import h5d
from numpy.typing import NDArray

from vmr_common.boundary import boundary
from vmr_common.errors import UserError, counted, listed, some_of
from vmr_common.features import npz, torch_files
from vmr_common.features.checks import Features, check_layout, checked, manifest_beside
from vmr_common.features.hdf5 import Hdf5File
from vmr_common.features.nearby import kinds_of, nearby
from vmr_common.features.side_files import FPS, TIMES, SideFiles, side_files

HDF5_SUFFIXES = (".h5", ".hdf5")
KINDS = ((".npy", ".npz"), HDF5_SUFFIXES, torch_files.SUFFIXES)
"""Endings of the files, in the order in which they are looked for."""

SUFFIXES = tuple(suffix for kind in KINDS for suffix in kind)
ARRAYS = KINDS[0]

_DEEPEST = 3  # groups around the array of an HDF5 file, and the array


def read_file(path: Path, key: str | None) -> Features:
    """The features of the one video that a file holds, ``(T, D)`` float32, checked.

    Args:
        path: A file with one of the endings in `SUFFIXES`.
        key: Name of the array in it; by default the only one, or one of `npz.DEFAULT_KEYS`.

    Raises:
        UserError: if it cannot be read, or holds something else.
    """
    array, where = _read(path, key)
    return checked(array, where)


def file_shape(path: Path, key: str | None) -> tuple[int, int]:
    """(T, D) of the features that `read_file` gives, from the header alone where there is one."""
    where = f"{path}: the tensor"
    if path.suffix == ".npy":
        where, (shape, dtype) = f"{path}: the array", npz.read_file_layout(path)
    elif path.suffix == ".npz":
        with npz.Archive(path, str(path)) as archive:
            shape, dtype, name = archive.features_layout(key)
        where = f"{path}: array {name!r}"
    elif path.suffix in HDF5_SUFFIXES:
        with contextlib.closing(Hdf5File(path)) as file:
            _, shape, dtype, _, where = file.numbers(*_only_array(file, key))
    else:
        shape, dtype = torch_files.tensor_layout(path, key)
    check_layout(shape, dtype, where)
    return shape[0], shape[1]


def _read(path: Path, key: str | None) -> tuple[NDArray[Any], str]:
    if path.suffix == ".npy":
        return npz.read_file(path), f"{path}: the array"
    if path.suffix == ".npz":
        with npz.Archive(path, str(path)) as archive:
            array, name = archive.features(key)
        return array, f"{path}: array {name!r}"
    if path.suffix not in HDF5_SUFFIXES:
        return torch_files.read_tensor(path, key), f"{path}: the tensor"
    with contextlib.closing(Hdf5File(path)) as file:
        found = file.numbers(*_only_array(file, key))
        check_layout(found.shape, found.dtype, found.where)
        file.check(found)
        return file.values(found), found.where


def _only_array(file: Hdf5File, key: str | None) -> tuple[Any, str]:
    """The data set of a file that holds one video, perhaps inside groups, and what to call it."""
    around = ""
    for _ in range(_DEEPEST):
        names = file.names(around.rstrip("/"))
        name = npz.chosen(names, key)
        # a group of any name may lie around the array that is asked for
        inside = name or (names[0] if len(names) == 1 else None)
        if inside is None:
            break
        where = f"{file.path}: data set {around + inside!r}"
        node = file.find(around + inside, where)
        if isinstance(node, h5d.DatasetID):
            if name is None:
                break
            return node, where
        around += f"{inside}/"
    raise UserError(
        f"{file.path}: expected the one data set of a video{'' if key is None else f', {key!r}'}, found "
        f"{some_of(names, 8)}{npz.key_hint(names)}; a file with several videos is given itself, not its folder"
    )


class FolderBackend:
    """A folder with one file per video, named by its id and one of `SUFFIXES`, and perhaps ``manifest.json``."""

    def __init__(self, path: Path, key: str | None) -> None:
        self.path = path
        self.key = key

    def file(self, video: str, suffixes: tuple[str, ...] = SUFFIXES) -> Path | None:
        """The file of a video, or None."""
        # an id is a file name, never a way to another folder
        if not video or "\0" in video or os.sep in video or (os.altsep and os.altsep in video):
            return None
        for suffix in suffixes:
            path = self.path / (video + suffix)
            if os.path.isfile(path):  # unlike pathlib's, this one says no to names that are too long
                return path
        return None

    def _existing(self, video: str) -> Path:
        path = self.file(video)
        if path is None:
            raise UserError(f"{self.path}: video {video!r} is missing ({self.instead(video)})")
        return path

    def instead(self, video: str) -> str:
        """What is there instead of a video that is missing."""
        files = self._files()
        if not (names := self._names(files)):
            return f"the folder holds {self.contents()}, expected {', '.join(SUFFIXES)}"
        named = {
            name: name + suffix for suffix in reversed(SUFFIXES) for name in names if name + suffix in files
        }
        near = nearby(video, names, lambda name: named[name])
        unread = next((name for name in files if name.rpartition(".")[0] == video), None)
        if near or unread is None:
            others = f"the folder holds {counted(len(names), 'other')}"
            return near or f"no {video}.npy, nor with another ending that is read; {others}"
        return f"{unread} is there, of which nothing is read: expected {', '.join(SUFFIXES)}"

    def read(self, video: str) -> Features:
        """The features of a video."""
        return read_file(self._existing(video), self.key)

    def shape(self, video: str) -> tuple[int, int]:
        """(T, D), from the header alone."""
        return file_shape(self._existing(video), self.key)

    def has(self, video: str) -> bool:
        """True if the video is there."""
        return self.file(video) is not None

    def _files(self) -> set[str]:
        with boundary(f"cannot read {self.path}"):
            return {entry.name for entry in os.scandir(self.path) if entry.is_file()}

    def names(self) -> list[str]:
        """All video ids: the files of the first of `KINDS` that is there, without those beside features."""
        return self._names(self._files())

    def _names(self, files: set[str]) -> list[str]:
        for kind in KINDS:
            if names := {name[: name.rfind(".")] for name in files if name.endswith(kind)} - {""}:
                beside = {video + ending for video in self.side.videos for ending in (FPS, TIMES)}
                return sorted(names - beside or names)
        return []

    def contents(self) -> str:
        """How many files of each ending there are, and the folders, for a message."""
        folders = sorted(entry.name for entry in os.scandir(self.path) if entry.is_dir())
        plural = "s" if len(folders) > 1 else ""
        among = f"the folder{plural} {listed(folders, 5)}"
        files = self._files()
        return " and ".join([kinds_of(files)] * bool(files or not folders) + [among] * bool(folders))

    @functools.cached_property
    def side(self) -> SideFiles:
        """The files beside features."""
        return side_files(self.path, (name[:-4] for name in self._files() if name.endswith(".npy")))

    def manifest_text(self) -> str | None:
        """The manifest as JSON text, completed by what the files beside features say, or None."""
        text, facts = manifest_beside(self.path), self.side.facts()
        if not facts:
            return text
        try:
            stated = json.loads(text or "{}")
        except (ValueError, RecursionError):  # another reader says what is wrong
            return text
        if not isinstance(stated, dict):
            return text
        return json.dumps(facts | {name: value for name, value in stated.items() if value is not None})

    def close(self) -> None:
        """Nothing stays open between reads."""
