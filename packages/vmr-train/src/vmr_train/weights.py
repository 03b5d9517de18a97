"""Weights into a model: what fits, and a method made with those of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vmr_common.errors import UserError, listed, quoted
from vmr_train.checkpoint import Checkpoint


def require_fit(own: Mapping[str, Tensor], found: Mapping[str, Tensor], path: str | Path, what: str) -> None:
    """Makes sure that tensors can take the place of others: the same names, shapes and types.

    Args:
        own: What is there, by name; its values are not read.
        found: What is to take its place.
        path: Where that comes from, for the message.
        what: What it is, for the message: ``weights``.

    Raises:
        UserError: one line that names the first tensors missing, unexpected, or of another shape or type.
    """
    both = [(name, found[name], tensor) for name, tensor in own.items() if name in found]
    lists = {
        "missing": [name for name in own if name not in found],
        "unexpected": [name for name in found if name not in own],
        "of another shape": [
            f"{name} (found {tuple(new.shape)}, expected {tuple(tensor.shape)})"
            for name, new, tensor in both
            if new.shape != tensor.shape
        ],
        "of another type": [
            f"{name} (found {new.dtype}, expected {tensor.dtype})".replace("torch.", "")
            for name, new, tensor in both
            if new.dtype != tensor.dtype
        ],
    }
    problems = [f"{len(names)} {kind}: {listed(names, 3)}" for kind, names in lists.items() if names]
    if problems:
        raise UserError(f"{path}: the {what} do not fit this model; {'; '.join(problems)}")


def require_finite(tensors: Mapping[str, Tensor], path: str | Path, what: str) -> None:
    """Makes sure that tensors hold numbers only.

    Raises:
        UserError: naming the first tensor with a value that is infinite or not a number.
    """
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"{path}: the {what} {quoted(name, 100)} hold values that are not finite numbers")


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: str | Path) -> None:
    """Loads all weights into the model, strictly.

    Args:
        model: Receives them.
        weights: By parameter or buffer name.
        path: Where they come from, for the message.

    Raises:
        UserError: as `require_fit` and `require_finite`.
    """
    require_fit(model.state_dict(), weights, path, "weights")
    require_finite(weights, path, "weights")
    with torch.no_grad():
        model.load_state_dict(dict(weights))


class HasModel(Protocol):
    """Anything around a model: a method."""

    @property
    def model(self) -> nn.Module:
        """The model."""


Restored = TypeVar("Restored", bound=HasModel)


def restored(make: Callable[[], Restored], checkpoint: Checkpoint) -> Restored:
    """A method with the weights of a checkpoint.

    The model is made without memory first: sizes in a checkpoint are a stranger's word until its weights have them.

    Args:
        make: Makes the method as the checkpoint describes it, with any weights.
        checkpoint: Holds the weights.

    Raises:
        UserError: as `make` and `load_weights`.
    """
    with torch.device("meta"), _WithoutDraws():
        sizes = make().model.state_dict()
    require_fit(sizes, checkpoint.weights, checkpoint.path, "weights")
    method = make()
    load_weights(method.model, checkpoint.weights, checkpoint.path)
    return method


class _WithoutDraws(TorchFunctionMode):
    """Initial values are not drawn: without memory there are none, and torch would compile code to say so."""

    def __torch_function__(
        self, function: Any, types: Any, arguments: Any = (), options: dict[str, Any] | None = None
    ) -> Any:
        drawing = function.__name__ in ("normal_", "uniform_", "random_", "bernoulli_", "exponential_")
        if drawing and arguments:
            return arguments[0]
        return function(*arguments, **(options or {}))
