"""The grounding decoder (paper section 3.3): a few queries with an anchor span each, in the form of DAB-DETR.

Shapes: N pairs, Q queries, V frames, D model width, H heads, L layers. Spans are (centre, width) fractions of the
window.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rgnet.attention import attend, by_head, split_heads
from rgnet.encoder import FeedForward, sine_code

_ANCHOR_TEMPERATURE = 10_000.0
_LEAST_SHARE = 1e-3


class MLP(nn.Module):
    """Linear layers with ReLU in between: ``dims[0] -> dims[1] -> ...``."""

    def __init__(self, *dims: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(dims))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., dims[0])`` to ``(..., dims[-1])``."""
        for layer in self.layers[:-1]:
            x = layer(x).relu()
        return self.layers[-1](x)


def logit(x: Tensor) -> Tensor:
    """The inverse of the sigmoid, with numerator and denominator at least 0.001."""
    x = x.clamp(0, 1)
    return (x.clamp(min=_LEAST_SHARE) / (1 - x).clamp(min=_LEAST_SHARE)).log()


def anchor_code(anchors: Tensor, dim: int) -> Tensor:
    """Sine code ``(..., dim)`` of spans ``(..., 2)``: half of it for the centre, half for the width."""
    halves = sine_code(anchors * (2 * math.pi), dim // 2, _ANCHOR_TEMPERATURE)  # (..., 2, dim / 2)
    return halves.flatten(-2)


@dataclass(frozen=True)
class Decoded:
    """Every layer's normalised `states` ``(L, N, Q, D)`` and the `anchors` ``(L, N, Q, 2)`` that it began with."""

    states: Tensor
    anchors: Tensor


class QueryAttention(nn.Module):
    """Queries attend over queries; content and position are projected apart."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.query_content, self.query_position = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.key_content, self.key_position = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, content: Tensor, position: Tensor) -> Tensor:
        """``(N, Q, D)`` from content and position ``(N, Q, D)`` each."""
        query = self.query_content(content) + self.query_position(position)
        key = self.key_content(content) + self.key_position(position)
        # (N, H, Q, d) each
        query, key, value = (split_heads(x, self.heads) for x in (query, key, self.value(content)))
        weights = self.dropout((query * self.scale @ key.transpose(-2, -1)).softmax(-1))
        return self.out_proj((weights @ value).transpose(1, 2).flatten(2))


class MemoryAttention(nn.Module):
    """Queries attend over frames; per head, content and position lie side by side.

    There are far fewer queries than channels, so the projections of the frames are folded into the queries'
    side: the frames themselves are never projected.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.scale = heads, (2 * dim // heads) ** -0.5
        self.query_content, self.query_position = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.query_sine = nn.Linear(dim, dim)
        self.key_content, self.key_position = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        content: Tensor,
        position: Tensor,
        sine: Tensor,
        memory: Tensor,
        where: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        """The frames' contribution to the queries, ``(N, Q, D)``.

        Args:
            content: ``(N, Q, D)``.
            position: ``(N, Q, D)``.
            sine: ``(N, Q, D)``, the scaled code of the anchors.
            memory: ``(N, V, D)`` frames.
            where: ``(N or 1, V, D)`` their positions.
            mask: ``(N, V)`` bool, True = valid, or None where all are.
        """
        heads = self.heads
        query = split_heads(self.query_content(content) + self.query_position(position), heads) * self.scale
        both = query + split_heads(self.query_sine(sine), heads) * self.scale  # (N, H, Q, d)
        logits = self._logits(query, self.key_content, memory) + self._logits(both, self.key_position, where)
        hidden = None if mask is None else ~mask[:, None, None]
        weights = attend(logits, hidden, self.dropout)  # (N, H, Q, V)
        mixed = (weights.flatten(1, 2) @ memory).unflatten(1, (heads, -1))  # (N, H, Q, D)
        value_weight = self.value.weight.unflatten(0, (heads, -1)).transpose(-2, -1)  # (H, D, d)
        value_bias = self.value.bias.unflatten(0, (heads, 1, -1))
        # with dropout the weights of a row do not sum to one
        mixed = by_head(mixed, value_weight) + weights.sum(-1, keepdim=True) * value_bias  # (N, H, Q, d)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))

    def _logits(self, query: Tensor, key: nn.Linear, x: Tensor) -> Tensor:
        """``(N, H, Q, V)`` products of queries ``(N, H, Q, d)`` with the keys of ``(N or 1, V, D)``."""
        folded = by_head(query, key.weight.unflatten(0, (self.heads, -1))).flatten(1, 2)  # (N, H * Q, D)
        logits = folded @ (x[0].T if len(x) == 1 else x.transpose(1, 2))
        offset = query @ key.bias.unflatten(0, (self.heads, -1, 1))
        return logits.unflatten(1, (self.heads, -1)) + offset


class DecoderLayer(nn.Module):
    """Self attention, attention over the frames and a feed-forward net, each followed by LayerNorm."""

    def __init__(self, dim: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.self_attention = QueryAttention(dim, heads, dropout)
        self.cross_attention = MemoryAttention(dim, heads, dropout)
        self.feed_forward = FeedForward(dim, inner, dropout)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(dim), nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, position: Tensor, sine: Tensor, memory: Tensor, where: Tensor, mask: Tensor | None
    ) -> Tensor:
        """``(N, Q, D)`` to ``(N, Q, D)``; arguments as in `MemoryAttention.forward`."""
        x = self.norm1(x + self.dropout(self.self_attention(x, position)))
        x = self.norm2(x + self.dropout(self.cross_attention(x, position, sine, memory, where, mask)))
        return self.norm3(x + self.dropout(self.feed_forward(x)))


class Decoder(nn.Module):
    """Q queries with anchors over the frames of each pair.

    Args:
        dim: Model width D, a multiple of 4 and of `heads`.
        heads: Attention heads.
        inner: Width inside feed-forward nets.
        layers: Number of layers.
        queries: Number of queries Q.
        dropout: After and inside every sub-block.
    """

    def __init__(
        self, dim: int, heads: int, inner: int, *, layers: int, queries: int, dropout: float
    ) -> None:
        super().__init__()
        self.dim = dim
        self.layers = nn.ModuleList(DecoderLayer(dim, heads, inner, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)
        self.position_head = MLP(dim, dim, dim)
        self.width_head = MLP(dim, dim, 1)
        self.scale_head = MLP(dim, dim, dim) if layers > 1 else None
        # what the last layer would refine its anchor to is never read
        self.refine = nn.ModuleList(MLP(dim, dim, dim, 2) for _ in range(layers - 1))
        for name, parameter in self.named_parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("out_proj.bias"):
                nn.init.zeros_(parameter)
        for head in self.refine:
            nn.init.zeros_(list(head.parameters())[-1])
        self.anchors = nn.Parameter(torch.randn(queries, 2))

    def forward(self, memory: Tensor, where: Tensor, mask: Tensor | None) -> Decoded:
        """Decodes N pairs.

        Args:
            memory: ``(N, V, D)`` frames.
            where: ``(N or 1, V, D)`` their positions.
            mask: ``(N, V)`` bool, True = valid, or None where all are.
        """
        anchor = self.anchors.sigmoid().expand(len(memory), -1, -1)  # (N, Q, 2)
        x = memory.new_zeros(*anchor.shape[:2], self.dim)
        states, anchors = [], []
        for number, layer in enumerate(self.layers):
            anchors.append(anchor)
            reference = anchor if number == 0 else anchor.detach()
            # positional query: sine code of the anchor, through an MLP
            code = anchor_code(reference, self.dim)  # (N, Q, D)
            position = self.position_head(code)
            if number and self.scale_head is not None:
                code = code * self.scale_head(x)
            # width-modulated attention; no clamp on the width: narrow anchors amplify, as in the released model
            code = code * (self.width_head(x).sigmoid() / reference[..., 1:])
            x = layer(x, position, code, memory, where, mask)
            states.append(self.norm(x))
            # the next layer starts from the refined anchor
            if number < len(self.refine):
                anchor = (self.refine[number](x) + logit(reference)).sigmoid()
        return Decoded(torch.stack(states), torch.stack(anchors))
