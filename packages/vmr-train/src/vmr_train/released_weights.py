"""Weights that others published: read without running what is inside the file, and renamed to ours."""

from __future__ import annotations

import argparse
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from vmr_common.boundary import reason, require_size
from vmr_common.errors import UserError, quoted, shortened
from vmr_common.features import npz

NESTED = ("model_parameters", "state_dict", "model_state_dict", "model", "net")
"""Keys under which training programs put the weights."""

_ZIP = b"PK\x03\x04"


DECODER_LAYER_RENAMES = (
    (r"\.self_attn_layer_norm\.", ".self_norm."),
    (r"\.encoder_attn_layer_norm\.", ".cross_norm."),
    (r"\.final_layer_norm\.", ".final_norm."),
    (r"\.self_attn\.", ".self_attention."),
    (r"\.encoder_attn\.", ".cross_attention."),
)
"""Names inside a decoder layer of CPL, RGN and CFMR, and those of `DecoderLayer` in `rgn.layers` and `cfmr.layers`."""


@dataclass(frozen=True, kw_only=True)
class ReleasedNames:
    """The tensor names of a released model and how they become ours.

    Attributes:
        method: Its name, for messages.
        known: Matches every name of the released model, and no other.
        unused: Matches those that the method never uses.
        renames: Pattern and replacement, applied in this order.
    """

    method: str
    known: re.Pattern[str]
    unused: re.Pattern[str]
    renames: Sequence[tuple[str, str]]

    def ours(self, name: str) -> str | None:
        """Our name of a released tensor, or None for one that the method never uses.

        A ``module.`` before it, which data-parallel training leaves there, is passed over.

        Raises:
            UserError: if `name` is not a name of the released model.
        """
        name = unwrapped(name)
        if not self.known.match(name):
            raise UserError(f"{name!r} is not a tensor of a released {self.method} checkpoint")
        if self.unused.match(name):
            return None
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name

    def convert(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A released state dict under our names; unused tensors are left out.

        Raises:
            UserError: if a name is not one of the released model.
        """
        # programs save half and double precision too; what is no number of that kind stays, and will not fit
        named = {
            self.ours(name): tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in weights.items()
        }
        return {name: tensor for name, tensor in named.items() if name is not None}


def unwrapped(name: str) -> str:
    """A tensor's name without the ``module.`` that data-parallel training puts before it."""
    return name.removeprefix("module.")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Tensors by name from a safetensors file, an npz archive or a PyTorch checkpoint.

    PyTorch files are read with ``weights_only=True``, which builds tensors and plain containers and, beside those, only
    the options that programs keep with their weights (``argparse.Namespace``). Weights nested under one of `NESTED` are
    found.

    Raises:
        UserError: if the file is missing, of another kind, holds no tensors by name or one twice, or declares much more
            than it holds.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file (expected weights: PyTorch, safetensors or npz)")
    try:
        found = _read(path)
    except UserError:
        raise
    except Exception as error:  # a file that is something else makes the readers fail in any way
        raise UserError(f"{path}: not weights that can be read safely ({_reason(error)})") from None
    for key in NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    named = found.items() if isinstance(found, Mapping) else ()
    weights = {k: v for k, v in named if isinstance(k, str) and isinstance(v, Tensor)}
    if not weights:
        raise UserError(f"{path}: holds no tensors by name")
    for name, tensor in weights.items():
        _require_plain(name, tensor, path)
        if unwrapped(name) != name and unwrapped(name) in weights:
            raise UserError(
                f"{path}: holds {quoted(unwrapped(name), 100)} twice, also as {quoted(name, 100)}"
            )
    return weights


def _require_plain(name: str, tensor: Tensor, path: Path) -> None:
    """Raises `UserError` for a tensor that is sparse, quantised or nowhere, or a view of much more than is stored."""
    where = f"{path}: tensor {quoted(name, 100)}"
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
        raise UserError(f"{where} is not a plain array of numbers")
    size = path.stat().st_size
    require_size(tuple(tensor.shape), np.dtype(f"V{tensor.element_size()}"), size, where)


def _reason(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):
        foreign = re.search(r"GLOBAL (\S+)", str(error))  # torch puts pages of advice around it
        return (
            "damaged or no PyTorch file"
            if foreign is None
            else f"it holds {foreign[1]}, which is never loaded"
        )
    return shortened(reason(error), 160)


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        return load_file(path)
    with path.open("rb") as file:
        packed = file.read(len(_ZIP)) == _ZIP  # as torch tells its two formats apart
    if packed:
        with zipfile.ZipFile(path) as archive:
            declared = sum(entry.file_size for entry in archive.infolist())
        require_size((declared,), np.dtype(np.uint8), path.stat().st_size, str(path))
    if path.suffix == ".npz":
        with npz.Archive(path, str(path)) as arrays:
            return {name: torch.from_numpy(arrays.read(name)) for name in arrays.names}
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)
