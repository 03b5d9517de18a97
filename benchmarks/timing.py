"""Seconds of a function: by the clock, and of processor time, which a busy machine does not change."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    import torch

Result = TypeVar("Result")


class Seconds(NamedTuple):
    """Of one run."""

    clock: float
    processor: float


def timed(function: Callable[[], Result], device: torch.device | None = None) -> tuple[Result, Seconds]:
    """What a function gives, and its seconds, until an accelerator that it uses is done too."""
    wait = None
    if device is not None and device.type == "cuda":
        import torch  # what is measured without torch shall not wait for it

        wait = torch.cuda.synchronize
    clock, processor = time.perf_counter(), time.process_time()
    result = function()
    if wait is not None:
        wait(device)
    return result, Seconds(time.perf_counter() - clock, time.process_time() - processor)


def repeated(
    function: Callable[[], object], repeats: int, device: torch.device | None = None
) -> list[Seconds]:
    """The seconds of every run, after a first one that does not count."""
    timed(function, device)
    return [timed(function, device)[1] for _ in range(repeats)]


def median(runs: Sequence[Seconds]) -> Seconds:
    """The median of either time."""
    clock, processor = (statistics.median(column) for column in zip(*runs, strict=True))
    return Seconds(clock, processor)


def best_in_turns(functions: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """The least processor time of each function; taking turns spreads a busy moment of the machine over all."""
    times = [[timed(function)[1].processor for function in functions] for _ in range(rounds)]
    return [min(column) for column in zip(*times, strict=True)]
