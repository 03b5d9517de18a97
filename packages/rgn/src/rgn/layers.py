"""Attention and the causal decoder of both transformers (those of CPL, from whose code RGN began).

Shapes: B queries, S passes over the same item that differ only in the bias (one per Gaussian), L query positions, M key
positions, D model width, H heads, d = D / H. Either side may have S = 1, which all passes share without a copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MultiHeadAttention(nn.Module):
    """Attention as in fairseq-style decoders: packed query, key and value projection, scaled logits, no dropout.

    Args:
        dim: Model width D, a multiple of `heads`.
        heads: Number of heads H.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"model width {dim} is not a multiple of the number of heads {heads}")
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, memory: Tensor, bias: Tensor | None) -> Tensor:
        """``(B, S, L, D)``: every query position attends to the memory.

        Args:
            query: ``(B, S or 1, L, D)``.
            memory: ``(B, S or 1, M, D)``, source of keys and values.
            bias: Added to the logits, broadcastable to ``(B, S, 1, L, M)``; minus infinity hides a key.
        """
        of_bias = () if bias is None else bias.shape[:-3]
        passes = torch.broadcast_shapes(query.shape[:2], memory.shape[:2], of_bias)
        queries = self.project(query, 0).expand(*passes, -1, -1)
        # passes over one memory become further rows of one attention, so that the memory is not copied
        items, head = passes[0] * memory.shape[1], query.shape[-1] // self.heads
        queries, keys, values = (
            side.reshape(items, -1, self.heads, head).transpose(1, 2)
            for side in (queries, self.project(memory, 1), self.project(memory, 2))
        )
        if bias is not None:
            bias = bias.expand(*passes, 1, query.shape[-2], -1).reshape(items, 1, -1, memory.shape[-2])
        mixed = F.scaled_dot_product_attention(queries, keys, values, bias)
        return self.out_proj(mixed.transpose(1, 2).reshape(*passes, query.shape[-2], -1))  # (B, S, L, D)

    def weights(self, query: Tensor, memory: Tensor, bias: Tensor | None) -> Tensor:
        """Attention weights ``(B, S, H, L, M)``, each row summing to one; arguments as in `forward`."""
        queries = self.project(query, 0).unflatten(-1, (self.heads, -1)).transpose(-3, -2)  # (B, S, H, L, d)
        keys = self.project(memory, 1).unflatten(-1, (self.heads, -1)).movedim(-3, -1)  # (B, S, H, d, M)
        logits = queries @ keys * keys.shape[-2] ** -0.5
        return (logits if bias is None else logits + bias).softmax(-1, dtype=torch.float32)

    def project(self, x: Tensor, part: int) -> Tensor:
        """Query (0), key (1) or value (2) of ``(..., D)``, all heads side by side, ``(..., D)``."""
        rows = slice(part * x.shape[-1], (part + 1) * x.shape[-1])
        return F.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])


def key_bias(mask: Tensor) -> Tensor:
    """Attention bias ``(B, 1, 1, 1, M)`` that hides the keys where `mask` ``(B, M)`` (bool, True = valid) is False.

    At least one key per item must be valid, else its attention is not a number.
    """
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, float("-inf"))[:, None, None, None]


def causal_bias(length: int, device: torch.device | None = None) -> Tensor:
    """Attention bias ``(length, length)`` float32 with minus infinity above the diagonal."""
    return torch.full((length, length), float("-inf"), device=device).triu(1)


class Draws:
    """Dropout that keeps its draws, so that a pass can be computed again as it was.

    One object serves one call of decoders, whose sub-blocks ask in a fixed order; `first` is what their first passes
    drew before.
    """

    def __init__(self, probability: float, first: Sequence[Tensor] = ()) -> None:
        self.probability, self.first = probability, first
        self.drawn: list[Tensor] = []

    def __call__(self, x: Tensor) -> Tensor:
        """``(B, S, L, D)`` with values dropped and the others scaled."""
        if not self.probability:
            return x
        first = self.first[len(self.drawn)] if self.first else x[:, :0]
        kept, shape = 1 - self.probability, x[:, first.shape[1] :].shape
        fresh = torch.rand(shape, device=x.device).lt_(kept).div_(kept)  # faster than `bernoulli_` on a CPU
        self.drawn.append(torch.cat([first, fresh.to(x.dtype)], dim=1))
        return x * self.drawn[-1]

    def again(self, passes: Tensor) -> Draws:
        """Dropout for a call whose first pass is pass `passes` ``(B,)`` of this one's and whose others are new."""
        rows = torch.arange(len(passes), device=passes.device)
        # what all passes share has one draw
        chosen = (one if one.shape[1] == 1 else one[rows, passes][:, None] for one in self.drawn)
        return Draws(self.probability, list(chosen))


class DecoderLayer(nn.Module):
    """Self-attention, optional cross-attention and a ReLU feed-forward net, each followed by LayerNorm.

    ``x -> LN(x + drop(self)) -> LN(x + drop(cross)) -> LN(x + drop(W2 ReLU(W1 x)))``; without `cross_attention` the
    layer takes no memory.
    """

    def __init__(self, dim: int, heads: int, dropout: float, *, cross_attention: bool) -> None:
        super().__init__()
        self.self_attention = MultiHeadAttention(dim, heads)
        self.self_norm = nn.LayerNorm(dim)
        self.cross_attention = MultiHeadAttention(dim, heads) if cross_attention else None
        self.cross_norm = nn.LayerNorm(dim) if cross_attention else None
        self.fc1 = nn.Linear(dim, 2 * dim)
        self.fc2 = nn.Linear(2 * dim, dim)
        self.final_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        self_bias: Tensor,
        memory: Tensor | None = None,
        memory_bias: Tensor | None = None,
        *,
        last_row_only: bool = False,
        dropout: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """``(B, S, L, D)`` of x ``(B, S or 1, L, D)`` and a memory ``(B, S or 1, M, D)``, or its last row alone.

        `self_bias` (causal part included) is broadcastable to ``(B, S, 1, L, L)``, `memory_bias` to ``(B, S, 1, L,
        M)``; without a memory the cross-attention block is skipped. `dropout` takes the place of the layer's own.
        """
        query, drop = x, dropout or self.dropout
        if last_row_only:
            query, self_bias = x[..., -1:, :], self_bias[..., -1:, :]
        x = self.self_norm(query + drop(self.self_attention(query, x, self_bias)))
        if memory is not None:
            if self.cross_attention is None or self.cross_norm is None:
                raise ValueError("this decoder layer was built without cross-attention")
            x = self.cross_norm(x + drop(self.cross_attention(x, memory, memory_bias)))
        return self.final_norm(x + drop(self.fc2(F.relu(self.fc1(x), inplace=True))))


class Decoder(nn.Module):
    """A stack of causal `DecoderLayer`; arguments as there."""

    def __init__(
        self, dim: int, heads: int, layers: int, dropout: float, *, cross_attention: bool = True
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DecoderLayer(dim, heads, dropout, cross_attention=cross_attention) for _ in range(layers)
        )

    def forward(
        self,
        x: Tensor,
        key_bias: Tensor,
        memory: Tensor | None = None,
        memory_bias: Tensor | None = None,
        *,
        last_row_only: bool = False,
        dropout: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """``(B, S, L, D)`` after all layers; of the last position only if asked, which all but the last layer ignore.

        Arguments as in `DecoderLayer.forward`, but for `key_bias`, the bias on the keys of the self-attention
        without its causal part, broadcastable to ``(B, S, 1, 1, L)``.
        """
        self_bias = key_bias + causal_bias(x.shape[-2], x.device)  # (B, S, 1, L, L)
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            one_row = last_row_only and number == last
            x = layer(x, self_bias, memory, memory_bias, last_row_only=one_row, dropout=dropout)
        return x


def sinusoidal_positions(length: int, dim: int, device: torch.device | None = None) -> Tensor:
    """Position table ``(length, dim)`` float32: sines in the first half, cosines in the second, row 0 zero.

    An odd `dim` gets one more zero column.
    """
    half = dim // 2
    frequency = torch.exp(torch.arange(half, device=device) * -(math.log(10000) / (half - 1)))
    angle = torch.arange(length, device=device)[:, None] * frequency  # (length, half)
    table = torch.cat([angle.sin(), angle.cos(), angle.new_zeros(length, dim % 2)], dim=1)
    table[0] = 0
    return table
