"""One training loop for all methods in plain PyTorch, checkpoints without pickle, reports, and command helpers.

Public names are imported on their first use.

Example:
    >>> import vmr_train
    >>> vmr_train.OptimConfig(lr=1e-3).lr
    0.001
"""

from typing import TYPE_CHECKING

from vmr_common.lazy import lazy_names

if TYPE_CHECKING:
    from vmr_train.answers import Explanation, Html, Moment, Predictions, Rows
    from vmr_train.api import Run
    from vmr_train.checkpoint import Checkpoint, load_checkpoint
    from vmr_train.config import OptimConfig, TrainConfig
    from vmr_train.method import Dataset, Method
    from vmr_train.model import Model
    from vmr_train.splits import load_splits
    from vmr_train.trainer import Trainer

__all__ = [
    "Checkpoint",
    "Dataset",
    "Explanation",
    "Html",
    "Method",
    "Model",
    "Moment",
    "OptimConfig",
    "Predictions",
    "Rows",
    "Run",
    "TrainConfig",
    "Trainer",
    "load_checkpoint",
    "load_splits",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "vmr_train.answers": "Explanation Html Moment Predictions Rows",
        "vmr_train.api": "Run",
        "vmr_train.checkpoint": "Checkpoint load_checkpoint",
        "vmr_train.config": "OptimConfig TrainConfig",
        "vmr_train.method": "Dataset Method",
        "vmr_train.model": "Model",
        "vmr_train.splits": "load_splits",
        "vmr_train.trainer": "Trainer",
    },
)
