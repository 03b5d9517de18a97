"""Device, precision and seeds: everything that sets a global switch of torch."""

from __future__ import annotations

import contextlib
import os
import random

import numpy as np
import torch

from vmr_common.errors import UserError
from vmr_train.config import Precision, TrainConfig

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def select_device(name: str = "auto") -> torch.device:
    """The device to work on; `auto` takes CUDA, then MPS, then the CPU.

    Under torchrun each process takes the GPU of its local rank.

    Raises:
        UserError: if the name is no device or torch has none of that kind.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if name == "auto":
        mps = torch.backends.mps.is_available()
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device {name!r} is unknown; expected auto, cpu, cuda, cuda:0 or mps") from None
    if device.type == "cuda":
        found = torch.cuda.device_count()
        index = local_rank if device.index is None else device.index
        if index >= found:
            raise UserError(
                f"device {name!r} (number {index}) asked for, but torch finds {found} CUDA devices"
            )
        return torch.device("cuda", index)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError("device 'mps' asked for, but torch finds none")
    return device


def autocast(device: torch.device, precision: Precision) -> contextlib.AbstractContextManager[object]:
    """The context in which forward passes run at `precision`."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=_DTYPES[precision])


def seed_everything(seed: int) -> None:
    """Seeds Python, numpy and torch (all devices). Call it before the model is built."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 - for code that still draws from the global generator
    torch.manual_seed(seed)


def update_seed(seed: int, update: int, rank: int, micro: int) -> int:
    """The seed of one forward pass: a resumed run draws the same without any stored generator state."""
    return int(np.random.SeedSequence([seed, update, rank, micro]).generate_state(1, np.uint64)[0] >> 1)


def set_switches(config: TrainConfig) -> None:
    """Sets torch's global switches for TF32 and deterministic algorithms as configured."""
    torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = config.tf32
    if config.deterministic != torch.are_deterministic_algorithms_enabled():  # the call alone takes a second
        torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS starts
        torch.backends.cudnn.benchmark = False
