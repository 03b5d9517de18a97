"""Arrays out of npy files and npz archives, from files and from bytes in memory; never a pickle."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vmr_common.boundary import boundary, open_regular, require_size
from vmr_common.errors import UserError, first_repeated, quoted, shortened, some_of, visible

DEFAULT_KEYS = ("features", "image_embeddings", "token_features", "last_hidden_state")
"""Arrays that hold features, in the order in which they are looked for when no key is given."""

SENTENCE_KEYS = ("cls_features", "eot_features")
"""Two names of the vector of a whole sentence, ``(D,)`` or ``(1, D)``: each stands in for the other."""

STRAY = "allow_pickle"
"""Name of an array that some writers stored by mistake: it was meant as an argument."""

_VERSIONS = ((1, 0), (2, 0), (3, 0))
_LONGEST_HEADER = 10_000  # numpy's own limit, which it looks at only after reading
_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

Layout = tuple[tuple[int, ...], np.dtype[Any]]


UNREADABLE = "not a readable npy or npz file"


def read_file(path: Path, mmap_mode: Literal["r"] | None = None, what: str = UNREADABLE) -> NDArray[Any]:
    """The array of an npy file, of any type but pickled objects.

    Args:
        path: The file.
        mmap_mode: ``r`` maps the values into memory and reads them when they are used.
        what: What is said of a file that is something else.
    """
    with _open_npy(path, what) as (file, _):
        if mmap_mode is None:
            return _array(file, f"{path}: {what}", path)
        with boundary(f"{path}: {what}", path):
            mapped: NDArray[Any] = np.lib.format.open_memmap(path, mode=mmap_mode)
        return mapped


def read_file_layout(path: Path) -> Layout:
    """Shape and type of the array of an npy file, from its header alone."""
    with _open_npy(path, UNREADABLE) as (_, layout):
        return layout


@contextlib.contextmanager
def _open_npy(path: Path, what: str) -> Iterator[tuple[IO[bytes], Layout]]:
    with boundary(f"cannot read {path}"):
        file = open_regular(path)
    with file:
        yield file, _header(file, os.fstat(file.fileno()).st_size, str(path), f"{path}: {what}", path)


class Archive:
    """An open npz archive, of which the directory was read once.

    Args:
        file: The file, or its bytes.
        where: Begins the messages of errors.
        what: Goes on with them where the archive as a whole cannot be read.
    """

    def __init__(self, file: Path | bytes, where: str, what: str = f": {UNREADABLE}") -> None:
        self.where = where
        self._path = None if isinstance(file, bytes) else file
        with boundary(where + what, self._path):
            self._file: IO[bytes] = io.BytesIO(file) if isinstance(file, bytes) else open_regular(file)
            try:
                self._zip = zipfile.ZipFile(self._file)
            except BaseException:
                self._file.close()
                raise
            self._size = self._file.seek(0, io.SEEK_END)
        twice = first_repeated(self.names)
        if len(self._zip.NameToInfo) < len(self._zip.filelist) and twice is not None:
            self.close()
            raise UserError(f"{where}: holds the array {quoted(twice, 60)} twice")

    @property
    def names(self) -> list[str]:
        """The names of all arrays."""
        return [name.removesuffix(".npy") for name in self._zip.namelist() if name.endswith(".npy")]

    def __contains__(self, name: str) -> bool:
        return f"{name}.npy" in self._zip.NameToInfo

    def read(self, name: str) -> NDArray[Any]:
        """The array of this name, of any type but pickled objects."""
        with self._member(name) as (member, _):
            return _array(member, self._cannot(name), self._path)

    def layout(self, name: str) -> Layout:
        """Shape and type of the array of this name, from its header alone."""
        with self._member(name) as (_, layout):
            return layout

    @contextlib.contextmanager
    def _member(self, name: str) -> Iterator[tuple[IO[bytes], Layout]]:
        entry, where = self._zip.getinfo(f"{name}.npy"), self._about(name)
        if entry.compress_type not in _COMPRESSIONS:
            raise UserError(
                f"{where} is compressed by method {entry.compress_type}, expected none or deflate"
            )
        require_size((entry.file_size,), np.dtype(np.uint8), min(entry.compress_size, self._size), where)
        with boundary(self._cannot(name), self._path):
            member = self._zip.open(entry)
        with member:
            yield member, _header(member, entry.file_size, where, self._cannot(name), self._path)

    def _about(self, name: str) -> str:
        return f"{self.where}: array {quoted(name, 60)}"

    def _cannot(self, name: str) -> str:
        return f"{self._about(name)} cannot be read"

    def features(self, key: str | None) -> tuple[NDArray[Any], str]:
        """The array that holds the features, and its name.

        Args:
            key: Its name; None looks for `DEFAULT_KEYS`, else takes the only array.
        """
        name = self._choose(key)
        array = self.read(name)
        return (array[None] if name in SENTENCE_KEYS and array.ndim == 1 else array), name

    def features_layout(self, key: str | None) -> tuple[tuple[int, ...], np.dtype[Any], str]:
        """Shape, type and name of the array that `features` gives, from its header alone."""
        name = self._choose(key)
        shape, dtype = self.layout(name)
        return ((1, *shape) if name in SENTENCE_KEYS and len(shape) == 1 else shape), dtype, name

    def _choose(self, key: str | None) -> str:
        name = chosen(self.names, key)
        if name is None:
            wanted = DEFAULT_KEYS[0] if key is None else key
            found = f"{self.where}: no array {wanted!r} (found: {some_of(self.names, 8)})"
            raise UserError(found + key_hint(self.names))
        return name

    def close(self) -> None:
        """Closes the file."""
        self._zip.close()
        self._file.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def chosen(names: Sequence[str], key: str | None) -> str | None:
    """Name of the array that holds the features, see `Archive.features`; None where none does."""
    if key is None:
        known = [name for name in names if name != STRAY]
        wanted = [*DEFAULT_KEYS, *(known if len(known) == 1 else [])]
    else:
        wanted = [key, *(SENTENCE_KEYS if key in SENTENCE_KEYS else ())]
    return next((name for name in wanted if name in names), None)


def key_hint(names: Sequence[str]) -> str:
    """How to say which of some arrays is meant."""
    name = shlex.quote(shortened(visible(names[0]), 60)) if names else ""
    return (
        f"; say which with the key {name} (data.features.key in a configuration, --key of a command)"
        if name
        else ""
    )


def _header(file: IO[bytes], size: int, where: str, what: str, path: Path | None) -> Layout:
    """Shape and type of the array in npy form that begins here, after checking that `size` bytes can hold it."""
    with boundary(what, path):
        version = np.lib.format.read_magic(file)
        width = 2 if version == (1, 0) else 4
        count = file.read(width)
    length = int.from_bytes(count, "little")
    if version not in _VERSIONS or length > _LONGEST_HEADER:
        raise UserError(f"{what} (its header is in version {version} and {length:,} bytes long)")
    read = np.lib.format.read_array_header_1_0 if width == 2 else np.lib.format.read_array_header_2_0
    with boundary(what, path):
        shape, _, dtype = read(io.BytesIO(count + file.read(length)))
    if dtype.hasobject:  # of which only the reader has something to say
        return shape, dtype
    left = size - np.lib.format.MAGIC_LEN - width - length
    needed = require_size(shape, dtype, left, where)
    if needed > left:
        raise UserError(f"{what} (its header says {shape}, {dtype}: {needed:,} bytes; it holds {left:,})")
    return shape, dtype


def _array(file: IO[bytes], what: str, path: Path | None) -> NDArray[Any]:
    """The array of a file in npy form, the header of which was checked."""
    with boundary(what, path):
        file.seek(0)
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return array
