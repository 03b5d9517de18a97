"""Several processes under torchrun: who am I, do something once, agree on a result."""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from vmr_common.boundary import reason
from vmr_common.errors import PeerGone, SaidElsewhere, UserError
from vmr_train.config import PEER_TIMEOUT_S
from vmr_train.device import select_device
from vmr_train.first_process import said_once
from vmr_train.interrupt import StopRequest, heard, waiting

Result = TypeVar("Result")

_BEAT_S = 5.0
_LOST = re.compile(r"gloo|nccl|timed out|timeout|connection|broken pipe|socket", re.IGNORECASE)
_timeout = PEER_TIMEOUT_S


def rank() -> int:
    """The number of this process, 0 when alone."""
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    """The number of processes, 1 when alone."""
    return dist.get_world_size() if dist.is_initialized() else 1


def start(device: str = "auto", timeout: float = PEER_TIMEOUT_S) -> None:
    """Joins the process group that torchrun describes; does nothing when alone or already joined.

    Collectives run over gloo on the CPU and over NCCL on CUDA (objects still over gloo).

    Args:
        device: As in the configuration.
        timeout: Seconds that a process waits for the others, here and in everything that they do together.

    Raises:
        UserError: if the device is not there, or the description is incomplete.
        PeerGone: if the others do not come.
    """
    global _timeout
    if dist.is_initialized() or not _several():
        return
    chosen = select_device(device)
    if chosen.type == "mps":
        raise UserError("several processes cannot share an MPS device; use --train.device cpu")
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    _timeout = timeout
    try:
        with together():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo",
                timeout=datetime.timedelta(seconds=timeout),
            )
    except ValueError as error:
        raise UserError(f"cannot join the other processes: {reason(error)}") from None


@contextlib.contextmanager
def session(device: str = "auto", timeout: float = PEER_TIMEOUT_S) -> Iterator[None]:
    """`start` at the beginning of the block and an orderly end after it; commands wrap their work in it.

    Signals that ask for the end interrupt the block, except where training takes them as a request.
    """
    with StopRequest(at_once=True):
        with said_once():
            start(device, timeout)
        try:
            yield
            barrier()
        finally:
            if dist.is_initialized():
                with waiting():
                    dist.destroy_process_group()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """The block waits for the other processes, where there are any, for as long as the time limit allows.

    Raises:
        PeerGone: if one of them has ended or cannot be reached.
    """
    if not _several():
        yield
        return
    with waiting(), _peers():
        yield


def _several() -> bool:
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextlib.contextmanager
def _peers() -> Iterator[None]:
    """Turns what the library raises when a process is lost into `PeerGone`."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and not _LOST.search(str(error)):
            raise
        raise PeerGone(
            f"process {os.environ.get('RANK')}: another process is gone, or did not answer within {_timeout:g} s "
            f"(train.peer_timeout); the last checkpoint stays as it was ({_in_short(error)})"
        ) from None


def _in_short(error: Exception) -> str:
    """The first sentence of the library's message, without the place in its sources."""
    return re.sub(r"^\[[^]]*\] *", "", reason(error)).partition(". ")[0]


def barrier() -> None:
    """Waits for all ranks, so that none ends while another still talks to it."""
    if dist.is_initialized():
        with together():
            dist.barrier()


def from_rank_zero(function: Callable[[], Result]) -> Result:
    """Calls `function` on rank 0 only and returns its result, or raises its failure, on every rank.

    It may take longer than the time limit: the others are told that rank 0 is at work.

    Raises:
        UserError: as rank 0 did; as `SaidElsewhere` on the other ranks.
        PeerGone: on the other ranks, if rank 0 failed in another way.
    """
    if world() == 1:
        return function()
    kind, content = _meet(function) if rank() == 0 else _meet(lambda: None)
    message = [(kind, _sendable(content))]
    with together():
        dist.broadcast_object_list(message, src=0)
    if rank() == 0:
        return _given(kind, content)  # type: ignore[no-any-return]
    kind, content = message[0]
    return _given(kind, SaidElsewhere(content) if kind == "wrong" else content)  # type: ignore[no-any-return]


def everywhere(function: Callable[[], Result]) -> Result:
    """Calls `function` on every rank and returns each rank's own result; what fails on any rank ends all of them.

    Raises:
        UserError, PeerGone: as `agreement`.
    """
    with agreement():
        result = function()
    return result  # noqa: RET504 - the block may end in an error of another rank


def agreed(kind: type[UserError], message: str) -> UserError:
    """An error that every rank has found, as this rank raises it: rank 0 says it."""
    return kind(message) if rank() == 0 else SaidElsewhere(message)


def _sendable(content: Any) -> Any:
    """An outcome as it is sent to other processes: of a failure its text, because its parts may not bear being sent."""
    if isinstance(content, UserError):
        return str(content)
    return repr(content) if isinstance(content, Exception) else content


def _given(kind: str, content: Any) -> Any:
    if kind == "done":
        return content
    if isinstance(content, Exception):
        raise content
    raise PeerGone(f"process {rank()}: another process has failed ({content})")


@contextlib.contextmanager
def agreement() -> Iterator[None]:
    """Ends the block on all ranks together: what fails in it on any rank ends all of them.

    Ranks may take more or less time, and each longer than the time limit. The block holds no collective call.

    Raises:
        UserError: as the first rank did that says the same; as `SaidElsewhere` on the other ranks.
        PeerGone: on ranks that did not fail themselves, if another failed in another way.
    """
    if world() == 1:
        yield
        return
    kind, content = "done", None  # type: tuple[str, Exception | None]
    with _kept_in_touch() as lost:
        try:
            yield
        except UserError as error:
            kind, content = "wrong", error
        except Exception as error:
            kind, content = "failed", error
    if lost:
        raise content or lost[0]
    text = None if kind == "done" else _sendable(content)
    outcomes = gather((kind, text))
    if kind == "done":
        for other, said in outcomes:
            if other != "done":
                _given(other, SaidElsewhere(said) if other == "wrong" else said)
    if kind == "wrong" and outcomes.index((kind, text)) < rank():
        raise SaidElsewhere(text)
    _given(kind, content)


def _meet(function: Callable[[], Any]) -> tuple[str, Any]:
    """The outcome of `function` on this rank and its value or error, once it has ended on all of them."""
    outcome: tuple[str, Any]
    with _kept_in_touch() as lost:
        try:
            outcome = "done", function()
        except UserError as error:
            outcome = "wrong", error
        except Exception as error:
            outcome = "failed", error
    if lost:
        raise outcome[1] if outcome[0] != "done" else lost[0]
    return outcome


@contextlib.contextmanager
def _kept_in_touch() -> Iterator[list[PeerGone]]:
    """Ends the block once it has ended on all ranks; gives a list that then holds why a peer cannot be reached.

    While one is at work, a thread of each meets those of the others every few seconds, well within the time limit.
    """
    done = threading.Event()
    lost: list[PeerGone] = []

    def keep_in_touch() -> None:
        try:
            busy = True
            while busy:
                still = torch.tensor(float(not done.wait(min(_BEAT_S, _timeout / 3))))
                with _peers():
                    dist.all_reduce(still)
                busy = bool(still)
                heard()
        except PeerGone as error:
            lost.append(error)

    thread = threading.Thread(target=keep_in_touch, daemon=True, name="peers")
    thread.start()
    yield lost
    done.set()
    with waiting():
        thread.join()


def gather(value: Result) -> list[Result]:
    """Every rank's value, in rank order, on every rank."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    with together():
        dist.all_gather_object(values, value)
    return values


def any_rank(flag: bool) -> bool:
    """True if the flag is set on any rank."""
    return any(gather(flag))


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of `tensor` over the ranks, in place."""
    if world() > 1:
        with together():
            dist.all_reduce(tensor)
    return tensor
