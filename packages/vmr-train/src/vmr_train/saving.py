"""The checkpoints of a training: what is written of it, and the way back to where it was."""

from __future__ import annotations

import platform
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

import torch

import vmr_common
from vmr_common.boundary import boundary
from vmr_common.errors import UserError
from vmr_train import distributed
from vmr_train.checkpoint import Checkpoint, load_checkpoint, load_meta, save_checkpoint
from vmr_train.machine import machine
from vmr_train.method import Method
from vmr_train.optim import optimizer_tensors, restore_optimizer
from vmr_train.run_files import Role
from vmr_train.run_folder import RunFolder
from vmr_train.same_run import require_same
from vmr_train.state import State
from vmr_train.step import Updater
from vmr_train.weights import load_weights

Best = tuple[float | None, int]
"""The select metric of the selected weights, None where nothing was measured, and their epoch."""


class Saver:
    """Writes the checkpoints of a training into its run folder, and continues from the last one.

    Call its methods on every rank; rank 0 reads and writes.

    Args:
        method: As for `Trainer`.
        updater: Holds weights, optimiser, loss scaler and average.
        run: Where checkpoints lie.
        describe: As for `Trainer`.
        may_change: As for `Trainer`.
    """

    def __init__(
        self,
        method: Method,
        updater: Updater,
        run: RunFolder,
        describe: Mapping[str, Any],
        may_change: Collection[str],
    ) -> None:
        self._method, self._updater, self._run = method, updater, run
        self._describe, self._may_change = describe, may_change
        self._package = str(describe["package"])

    def save(
        self, role: Role, state: State, best: Best | None, metrics: Mapping[str, float] | None = None
    ) -> None:
        """Writes `last`, or `best` with the metrics of its epoch.

        Raises:
            UserError: if the disk fails.
        """
        distributed.from_rank_zero(lambda: self._write(role, state, best, metrics))

    def _write(
        self, role: Role, state: State, best: Best | None, metrics: Mapping[str, float] | None
    ) -> None:
        model, average = self._method.model.state_dict(), self._updater.average
        parts: dict[str, Mapping[str, torch.Tensor]] = {"state": self._method.state_tensors()}
        if role == "best":
            parts["model"] = model if average is None else average.weights
            path = self._run.best
        else:
            parts["model"] = model
            parts["optim"] = optimizer_tensors(self._method.model, self._updater.optimizer)
            parts["ema"] = {} if average is None else average.weights
            path = self._run.last
        self._run.guard()
        self._run.sync()  # the rows that belong to a checkpoint are on the disk before it
        meta = {**self._meta(state, best), "role": role, "metrics": dict(metrics or {})}
        save_checkpoint(path, parts, meta)

    def _meta(self, state: State, best: Best | None) -> dict[str, Any]:
        updater, (value, epoch) = self._updater, best or (None, None)
        return {
            "package": self._package,
            **asdict(state),
            "selection": {
                "select": updater.config.select,
                "metric": updater.config.select_metric,
                "value": value,
                "epoch": epoch,
            },
            "train_queries": updater.plan.size,
            "train": asdict(updater.config),
            "optim": asdict(updater.optim),
            "scaler": updater.scaler.state_dict(),
            "state": self._method.state(),
            "describe": self._describe,
            "versions": {
                "vmr-common": vmr_common.__version__,
                "python": platform.python_version(),
                "processes": distributed.world(),
                **machine(updater.device),
                "device": str(updater.device),
            },
        }

    def restore(self) -> tuple[State, Best | None]:
        """Puts weights, optimiser, scaler and average where `last` has them; its position, and the best so far.

        Rows of the metrics that were written after it are dropped: they will be written again.

        Raises:
            UserError: if the checkpoint does not fit, or is of another training than this one.
        """
        found = distributed.from_rank_zero(
            lambda: load_checkpoint(self._run.last, package=self._package, prefer="last", trained=True)
        )
        distributed.from_rank_zero(lambda: self._require_same_run(found))
        updater, model = self._updater, self._method.model
        load_weights(model, found.part("model"), found.path)
        restore_optimizer(model, updater.optimizer, found.part("optim"), found.path)
        if updater.average is not None:
            updater.average.load(found.part("ema") or found.part("model"), found.path)
        if found.meta["scaler"] and updater.scaler.is_enabled():
            with boundary(f"{found.path}: metadata key scaler: not the state of a loss scaler"):
                updater.scaler.load_state_dict(found.meta["scaler"])
        state = State.from_meta(found.meta, found.path, updater.plan.updates)
        distributed.from_rank_zero(lambda: self._drop_rows_after(state))
        kept = self.kept_best()
        if kept is not None and kept[1] >= state.epoch:
            # killed between `best` and `last`: that epoch comes again and meets what was best before it
            before = found.meta["selection"]
            kept = None if before["epoch"] is None else (before["value"], before["epoch"])
        return state, kept

    def _require_same_run(self, found: Checkpoint) -> None:
        require_same(
            found,
            self._meta(State(), None),
            state=self._method.state(),
            tensors=self._method.state_tensors(),
            may_change=self._may_change,
        )

    def _drop_rows_after(self, state: State) -> None:
        self._run.keep_rows(
            lambda row: (
                row["update"] <= state.update if row["kind"] == "interval" else row["epoch"] < state.epoch
            )
        )

    def kept_best(self) -> Best | None:
        """The value and the epoch of the `best` file; None where there is none.

        Raises:
            UserError: if it is not one that a training writes.
        """
        return distributed.from_rank_zero(self._read_best)

    def _read_best(self) -> Best | None:
        if not self._run.best.exists():
            return None
        kept = load_meta(self._run.best, package=self._package, trained=True)["selection"]
        if kept["epoch"] is None:
            raise UserError(
                f"{self._run.best}: metadata key selection.epoch: found None, expected a whole number"
            )
        return kept["value"], kept["epoch"]
