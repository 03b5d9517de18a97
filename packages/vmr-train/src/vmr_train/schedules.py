"""Learning rates as pure functions of the number of updates done: nothing to save, nothing to restore."""

from __future__ import annotations

import bisect
import math

from vmr_train.config import ScheduleConfig


def learning_rate(
    schedule: ScheduleConfig, lr: float, *, update: int, total_updates: int, epoch_updates: int
) -> float:
    """The learning rate of the next update.

    Args:
        schedule: Shape, warm-up and drops.
        lr: Peak rate.
        update: Updates done so far, from 0.
        total_updates: Updates of the whole run (for `cosine` and `linear`).
        epoch_updates: Updates of one epoch (for `step` and `multistep`).

    Example:
        >>> warm = ScheduleConfig(name="inverse-sqrt", warmup_updates=400, warmup_init_lr=1e-7)
        >>> round(learning_rate(warm, 4e-4, update=1600, total_updates=9000, epoch_updates=300), 7)
        0.0002
    """
    warmup, name = schedule.warmup_updates, schedule.name
    if update < warmup:
        return schedule.warmup_init_lr + update * (lr - schedule.warmup_init_lr) / warmup
    if name == "inverse-sqrt":
        return lr * math.sqrt(warmup / update)
    if name in ("cosine", "linear"):
        done = min((update - warmup) / max(total_updates - warmup, 1), 1.0)
        remaining = 1.0 - done if name == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))
        return schedule.final_lr + (lr - schedule.final_lr) * remaining
    epochs = update // epoch_updates
    if name == "step":
        return lr * schedule.step_factor ** (epochs // schedule.step_every)
    if name == "multistep":
        return lr * schedule.step_factor ** bisect.bisect_right(list(schedule.milestones), epochs)
    return lr
