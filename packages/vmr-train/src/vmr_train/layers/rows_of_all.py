"""The rows of all processes as one tensor, with gradients: for losses that compare the queries of a whole update."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vmr_train.layers.batch_norm import world


class _RowsOfAll(torch.autograd.Function):
    """Writes this rank's rows into zeros and sums over the ranks: ranks may have different numbers of rows."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        counts = torch.zeros(world(), dtype=torch.int64, device=rows.device)
        counts[dist.get_rank()] = len(rows)
        dist.all_reduce(counts)
        numbers = counts.tolist()
        first = sum(numbers[: dist.get_rank()])
        ctx.part = slice(first, first + len(rows))
        everything = rows.new_zeros(sum(numbers), *rows.shape[1:])
        everything[ctx.part] = rows
        dist.all_reduce(everything)
        return everything

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grad,) = grads
        grad = grad.contiguous().clone()
        dist.all_reduce(grad)  # every rank's loss depends on every rank's rows
        return grad[ctx.part]


def rows_of_all(rows: Tensor) -> Tensor:
    """The rows ``(n, ...)`` of every process below each other, in rank order, ``(N, ...)``; alone, `rows` itself.

    Gradients reach the rows of every rank, as the sum over the losses of all ranks.
    """
    if world() == 1:
        return rows
    everything: Tensor = _RowsOfAll.apply(rows)
    return everything
