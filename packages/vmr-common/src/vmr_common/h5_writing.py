"""What all writers of feature files in HDF5 do: an entry per video or query, in float16 or float32, and a manifest."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError
from vmr_common.feature_sources import Hdf5Source
from vmr_common.files import atomic_path
from vmr_common.manifest import MANIFEST, Facts

DTYPES = ("float16", "float32")


def check_dtype(path: str | Path, dtype: str) -> None:
    """Raises `UserError` unless vectors can be stored as this type."""
    if dtype not in DTYPES:
        raise UserError(f"{path}: vectors are stored as {' or '.join(DTYPES)}, not {dtype!r}")


@contextlib.contextmanager
def new_file(path: str | Path, dtype: str) -> Iterator[h5py.File]:
    """An HDF5 file that replaces `path` when the block succeeds.

    Raises:
        UserError: if `dtype` is none that vectors are stored as, or the file cannot be written.
    """
    check_dtype(path, dtype)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        yield file


def check_name(file: h5py.File, name: str, where: str) -> None:
    """Raises `UserError`, beginning with `where`, unless the file can have a new entry of this name."""
    if "/" in name or not Hdf5Source.is_name(name):
        raise UserError(f"{where} cannot name an entry of an HDF5 file")
    if name in file:
        raise UserError(f"{where} is given twice")


def cast(values: NDArray[Any], dtype: str, where: str) -> NDArray[Any]:
    """The values as they are stored.

    Raises:
        UserError: beginning with `where`, if one is not finite or does not fit into the type.
    """
    with np.errstate(over="ignore"):  # what does not fit becomes infinity
        found: NDArray[Any] = np.asarray(values).astype(dtype)
    if not np.isfinite(found).all():
        raise UserError(f"{where} holds NaN, infinity or a value too large for {found.dtype}")
    return found


def write_manifest(file: h5py.File, manifest: Facts, **found: Any) -> None:
    """Writes a manifest into a file, completed by what was found out while writing."""
    file.attrs[MANIFEST] = json.dumps(dataclasses.asdict(dataclasses.replace(manifest, **found)))
