"""Arrays out of npz archives, from files and from bytes in memory; never a pickle."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError

UNREADABLE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, KeyError, MemoryError)
"""What numpy and zipfile raise for broken npy and npz files."""

DEFAULT_KEYS = ("features", "image_embeddings", "token_features", "last_hidden_state")
"""Arrays that hold features, in the order in which they are looked for when no key is given."""

SENTENCE_KEYS = ("cls_features", "eot_features")
"""Two names of the vector of a whole sentence, ``(D,)`` or ``(1, D)``: each stands in for the other."""

STRAY = "allow_pickle"
"""Name of an array that some writers stored by mistake: it was meant as an argument."""


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
        with archive.open(f"{name}.npy") as member:
            array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
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
        with archive.open(f"{name}.npy") as member:
            version = np.lib.format.read_magic(member)
            if version == (1, 0):
                shape, _, dtype = np.lib.format.read_array_header_1_0(member)
            else:
                shape, _, dtype = np.lib.format.read_array_header_2_0(member)
    return ((1, *shape) if name in SENTENCE_KEYS and len(shape) == 1 else shape), dtype, name


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
