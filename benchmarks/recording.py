"""Measured figures as csv files of benchmarks/results/, named by what was measured and by the machine."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vmr_common.io import atomic_path
from vmr_train.machine import cpu_name

if TYPE_CHECKING:
    import torch

RESULTS = Path(__file__).parent / "results"


def machine(device: torch.device | None = None) -> str:
    """The name of the accelerator, or else of the processor, fit for a file name: ``amd-epyc``."""
    if device is not None and device.type == "cuda":
        import torch  # what is measured without torch shall not wait for it

        name = torch.cuda.get_device_name(device)
    else:
        name = cpu_name()
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def measured_here(kind: str, device: torch.device | None = None) -> Path:
    """The csv file of this kind of measurement on this machine."""
    return RESULTS / f"{kind}-{machine(device)}.csv"


def write_rows(path: Path, rows: Sequence[Mapping[str, object]], columns: Sequence[str] = ()) -> None:
    """Writes a csv file, whole or not at all, and says where.

    Args:
        path: The file.
        rows: By column; what a row does not have stays empty.
        columns: In this order; by default those of the first row.
    """
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns or list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(f"written: {path}")


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a csv file by column."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
