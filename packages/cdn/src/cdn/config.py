"""The schema of a CDN configuration; every field says its meaning and unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from vmr_common.errors import UserError, require
from vmr_train import ranges
from vmr_train.config import OptimConfig, TrainConfig
from vmr_train.feature_files import FeaturesConfig
from vmr_train.splits import SplitsConfig
from vmr_train.word_lookup import plain_words

TITLE = "Cross-modal Dynamic Networks"
MAP_READS = 1 << 25
"""Cells that all layers of a map network, which keep tables of them, read together at the most: those of 6 layers of
9 x 9 kernels on 256 clips."""


def proposal_lengths(clips: int, scales: Sequence[int]) -> list[tuple[int, int]]:
    """The kinds of proposals on a map: ``(j - i, stride of i)``, shortest first.

    Scale z has ``scales[z]`` lengths, ``2 ** z`` clips apart, that start at every ``2 ** z``-th clip; the first
    length of a further scale follows the last one after two of its predecessor's strides (2D-TAN, section 3.2).

    Raises:
        UserError: if the scales do not fit the number of clips: lengths reach past the video, or a scale begins
            on an even number of positions, so that no proposal of it would end at the video's end.

    Example:
        >>> proposal_lengths(16, [4, 2])
        [(0, 1), (1, 1), (2, 1), (3, 1), (5, 2), (7, 2)]
    """
    given = f"the scales {list(scales)} do not fit a map of {clips} clips"
    if clips < 1 or not scales or min(scales) < 1:
        raise UserError(f"{given}: expected at least one clip and positive numbers of lengths")
    lengths: list[tuple[int, int]] = []
    offset, positions = -1, clips + 1
    for number, count in enumerate(scales):
        stride = 2**number
        if number and positions % 2 == 0:
            raise UserError(
                f"{given}: scale {number} would begin with {positions} positions, expected an odd number"
            )
        for step in range(count):
            offset += stride
            # a window grows by joining neighbours; at a change of scale every second one joins both of its own
            positions = (positions - 1) // 2 if number and step == 0 else positions - 1
            if positions < 1:
                raise UserError(f"{given}: length {offset + 1} (scale {number}) is longer than the video")
            lengths.append((offset, stride))
    return lengths


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of the network."""

    hidden: ranges.Width = 512
    """Model width H."""
    text_layers: ranges.Layers = 3
    """Layers of the query's LSTM."""
    clips: ranges.MapClips = 16
    """Clips N of the map, a divisor of `data.frames`."""
    scales: list[ranges.MapClips] = field(default_factory=lambda: [16])
    """Proposal lengths per scale; scale z takes every 2 ** z-th clip (see `proposal_lengths`)."""
    proposals: Literal["pool", "conv"] = "pool"
    """Features of proposals from their clips: the maximum (pool), or learned convolutions over time (conv)."""
    attention_steps: ranges.Layers = 3
    """Steps M of the frame attention inside a clip."""
    attention_hidden: ranges.Width = 256
    """Width of the frame attention's energy."""
    layers: ranges.Layers = 8
    """Layers R of the map network."""
    kernel: ranges.Layers = 5
    """Kernel size k of the map convolutions, odd."""
    dynamic_layers: list[ranges.CountOrNone] = field(default_factory=lambda: [0, 1, 2, 3])
    """Map layers (from 0) that mix their kernel for every query."""
    kernels: ranges.Layers = 8
    """Kernels W that a dynamic layer mixes."""
    kernel_dropout: ranges.Probability = 0.1
    """Dropout on the weights of the mixture."""
    recompute: ranges.CountOrNone = 0
    """Map layers whose activations are computed again in the backward pass instead of kept, this many at a
    time: 2 halves what is kept for about a third more work; 0 keeps all."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self, "model")
        require(self.kernel % 2 == 1, "model.kernel", self.kernel, "an odd number")
        known = set(self.dynamic_layers) <= set(range(self.layers))
        require(known, "model.dynamic_layers", self.dynamic_layers, f"layers between 0 and {self.layers - 1}")
        proposal_lengths(self.clips, self.scales)
        reads = self.layers * (self.clips * self.kernel) ** 2
        expected = f"a smaller one for {self.layers} layers on {self.clips} clips"
        require(reads <= MAP_READS, "model.kernel", self.kernel, expected)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The objective."""

    min_iou: ranges.Share = 0.5
    """Overlap up to which a proposal's target is 0."""
    max_iou: ranges.Share = 0.9
    """Overlap from which on a proposal's target is 1."""
    lambda_: ranges.Margin = 0.3
    """Wanted diagonal of the frame attention's products (see `losses.attention_distance`)."""
    beta: ranges.Weight = 0.0
    """Weight of the attention distance; 0 leaves it out."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self, "loss")
        fits = 0 <= self.min_iou < self.max_iou <= 1
        require(fits, "loss.min_iou", self.min_iou, f"0 <= min_iou < max_iou ({self.max_iou}) <= 1")


@dataclass(frozen=True, kw_only=True)
class DecodeConfig:
    """From a score map to moments."""

    nms: ranges.Share = 0.5
    """Largest overlap that two predicted moments of a query may have."""
    moments: ranges.Count = 5
    """Moments per query."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self, "decode")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Queries, features and words."""

    splits: SplitsConfig
    """Queries to learn from, to choose the epoch on, and to report on."""
    features: FeaturesConfig
    """Frame features of the videos."""
    frames: ranges.Rows = 256
    """Frames F to which each video is pooled."""
    unit: bool = True
    """Divide every feature row by its L2 norm before it is pooled."""
    standardise: bool = False
    """Shift and scale every column of the pooled features to mean 0 and deviation 1 over the training
    videos (helps with features like CLIP's, whose rows are nearly alike); the constants are kept in the checkpoint."""
    word_vectors: ranges.PathText
    """GloVe text file, relative to the data root; may end in .gz."""
    strip_punctuation: bool = False
    """Take punctuation off the words; the released code leaves `board.` an unknown word."""
    drop_full_stop: bool = False
    """Cut the full stop that ends a sentence; the released loader does so on Charades-STA alone."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self, "data")

    def words_of(self, text: str) -> list[str]:
        """A sentence's words, as the model is to read them."""
        return plain_words(text, strip_punctuation=self.strip_punctuation, drop_full_stop=self.drop_full_stop)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A CDN run."""

    name: ranges.FolderName = "shapes"
    """Name of the run folder."""
    quirks: Literal["released", "fixed"] = "fixed"
    """`released`: the loss is that of the authors' code, a cross-entropy of float32 probabilities, whose gradient
    vanishes above a logit of 16.6, and an attention distance that compares frames; `fixed`: the cross-entropy is taken
    of the logits, and the distance compares the attention steps, as the usual penalty for orthogonal attention does.
    Predictions never depend on it."""
    protocols: list[str] = field(default_factory=lambda: ["proposal-map", "strict"])
    """Evaluation protocols of the tables; the first one chooses the epoch."""
    data: DataConfig
    """Queries, features and words."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Sizes of the network."""
    loss: LossConfig = field(default_factory=LossConfig)
    """The objective."""
    decode: DecodeConfig = field(default_factory=DecodeConfig)
    """From a score map to moments."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The training loop."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self)
        fits = self.data.frames % self.model.clips == 0
        require(fits, "data.frames", self.data.frames, f"a multiple of model.clips ({self.model.clips})")
