"""Names of what a run leaves in its folder; training, the report and the commands all read or write some of it."""

import os
from pathlib import Path
from typing import Literal

from vmr_common.errors import UserError

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
CHECKPOINTS = "checkpoints"
BEST = f"{CHECKPOINTS}/best.safetensors"
LAST = f"{CHECKPOINTS}/last.safetensors"
PREDICTIONS = "predictions.jsonl"
RESULTS = "results.json"
FIGURES = "run.json"
PAGE = "report.html"
REPORT = "report.json"
EVENTS = "tensorboard"
EVENT_FILES = "events.out.tfevents."
"""How the names of the files in `EVENTS` begin."""

FOLDERS = (CHECKPOINTS, EVENTS)
FILES = (CONFIG, METRICS, BEST, LAST, PREDICTIONS, RESULTS, FIGURES, PAGE, REPORT)
ALL = (CONFIG, METRICS, CHECKPOINTS, PREDICTIONS, RESULTS, FIGURES, PAGE, REPORT, EVENTS)

Role = Literal["best", "last"]

NEW = ".new"
"""A run that is to replace the one in the folder, while it is not finished."""
FINAL = ".final"
"""What the end of a run leaves, while it is being written."""
READY = ".ready"
"""One of both, finished, while its files go to their places."""


def current(folder: Path, name: str) -> Path:
    """The path of a file of a run folder: its place, or where it waits, finished (see `run_swap`)."""
    ready = folder / READY / name
    return ready if ready.exists() else folder / name


def unfinished(folder: Path) -> Path | None:
    """The run in a run folder that is to replace the other one there and can be resumed; None where there is none."""
    return folder / NEW if (folder / NEW / LAST).is_file() else None


def find_checkpoint(path: str | Path, prefer: Role = "best") -> Path:
    """The checkpoint file that `path` means: itself, or the preferred (else the other) one of a run folder.

    Raises:
        UserError: if there is none.
    """
    path = Path(path)
    if not os.path.isdir(path):
        if not os.path.exists(path):
            raise UserError(f"{path}: no such checkpoint file or run folder")
        return path
    roles: list[Role] = ["best", "last"] if prefer == "best" else ["last", "best"]
    for role in roles:
        name = f"{role}.safetensors"
        for file in (current(path, f"{CHECKPOINTS}/{name}"), path / name):
            if file.is_file():
                return file
    raise UserError(
        f"{path}: this folder holds no checkpoint; expected checkpoints/best.safetensors or last.safetensors"
    )
