"""LEORN: text encoder, object reasoning, frames to clips, proposal map, fusion with the sentence, map network, scorer.

Shapes: V videos, B queries, F frames, N clips, S slots per frame, P valid cells of the N x N map, H model width. A
video is encoded up to where the first block of reasoning meets the query (`LEORN.encode_video`); from there on every
query has its own objects (`LEORN.fuse_and_predict`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leorn.config import ModelConfig
from leorn.data import QueryWords, Videos
from leorn.linear import FactoredLinear
from leorn.map_network import MapNetwork
from leorn.objects import ObjectEncoding, ObjectReasoning
from leorn.proposal_map import MapFusion, ProposalMap, valid_cells
from leorn.reasoning import BlockInput
from leorn.text import QueryEncoder, QueryFeatures
from vmr_train.layers.batch_norm import BatchNorm


class VideoEncoding(NamedTuple):
    """Videos up to where the query comes in.

    Attributes:
        objects: Slots as the first block of reasoning takes them in.
        clips: ``(V, F, H)``, the clip features' side of the frames; None: objects alone.
    """

    objects: ObjectEncoding
    clips: Tensor | None

    def rows(self, index: Tensor) -> VideoEncoding:
        """Some of the videos, or one several times."""
        return VideoEncoding(
            self.objects.rows(index), None if self.clips is None else self.clips.index_select(0, index)
        )

    def tensors(self) -> list[Tensor | None]:
        """All parts in a fixed order."""
        return [*self.objects.slots, self.objects.mask, self.clips]

    @property
    def nbytes(self) -> int:
        """Memory that the parts take."""
        return sum(part.nbytes for part in self.tensors() if part is not None)


def joined(videos: Sequence[VideoEncoding]) -> VideoEncoding:
    """Several encodings as one."""
    parts = [
        None if part[0] is None else torch.cat(part)
        for part in zip(*(video.tensors() for video in videos), strict=True)
    ]
    slots, gate, mask, clips = parts
    assert slots is not None
    assert mask is not None
    return VideoEncoding(ObjectEncoding(BlockInput(slots, gate), mask), clips)


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

    def encode_video(self, features: Tensor) -> Tensor:
        """The clip features' side ``(V, F, H)`` of the frames, from ``(V, F, C)``."""
        assert self.clip_projection is not None
        return self.projection.project(1, F.relu(self.clip_projection(features)))

    def forward(self, frames: Tensor, clip_features: Tensor | None) -> Tensor:
        """Clips ``(B, N, H)`` from frames of objects ``(B, F, H)`` and the clip features' side, see `encode_video`."""
        x = self.projection.project(0, frames)
        if self.norm is not None:
            assert clip_features is not None
            x = self.norm(x + clip_features)  # of [objects; clips]
        return F.relu(x).unflatten(1, (self.clips, -1)).mean(dim=2)


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
        self.fusion = MapFusion(dim)
        self.map_network = MapNetwork(dim, config.layers, config.kernel, cells, recompute=config.recompute)
        self.scorer = nn.Linear(dim, 1)

    def encode_video(self, videos: Videos, video_of: Tensor | None = None) -> VideoEncoding:
        """The part of V videos that no query changes; a row per query where `video_of` ``(B,)`` is given."""
        clips = None if videos.clips is None else self.clips.encode_video(videos.clips)
        if clips is not None and video_of is not None:
            clips = clips.index_select(0, video_of)
        return VideoEncoding(self.objects.encode_video(videos.objects, video_of), clips)

    def encode_text(self, words: QueryWords) -> QueryFeatures:
        """Attentive query features of B queries."""
        return self.text(words)

    def fuse_and_predict(self, videos: VideoEncoding, query: QueryFeatures) -> Output:
        """Scores of the proposals of a video per query."""
        frames, attention = self.objects(videos.objects, query.relational)  # object reasoning, (B, F, H)
        clips = self.clips(frames, videos.clips)  # (B, N, H)
        proposals = self.map.max_pool(clips.transpose(0, 1))  # proposal map, (P, B, H)
        fused = self.fusion(self.fusion.project(proposals), query.sentence)  # text fusion, (P, B, H)
        return Output(self.scorer(self.map_network(fused))[..., 0], attention)

    def forward(self, videos: Videos, video_of: Tensor, words: QueryWords) -> Output:
        """One training pass over B queries about V videos; `video_of` is ``(B,)`` int64."""
        return self.fuse_and_predict(self.encode_video(videos, video_of), self.encode_text(words))
