"""The schema of an RGNet configuration; every field says its meaning and unit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rgnet.query_features.config import QueryFeaturesConfig
from vmr_common.errors import require
from vmr_train import ranges
from vmr_train.config import OptimConfig, TrainConfig
from vmr_train.feature_files import FeaturesConfig
from vmr_train.splits import SplitsConfig

TITLE = "RGNet"
DEFAULT = "shapes-long"
"""The bundled configuration that is taken without ``--cfg``."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of the network."""

    hidden: ranges.Width = 256
    """Model width D, a multiple of `heads` and of 4."""
    heads: ranges.Layers = 8
    """Attention heads."""
    inner: ranges.Width = 2048
    """Width inside feed-forward nets."""
    cross_layers: ranges.Layers = 2
    """Layers in which frames read the text."""
    self_layers: ranges.Layers = 2
    """Layers in which the frames of a window and its retrieval token read each other."""
    decoder_layers: ranges.Layers = 6
    """Decoder layers."""
    queries: ranges.Layers = 5
    """Candidate moments Q per window."""
    input_dropout: ranges.Probability = 0.5
    """Dropout in the projections of the features."""
    dropout: ranges.Probability = 0.1
    """Dropout everywhere else."""
    position_temperature: ranges.Positive = 10_000.0
    """Temperature of the frames' sine positions."""
    gate_temperature: ranges.Positive = 0.3
    """Temperature of the soft frame gate in training."""
    adapter: bool = False
    """An adapter brings frames nearer to sentences for the matching score."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self, "model")
        fits = self.hidden % self.heads == 0 and self.hidden % 4 == 0
        require(fits, "model.hidden", self.hidden, f"a multiple of 4 and of model.heads ({self.heads})")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights and margins of the objective, and which windows stand against each other."""

    negatives: Literal["contrast", "window"] = "contrast"
    """`contrast`: every text of a batch meets every window of it; `window`: each text also meets one window of
    its own video that does not hold the moment."""
    span: ranges.Weight = 10.0
    """Weight of the distance of (centre, width), in loss and matching."""
    giou: ranges.Weight = 1.0
    """Weight of the generalised overlap, in loss and matching."""
    label: ranges.Weight = 4.0
    """Weight of the classification of candidates, in loss and matching."""
    background: ranges.Weight = 0.1
    """Weight of a background candidate inside the classification."""
    saliency: ranges.Weight = 1.0
    """Weight of the frames' saliency."""
    retrieval: ranges.Weight = 1.0
    """Weight of the retrieval of the window; 0 leaves the retrieval head as it is."""
    adapter: ranges.Weight = 1.0
    """Weight of the adapter's contrast, where the model has an adapter."""
    margin: ranges.Weight = 0.2
    """Margin of the hinges of saliency and retrieval."""
    temperature: ranges.Positive = 0.07
    """Temperature of the contrasts."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self, "loss")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Queries, features, and how a long video is cut."""

    splits: SplitsConfig
    """Queries to learn from, to choose the epoch on, and to report on."""
    features: FeaturesConfig
    """Frame features of the videos, one row per `feature_stride`; used as they are."""
    feature_stride: ranges.Positive | None = None
    """Seconds between two feature rows; null takes what the manifest of the features states, else what the rows and
    durations of the videos tell. A run keeps the number."""
    window: ranges.Rows
    """Frames W of a window; windows start every W // 2 frames."""
    max_tokens: ranges.Rows = 20
    """Tokens kept per query."""
    queries: QueryFeaturesConfig
    """Tokens and sentence vectors of the queries. Without sentence vectors moments are ranked by their proposal score
    alone; with them (of the width of a frame) by its sum with the matching score."""
    standardise: bool = False
    """Shift and scale every feature column to mean 0 and deviation 1 over the training videos
    (helps with features like CLIP's, whose rows are nearly alike); the constants are kept in the checkpoint."""
    cache_gb: ranges.Weight = 4.0
    """Features kept in memory, in units of 10^9 bytes; of longer videos the last used ones."""

    @property
    def stride(self) -> float:
        """Seconds between two feature rows, of a configuration that knows its features (see `stride.with_stride`)."""
        assert self.feature_stride is not None
        return self.feature_stride

    def __post_init__(self) -> None:
        ranges.require_ranges(self, "data")
        require(self.window >= 2, "data.window", self.window, "at least 2 frames")
        known = self.queries.sentence_dim in (None, self.features.dim)
        require(
            known,
            "data.queries.sentence_dim",
            self.queries.sentence_dim,
            f"null or data.features.dim ({self.features.dim})",
        )


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """The search of a long video."""

    windows: ranges.Count = 20
    """Windows K per query that are decoded, the best by retrieval score."""
    coarse_windows: ranges.CountOrNone = 0
    """Windows per query that the network scores, the best by similarity of frames and sentence; 0: all. Needs
    sentence vectors."""
    matching_by_retrieval: bool = True
    """Multiply the matching score with the window's retrieval score (Ego4D yes, MAD no)."""
    pre_nms_top_k: ranges.Count = 200
    """Moments that enter the suppression."""
    nms: ranges.Share = 0.5
    """Largest overlap of two moments that are kept."""
    post_nms_top_k: ranges.Count = 100
    """Moments kept per query."""
    window_batch_size: ranges.Count = 16
    """Windows that pass through the network together; memory grows with it, results do not change."""
    cached_videos: ranges.Count = 2
    """Videos whose projections are kept between batches."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self, "search")


@dataclass(frozen=True, kw_only=True)
class Config:
    """An RGNet run."""

    name: ranges.FolderName = DEFAULT
    """Name of the run folder."""
    quirks: Literal["released", "fixed"] = "fixed"
    """`released`: the cross attention reads the padding of another pair of the batch, as in the authors' code,
    so that results depend on the rest of the batch (needed for their numbers); `fixed`: each pair reads its own."""
    init: ranges.PathText | None = None
    """A checkpoint or run folder whose weights training starts from."""
    protocols: list[str] = field(default_factory=lambda: ["strict"])
    """Evaluation protocols of the tables; the first one chooses the epoch."""
    data: DataConfig
    """Queries, features and windows."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Sizes of the network."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Weights of the objective."""
    search: SearchConfig = field(default_factory=SearchConfig)
    """The search of a long video."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The training loop."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self)
        needs_sentences = {
            "search.coarse_windows": self.search.coarse_windows,
            "model.adapter": self.model.adapter,
        }
        for key, value in needs_sentences.items():
            fits = not value or self.data.queries.sentence_dim is not None
            require(
                fits,
                key,
                value,
                "off: it needs sentence vectors in the space of the frames, and data.queries.sentence_dim is null",
            )
