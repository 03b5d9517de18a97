"""The position of a run, beyond its tensors and its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vmr_common.errors import UserError
from vmr_train.checkpoint import Meta


@dataclass
class Mean:
    """A running mean of the loss terms over queries; saved with the run, so that resuming keeps all rows."""

    queries: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, terms: Mapping[str, float], queries: int) -> None:
        """Takes in one update: its terms and how many queries they are the mean of."""
        self.queries += queries
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value * queries

    def row(self) -> dict[str, float]:
        """The means, named ``train/<term>``."""
        return {f"train/{name}": value / self.queries for name, value in self.sums.items()}


@dataclass
class State:
    """Everything about the position in the run that is neither a tensor nor configuration."""

    update: int = 0
    """Updates done."""
    epoch: int = 1
    """The current epoch."""
    batch: int = 0
    """Updates done in it; when equal to the updates per epoch, its evaluation is still to come."""
    seconds: float = 0.0
    """Time spent before this sitting."""
    interval: Mean = field(default_factory=Mean)
    whole_epoch: Mean = field(default_factory=Mean)

    @classmethod
    def from_meta(cls, meta: Meta, path: Path, updates: int) -> State:
        """The state that a checkpoint's JSON holds (written with `dataclasses.asdict`).

        Args:
            meta: The JSON, of a training.
            path: Where it comes from, for the message.
            updates: Updates per epoch.

        Raises:
            UserError: if it is one that no training of so many updates per epoch can reach.
        """
        state = cls(
            update=meta["update"],
            epoch=meta["epoch"],
            batch=meta["batch"],
            seconds=meta["seconds"],
            interval=Mean(**meta["interval"]),
            whole_epoch=Mean(**meta["whole_epoch"]),
        )
        reached = state.epoch >= 1 and 0 <= state.batch <= updates
        if not reached or state.update != (state.epoch - 1) * updates + state.batch:
            raise UserError(
                f"{path}: metadata says update {state.update}, which is update {state.batch} of epoch {state.epoch}, "
                f"but an epoch has {updates} updates"
            )
        if any(mean.queries < (1 if mean.sums else 0) for mean in (state.interval, state.whole_epoch)):
            raise UserError(f"{path}: metadata keys interval and whole_epoch hold sums over no queries")
        return state
