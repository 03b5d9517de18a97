"""One training loop for all models, in plain PyTorch. Needs the `torch` extra."""

from vmr_train.checkpoint import (
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    load_meta,
    load_weights,
    restored,
    save_checkpoint,
)
from vmr_train.config import OptimConfig, ScheduleConfig, TrainConfig
from vmr_train.device import autocast, seed_everything, select_device
from vmr_train.distributed import from_rank_zero, session
from vmr_train.method import Dataset, Method, NonFiniteLoss, Progress, to_device
from vmr_train.optim import CplAdam, build_optimizer
from vmr_train.predict import predict_all
from vmr_train.run_folder import RunFolder
from vmr_train.schedules import learning_rate
from vmr_train.trainer import FitResult, Trainer

__all__ = [
    "Checkpoint",
    "CplAdam",
    "Dataset",
    "FitResult",
    "Method",
    "NonFiniteLoss",
    "OptimConfig",
    "Progress",
    "RunFolder",
    "ScheduleConfig",
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
