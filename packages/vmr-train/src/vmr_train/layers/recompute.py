"""Less memory for more work: what the backward pass needs is computed again instead of kept."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from vmr_train.layers.batch_norm import statistics_kept


def activation_checkpoint(function: Callable[..., Any], *arguments: Any, wanted: bool = True) -> Any:
    """``function(*arguments)``, of which a training step keeps the arguments alone.

    The second computation draws the same dropout and leaves the running statistics of `BatchNorm` as they are.

    Args:
        function: What to compute.
        arguments: For it.
        wanted: False calls it as usual.
    """
    if not wanted or not torch.is_grad_enabled():
        return function(*arguments)
    return checkpoint(
        function,
        *arguments,
        use_reentrant=False,
        context_fn=lambda: (contextlib.nullcontext(), statistics_kept()),
    )
