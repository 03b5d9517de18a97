"""Arrays out of npy files and npz archives, from files and from bytes in memory; never a pickle."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError
from vmr_common.feature_checks import reason

UNREADABLE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, KeyError, MemoryError)
"""What numpy and zipfile raise for broken npy and npz files."""

DEFAULT_KEYS = ("features", "image_embeddings", "token_features", "last_hidden_state")
"""Arrays that hold features, in the order in which they are looked for when no key is given."""

SENTENCE_KEYS = ("cls_features", "eot_features")
"""Two names of the vector of a whole sentence, ``(D,)`` or ``(1, D)``: each stands in for the other."""

STRAY = "allow_pickle"
"""Name of an array that some writers stored by mistake: it was meant as an argument."""

PICKLE_START = b"\x80"
PICKLED = "holds pickled objects, which are never loaded"

Layout = tuple[tuple[int, ...], np.dtype[Any]]


@contextlib.contextmanager
def readable(what: str, path: Path | None = None) -> Iterator[None]:
    """Turns what numpy and zipfile raise for a broken file into one error of the user.

    Args:
        what: Begins the message, with what the file should have been: ``a.npy: not a readable npy file``.
        path: The file, which is looked at to tell a pickle from other damage; None where there are only bytes.

    Raises:
        UserError: for all of `UNREADABLE`; one that is raised inside passes unchanged.
    """
    try:
        yield
    except UserError:
        raise
    except UNREADABLE as error:
        pickled = "allow_pickle" in str(error) or (path is not None and _start(path) == PICKLE_START)
        raise UserError(what + (f": it {PICKLED}" if pickled else f" ({reason(error)})")) from None


def _start(path: Path) -> bytes:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(len(PICKLE_START))
    return b""


def read_file(path: Path, mmap_mode: Literal["r"] | None = None) -> NDArray[Any]:
    """The array of an npy file.

    Raises:
        OSError, ValueError and the others of `UNREADABLE`: if the file is something else, damaged or a pickle.
    """
    found: Any = np.load(path, mmap_mode=mmap_mode, allow_pickle=False)
    if not isinstance(found, np.ndarray):
        found.close()
        raise ValueError("an archive of arrays, expected one array")
    return found


def read_arrays(file: str | IO[bytes], names: Iterable[str]) -> dict[str, NDArray[Any]]:
    """The arrays of these names that an archive has.

    Raises:
        OSError, ValueError and the others of `UNREADABLE`: if the archive is damaged or one holds pickled objects.
    """
    with zipfile.ZipFile(file) as archive:
        there = set(_names(archive))
        return {name: _array(archive, name) for name in names if name in there}


def read_layouts(file: str | IO[bytes]) -> dict[str, Layout]:
    """Shape and type of every array of an archive by its name, from the headers alone.

    Raises:
        OSError, ValueError and the others of `UNREADABLE`: if the archive is damaged.
    """
    with zipfile.ZipFile(file) as archive:
        return {name: _layout(archive, name) for name in _names(archive)}


def array_names(file: str | IO[bytes]) -> list[str]:
    """The names of all arrays of an archive.

    Raises:
        OSError, ValueError and the others of `UNREADABLE`: if the archive is damaged.
    """
    with zipfile.ZipFile(file) as archive:
        return _names(archive)


def read_array(file: str | IO[bytes], key: str | None, where: str) -> tuple[NDArray[Any], str]:
    """The array that holds the features, and its name.

    Args:
        file: Path or open file of the archive.
        key: Its name; None looks for `DEFAULT_KEYS`, else takes the only array.
        where: Begins the message of an error.

    Raises:
        UserError: if the archive has no such array; names those it has.
        OSError, ValueError and the others of `UNREADABLE`: if the archive is damaged or holds pickled objects.
    """
    with zipfile.ZipFile(file) as archive:
        name = _choose(_names(archive), key, where)
        array = _array(archive, name)
    return (array[None] if name in SENTENCE_KEYS and array.ndim == 1 else array), name


def read_layout(
    file: str | IO[bytes], key: str | None, where: str
) -> tuple[tuple[int, ...], np.dtype[Any], str]:
    """Shape, type and name of the array that `read_array` gives, from its header alone.

    Raises:
        UserError, OSError, ValueError and others: as `read_array`.
    """
    with zipfile.ZipFile(file) as archive:
        name = _choose(_names(archive), key, where)
        shape, dtype = _layout(archive, name)
    return ((1, *shape) if name in SENTENCE_KEYS and len(shape) == 1 else shape), dtype, name


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(f"{name}.npy") as member:
        array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
    return array


def _layout(archive: zipfile.ZipFile, name: str) -> Layout:
    with archive.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        if version == (1, 0):
            shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        else:
            shape, _, dtype = np.lib.format.read_array_header_2_0(member)
    return shape, dtype


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def _choose(names: Sequence[str], key: str | None, where: str) -> str:
    if key is None:
        known = [name for name in names if name != STRAY]
        wanted = [*DEFAULT_KEYS, *(known if len(known) == 1 else [])]
    else:
        wanted = [key, *(SENTENCE_KEYS if key in SENTENCE_KEYS else ())]
    for name in wanted:
        if name in names:
            return name
    raise UserError(f"{where}: no array {wanted[0]!r} (found: {', '.join(names) or 'nothing'})")
