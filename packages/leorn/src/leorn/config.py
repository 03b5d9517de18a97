"""The schema of a LEORN configuration; every field says its meaning and unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from leorn.object_features.config import ObjectsConfig
from vmr_common.errors import UserError, require
from vmr_train import ranges
from vmr_train.config import OptimConfig, TrainConfig
from vmr_train.feature_files import FeaturesConfig
from vmr_train.splits import SplitsConfig
from vmr_train.word_lookup import plain_words

TITLE = "Language-enhanced Object Reasoning Networks"
# Same as cdn.config.MAP_READS
MAP_READS = 1 << 25
"""Cells that all layers of a map network, which keep tables of them, read together at the most: those of 6 layers of
9 x 9 kernels on 256 clips."""


# Same as cdn.config.proposal_lengths
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
class ReasoningConfig:
    """Parts of the reasoning over objects; switched off one by one for ablations."""

    language: bool = True
    """The query gates the objects at the start of every block (language enhancement)."""
    self_attention: bool = True
    """The objects of a frame attend to each other."""
    attentive_pool: bool = True
    """A frame is the mean of its objects weighted by their likeness to the query; false: their plain mean."""
    boxes: bool = True
    """The boxes of objects are encoded beside their features."""
    sentinel: bool = True
    """Every frame has one more slot that is no object, through which neighbouring frames are seen."""
    shift: ranges.CountOrNone = 2
    """Frames S between which the sentinels exchange what they know; 0: they do not. Without sentinel: nothing."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self, "model.reasoning")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of the network."""

    hidden: ranges.Width = 512
    """Model width H, a multiple of `heads` and of 4."""
    heads: ranges.Layers = 4
    """Heads of the self-attention over objects."""
    text_layers: ranges.Layers = 3
    """Layers of the query's bidirectional GRU."""
    blocks: ranges.Layers = 3
    """Blocks of object reasoning."""
    feed_forward: ranges.Width = 1024
    """Width E inside a block's feed-forward part, at least 4."""
    reasoning: ReasoningConfig = field(default_factory=ReasoningConfig)
    """Parts of the reasoning over objects."""
    clips: ranges.MapClips = 64
    """Clips N of the map, a divisor of `data.frames`."""
    scales: list[ranges.MapClips] = field(default_factory=lambda: [16, 8, 8])
    """Proposal lengths per scale; scale z takes every 2 ** z-th clip (see `proposal_lengths`)."""
    layers: ranges.Layers = 4
    """Layers of the map network."""
    kernel: ranges.Layers = 9
    """Kernel size of the map convolutions, odd."""
    dropout: ranges.Probability = 0.05
    """Dropout on attention weights and on what a block adds to its input."""
    box_dropout: ranges.Probability = 0.1
    """Dropout inside the box encoding."""
    recompute: bool = False
    """Compute again, instead of keeping it, what blocks and map layers need for the backward pass: about a
    third more work for a fraction of the memory."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self, "model")
        fits = self.hidden % self.heads == 0 and self.hidden % 4 == 0
        require(fits, "model.hidden", self.hidden, f"a multiple of 4 and of model.heads ({self.heads})")
        require(self.feed_forward >= 4, "model.feed_forward", self.feed_forward, "at least 4")
        require(self.kernel % 2 == 1, "model.kernel", self.kernel, "an odd number")
        proposal_lengths(self.clips, self.scales)
        reads = self.layers * (self.clips * self.kernel) ** 2
        expected = f"a smaller one for {self.layers} layers on {self.clips} clips"
        require(reads <= MAP_READS, "model.kernel", self.kernel, expected)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """The objective."""

    min_iou: ranges.Share = 0.5
    """Overlap up to which a proposal's target is 0."""
    max_iou: ranges.Share = 1.0
    """Overlap from which on a proposal's target is 1."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self, "loss")
        fits = 0 <= self.min_iou < self.max_iou <= 1
        require(fits, "loss.min_iou", self.min_iou, f"0 <= min_iou < max_iou ({self.max_iou}) <= 1")


# Same as cdn.config.DecodeConfig
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
    objects: ObjectsConfig
    """Object features of the videos."""
    features: FeaturesConfig | None = None
    """Clip features of the videos, which make it the two-stream model (`fusion`); null: objects alone."""
    standardise: bool = False
    """Shift and scale every column of the clip features, behind norm and pooling, to mean 0 and deviation
    1 over the training videos (helps with features whose rows are nearly alike); the constants are kept in the
    checkpoint."""
    frames: ranges.Rows = 256
    """Frames F to which objects are sampled and clip features pooled."""
    cache_gb: ranges.Weight = 2.0
    """Prepared objects are kept in memory up to this size, per process."""
    cache_dtype: Literal["float32", "float16"] = "float32"
    """Type in which they are kept; float16 holds twice as many and rounds them."""
    word_vectors: ranges.PathText
    """GloVe text file, relative to the data root; may end in .gz."""
    drop_full_stop: bool = False
    """With the released quirks: cut the full stop that ends a sentence, as the released loader of
    Charades-STA alone does."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self, "data")
        if self.standardise:
            require(self.features is not None, "data.standardise", True, "false without data.features")


@dataclass(frozen=True, kw_only=True)
class InitConfig:
    """Weights to begin with."""

    objects: ranges.PathText | None = None
    """A checkpoint, run folder or released weights (of the object-only model, say) whose object reasoning is taken
    over; null begins from scratch."""
    text: bool = False
    """Take over the text encoder as well; the released recipe starts it afresh."""

    def __post_init__(self) -> None:
        ranges.require_ranges(self, "init")
        if self.text:
            require(self.objects is not None, "init.text", True, "init.objects, where to take it from")


@dataclass(frozen=True, kw_only=True)
class Config:
    """A LEORN run."""

    name: ranges.FolderName = "shapes"
    """Name of the run folder."""
    quirks: Literal["released", "fixed"] = "fixed"
    """`released`: punctuation stays on the words, as in the authors' code, which makes most such words (`board.`)
    unknown ones, and the loss is a cross-entropy of float32 probabilities, whose gradient vanishes above a logit of
    16.6; `fixed`: punctuation is taken off, and the cross-entropy is taken of the logits."""
    protocols: list[str] = field(default_factory=lambda: ["proposal-map", "strict"])
    """Evaluation protocols of the tables; the first one chooses the epoch."""
    data: DataConfig
    """Queries, features and words."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """Sizes of the network."""
    init: InitConfig = field(default_factory=InitConfig)
    """Weights to begin with."""
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

    def words_of(self, text: str) -> list[str]:
        """A sentence's words, as the model is to read them."""
        return plain_words(
            text,
            strip_punctuation=self.quirks == "fixed",
            drop_full_stop=self.data.drop_full_stop,
        )
