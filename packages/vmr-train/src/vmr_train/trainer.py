"""The training loop: epochs, evaluation, selection, stopping; `saving` has its checkpoints, `step` an update."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vmr_common.errors import UserError
from vmr_common.types import Prediction
from vmr_train import distributed
from vmr_train.clock import format_hours
from vmr_train.config import OptimConfig, TrainConfig
from vmr_train.device import select_device, set_switches
from vmr_train.interrupt import AT_ONCE, Stopped, StopRequest
from vmr_train.loading import Loader
from vmr_train.method import Dataset, Method, Progress
from vmr_train.predict import Evaluator, progress_bar
from vmr_train.run_files import Role
from vmr_train.run_folder import Events, RunFolder
from vmr_train.sampler import Plan
from vmr_train.saving import Best, Saver
from vmr_train.state import Mean, State
from vmr_train.step import Outcome, Updater

logger = logging.getLogger(__name__)

Evaluate = Callable[[list[Prediction]], Mapping[str, float]]


@dataclass(frozen=True)
class FitResult:
    """The result of a finished run."""

    best_value: float | None
    """The select metric of the selected weights, a fraction; None if nothing was evaluated."""
    best_epoch: int
    """The epoch of the selected weights, from 1."""
    best_checkpoint: Path
    last_checkpoint: Path
    seconds: float
    """Time spent in training and evaluation, over all sittings of the run."""


class Trainer:
    """Trains a method and leaves a run folder with `last`, `best`, and the metrics of every interval and epoch.

    Seed torch (`device.seed_everything`) before building the method's model: its initial weights are part of
    the run. Under torchrun, build everything alike on every rank.

    Args:
        method: Model, loss and prediction; the model is moved to the configured device.
        train: Training queries.
        validation: Queries evaluated every `eval_every` epochs, or None.
        evaluate: Metrics (fractions) from predictions for `validation`; called on rank 0.
        config: The loop.
        optim: The optimiser.
        run: Where everything goes.
        describe: JSON that every checkpoint carries: `package` and `config` (required: the resolved configuration),
            hashes of splits, features and words; what a resumed training is compared with.
        may_change: Options of the configuration that it may have changed, beyond `same_run.MAY_CHANGE`.

    Raises:
        UserError: if the options do not fit together.
    """

    def __init__(
        self,
        method: Method,
        train: Dataset,
        *,
        validation: Dataset | None,
        evaluate: Evaluate | None,
        config: TrainConfig,
        optim: OptimConfig,
        run: RunFolder,
        describe: Mapping[str, Any],
        may_change: Collection[str] = (),
    ) -> None:
        if (validation is None) != (evaluate is None):
            raise ValueError("validation and evaluate go together")
        if validation is None and config.select != "last":
            raise UserError(f"train.select is {config.select!r}, which needs a split to evaluate; found none")
        if not len(train) or (validation is not None and not len(validation)):
            raise UserError("the training split and the split to select on must each hold at least one query")
        distributed.start(config.device, config.peer_timeout)
        set_switches(config)
        self.device = select_device(config.device)
        self.method, self.config, self.run, self.describe = method, config, run, dict(describe)
        self.package = str(self.describe["package"])
        self.train, self.evaluate = train, evaluate
        method.model.to(self.device)
        if config.compile:
            method.model.compile()  # in place: the names of the weights stay
        self.plan = Plan(
            size=len(train),
            global_batch=config.global_batch,
            micro_batch=config.micro_batch,
            seed=config.seed,
            rank=distributed.rank(),
            world=distributed.world(),
        )
        self.updater = Updater(method, self.plan, config, optim, self.device)
        self.saver = Saver(method, self.updater, run, self.describe, may_change)
        self.evaluator = None
        if validation is not None:
            self.evaluator = Evaluator(
                method,
                validation,
                batch_size=config.eval_batch,
                device=self.device,
                precision=config.precision,
                workers=config.workers,
            )
        self.state = State()
        self.best: Best | None = None
        self._started, self._first_update = time.monotonic(), 0
        self._stop = StopRequest()

    def fit(self, *, resume: bool = False) -> FitResult:
        """Trains to the last epoch, from the start or from the run folder's last checkpoint.

        Raises:
            NonFiniteLoss: if a loss or gradient is not finite; names the queries.
            UserError: if a checkpoint does not fit, a batch cannot be loaded, or the disk fails.
            KeyboardInterrupt: after SIGINT or SIGTERM, with the state saved; the message says how to go on.
        """
        config = self.config
        self._started = time.monotonic()
        self.run.start()
        if not resume:
            self.run.write_config(self.describe["config"])
        if resume and distributed.from_rank_zero(self.run.last.exists):
            self.state, self.best = self.saver.restore()
        state = self.state
        self._first_update = state.update
        self.updater.connect()
        self._events = Events(self.run, wanted=config.tensorboard, from_update=state.update)
        if distributed.rank() == 0:
            logger.info(self._opening())
        stopped = False
        try:
            with self._stop, contextlib.closing(self._events):
                if state.update == 0:
                    self._save("last")  # a disk that cannot take it should say so before training
                batches = self._batches()
                while state.epoch <= config.epochs and not stopped:
                    started = time.monotonic()
                    self.method.model.train()
                    with self._epoch_bar() as bar:
                        for position in bar:
                            progress = Progress(state.update, state.epoch, config.epochs)
                            outcome = self.updater.run(batches, progress, position, stop=self._stop_requested)
                            bar.set_postfix(loss=f"{outcome.terms['total']:.4g}", refresh=False)
                            self._account(outcome, position)
                            stopped = outcome.stop
                            if stopped:
                                break
                    stopped = stopped or self._finish_epoch(started)
                stopped = stopped or distributed.any_rank(self._stop.requested)
        except Exception as error:
            # a signal to the whole group ends the compiler too that torch.compile waits for
            if self._stop.requested and type(error).__module__.startswith(
                ("torch._dynamo", "torch._inductor")
            ):
                raise KeyboardInterrupt(AT_ONCE) from None
            raise
        finally:
            self.updater.disconnect()
        if stopped:
            distributed.barrier()
            raise KeyboardInterrupt(self._how_to_resume())
        self.run.write_config(self.describe["config"])  # of a resumed run only now: it has shown that it fits
        value, epoch = self.saver.kept_best() or (None, config.epochs)
        return FitResult(value, epoch, self.run.best, self.run.last, self._seconds())

    def _stop_requested(self) -> bool:
        return self._stop.requested

    def _batches(self) -> Iterator[Any]:
        # one loader over all epochs: its processes keep their caches and never wait for an epoch to end
        requests = self.plan.requests(self.state.epoch, self.state.batch, self.config.epochs)
        pin = self.device.type == "cuda"
        return iter(Loader(self.train, requests, workers=self.config.workers, pin=pin))

    def _epoch_bar(self) -> tqdm[int]:
        """The positions of the updates that are left of the current epoch."""
        done, updates = self.state.batch, self.plan.updates
        title = f"epoch {self.state.epoch}/{self.config.epochs}"
        return progress_bar(range(done, updates), title=title, total=updates, done=done, unit="update")

    def _account(self, outcome: Outcome, position: int) -> None:
        """Takes in one update, logs its interval and saves where it is time to, or the run is to stop."""
        state, config = self.state, self.config
        queries = min(config.global_batch, self.plan.size - position * config.global_batch)
        state.interval.add(outcome.terms, queries)
        state.whole_epoch.add(outcome.terms, queries)
        state.update += 1
        state.batch += 1
        if state.update % config.log_updates == 0:
            numbers = {"lr": outcome.lr, "grad_norm": outcome.grad_norm, "seconds": self._seconds()}
            self._log_row({"kind": "interval", **numbers, **state.interval.row()})
            state.interval = Mean()
        within_epoch = state.batch < self.plan.updates
        due = config.checkpoint_updates and state.update % config.checkpoint_updates == 0
        if outcome.stop or (due and within_epoch):
            self._save("last")

    def _finish_epoch(self, started: float) -> bool:
        """Evaluates, selects, logs and saves; True if stopped on request during the evaluation."""
        state, config = self.state, self.config
        final = state.epoch == config.epochs
        metrics: dict[str, float] = {}
        if self.evaluator is not None and (final or state.epoch % config.eval_every == 0):
            try:
                metrics = self._evaluate(self.evaluator)
            except Stopped:
                self._save("last")
                return True
        selected = self._is_selected(metrics, final)
        if selected:
            value = metrics.get(config.select_metric)
            self.best = (value if value is not None and math.isfinite(value) else None, state.epoch)
        self._log_epoch(metrics, time.monotonic() - started, selected)
        if selected:
            self._save("best", metrics)
        state.epoch, state.batch, state.whole_epoch = state.epoch + 1, 0, Mean()
        self._save("last")
        return False

    def _evaluate(self, evaluator: Evaluator) -> dict[str, float]:
        average, evaluate = self.updater.average, self.evaluate
        assert evaluate is not None
        with contextlib.nullcontext() if average is None else average.applied():
            predictions = evaluator.predict(stop=self._stop_requested)
        metrics = distributed.from_rank_zero(lambda: {k: float(v) for k, v in evaluate(predictions).items()})
        if self.config.select != "last" and self.config.select_metric not in metrics:
            raise distributed.agreed(
                UserError,
                f"train.select_metric {self.config.select_metric!r} is not measured: {', '.join(metrics)}",
            )
        return metrics

    def _is_selected(self, metrics: Mapping[str, float], final: bool) -> bool:
        if self.config.select == "last":
            return final
        if not metrics:
            return False
        before = None if self.best is None else self.best[0]
        return before is None or metrics[self.config.select_metric] > before

    def _log_row(self, row: dict[str, Any]) -> None:
        row = {"kind": row["kind"], "update": self.state.update, "epoch": self.state.epoch, **row}
        distributed.from_rank_zero(lambda: self._write_row(row))

    def _write_row(self, row: Mapping[str, Any]) -> None:
        self.run.append(row)
        self._events.write(row)

    def _log_epoch(self, metrics: Mapping[str, float], seconds: float, selected: bool) -> None:
        state, config = self.state, self.config
        lr = self.updater.learning_rate(state.update - 1)
        split = "test" if config.select == "test" else "validation"
        measured = {f"{split}/{name}": value for name, value in metrics.items()}
        terms = state.whole_epoch.row()
        self._log_row(
            {"kind": "epoch", "lr": lr, "seconds": seconds, **terms, **measured, "selected": selected}
        )
        if distributed.rank() != 0:
            return
        chosen = config.select_metric
        # the other terms and metrics are in metrics.jsonl: a line fits a terminal
        parts = [
            f"epoch {state.epoch}/{config.epochs}",
            f"loss {terms['train/total']:.4g}",
            *([f"{split} {chosen} {metrics[chosen]:.3f}"] if chosen in metrics else []),
            f"{seconds:.1f} s{self._time_left()}",
            *(["best so far"] if selected and config.select != "last" else []),
        ]
        logger.info(" | ".join(parts))

    def _time_left(self) -> str:
        """The part of an epoch's line on the time left, by the pace of this process: an earlier one had its own."""
        done = self.state.update - self._first_update
        to_come = self.plan.updates * self.config.epochs - self.state.update
        if not done or not to_come:
            return ""
        return f", {format_hours((time.monotonic() - self._started) / done * to_come)} left"

    def _save(self, role: Role, metrics: Mapping[str, float] | None = None) -> None:
        self.saver.save(role, replace(self.state, seconds=self._seconds()), self.best, metrics)

    def _seconds(self) -> float:
        return self.state.seconds + time.monotonic() - self._started

    def _opening(self) -> str:
        plan, config = self.plan, self.config
        parameters = sum(p.numel() for p in self.method.model.parameters() if p.requires_grad)
        where = f"{self.device}, {config.precision}" + (f", {plan.world} processes" if plan.world > 1 else "")
        start = "" if not self.state.update else f"; resuming after update {self.state.update}"
        choice = "; the best epoch is chosen ON TEST" if config.select == "test" else ""
        return (
            f"training {parameters:,} weights on {plan.size} queries, {config.epochs} "
            f"epoch{'s' * (config.epochs != 1)} of {plan.updates} updates ({where}){start}{choice}"
        )

    def _how_to_resume(self) -> str:
        instead = "instead of --overwrite " if self.run.overwrites else ""
        return (
            f"stopped after update {self.state.update} (epoch {min(self.state.epoch, self.config.epochs)}), "
            f"saved in {self.run.last}; the same command with --resume {instead}goes on from there"
        )
