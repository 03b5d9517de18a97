"""One training loop for all models, in plain PyTorch. Needs the `torch` extra."""

from vmr_common.training.checkpoint import (
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    load_meta,
    load_weights,
    restored,
    save_checkpoint,
)
from vmr_common.training.config import OptimConfig, ScheduleConfig, TrainConfig
from vmr_common.training.device import autocast, seed_everything, select_device
from vmr_common.training.distributed import from_rank_zero, session
from vmr_common.training.loop import FitResult, Trainer
from vmr_common.training.optim import CplAdam, build_optimizer
from vmr_common.training.predict import predict_all
from vmr_common.training.run import RunFolder
from vmr_common.training.schedules import learning_rate
from vmr_common.training.task import Examples, NonFiniteLoss, Progress, Task, to_device

__all__ = [
    "Checkpoint",
    "CplAdam",
    "Examples",
    "FitResult",
    "NonFiniteLoss",
    "OptimConfig",
    "Progress",
    "RunFolder",
    "ScheduleConfig",
    "Task",
    "TrainConfig",
    "Trainer",
    "autocast",
    "build_optimizer",
    "find_checkpoint",
    "from_rank_zero",
    "learning_rate",
    "load_checkpoint",
    "load_meta",
    "load_weights",
    "predict_all",
    "restored",
    "save_checkpoint",
    "seed_everything",
    "select_device",
    "session",
    "to_device",
]
