"""One block of cross-modal object reasoning (CORM): language enhancement, attention, temporal context shift.

Shapes: B queries, F frames, S slots of a frame (the sentinel, where there is one, and O objects), H model width,
E feed-forward width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from leorn.config import ModelConfig
from leorn.linear import FactoredLinear
from vmr_train.layers.batch_norm import BatchNorm


class BlockInput(NamedTuple):
    """Slots as a block takes them in, before the query comes in.

    Attributes:
        slots: ``(B, F, S, H)``.
        gate: ``(B, F, S, H / 2)``, their side of the language gate; None where there is no such gate.
    """

    slots: Tensor
    gate: Tensor | None


class LanguageEnhancement(nn.Module):
    """Language enhancement ``BN(r * g)``: the query gates each channel of an object.

    Args:
        dim: Width H.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.objects = nn.Linear(dim, dim)
        self.text = nn.Linear(dim, dim)
        self.hidden = FactoredLinear((dim, dim), dim // 2)
        self.gate = nn.Linear(dim // 2, dim)
        self.norm = BatchNorm(dim)

    def encode_video(self, slots: Tensor) -> BlockInput:
        """The objects' side r ``(B, F, S, H)``, which no query changes."""
        r = F.relu(self.objects(slots))
        return BlockInput(r, self.hidden.project(0, r))

    def forward(self, video: BlockInput, relational: Tensor) -> Tensor:
        """Enhanced slots ``(B, F, S, H)`` given the attentive query features f^RS ``(B, H)``."""
        assert video.gate is not None
        t = self.hidden.project(1, F.relu(self.text(relational)))  # (B, H / 2)
        g = self.gate(F.relu(video.gate + t[:, None, None]))  # (B, F, S, H), of [r; t]
        return self.norm(video.slots * g)


class SlotAttention(nn.Module):
    """Multi-head self-attention over the slots of one frame; parameters are those of ``nn.MultiheadAttention``.

    Args:
        dim: Width H.
        heads: Number of heads.
        dropout: On the attention weights.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, slots: Tensor, mask: Tensor) -> Tensor:
        """Slots ``(B, F, S, H)`` that have attended to those of their frame where `mask` ``(B, F, S)`` is true.

        A frame without any such slot attends to all of its own: what comes out is masked by the caller.
        """
        batch, frames, count, dim = slots.shape
        packed = F.linear(slots, self.in_proj_weight, self.in_proj_bias)
        heads = packed.view(batch * frames, count, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = heads.unbind(0)  # (B * F, heads, S, H / heads)
        keys = mask | ~mask.any(dim=-1, keepdim=True)
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=keys.view(batch * frames, 1, 1, count),
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, frames, count, dim))


def temporal_context_shift(frames: Tensor, by: int) -> Tensor:
    """Sentinels ``(B, F, E)`` with a quarter from `by` frames before and one from as many after (temporal shift).

    Channels ``[0, E // 4)`` are those of frame ``f - by``, channels ``[E // 4, 2 (E // 4))`` those of frame
    ``f + by``, the others stay; zeros where there is no such frame.
    """
    length, quarter = frames.shape[1], frames.shape[2] // 4
    before, after, own = frames.split([quarter, quarter, frames.shape[2] - 2 * quarter], dim=2)
    by = min(by, length)
    return torch.cat(
        [
            F.pad(before[:, : length - by], (0, 0, by, 0)),
            F.pad(after[:, by:], (0, 0, 0, by)),
            own,
        ],
        dim=2,
    )


class CORM(nn.Module):
    """A block: language enhancement, self-attention among the slots of a frame, feed-forward with temporal shift.

    Args:
        config: Sizes and what takes part.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        parts, dim, wide = config.reasoning, config.hidden, config.feed_forward
        self.shift = parts.shift
        self.language = LanguageEnhancement(dim) if parts.language else None
        self.attention = SlotAttention(dim, config.heads, config.dropout) if parts.self_attention else None
        self.attention_norm = BatchNorm(dim)
        self.widen = nn.Linear(dim, wide)
        self.neighbours = nn.Linear(wide, wide) if parts.sentinel else None
        self.narrow = nn.Linear(wide, dim)
        self.feed_forward_norm = BatchNorm(dim)
        self.dropout = nn.Dropout(config.dropout)

    def encode_video(self, slots: Tensor) -> BlockInput:
        """The part before the query comes in; slots ``(B, F, S, H)``."""
        return BlockInput(slots, None) if self.language is None else self.language.encode_video(slots)

    def forward(self, video: BlockInput, relational: Tensor, mask: Tensor) -> Tensor:
        """Slots after the block.

        Args:
            video: From `encode_video`.
            relational: ``(B, H)`` attentive query features.
            mask: ``(B, F, S)`` bool.

        Returns:
            ``(B, F, S, H)``; a masked slot holds a constant, not zero (its batch normalisation's).
        """
        valid = mask[..., None]
        y = video.slots if self.language is None else self.language(video, relational)  # language enhancement
        y = y * valid
        attended = y if self.attention is None else y + self.dropout(self.attention(y, mask))
        z = self.attention_norm(attended * valid)  # add & BN
        return self.feed_forward_norm((z + self.dropout(self.feed_forward(z))) * valid)  # add & BN

    def feed_forward(self, z: Tensor) -> Tensor:
        """Two layers for every slot; in between, a third for the sentinel ``z[:, :, 0]`` behind the temporal shift."""
        h = F.relu(self.widen(z))  # (B, F, S, E)
        out = self.narrow(self.dropout(h))  # (B, F, S, H)
        if self.neighbours is None:
            return out
        shifted = F.relu(self.neighbours(temporal_context_shift(h[:, :, 0], self.shift)))  # (B, F, E)
        out[:, :, 0] = self.narrow(self.dropout(shifted))  # one narrow row instead of a second wide tensor
        return out
