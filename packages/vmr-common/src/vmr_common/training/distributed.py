"""Several processes under torchrun: who am I, do something once, agree on a result."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from vmr_common.errors import UserError
from vmr_common.training.device import select_device

Result = TypeVar("Result")


def rank() -> int:
    """The number of this process, 0 when alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """How many processes there are, 1 when alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def start(device: str = "auto") -> None:
    """Joins the process group that torchrun describes; does nothing when alone or already joined.

    Collectives run over gloo on the CPU and over NCCL on CUDA (objects still over gloo).
    """
    if dist.is_initialized() or int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return
    chosen = select_device(device)
    if chosen.type == "mps":
        raise UserError("several processes cannot share an MPS device; use --train.device cpu")
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")


@contextlib.contextmanager
def session(device: str = "auto") -> Iterator[None]:
    """`start` at the beginning of the block and an orderly end after it; commands wrap their work in it."""
    start(device)
    try:
        yield
        barrier()
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def barrier() -> None:
    """Waits for all ranks, so that none ends while another still talks to it."""
    if dist.is_initialized():
        dist.barrier()


def from_rank_zero(function: Callable[[], Result]) -> Result:
    """Calls `function` on rank 0 only and returns its result, or raises its failure, on every rank.

    Raises:
        UserError: as rank 0 did.
        RuntimeError: on the other ranks, if rank 0 failed in another way.
    """
    if world() == 1:
        return function()
    message: list[Any] = [None]
    failure: Exception | None = None
    if rank() == 0:
        try:
            message = [("done", function())]
        except UserError as error:
            failure, message = error, [("wrong", str(error))]
        except Exception as error:
            failure, message = error, [("failed", repr(error))]
    dist.broadcast_object_list(message, src=0)
    if failure is not None:
        raise failure
    kind, content = message[0]
    if kind == "wrong":
        raise UserError(content)
    if kind == "failed":
        raise RuntimeError(f"rank 0 failed: {content}")
    return content  # type: ignore[no-any-return]


def gather(value: Result) -> list[Result]:
    """Every rank's value, in rank order, on every rank."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def any_rank(flag: bool) -> bool:
    """Whether the flag is set on any rank."""
    return any(gather(flag))


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of `tensor` over the ranks, in place."""
    if world() > 1:
        dist.all_reduce(tensor)
    return tensor
