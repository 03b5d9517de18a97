"""The schema of a CFMR configuration; every field says its meaning and unit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vmr_common.errors import require
from vmr_train import ranges
from vmr_train.config import OptimConfig, TrainConfig
from vmr_train.feature_files import FeaturesConfig
from vmr_train.splits import SplitsConfig

TITLE = "Cheaper and Faster Moment Retrieval"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of the network and its grid of proposals."""

    hidden: ranges.Width = 256
    """Model width D, a multiple of `heads`."""
    heads: ranges.Layers = 4
    """Attention heads."""
    encoder_layers: ranges.Layers = 3
    """Layers of the video encoder and of the text encoder."""
    reconstructor_layers: ranges.Layers = 3
    """Layers of the masked-word reconstructor (training only)."""
    concepts: ranges.Layers = 7
    """Concept vectors K of a proposal and of a query."""
    sigma: ranges.Positive = 9.0
    """Sharpness of the Gaussians: standard deviation = width / sigma."""
    gamma: ranges.Weight = 0.5
    """Way of the negatives inwards over the epochs: 0.5 * (epoch / epochs) ** gamma; 0 = fixed."""
    dropout: ranges.Probability = 0.1
    """Dropout on the raw inputs and after every sub-block."""
    centres: ranges.Layers = 8
    """Proposal centres C in search, evenly spaced over the video, both ends included."""
    widths: ranges.Layers = 3
    """Proposal widths M in search: `widest` * m / M."""
    widest: ranges.Fraction = 0.45
    """Widest proposal in search, fraction of the video."""
    train_widths: ranges.Layers = 3
    """Proposal widths around the glance in training."""
    train_widest: ranges.Fraction = 0.55
    """Widest proposal in training, fraction of the video."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self, "model")
        fits = self.hidden % self.heads == 0
        require(fits, "model.hidden", self.hidden, f"a multiple of model.heads ({self.heads})")


@dataclass(frozen=True, kw_only=True)
class CorpusConfig:
    """A contrast between videos, for models that search a whole corpus: our extension, the paper has no such term."""

    weight: ranges.Weight = 0.0
    """Weight of the contrast; 0 = off, as in the paper."""
    temperature: ranges.Positive = 0.1
    """Divides the mean of the K cosines: the smaller, the more the most alike wrong pairs count."""
    proposals: ranges.CountOrNone = 12
    """Search proposals of each video that take part in an update, evenly spread, others every time; 0 = none, then
    only the proposals around the glances do."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self, "loss.corpus")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights and margins of the objective (symbols of the paper)."""

    alpha_1: ranges.Weight = 2.0
    """Weight of what the video's concepts reconstruct, and of the contrast with the negatives."""
    alpha_2: ranges.Weight = 1.0
    """Weight of what the query's own concepts reconstruct."""
    margin_1: ranges.Margin = 0.1
    """Margin of the best proposal's reconstruction over the complete video's (`reference_contrast`)."""
    margin_2: ranges.Margin = 0.15
    """Margin of the best proposal's reconstruction over its negatives'."""
    margin_3: ranges.Margin = 0.3
    """Margin of the best proposal's similarity over the complete video's (`reference_alignment`)."""
    margin_4: ranges.Margin = 0.25
    """Margin of the best proposal's similarity over its negatives'."""
    reference_contrast: bool = False
    """Lets the complete video take part in the contrast of reconstructions (`use_ref_words_rec`)."""
    reference_alignment: bool = False
    """Lets the complete video take part in the alignment of concepts (`use_ref_words_sam`)."""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """The contrast between videos."""

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
    """Clips T to which each video is pooled; the model sees T // 4 of them."""
    standardise: bool = False
    """Shifts and scales every feature column to mean 0 and deviation 1 over the training videos
    (helps with features like CLIP's, whose rows are nearly alike); the constants are kept in the checkpoint."""
    word_vectors: ranges.PathText
    """GloVe text file, relative to the data root; may end in .gz."""
    vocabulary: ranges.Count = 8000
    """Word classes: the most frequent words of the training queries that have a vector."""
    max_words: ranges.Rows = 20
    """Known words kept per query."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self, "data")
        require(self.clips >= 8, "data.clips", self.clips, "at least 8")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A CFMR run."""

    name: ranges.FolderName = "shapes"
    """Name of the run folder."""
    quirks: Literal["released", "released-torch", "fixed"] = "fixed"
    """`released`: a video's summary position starts as a copy of its last clip, as in the authors' code, whose
    learnable summary vector is dead (needed for their weights and numbers); `released-torch`: the same, and as in the
    PyTorch branch of that code the longest query of a training batch has no end token; `fixed`: the summary position is
    the learnable vector, and every query of fewer than `data.max_words` words has its end token."""
    protocols: list[str] = field(default_factory=lambda: ["strict"])
    """Evaluation protocols of the tables; the first one chooses the epoch."""
    data: DataConfig
    """Queries, features and words."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Sizes of the network and its proposals."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Weights and margins of the objective."""
    passes_per_chunk: ranges.CountOrNone = 0
    """With a large vocabulary: reconstruction passes classified at a time, their logits recomputed in the
    backward pass to save memory; 0 = all at once."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The training loop."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self)
