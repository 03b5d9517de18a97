"""Checks of every backend before it gives features out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.boundary import boundary, open_regular
from vmr_common.errors import UserError
from vmr_common.features.manifest import MANIFEST, MANIFEST_LIMIT

Features = NDArray[np.float32]


def checked(array: NDArray[Any], where: str) -> Features:
    """An array as float32 after checking that it is finite, numeric, two-dimensional and not empty."""
    check_layout(array.shape, array.dtype, where)
    features = as_float32(array)
    if (place := first_not_finite(features)) is not None:
        raise UserError(f"{where} holds NaN or infinity (first in row {place[0]}), expected finite numbers")
    return features


def first_not_finite(values: Features) -> tuple[int, ...] | None:
    """The place of the first value that is NaN or infinite, or None where all are finite.

    One pass where all is well: NaN and infinity survive a sum of squares, and only a sum beyond float32 needs a
    second look.
    """
    flat = values.reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.dot(flat, flat)
    if np.isfinite(total):
        return None
    wrong = ~np.isfinite(values)
    return tuple(int(n) for n in np.argwhere(wrong)[0]) if wrong.any() else None


def as_float32(array: NDArray[Any]) -> Features:
    """A contiguous float32 array of the same values; what is beyond its range becomes infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32)


def check_layout(shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> None:
    """Checks that an array is numeric, two-dimensional and not empty."""
    if dtype.kind not in "fiu":
        raise UserError(f"{where} holds values of type {dtype}, expected numbers")
    if len(shape) != 2 or shape[1] == 0:
        raise UserError(f"{where} has shape {shape}, expected (T, D)")
    if shape[0] == 0:
        raise UserError(f"{where} has no rows, expected at least one")


def manifest_beside(folder: Path) -> str | None:
    """The text of ``manifest.json`` in a folder of features, or None."""
    path = folder / f"{MANIFEST}.json"
    if not path.exists():
        return None
    with boundary(f"cannot read {path}"), open_regular(path) as file:
        text = file.read(MANIFEST_LIMIT + 1)
        if len(text) > MANIFEST_LIMIT:
            raise UserError(f"{path}: more than {MANIFEST_LIMIT:,} bytes, which no manifest takes")
        return text.decode()
