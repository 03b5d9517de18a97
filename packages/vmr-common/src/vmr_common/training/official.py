"""Reading weights that others published, without ever running what is inside the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from vmr_common.errors import UserError

NESTED = ("model_parameters", "state_dict", "model_state_dict", "model", "net")
"""Keys under which training programs put the weights."""


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a safetensors file, an npz archive or a PyTorch checkpoint.

    PyTorch files are read with ``weights_only=True``, which builds tensors and plain containers and nothing
    else. Weights nested under one of `NESTED` are found.

    Raises:
        UserError: if the file is missing, of another kind, or holds no tensors by name.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file (expected weights: PyTorch, safetensors or npz)")
    try:
        found = _read(path)
    except Exception as error:  # a file that is something else makes the readers fail in any way
        reason = str(error).strip().split("\n")[0][:160] or type(error).__name__
        raise UserError(f"{path}: not weights that can be read safely ({reason})") from None
    for key in NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    weights = (
        {str(k): v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
    )
    if not weights:
        raise UserError(f"{path}: holds no tensors by name")
    return weights


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return torch.load(path, map_location="cpu", weights_only=True)
