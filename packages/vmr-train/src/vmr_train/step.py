"""One update of the weights: forward and backward over the shards, checks, clipping, step."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from vmr_common.errors import listed
from vmr_train import distributed
from vmr_train.config import OptimConfig, TrainConfig
from vmr_train.device import autocast, update_seed
from vmr_train.method import Method, NonFiniteLoss, Progress, to_device
from vmr_train.optim import WeightAverage, build_optimizer
from vmr_train.sampler import Plan
from vmr_train.schedules import learning_rate


@dataclass(frozen=True)
class Outcome:
    """The outcome of one update."""

    terms: dict[str, float]
    """Loss terms, each the mean over all queries of the update."""
    grad_norm: float
    """Global gradient norm before clipping."""
    lr: float
    """Learning rate (of `optim.lr`) that was applied."""
    stop: bool
    """Whether any rank has asked to stop."""


class _LossModule(nn.Module):
    """A method's loss as a module, so that DistributedDataParallel sees one forward pass per shard."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.model = method.model
        self._method = method

    def forward(self, batch: Any, progress: Progress) -> dict[str, Tensor]:
        """The terms; only the total keeps its graph, because nothing else is back-propagated."""
        terms = self._method.loss(batch, progress)
        return {name: term if name == "total" else term.detach() for name, term in terms.items()}


class Updater:
    """Owns what changes from update to update: weights, optimiser, loss scaler, weight average."""

    def __init__(
        self, method: Method, plan: Plan, config: TrainConfig, optim: OptimConfig, device: torch.device
    ) -> None:
        self.plan, self.config, self.optim, self.device = plan, config, optim, device
        self.model = method.model
        self.optimizer = build_optimizer(self.model, optim)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.precision == "fp16")
        self.average = WeightAverage(self.model, optim.ema_decay) if optim.ema_decay else None
        self.names: tuple[str, ...] = ()
        self._method = method
        self._parallel: DistributedDataParallel | None = None

    def connect(self) -> None:
        """Call once the weights are in place: all ranks take those of rank 0 and share gradients."""
        if distributed.world() > 1:
            with distributed.together():
                self._parallel = DistributedDataParallel(
                    _LossModule(self._method), find_unused_parameters=self.config.unused_parameters
                )

    def disconnect(self) -> None:
        """Lets go of the process group, so that its threads can end with it and not with the interpreter."""
        if self._parallel is not None:
            self._parallel = None
            gc.collect()  # DistributedDataParallel refers to itself

    def run(
        self, batches: Iterator[Any], progress: Progress, position: int, *, stop: Callable[[], bool]
    ) -> Outcome:
        """One update over the shards of this position; takes one batch per shard from `batches`.

        `stop` is asked once, after the backward passes: one answer of yes reaches all ranks.

        Raises:
            NonFiniteLoss: on every rank, before any weight is changed, if a loss term or (without loss
                scaling) the gradient norm is not finite on any rank.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._method.loss if self._parallel is None else self._parallel
        shards = self.plan.shards(progress.epoch, position)
        seen: list[tuple[tuple[str, ...], Tensor]] = []
        sums: Tensor | None = None
        for number, shard in enumerate(shards):
            batch = to_device(next(batches), self.device)
            torch.manual_seed(update_seed(self.config.seed, progress.update, self.plan.rank, number))
            last = number + 1 == len(shards)
            with self._no_sync(not last and not self._summing):
                # DDP averages over the ranks; the world size turns that into the sum of the weighted shards
                weight = shard.weight * self.plan.world * (len(shards) if self._summing else 1)
                with distributed.together():
                    with autocast(self.device, self.config.precision):
                        named = loss(batch, progress)
                    self.scaler.scale(named["total"] * weight).backward()
                terms = self._values(named)
            if self._summing and not last:
                self._clip_accumulated()
            seen.append((tuple(batch.query_ids), terms))
            weighted = terms * shard.weight
            sums = weighted if sums is None else sums + weighted
        assert sums is not None
        self._require_gradients()
        self.scaler.unscale_(self.optimizer)
        norm = get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        flag = sums.new_full((1,), float(stop()))
        # one transfer to the host per update, and the ranks agree about it
        with distributed.together():
            summed = distributed.sum_over_ranks(torch.cat([sums, flag]))
            *values, stop_ranks, grad_norm = torch.cat([summed, norm.float().reshape(1)]).tolist()
        self._require_finite(values, grad_norm, seen, progress)
        lr = self._step(norm, grad_norm, progress.update)
        return Outcome(dict(zip(self.names, values, strict=True)), grad_norm, lr, stop_ranks > 0)

    def _values(self, terms: dict[str, Tensor]) -> Tensor:
        """All terms of a shard without their graphs, ``(terms,)`` float32."""
        self.names = self.names or tuple(terms)
        if tuple(terms) != self.names or "total" not in terms:
            raise RuntimeError(f"loss terms must stay {self.names} and hold 'total', found {tuple(terms)}")
        return torch.stack([term.detach().float() for term in terms.values()])

    @property
    def _summing(self) -> bool:
        return self.optim.accumulation == "sum"

    def _clip_accumulated(self) -> None:
        """Clips what the passes so far have added up; what is not finite is left for the checks of the update."""
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        # under loss scaling the gradients are larger by the scale, and so is the bound
        limit = self.optim.clip_norm * self.scaler.get_scale()
        norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
        if limit and norm.isfinite():
            clip_grads_with_norm_(parameters, limit, norm)

    def _no_sync(self, accumulating: bool) -> contextlib.AbstractContextManager[object]:
        if accumulating and self._parallel is not None:
            return self._parallel.no_sync()
        return contextlib.nullcontext()

    def _step(self, norm: Tensor, grad_norm: float, update: int) -> float:
        if 0 < self.optim.clip_norm <= grad_norm < math.inf:  # below, it would multiply all gradients by 1
            parameters = [p for p in self.model.parameters() if p.grad is not None]
            clip_grads_with_norm_(parameters, self.optim.clip_norm, norm)
        lr = self.learning_rate(update)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["scale"]
        self.scaler.step(self.optimizer)  # fp16: leaves the step out when a scaled gradient overflowed
        self.scaler.update()
        if self.average is not None and math.isfinite(grad_norm):
            self.average.update()
        return lr

    def learning_rate(self, update: int) -> float:
        """The rate (of `optim.lr`) of the update that follows `update` updates."""
        return learning_rate(
            self.optim.schedule,
            self.optim.lr,
            update=update,
            total_updates=self.plan.updates * self.config.epochs,
            epoch_updates=self.plan.updates,
        )

    def _require_gradients(self) -> None:
        if self.plan.world == 1 or self.config.unused_parameters:
            return
        without = [n for n, p in self.model.named_parameters() if p.requires_grad and p.grad is None]
        if without:
            raise RuntimeError(
                f"{len(without)} parameters got no gradient (first {without[0]}): several processes need "
                "train.unused_parameters true for such a model"
            )

    def _require_finite(
        self,
        values: list[float],
        grad_norm: float,
        seen: list[tuple[tuple[str, ...], Tensor]],
        progress: Progress,
    ) -> None:
        where = f"at update {progress.update} (epoch {progress.epoch}), before any weight was changed"
        if not all(map(math.isfinite, values)):
            own = [(ids, terms.tolist()) for ids, terms in seen if not terms.isfinite().all()]
            bad = [shard for part in distributed.gather(own) for shard in part]
            ids = [identifier for ids, _ in bad for identifier in ids]
            found = {
                f"{name} = {value}"
                for _, terms in bad
                for name, value in zip(self.names, terms, strict=True)
                if not math.isfinite(value)
            }
            raise distributed.agreed(
                NonFiniteLoss,
                f"the loss is not finite {where}: {', '.join(sorted(found))}; queries {listed(ids, 8)}; "
                "check their features and annotations, or lower optim.lr",
            )
        # with loss scaling an overflow is normal: that step is left out and the scale halved
        if not math.isfinite(grad_norm) and self.scaler.get_scale() <= 1:
            names = [
                name
                for name, p in self.model.named_parameters()
                if p.grad is not None and not p.grad.isfinite().all()
            ]
            ids = [i for part in distributed.gather([i for ids, _ in seen for i in ids]) for i in part]
            raise distributed.agreed(
                NonFiniteLoss,
                f"the gradient of {listed(names, 8)} is not finite {where}, but the loss is; queries {listed(ids, 8)}",
            )
