"""Where a run stands, beyond its tensors and its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


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
    def from_meta(cls, meta: Mapping[str, Any]) -> State:
        """The state that a checkpoint's JSON holds (written with `dataclasses.asdict`)."""
        kept = {f.name: meta[f.name] for f in fields(cls)}
        return cls(
            **{**kept, "interval": Mean(**kept["interval"]), "whole_epoch": Mean(**kept["whole_epoch"])}
        )
