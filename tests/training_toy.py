"""A toy task, small enough to train in milliseconds, and a command around it for tests in real processes."""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vmr_common.cli.entrypoint import command
from vmr_common.errors import UserError
from vmr_common.io import write_text
from vmr_common.types import Prediction
from vmr_train import interrupt
from vmr_train.checkpoint import save_checkpoint
from vmr_train.config import OptimConfig, ScheduleConfig, TrainConfig
from vmr_train.device import seed_everything
from vmr_train.distributed import everywhere, rank, session
from vmr_train.run_files import FIGURES, PAGE, PREDICTIONS, REPORT, RESULTS
from vmr_train.run_folder import RunFolder
from vmr_train.trainer import Trainer

DIM = 6


@dataclass(frozen=True)
class Batch:
    query_ids: tuple[str, ...]
    x: Tensor  # (B, DIM)
    target: Tensor  # (B, 2) centre and width


class ToyExamples:
    """Queries "q0", "q1", ...; in training each has noise that depends on its epoch and number only."""

    def __init__(self, size, seed=1, broken=(), missing=-1, bad="nan"):
        numbers = np.random.default_rng(seed).uniform(-1, 1, (size, DIM)).astype(np.float32)
        mixing = np.random.default_rng(0).normal(size=(DIM, 2))
        self.x = numbers
        self.y = (1 / (1 + np.exp(-numbers @ mixing))).astype(np.float32)
        self.seed, self.broken, self.missing, self.bad = seed, broken, missing, float(bad)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: Sequence[int], epoch: int | None) -> Batch:
        rows = self.x[list(indices)].copy()
        for row, index in zip(rows, indices, strict=True):
            if index == self.missing:
                raise UserError(f"features.h5: video 'v{index}' is missing")
            if epoch is not None:
                noise = np.random.default_rng([self.seed, epoch, index]).normal(0, 0.05, DIM)
                row += noise.astype(np.float32)
                if index in self.broken and epoch >= 2:
                    row[0] = self.bad
        ids = tuple(f"q{i}" for i in indices)
        return Batch(ids, torch.from_numpy(rows), torch.from_numpy(self.y[list(indices)]))


class ToyModel(nn.Module):
    def __init__(self, dropout: float = 0.0, unused: bool = False):
        super().__init__()
        self.first = nn.Linear(DIM, 16)
        self.drop = nn.Dropout(dropout)
        self.second = nn.Linear(16, 2)
        self.unused = nn.Linear(2, 2) if unused else None

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.drop(torch.tanh(self.first(x)))).sigmoid()


class ToyTask:
    def __init__(self, dropout=0.0, unused=False, slow=0.0, slow_predict=0.0, log=None):
        self.model = ToyModel(dropout, unused)
        self.slow, self.slow_predict, self.log = slow, slow_predict, log

    def loss(self, batch, progress):
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(json.dumps([progress.update, progress.epoch, rank(), batch.query_ids]) + "\n")
        time.sleep(self.slow)
        answer = self.model(batch.x)
        fit = (answer - batch.target).square().mean()
        spread = answer.mean(0).square().sum() * 0 + answer.square().mean()
        return {"fit": fit, "spread": spread, "total": fit + 0.01 * spread}

    def predict(self, batch):
        if self.slow_predict:
            self.log.with_suffix(".predict").touch()
        time.sleep(self.slow_predict)
        answer = self.model(batch.x).double()
        centre, width = answer[:, 0], answer[:, 1]
        moments = torch.stack([centre - width / 2, centre + width / 2], -1).cpu().numpy()
        return [
            Prediction(query=q, video="v", moments=m[None], scores=[1.0])
            for q, m in zip(batch.query_ids, moments, strict=True)
        ]

    def state(self):
        return {"words": ["a", "b"], "dim": DIM}

    def state_tensors(self):
        return {"vectors": torch.arange(4.0).reshape(2, 2)}


class ToyScore:
    """Mean overlap of the first moments with the truth, and a count of the queries it was given."""

    def __init__(self, examples: ToyExamples, slow: float = 0.0):
        self.slow = slow
        centre, width = examples.y[:, 0], examples.y[:, 1]
        self.truth = {
            f"q{i}": (c - w / 2, c + w / 2) for i, (c, w) in enumerate(zip(centre, width, strict=True))
        }

    def __call__(self, predictions: list[Prediction]) -> dict[str, float]:
        time.sleep(self.slow)
        overlaps = []
        for prediction in predictions:
            (start, end), (s, e) = prediction.moments[0], self.truth[prediction.query]
            overlaps.append(max(min(end, e) - max(start, s), 0) / (max(end, e) - min(start, s)))
        distinct = len({p.query for p in predictions})
        return {"R@1,mIoU": float(np.mean(overlaps)), "worst": min(overlaps), "queries": distinct}


def digest(weights: dict[str, Tensor]) -> str:
    """A hash of exact bits."""
    text = b"".join(name.encode() + weights[name].numpy().tobytes() for name in sorted(weights))
    return hashlib.sha256(text).hexdigest()


@command
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--overwrite", action="store_true")
    for name in ("train", "optim", "schedule", "task", "examples"):
        parser.add_argument(f"--{name}", type=json.loads, default={})
    parser.add_argument("--file-limit", type=int, help="largest file that this process may write, bytes")
    parser.add_argument(
        "--grace", type=float, help="of a process that was asked to end and waits for another"
    )
    parser.add_argument("--ignore", help="a signal that is ignored, as nohup has it")
    parser.add_argument("--slow-score", type=float, default=0.0, help="seconds that measuring takes")
    options = parser.parse_args(argv)
    if options.ignore:
        signal.signal(getattr(signal, options.ignore), signal.SIG_IGN)
    interrupt.GRACE_S = options.grace or interrupt.GRACE_S
    torch.set_num_threads(1)
    if options.file_limit:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (options.file_limit, options.file_limit))
    if "log" in options.task:
        options.task["log"] = Path(f"{options.task['log']}.{os.environ.get('RANK', '0')}")
    config = TrainConfig(**{"device": "cpu", **options.train})
    with (
        session(config.device, config.peer_timeout),
        RunFolder(options.run, resume=options.resume, overwrite=options.overwrite) as run,
    ):
        seed_everything(config.seed)
        validation = ToyExamples(11, seed=2)
        trainer = everywhere(
            lambda: Trainer(
                ToyTask(**options.task),
                ToyExamples(**{"size": 45, **options.examples}),
                validation=validation,
                evaluate=ToyScore(validation, options.slow_score),
                config=config,
                optim=OptimConfig(**options.optim, schedule=ScheduleConfig(**options.schedule)),
                run=run,
                describe={"package": "toy", "config": {"note": "toy"}},
            )
        )
        result = trainer.fit(resume=options.resume)
        run.finish()
        if rank() == 0:
            sys.stdout.write(json.dumps({"value": result.best_value, "epoch": result.best_epoch}) + "\n")


def replace_run(folder: Path, mark: str, last_step: int) -> None:
    """Writes a run of small files over what is in a folder, and kills this process before one of its steps on the disk.

    Exits with 0 where there are fewer steps.
    """
    steps = itertools.count(1)

    def step(event: str, arguments: tuple[Any, ...]) -> None:
        writes = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir") or (
            event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if writes and str(folder) in str(arguments[0]) and next(steps) == last_step:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(step)
    with RunFolder(folder, overwrite=folder.exists()) as run:
        write_run(run, mark)


def write_run(run: RunFolder, mark: str) -> None:
    """All files of a run, each with the mark in it."""
    run.start()
    run.write_config({"name": mark})
    meta = {"role": "last", "package": "toy", "state": {}, "describe": {"config": {"mark": mark}}}
    position = {"update": 1, "epoch": 1, "batch": 0}
    save_checkpoint(run.last, {}, {**meta, **position})
    run.append({"kind": "epoch", "mark": mark})
    run.events.mkdir()
    (run.events / f"events.out.tfevents.{mark}").write_text(mark)
    save_checkpoint(run.best, {}, {**meta, **position, "role": "best"})
    for name in (PREDICTIONS, RESULTS, FIGURES, PAGE, REPORT):
        write_text(run.final / name, mark)
    run.finish()


def work(arguments: list[str], output: Path, environment: dict[str, str]) -> None:
    """Runs the command in this (forked) process as if it had been started by a shell."""
    os.environ.update(environment)
    handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(handle, stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # which the tests themselves may ignore, under nohup
    sys.exit(main(arguments))


if __name__ == "__main__":
    sys.exit(main())
