"""Memory of a training step: the most that was resident, and what autograd keeps for the backward pass."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import nn

from vmr_train.config import OptimConfig
from vmr_train.optim import build_optimizer

Result = TypeVar("Result")
# what is freed goes back at once, so that the peak is what was in use
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "1000000", "MALLOC_TRIM_THRESHOLD_": "0"}


def most_resident() -> int:
    """Bytes of this process at its largest so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def alone(script: str, *arguments: str) -> dict[str, Any]:
    """The JSON that a script prints in a process of its own, which gives memory back when it is freed."""
    command = [sys.executable, script, *arguments]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **RETURNING}
    )
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def optimizer_after_a_step(model: nn.Module) -> torch.optim.Optimizer:
    """An optimizer with its moments in place, as every step after the first finds it."""
    optimizer = build_optimizer(model, OptimConfig())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return optimizer


def state_bytes(model: nn.Module) -> int:
    """Of the weights, their gradients and Adam's two moments."""
    return 4 * 4 * sum(parameter.numel() for parameter in model.parameters())


def kept_for_backward(model: nn.Module, forward: Callable[[], Result]) -> tuple[Result, int]:
    """What a forward pass gives, and the bytes that autograd keeps of it, each storage once.

    Weights and constants of the model are not counted. Tensors without memory (``meta``) serve as well.
    """
    # the tensors live on, so no number is used twice
    held = [tensor.untyped_storage() for tensor in (*model.parameters(), *model.buffers())]
    own = {storage._cdata for storage in held}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    return result, sum(size for size, _ in kept.values())
