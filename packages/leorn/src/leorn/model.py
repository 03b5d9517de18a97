"""LEORN: text encoder, object reasoning, frames to clips, proposal map, fusion with the sentence, map network, scorer.

Shapes: V videos, B queries, F frames, N clips, S slots per frame, P valid cells of the N x N map, H model width. A
video is encoded up to where the first block of reasoning meets the query (`LEORN.see`); from there on every query has
its own objects (`LEORN.score`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leorn.config import ModelConfig
from leorn.linear import FactoredLinear
from leorn.map_network import MapNetwork
from leorn.objects import ObjectReasoning, Objects, SeenVideos
from leorn.reasoning import Seen
from leorn.text import QueryEncoder
from vmr_train.layers.batch_norm import BatchNorm
from vmr_train.layers.fusion import MapFusion
from vmr_train.layers.proposal_map import ProposalMap, valid_cells
from vmr_train.map_supervised import QueryWords


@dataclass(frozen=True)
class Videos:
    """What the network reads of V videos.

    Attributes:
        objects: Theirs.
        clips: ``(V, F, C)`` float32 clip features; None: objects alone.
    """

    objects: Objects
    clips: Tensor | None = None

    def rows(self, index: Tensor) -> Videos:
        """Some of the videos."""
        objects = Objects(self.objects.features[index], self.objects.mask[index], self.objects.boxes[index])
        return Videos(objects, None if self.clips is None else self.clips[index])


class Encoded(NamedTuple):
    """Videos up to where the query comes in.

    Attributes:
        objects: Slots of the first block of reasoning.
        clips: ``(V, F, H)``, the clip features' side of the frames; None: objects alone.
    """

    objects: SeenVideos
    clips: Tensor | None

    def rows(self, index: Tensor) -> Encoded:
        """Some of the videos, or one several times."""
        return Encoded(
            self.objects.rows(index), None if self.clips is None else self.clips.index_select(0, index)
        )

    def tensors(self) -> list[Tensor | None]:
        """All parts in a fixed order."""
        return [*self.objects.seen, self.objects.mask, self.clips]

    @property
    def nbytes(self) -> int:
        """Memory that the parts take."""
        return sum(part.nbytes for part in self.tensors() if part is not None)


def joined(videos: Sequence[Encoded]) -> Encoded:
    """Several encodings as one."""
    parts = [
        None if part[0] is None else torch.cat(part)
        for part in zip(*(video.tensors() for video in videos), strict=True)
    ]
    slots, gate, mask, clips = parts
    assert slots is not None
    assert mask is not None
    return Encoded(SeenVideos(Seen(slots, gate), mask), clips)


class Output(NamedTuple):
    """Scores of a batch.

    Attributes:
        logits: ``(P, B)`` of the valid cells.
        attention: ``(B, F, S)`` how much each slot of a frame counts.
    """

    logits: Tensor
    attention: Tensor


class ClipFeatures(nn.Module):
    """Frames of objects, joined by those of a clip feature where there is one, averaged to clips.

    Args:
        dim: Width H.
        clip_dim: Clip feature size C; None: objects alone.
        clips: Clips N.
    """

    def __init__(self, dim: int, clip_dim: int | None, clips: int) -> None:
        super().__init__()
        self.clips = clips
        self.clip_projection = None if clip_dim is None else nn.Linear(clip_dim, dim)
        self.projection = FactoredLinear((dim,) if clip_dim is None else (dim, dim), dim)
        self.norm = None if clip_dim is None else BatchNorm(dim)

    def see(self, features: Tensor) -> Tensor:
        """The clip features' side ``(V, F, H)`` of frames, from ``(V, F, C)``."""
        assert self.clip_projection is not None
        return self.projection.part(1, F.relu(self.clip_projection(features)))

    def forward(self, frames: Tensor, seen: Tensor | None) -> Tensor:
        """Clips ``(B, N, H)`` from frames of objects ``(B, F, H)`` and what `see` made of the clip features."""
        found = self.projection.part(0, frames)
        if self.norm is not None:
            assert seen is not None
            found = self.norm(found + seen)
        return F.relu(found).unflatten(1, (self.clips, -1)).mean(dim=2)


class LEORN(nn.Module):
    """The network; parts named as what they make.

    Args:
        config: Sizes.
        object_dim: Object feature size.
        word_dim: Word vector size.
        clip_dim: Clip feature size; None: objects alone.
    """

    def __init__(
        self, config: ModelConfig, *, object_dim: int, word_dim: int, clip_dim: int | None = None
    ) -> None:
        super().__init__()
        self.config = config
        dim, cells = config.hidden, valid_cells(config.clips, config.scales)
        self.text = QueryEncoder(word_dim, dim, config.text_layers)
        self.objects = ObjectReasoning(config, object_dim)
        self.clips = ClipFeatures(dim, clip_dim, config.clips)
        self.map = ProposalMap(cells)
        self.fusion = MapFusion(dim, dim, dim)
        self.map_network = MapNetwork(dim, config.layers, config.kernel, cells, recompute=config.recompute)
        self.scorer = nn.Linear(dim, 1)

    def see(self, videos: Videos, video_of: Tensor | None = None) -> Encoded:
        """Everything of V videos that no query changes; a row per query where `video_of` ``(B,)`` is given."""
        clips = None if videos.clips is None else self.clips.see(videos.clips)
        if clips is not None and video_of is not None:
            clips = clips.index_select(0, video_of)
        return Encoded(self.objects.see(videos.objects, video_of), clips)

    def score(self, encoded: Encoded, words: QueryWords) -> Output:
        """Scores the proposals of a video per query."""
        query = self.text(words)
        frames, attention = self.objects(encoded.objects, query.relational)
        clips = self.clips(frames, encoded.clips)  # (B, N, H)
        rows = self.map.max_pool(clips.transpose(0, 1))  # (P, B, H)
        fused = self.fusion(self.fusion.project(rows), query.sentence)
        return Output(self.scorer(self.map_network(fused))[..., 0], attention)

    def forward(self, videos: Videos, video_of: Tensor, words: QueryWords) -> Output:
        """One training pass over B queries about V videos; `video_of` is ``(B,)`` int64."""
        return self.score(self.see(videos, video_of), words)
