"""Pairs of training steps and of predictions: the same weights, optimiser and order of calls on both sides."""

from __future__ import annotations

import copy

import torch

from plain import Pair
from vmr_train.optim import build_optimizer


def largest_difference(ours, plain) -> float:
    """Of two lists of tensors in the same order: each against the largest number of its plain form."""
    pairs = zip(ours, plain, strict=True)
    return max(
        ((one - other).abs().max() / other.abs().max().clamp_min(1e-12)).item() for one, other in pairs
    )


def training_pair(model, optim, ours, plain) -> Pair:
    """Training steps by two losses of a model, `ours` and `plain` (functions of the model that give a scalar).

    A step clears the gradients, goes forward and backward, clips and updates, with the model's dropout. `difference`
    is that of the loss and of the gradient of all weights, at the first weights without dropout.
    """
    start = copy.deepcopy(model)

    def step_of(loss):
        network = copy.deepcopy(model).train()
        optimizer = build_optimizer(network, optim)

        def step():
            optimizer.zero_grad(set_to_none=True)
            value = loss(network)
            value.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), optim.clip_norm)
            optimizer.step()
            return value.item()

        return step

    def numbers(loss):
        start.train()
        start.zero_grad(set_to_none=True)
        for module in start.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        value = loss(start)
        value.backward()
        gradients = [p.grad.flatten() for p in start.parameters() if p.grad is not None]
        return [value.detach(), torch.cat(gradients)]

    return Pair(step_of(ours), step_of(plain), lambda: largest_difference(numbers(ours), numbers(plain)))
