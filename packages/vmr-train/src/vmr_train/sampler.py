"""The queries of each update, process and forward pass: a pure function of seed, epoch and position."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Request = tuple[tuple[int, ...], int | None]
"""(indices, epoch) as `Dataset.batch` takes them."""


@functools.lru_cache(maxsize=2)
def order(size: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The order of the queries in one epoch: a permutation of ``range(size)``, the same on every process."""
    permutation = np.random.default_rng([seed, epoch]).permutation(size)
    permutation.setflags(write=False)
    return permutation


@dataclass(frozen=True)
class Shard:
    """The queries of one forward pass of one process."""

    indices: tuple[int, ...]
    epoch: int
    weight: float
    """Its queries over those of the whole update, so that weighted shards sum to the mean over the update; 0
    for a process that has no query left and only keeps step with the others."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The division of an epoch into updates, and of an update into shards.

    An update takes the next `global_batch` queries of the epoch's order (the last one what is left), cuts
    them evenly over the processes, and each part evenly into forward passes of at most `micro_batch`.
    """

    size: int
    global_batch: int
    micro_batch: int | None
    seed: int
    rank: int = 0
    world: int = 1

    @property
    def updates(self) -> int:
        """Updates per epoch."""
        return -(-self.size // self.global_batch)

    def shards(self, epoch: int, position: int) -> list[Shard]:
        """The shards of this process in update number `position` (from 0) of `epoch`: at least one."""
        first = position * self.global_batch
        queries = order(self.size, self.seed, epoch)[first : first + self.global_batch]
        mine = np.array_split(queries, self.world)[self.rank]
        if not len(mine):
            return [Shard((int(queries[0]),), epoch, 0.0)]
        passes = -(-len(mine) // (self.micro_batch or len(mine)))
        return [
            Shard(tuple(part.tolist()), epoch, len(part) / len(queries))
            for part in np.array_split(mine, passes)
        ]

    def requests(self, epoch: int, position: int, epochs: int) -> Iterator[Request]:
        """Every shard's request from this position to the end of the last epoch, for the loader."""
        while epoch <= epochs:
            for number in range(position, self.updates):
                for shard in self.shards(epoch, number):
                    yield shard.indices, shard.epoch
            epoch, position = epoch + 1, 0


def evaluation_batches(size: int, batch: int, rank: int, world: int) -> list[Request]:
    """This process's share of the evaluation batches: every `world`-th.

    Whole batches are dealt out, so each holds the same queries whatever the number of processes.
    """
    firsts = range(0, size, batch)[rank::world]
    return [(tuple(range(first, min(first + batch, size))), None) for first in firsts]
