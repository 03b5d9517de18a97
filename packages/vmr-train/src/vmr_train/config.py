"""The options of training and of the optimiser, the same for every model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

from vmr_common.errors import require
from vmr_train.ranges import (
    Count,
    Fraction,
    Positive,
    Probability,
    Processes,
    Seconds,
    Seed,
    Updates,
    UpdatesOrNone,
    Weight,
    require_ranges,
)
from vmr_train.splits import SplitsConfig

ScheduleName = Literal["constant", "inverse-sqrt", "cosine", "linear", "step", "multistep"]
OptimizerName = Literal["adamw", "cpl-adam"]
Precision = Literal["fp32", "bf16", "fp16"]
Select = Literal["validation", "last", "test"]
Accumulation = Literal["mean", "sum"]


PEER_TIMEOUT_S = 300.0


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """The learning rate as a function of the number of updates done (see `schedules.learning_rate`)."""

    name: ScheduleName = "constant"
    """Shape after the warm-up."""
    warmup_updates: UpdatesOrNone = 0
    """Updates over which the rate rises linearly to its peak; at least 1 for `inverse-sqrt`."""
    warmup_init_lr: Weight = 0.0
    """Rate of the very first update when there is a warm-up."""
    final_lr: Weight = 0.0
    """Rate at the end of training, for `cosine` and `linear`."""
    step_every: Updates = 1
    """Epochs between two drops, for `step`."""
    milestones: tuple[Updates, ...] = ()
    """Numbers of finished epochs at which the rate drops, increasing, for `multistep`."""
    step_factor: Fraction = 0.1
    """Factor of one drop, in (0, 1], for `step` and `multistep`."""

    def __post_init__(self) -> None:
        _choice("optim.schedule.name", self.name, get_args(ScheduleName))
        require_ranges(self, "optim.schedule")
        warms_up = self.warmup_updates >= 1 or self.name != "inverse-sqrt"
        require(warms_up, "optim.schedule.warmup_updates", self.warmup_updates, "at least 1 for inverse-sqrt")
        milestones = list(self.milestones)
        rising = milestones == sorted(set(milestones))
        require(rising, "optim.schedule.milestones", milestones, "numbers that increase")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimiser."""

    optimizer: OptimizerName = "adamw"
    """`adamw` is torch's; `cpl-adam` adds eps to the uncorrected root of the second moment (CPL, RGN)."""
    lr: Positive = 1e-4
    """Peak learning rate."""
    group_lr: dict[str, Weight] = field(default_factory=dict)
    """Peak learning rate of parameters whose name begins with the key (longest match wins); 0 freezes."""
    weight_decay: Weight = 0.0
    """Decoupled weight decay: per update p loses lr * weight_decay * p."""
    beta1: Probability = 0.9
    """Decay of the mean of gradients, in [0, 1)."""
    beta2: Probability = 0.999
    """Decay of the mean of squared gradients, in [0, 1)."""
    eps: Weight = 1e-8
    """Added to the denominator of the update."""
    clip_norm: Weight = 0.0
    """Largest global gradient norm; 0 does not clip."""
    accumulation: Accumulation = "mean"
    """Joining of the gradients of an update's forward passes (see `train.micro_batch`): `mean` averages over all
    queries and clips once; `sum` adds up the passes' means and clips after each pass (released 2D-map codes)."""
    ema_decay: Probability = 0.0
    """Decay per update of an average of the weights, which is then evaluated and kept; 0 averages nothing."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Learning-rate schedule."""

    def __post_init__(self) -> None:
        _choice("optim.optimizer", self.optimizer, get_args(OptimizerName))
        _choice("optim.accumulation", self.accumulation, get_args(Accumulation))
        require_ranges(self, "optim")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The training loop."""

    epochs: Updates = 10
    """Passes over the training queries."""
    global_batch: Count = 32
    """Queries per update, over all processes and accumulation steps."""
    micro_batch: Count | None = None
    """Most queries of one forward pass in one process; accumulation steps follow from it. None: no limit."""
    eval_batch: Count = 32
    """Queries per forward pass in evaluation."""
    eval_every: Updates = 1
    """Epochs between two evaluations on the validation split; the last epoch is always evaluated."""
    select: Select = "validation"
    """Choice of the weights that become `best`: the best epoch on a validation split, the last epoch, or the best epoch
    on the test split (what many released codes do; for reproducing their tables only, and labelled so)."""
    select_metric: str = "R@1,mIoU"
    """The metric that decides, higher is better; the first of equal epochs is kept."""
    seed: Seed = 0
    """Seed of initialisation, order, masks and dropout."""
    device: str = "auto"
    """`auto` (CUDA, then MPS, then CPU), or a torch device such as `cpu` or `cuda:1`."""
    precision: Precision = "fp32"
    """Autocast precision of forward passes; weights and optimiser stay float32."""
    compile: bool = False
    """Compile the model's forward with torch.compile. On a CPU it takes minutes and gains nothing (RGN on Charades, one
    thread: 8.0 s a step, 6.7 to 8.6 s without)."""
    tf32: bool = False
    """Allow TF32 in float32 products and convolutions on CUDA (faster, about 3 decimal digits)."""
    deterministic: bool = False
    """Use torch's deterministic algorithms, with a warning where it has none."""
    workers: Processes = 0
    """Loader processes per training process; 0 loads in the process itself."""
    checkpoint_updates: UpdatesOrNone = 0
    """Updates between two saves of `last` inside an epoch; it is always saved at the end of an epoch."""
    log_updates: Updates = 50
    """Updates between two rows of metrics.jsonl."""
    tensorboard: bool = False
    """Write TensorBoard events too (needs the `tensorboard` extra)."""
    peer_timeout: Seconds = PEER_TIMEOUT_S
    """Seconds that a process waits for the others of the same run before it gives up."""
    unused_parameters: bool = False
    """Set when some parameters get no gradient, so that several processes do not wait for them."""

    def __post_init__(self) -> None:
        require_ranges(self, "train")
        _choice("train.select", self.select, get_args(Select))
        _choice("train.precision", self.precision, get_args(Precision))


def _choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    require(value in choices, name, value, f"one of {', '.join(choices)}")


class DataConfig(Protocol):
    """The part of a paper's data configuration that all of them have."""

    @property
    def splits(self) -> SplitsConfig:
        """The queries."""


class RunConfig(Protocol):
    """The part of a paper's configuration that all of them have."""

    @property
    def name(self) -> str:
        """Name of the run folder."""

    @property
    def quirks(self) -> str:
        """`released` or `fixed`."""

    @property
    def protocols(self) -> list[str]:
        """Evaluation protocols, the first one chooses the epoch."""

    @property
    def data(self) -> DataConfig:
        """The data."""

    @property
    def optim(self) -> OptimConfig:
        """The optimiser."""

    @property
    def train(self) -> TrainConfig:
        """The training loop."""
