"""Rows of one video in a file of ours, which is either whole or known to be damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.io import atomic_path
from vmr_video.extractor import Rows

_DIGEST = "vmr_digest"


def save(path: Path, rows: Rows, facts: Mapping[str, str]) -> None:
    """Writes arrays and words about them as safetensors, atomically.

    Raises:
        UserError: if the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(array) for name, array in rows.items()}
    with atomic_path(path) as temporary:
        try:
            save_file(arrays, temporary, {**facts, _DIGEST: _digest(arrays, facts)})
        except SafetensorError as error:  # as a full disk is told
            raise OSError(str(error)) from None


def load(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]] | None:
    """The arrays and words that `save` wrote; None where nothing is there, or not what was written."""
    from safetensors import safe_open

    try:
        if not path.is_file() or path.is_symlink():
            return None
        with safe_open(path, "numpy") as file:
            facts = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except Exception:  # a damaged file makes the reader fail in any way; it is made anew
        return None
    if facts.pop(_DIGEST, None) != _digest(arrays, facts):
        return None
    return arrays, facts


def _digest(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, str]) -> str:
    found = hashlib.sha256(repr(sorted(facts.items())).encode())
    for name in sorted(arrays):
        found.update(f"\n{name} {arrays[name].dtype.str} {arrays[name].shape}\n".encode())
        found.update(np.ascontiguousarray(arrays[name]).data)
    return found.hexdigest()
