"""Optimisers, their state by parameter name, and the average of the weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vmr_common.errors import UserError
from vmr_train.config import OptimConfig
from vmr_train.weights import require_finite, require_fit

STATE = ("step", "exp_avg", "exp_avg_sq")
"""What both optimisers keep of a parameter."""


class CplAdam(torch.optim.Optimizer):
    """Adam as CPL and RGN use it.

    With m and v the running means of the gradient and its square and t the number of updates of the
    parameter, first ``p -= lr * weight_decay * p``, then
    ``p -= lr * sqrt(1 - beta2**t) / (1 - beta1**t) * m / (sqrt(v) + eps)``. Because eps is added to the
    uncorrected root, it weighs ``1 / sqrt(1 - beta2**t)`` times more than in `torch.optim.AdamW`: 32 times
    at the first update, equal later. Parameters without a gradient are neither moved nor decayed.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Applies one update to every parameter that has a gradient."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, (beta1, beta2), lr = self.state[parameter], group["betas"], group["lr"]
        if not state:
            state["step"] = torch.zeros(())  # on the CPU, as in torch's own: reading it waits for no GPU
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        t, mean, square = state["step"].item(), state["exp_avg"], state["exp_avg_sq"]
        mean.mul_(beta1).add_(gradient, alpha=1 - beta1)
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        if group["weight_decay"]:
            parameter.mul_(1 - lr * group["weight_decay"])
        size = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
        parameter.addcdiv_(mean, square.sqrt().add_(group["eps"]), value=-size)


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The configured optimiser over the parameters that require gradients.

    Each parameter group holds `scale`, the factor by which its rate differs from `config.lr`.

    Raises:
        UserError: if the model has nothing to train, or a key of `group_lr` begins no parameter's name.
    """
    by_prefix: dict[str, list[nn.Parameter]] = {"": [], **{prefix: [] for prefix in config.group_lr}}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            by_prefix[max((p for p in by_prefix if name.startswith(p)), key=len)].append(parameter)
    unmatched = [prefix for prefix in config.group_lr if not by_prefix[prefix]]
    if unmatched:
        first = ", ".join(dict.fromkeys(name.split(".")[0] for name, _ in model.named_parameters()))
        raise UserError(
            f"optim.group_lr: no trained weight's name begins with {unmatched[0]!r}; names begin with {first}"
        )
    groups = [
        {"params": parameters, "scale": config.group_lr.get(prefix, config.lr) / config.lr}
        for prefix, parameters in by_prefix.items()
        if parameters
    ]
    if not groups:
        raise UserError("the model has no parameter that requires a gradient")
    options: dict[str, Any] = {
        "lr": config.lr,
        "betas": (config.beta1, config.beta2),
        "eps": config.eps,
        "weight_decay": config.weight_decay,
    }
    if config.optimizer == "cpl-adam":
        return CplAdam(groups, **options)
    # in one pass over weights, gradients and moments instead of ten
    return torch.optim.AdamW(groups, fused=True, **options)


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as ``{"<parameter name>.<key>": tensor}``."""
    return {
        f"{name}.{key}": torch.as_tensor(value)
        for name, parameter in model.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(
    model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], path: Path
) -> None:
    """Puts back what `optimizer_tensors` gave.

    Args:
        model: What the optimiser trains.
        optimizer: Receives its state.
        tensors: By parameter name and key.
        path: Where they come from, for the message.

    Raises:
        UserError: for tensors that belong to no trained parameter of the model, are of another shape or type, or hold
            what no update leaves behind; and where some of a parameter's are missing.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    ordered = [(names[p], p) for group in optimizer.param_groups for p in group["params"]]
    stored = {name.rpartition(".")[0] for name in tensors}
    own = {
        f"{name}.{key}": torch.zeros(()) if key == "step" else parameter
        for name, parameter in ordered
        if name in stored
        for key in STATE
    }
    require_fit(own, tensors, path, "optimiser states")
    require_finite(tensors, path, "optimiser states")
    for name, tensor in tensors.items():
        if not name.endswith(".exp_avg") and (tensor < 0).any():
            raise UserError(f"{path}: the optimiser state {name} holds a number below 0")
    state = {
        number: {key: tensors[f"{name}.{key}"].clone() for key in STATE}
        for number, (name, _) in enumerate(ordered)
        if name in stored
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


class WeightAverage:
    """Exponential moving average of a model's floating-point weights; other entries follow the model."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = model
        self.decay = decay
        self.weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the current weights."""
        for name, tensor in self.model.state_dict().items():
            if tensor.is_floating_point():
                self.weights[name].lerp_(tensor, 1 - self.decay)
            else:
                self.weights[name].copy_(tensor)

    def load(self, weights: Mapping[str, Tensor], path: Path) -> None:
        """Continues from these averages.

        Raises:
            UserError: if they do not fit the model, or hold what is not finite; names `path`.
        """
        require_fit(self.weights, weights, path, "averaged weights")
        require_finite(weights, path, "averaged weights")
        for name, tensor in self.weights.items():
            tensor.copy_(weights[name])

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The model carries the averaged weights inside the block and its own again after it."""
        own = {name: tensor.detach().clone() for name, tensor in self.model.state_dict().items()}
        self.model.load_state_dict(self.weights)
        try:
            yield
        finally:
            self.model.load_state_dict(own)
