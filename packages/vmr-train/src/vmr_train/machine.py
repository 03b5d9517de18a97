"""The machine that computes: figures of a run hang on it, because rounding does."""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    import torch

_CPUS = Path("/proc/cpuinfo")


class Machine(TypedDict):
    """All that rounding, and so the last digits of a figure, hang on beside the seed."""

    device: str
    threads: int
    cpu: str
    kernels: str
    torch: str


def machine(device: torch.device) -> Machine:
    """The machine, as torch uses it now: device, threads, processor, kernels of the processor, version of torch."""
    import torch  # who only reads reports need not wait for it

    gpu = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return {
        "device": f"{device}{gpu}",
        "threads": torch.get_num_threads(),
        "cpu": cpu_name(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }


@functools.cache
def cpu_name() -> str:
    """The processor's name as the system gives it, its architecture where it gives none."""
    try:
        lines = _CPUS.read_text(errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, names), platform.processor() or platform.machine())
