"""The schema of an RGN configuration; every field says its meaning and unit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vmr_common.errors import require
from vmr_train import ranges
from vmr_train.config import OptimConfig, TrainConfig
from vmr_train.feature_files import FeaturesConfig
from vmr_train.splits import SplitsConfig

TITLE = "Re-Glance Networks"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of the network."""

    hidden: ranges.Width = 256
    """Model width D, a multiple of `heads`."""
    heads: ranges.Layers = 4
    """Attention heads."""
    video_layers: ranges.Layers = 3
    """Layers of each video decoder."""
    text_layers: ranges.Layers = 3
    """Layers of each text decoder."""
    candidates: ranges.Layers = 8
    """Candidate moments K per query."""
    even_candidates: bool = False
    """Begin with candidates evenly over the video, 2 / K of it wide, instead of where random weights put them."""
    sigma: ranges.Positive = 9.0
    """Sharpness of the Gaussians: standard deviation = width / sigma."""
    gamma: ranges.Weight = 0.5
    """Negative mining: negatives lie 0.5 * (epoch / epochs) ** gamma of the way from border to moment; 0 = half-way."""
    dropout: ranges.Probability = 0.1
    """Dropout on the raw inputs and after every sub-block."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self, "model")
        fits = self.hidden % self.heads == 0
        require(fits, "model.hidden", self.hidden, f"a multiple of model.heads ({self.heads})")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights and margins of the objective (symbols of the paper)."""

    theta: ranges.Share = 0.5
    """Share of the complete video in the semantic reference, 0 to 1."""
    beta_1: ranges.Weight = 0.5
    """Weight of the semantic reference (re-glance and complete video)."""
    beta_2: ranges.Weight = 0.5
    """Weight of the best candidate's reconstruction."""
    delta_1: ranges.Weight = 1.0
    """Weight of the distance between candidate centres and the glance."""
    delta_2: ranges.Weight = 1.0
    """Weight of the squared difference between candidate and re-glance windows."""
    margin_1: ranges.Margin = 0.05
    """Margin of the best candidate over the re-glance."""
    margin_2: ranges.Margin = 0.1
    """Margin of the best candidate over the complete video."""
    margin_3: ranges.Margin = 0.15
    """Margin of the best candidate over its negatives."""
    alpha_1: ranges.Weight = 1.0
    """Weight of the hinges."""
    alpha_2: ranges.Weight = 5.0
    """Weight of the diversity term."""
    lambda_: ranges.Weight = 0.146
    """The paper's setting of the same width as `preferred_width`, by a norm whose meaning depends on `data.clips`."""
    preferred_width: ranges.Fraction | None = None
    """Preferred width of a candidate as a share of the video, about that of a typical moment; null: by `lambda_`."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self, "loss")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Queries, features and words."""

    splits: SplitsConfig
    """Queries to learn from, to choose the epoch on, and to report on."""
    features: FeaturesConfig
    """Clip features of the videos."""
    clips: ranges.Rows = 200
    """Clips N to which each video is pooled, a multiple of 4; the caption stage sees N / 4 of them."""
    standardise: bool = False
    """Shift and scale every feature column to mean 0 and deviation 1 over the training videos
    (helps with features like CLIP's, whose rows are nearly alike); the constants are kept in the checkpoint."""
    word_vectors: ranges.PathText
    """GloVe text file, relative to the data root; may end in .gz."""
    vocabulary: ranges.Count = 8000
    """Word classes: the most frequent words of the training queries that have a vector."""
    max_words: ranges.Rows = 20
    """Known words kept per query."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self, "data")
        fits = self.clips >= 8 and self.clips % 4 == 0
        require(fits, "data.clips", self.clips, "a multiple of 4, at least 8")


@dataclass(frozen=True, kw_only=True)
class Config:
    """An RGN run."""

    name: ranges.FolderName = "shapes"
    """Name of the run folder."""
    quirks: Literal["released", "fixed"] = "fixed"
    """`released` scores a query as the authors' code does, dependent on the rest of its batch (needed for published
    numbers); `fixed` makes every query predict its end token and so be scored alike in any batch."""
    protocols: list[str] = field(default_factory=lambda: ["strict"])
    """Evaluation protocols of the tables; the first one chooses the epoch."""
    data: DataConfig
    """Queries, features and words."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Sizes of the network."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Weights and margins of the objective."""
    passes_per_chunk: ranges.CountOrNone = 0
    """With a large vocabulary: caption passes classified at a time, their logits recomputed in the backward
    pass to save memory; 0 = all at once."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The training loop."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self)
