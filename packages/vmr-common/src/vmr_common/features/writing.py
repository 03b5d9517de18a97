"""Writing of feature files in HDF5: an entry per video or query, in float16 or float32, and a manifest."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError
from vmr_common.features.hdf5 import is_name
from vmr_common.features.manifest import MANIFEST, BaseManifest
from vmr_common.io import atomic_path

DTYPES = ("float16", "float32")


def check_dtype(path: str | Path, dtype: str) -> None:
    """Raises `UserError` unless vectors can be stored as this type."""
    if dtype not in DTYPES:
        raise UserError(f"{path}: vectors are stored as {' or '.join(DTYPES)}, not {dtype!r}")


@contextlib.contextmanager
def new_file(path: str | Path, dtype: str) -> Iterator[NewFile]:
    """An HDF5 file that replaces `path` when the block succeeds."""
    check_dtype(path, dtype)
    with atomic_path(path) as temporary, temporary.open("rb+", buffering=0) as plain:
        sink = _Sink(plain)
        # what HDF5 cannot write it tries again at every later moment, up to the end of the process, which it crashes
        with NewFile(sink) as file:
            yield file
        sink.check()


class NewFile(h5py.File):  # type: ignore[misc]
    """An HDF5 file that is being written, with the first write that failed."""

    def __init__(self, sink: _Sink) -> None:
        super().__init__(sink, "w")
        self.check = sink.check


class _Sink(io.RawIOBase):
    """A file as HDF5 writes to it, which never fails while HDF5 looks: the first failure is kept for `check`."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._size = file, 0
        self._failure: OSError | None = None

    def check(self) -> None:
        """Raises the `OSError` of the first write that failed, if one did."""
        if self._failure is not None:
            raise self._failure

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(self._size + offset if whence == os.SEEK_END else offset)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)  # type: ignore[attr-defined,no-any-return]

    def write(self, data: Any) -> int:
        left, place = memoryview(data).cast("B"), self._file.tell()
        end = place + len(left)
        try:
            while left and self._failure is None:
                left = left[self._file.write(left) :]
        except OSError as error:
            self._failure = error
        self._file.seek(end)
        self._size = max(self._size, end)
        return end - place

    def truncate(self, size: int | None = None) -> int:
        self._size = self._file.tell() if size is None else size
        try:
            if self._failure is None:
                self._file.truncate(self._size)
        except OSError as error:
            self._failure = error
        return self._size


def check_name(file: NewFile, name: str, where: str) -> None:
    """Makes sure that a new entry of this name can be written.

    Raises `UserError` beginning with `where`, if HDF5 has no such name, or the file has it already. Raises `OSError` if
    something before could not be written.
    """
    file.check()
    if "/" in name or not is_name(name):
        raise UserError(f"{where} cannot name an entry of an HDF5 file")
    if name in file:
        raise UserError(f"{where} is given twice")


def cast(values: NDArray[Any], dtype: str, where: str) -> NDArray[Any]:
    """The values as they are stored."""
    with np.errstate(over="ignore"):  # what does not fit becomes infinity
        found: NDArray[Any] = np.asarray(values).astype(dtype)
    if not np.isfinite(found).all():
        raise UserError(f"{where} holds NaN, infinity or a value too large for {found.dtype}")
    return found


def write_manifest(file: h5py.File, manifest: BaseManifest, **found: Any) -> None:
    """Writes a manifest into a file, completed by what was found out while writing."""
    file.attrs[MANIFEST] = json.dumps(dataclasses.asdict(dataclasses.replace(manifest, **found)))
