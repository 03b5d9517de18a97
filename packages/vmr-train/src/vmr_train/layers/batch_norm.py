"""Batch normalisation over the last axis, with statistics over all ranks and over rows that are known to be zero."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

_keep = contextvars.ContextVar("keep running statistics", default=False)


@contextlib.contextmanager
def statistics_kept() -> Iterator[None]:
    """Leaves running statistics as they are: for a forward pass that is only computed again."""
    token = _keep.set(True)
    try:
        yield
    finally:
        _keep.reset(token)


def world() -> int:
    """Processes that share statistics."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


class _Moments(torch.autograd.Function):
    """Mean and biased variance per channel; keeps its input and nothing else for the backward pass."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, zeros: int) -> tuple[Tensor, Tensor, Tensor]:
        axes = tuple(range(rows.ndim - 1))
        values = rows.detach().float()
        here = rows.numel() // rows.shape[-1]
        sums = torch.cat([values.sum(axes), values.new_tensor([float(here + zeros)])])
        if world() > 1:
            dist.all_reduce(sums)
        count = sums[-1]
        mean = sums[:-1] / count
        # around the mean, because a difference of large sums would lose digits
        squares = (values - mean).square().sum(axes) + zeros * mean.square()
        if world() > 1:
            dist.all_reduce(squares)
        ctx.save_for_backward(rows, mean, count)
        ctx.mark_non_differentiable(count)
        return mean, squares / count, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        rows, mean, count = ctx.saved_tensors
        grad = torch.stack([grads[0], grads[1]])
        if world() > 1:  # every rank's loss depends on every rank's rows
            dist.all_reduce(grad)
        return ((grad[0] + 2 * (rows.float() - mean) * grad[1]) / count).to(rows.dtype), None


def moments(rows: Tensor, zeros: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and biased variance of each channel over all ranks, and how many values each is of.

    Args:
        rows: ``(..., C)``; summed in float32.
        zeros: Further rows on this rank that are all zero and are not passed.

    Returns:
        ``(C,)``, ``(C,)`` and a scalar, float32. Gradients reach the rows of every rank.
    """
    mean, variance, count = _Moments.apply(rows, zeros)
    return mean, variance, count


class BatchNorm(nn.Module):
    """Batch normalisation of ``(..., C)``; parameters, buffers and numbers are those of ``nn.BatchNorm1d``.

    In training under several processes the statistics are those of all of them, as torch's ``SyncBatchNorm``
    does on CUDA alone.

    Args:
        dim: Channels C.
        eps: Added to the variance.
        momentum: Weight of a batch in the running statistics.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, dim: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def affine(self, rows: Tensor, zeros: int = 0, offset: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The normalisation as ``rows * scale + shift``; in training it learns the running statistics.

        Rows that are zero become `shift`, so they need not be there.

        Args:
            rows: ``(..., C)``.
            zeros: Further rows that are all zero (see `moments`); matters in training only.
            offset: ``(C,)`` that belongs to every row, the zero ones too, and was not added (a convolution's bias):
                the result normalises ``rows + offset``.

        Returns:
            `scale` and `shift`, ``(C,)`` float32.
        """
        if self.training:
            mean, variance, count = moments(rows, zeros)
            mean = mean if offset is None else mean + offset
            if not _keep.get():
                self._track(mean.detach(), variance.detach(), count)
        else:
            mean, variance = self.running_mean, self.running_var
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return scale, self.bias - (mean if offset is None else mean - offset) * scale

    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1).clamp(min=1)), self.momentum)

    def forward(self, rows: Tensor, zeros: int = 0) -> Tensor:
        """Normalised rows ``(..., C)``."""
        scale, shift = self.affine(rows, zeros)
        return rows * scale + shift
