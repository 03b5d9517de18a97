"""Tensors out of ``.pt`` files by ``torch.load(weights_only=True)``: nothing else in them is ever unpickled.

Needs torch (``pip install 'vmr-common[pt]'``), which is imported when such a file is read.
"""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.boundary import PICKLED, boundary, open_regular, read_bytes, require_size
from vmr_common.errors import UserError, some_of
from vmr_common.features import npz
from vmr_common.features.checks import check_layout

SUFFIXES = (".pt", ".pth")

_OLD_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""First bytes of a file that torch before 1.6 wrote, which is no zip archive."""

_UNREADABLE = "not a readable file of tensors"


def read_tensor(path: Path, key: str | None) -> NDArray[Any]:
    """The values of the tensor that a file holds, or of that named `key` (see `npz.chosen`) in its dictionary.

    Raises:
        UserError: if the file holds something else, or a tensor that is sparse, quantised or not on the CPU.
    """
    tensor = _tensor(path, key, mapped=False)
    with boundary(f"{path}: the tensor cannot be read"):
        values: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return values


def tensor_layout(path: Path, key: str | None) -> npz.Layout:
    """Shape and type of the values that `read_tensor` gives, without reading them where the format allows it."""
    tensor = _tensor(path, key, mapped=True)
    return tuple(tensor.shape), _dtype(tensor)


def _dtype(tensor: Any) -> np.dtype[Any]:
    if tensor.is_floating_point():
        return np.dtype(np.float32)
    try:
        return np.dtype(str(tensor.dtype).removeprefix("torch."))
    except TypeError:  # of no numbers that numpy has
        return np.dtype(object)


def _torch(path: Path) -> Any:
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{path}: files of tensors are read by torch, which is not installed: pip install 'vmr-common[pt]' "
            "(or save the arrays as npy files)"
        ) from None
    return torch


def _tensor(path: Path, key: str | None, *, mapped: bool) -> Any:
    # an old file is read into memory first: a length in it may say more than the file holds
    source = str(path) if (archive := _is_archive(path)) else io.BytesIO(read_bytes(path))
    torch = _torch(path)
    with boundary(f"{path}: {_UNREADABLE}"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on what is refused below
        try:
            found = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped and archive)
        except pickle.UnpicklingError:
            raise UserError(
                f"{path}: it {PICKLED}; save the tensor alone: torch.save(features.cpu(), 'VIDEO.pt')"
            ) from None
    where = f"{path}: the tensor"
    if isinstance(found, dict):
        names = [str(name) for name, value in found.items() if isinstance(value, torch.Tensor)]
        name = npz.chosen(names, key)
        if name is None:
            hint = npz.key_hint(names)
            raise UserError(
                f"{path}: no tensor {key or npz.DEFAULT_KEYS[0]!r} (found: {some_of(names, 8)}){hint}"
            )
        found = next(value for other, value in found.items() if str(other) == name)
    if not isinstance(found, torch.Tensor):
        raise UserError(
            f"{path}: holds a {type(found).__name__}, expected a tensor or a dictionary of tensors"
        )
    if found.layout is not torch.strided or found.is_quantized or found.device.type != "cpu":
        kind = "quantised" if found.is_quantized else str(found.layout).removeprefix("torch.")
        kind = kind if found.device.type == "cpu" else f"{found.device.type} (without values)"
        raise UserError(f"{where} is {kind}, expected a plain one")
    dtype = _dtype(found)
    check_layout(tuple(found.shape), dtype, where)
    # a tensor may say that it repeats the little that is stored for ever
    require_size(found.shape, dtype, found.untyped_storage().nbytes(), where)
    return found.detach()


def _is_archive(path: Path) -> bool:
    """True for a zip archive, after checking that nothing in it unpacks to more than it takes."""
    with boundary(f"cannot read {path}"):
        file = open_regular(path)
    with file:
        size = file.seek(0, 2)
        file.seek(0)
        start = file.read(len(_OLD_START))
        if start == _OLD_START:
            return False
        with boundary(f"{path}: {_UNREADABLE}", path), zipfile.ZipFile(file) as archive:
            members = archive.infolist()
    if sum(member.file_size for member in members) > size or any(
        member.compress_type != zipfile.ZIP_STORED for member in members
    ):
        raise UserError(f"{path}: {_UNREADABLE} (its parts are compressed, or larger than the file)")
    return True
