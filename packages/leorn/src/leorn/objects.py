"""From the objects of a video to one vector per frame, given a query.

Shapes: V videos, B queries, F frames, O objects, S slots (sentinel and objects), D object feature size, H model width.
"""

from __future__ import annotations

import copy
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leorn.config import ModelConfig
from leorn.data import Objects
from leorn.linear import FactoredLinear
from leorn.reasoning import CORM, BlockInput
from vmr_train.layers.batch_norm import BatchNorm
from vmr_train.layers.recompute import activation_checkpoint

BOX = 4


class ObjectEncoding(NamedTuple):
    """The slots of V videos before the query comes in.

    Attributes:
        slots: ``(V, F, S, H)`` as the first block takes them in.
        mask: ``(V, F, S)`` bool.
    """

    slots: BlockInput
    mask: Tensor

    def rows(self, index: Tensor) -> ObjectEncoding:
        """Some of the videos, or one several times."""
        gate = None if self.slots.gate is None else self.slots.gate.index_select(0, index)
        slots = BlockInput(self.slots.slots.index_select(0, index), gate)
        return ObjectEncoding(slots, self.mask.index_select(0, index))


class Pooled(NamedTuple):
    """Frames made of their slots: `frames` ``(B, F, H)`` and the weights of the slots ``(B, F, S)``."""

    frames: Tensor
    weights: Tensor


class AttentiveObjectFusion(nn.Module):
    """Attentive object fusion: a frame is the mean of its slots, weighted by their cosine with the query.

    Args:
        dim: Width H.
        attentive: Weigh by the cosine; otherwise every valid slot counts the same.
    """

    def __init__(self, dim: int, *, attentive: bool) -> None:
        super().__init__()
        self.text = nn.Linear(dim, dim) if attentive else None
        self.norm = BatchNorm(dim)

    def weights(self, slots: Tensor, relational: Tensor, mask: Tensor) -> Tensor:
        """Weight of each slot, ``(B, F, S)`` float32; zeros in a frame without a valid slot."""
        if self.text is None:
            likeness = torch.zeros(mask.shape, device=slots.device)
        else:
            unit = F.normalize(self.text(relational).float(), dim=-1, eps=1e-12)
            x = slots.float()
            length = x.norm(dim=-1).clamp(min=1e-12)
            likeness = torch.einsum("bfsh,bh->bfs", x, unit) / length
        some = mask.any(dim=-1, keepdim=True)
        return likeness.masked_fill(~(mask | ~some), -torch.inf).softmax(dim=-1) * some

    def forward(self, slots: Tensor, relational: Tensor, mask: Tensor) -> Pooled:
        """Frames from slots ``(B, F, S, H)``, attentive query features ``(B, H)`` and a mask ``(B, F, S)``."""
        weights = self.weights(slots, relational, mask)
        return Pooled(self.norm(torch.einsum("bfs,bfsh->bfh", weights, slots.float())), weights)


class ObjectReasoning(nn.Module):
    """Object embedding, reasoning blocks, attentive object fusion.

    Args:
        config: Sizes and what takes part.
        object_dim: Object feature size D.
    """

    def __init__(self, config: ModelConfig, object_dim: int) -> None:
        super().__init__()
        parts, dim = config.reasoning, config.hidden
        self.recompute = config.recompute
        self.box_hidden = nn.Linear(BOX, dim // 4) if parts.boxes else None
        self.box_projection = nn.Linear(dim // 4, dim) if parts.boxes else None
        self.box_dropout = nn.Dropout(config.box_dropout)
        self.projection = FactoredLinear((object_dim, dim) if parts.boxes else (object_dim,), dim)
        self.norm = BatchNorm(dim)
        self.sentinel = nn.Parameter(torch.empty(dim)) if parts.sentinel else None
        first = CORM(config)
        self.blocks = nn.ModuleList([first, *(copy.deepcopy(first) for _ in range(1, config.blocks))])
        self.pool = AttentiveObjectFusion(dim, attentive=parts.attentive_pool)
        if self.sentinel is not None:
            nn.init.uniform_(self.sentinel, -(dim**-0.5), dim**-0.5)

    def embed(self, objects: Objects) -> Tensor:
        """Object embedding: features and boxes as one vector per object, ``(V, F, O, H)``, not masked."""
        x = self.projection.project(0, objects.features)
        if self.box_hidden is None or self.box_projection is None:
            return x
        encoded = self.box_dropout(F.relu(self.box_hidden(objects.boxes)))  # (V, F, O, H / 4)
        # no activation lies between the box's second layer and the projection: their product is one small layer
        columns = self.projection.weight[:, self.projection.columns[1]]
        return x + F.linear(encoded, columns @ self.box_projection.weight, columns @ self.box_projection.bias)

    def encode_video(self, objects: Objects, video_of: Tensor | None = None) -> ObjectEncoding:
        """The part before the query comes in: embedding, sentinel, and the first block's side of the objects.

        Args:
            objects: Of V videos.
            video_of: ``(B,)`` int64; the result then has a row per query, and the statistics of a training step
                count a video as often as it is asked about. None: a row per video.
        """
        x, mask = self.embed(objects), objects.mask
        x = x * mask[..., None]
        if video_of is not None and len(video_of) > len(x):  # as many queries as videos: one each, in order
            x, mask = x.index_select(0, video_of), mask.index_select(0, video_of)
        x = self.norm(x)
        if self.sentinel is not None:
            sentinel = self.sentinel.to(x.dtype).expand(*x.shape[:2], 1, -1)
            x = torch.cat([sentinel, x], dim=2)  # (B, F, 1 + O, H)
            mask = F.pad(mask, (1, 0), value=True)
        return ObjectEncoding(cast(CORM, self.blocks[0]).encode_video(x), mask)

    def forward(self, videos: ObjectEncoding, relational: Tensor) -> Pooled:
        """Frames ``(B, F, H)`` for attentive query features f^RS ``(B, H)``, a video per query."""
        x = activation_checkpoint(self._first, *videos.slots, relational, videos.mask, wanted=self.recompute)
        for number in range(1, len(self.blocks)):
            x = activation_checkpoint(
                self._further, number, x, relational, videos.mask, wanted=self.recompute
            )
        return self.pool(x, relational, videos.mask)

    def _first(self, slots: Tensor, gate: Tensor | None, relational: Tensor, mask: Tensor) -> Tensor:
        return self.blocks[0](BlockInput(slots, gate), relational, mask)

    def _further(self, number: int, slots: Tensor, relational: Tensor, mask: Tensor) -> Tensor:
        block = cast(CORM, self.blocks[number])
        return block(block.encode_video(slots), relational, mask)
