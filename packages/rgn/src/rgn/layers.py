"""Attention and the causal decoder of both transformers (those of CPL, from whose code RGN began).

Shapes: B queries, S passes over the same item that differ only in the bias (one per Gaussian), L query positions, M key
positions, D model width, H heads, d = D / H. Either side may have S = 1, which all passes share without a copy.
"""

from __future__ import annotations

import math

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
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, memory: Tensor, bias: Tensor | None) -> Tensor:
        """``(B, S, L, D)``: every query position attends to the memory.

        When the memory is much shorter than the query, the query and output projections are folded into the
        memory's side, which takes fewer products; the result is the same up to rounding.

        Args:
            query: ``(B, S or 1, L, D)``.
            memory: ``(B, S or 1, M, D)``, source of keys and values.
            bias: Added to the logits, broadcastable to ``(B, S, H, L, M)``; minus infinity hides a key.
        """
        length, keys, dim = query.shape[-2], memory.shape[-2], query.shape[-1]
        if 2 * keys * dim + length * keys * self.heads < (length + keys) * dim + length * keys:
            return self._fold_into_memory(query, memory, bias)
        mixed = self.weights(query, memory, bias) @ self.split(self.project(memory, 2))  # (B, S, H, L, d)
        return self.out_proj(mixed.transpose(-3, -2).flatten(-2))  # (B, S, L, D)

    def weights(self, query: Tensor, memory: Tensor, bias: Tensor | None) -> Tensor:
        """Attention weights ``(B, S, H, L, M)``, each row summing to one; arguments as in `forward`."""
        queries, keys = self.split(self.project(query, 0)), self.split(self.project(memory, 1))
        return _softmax(queries * self.scale @ keys.transpose(-2, -1), bias)

    def _fold_into_memory(self, query: Tensor, memory: Tensor, bias: Tensor | None) -> Tensor:
        # (W_q x + b_q) k = x (W_q^T k) + b_q k, and W_o (a v) = a (W_o v): L rows are never projected
        dim = query.shape[-1]
        query_weight = self.in_proj_weight[:dim].unflatten(0, (self.heads, -1))  # (H, d, D)
        query_bias = self.in_proj_bias[:dim].unflatten(0, (self.heads, -1))  # (H, d)
        output_weight = self.out_proj.weight.unflatten(1, (self.heads, -1)).permute(1, 2, 0)  # (H, d, D)
        key = self.split(self.project(memory, 1)) * self.scale  # (B, S, H, M, d)
        logits = query[..., None, :, :] @ (key @ query_weight).transpose(-2, -1)  # (B, S, H, L, M)
        weights = _softmax(logits + query_bias[:, None] @ key.transpose(-2, -1), bias)
        values = self.split(self.project(memory, 2)) @ output_weight  # (B, S, H, M, D)
        return (weights @ values).sum(-3) + self.out_proj.bias

    def project(self, x: Tensor, part: int) -> Tensor:
        """Query (0), key (1) or value (2) of ``(..., D)``, all heads side by side, ``(..., D)``."""
        rows = slice(part * x.shape[-1], (part + 1) * x.shape[-1])
        return F.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])

    def split(self, x: Tensor) -> Tensor:
        """``(..., L, D)`` to heads ``(..., H, L, d)``."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


def _softmax(logits: Tensor, bias: Tensor | None) -> Tensor:
    if bias is not None:
        logits = logits + bias
    # float32: biases down to log(1e-10) do not survive in half precision
    return logits.softmax(-1, dtype=torch.float32).to(logits.dtype)


def key_bias(mask: Tensor) -> Tensor:
    """Attention bias ``(B, 1, 1, 1, M)`` that hides the keys where `mask` ``(B, M)`` (bool, True = valid) is False.

    At least one key per item must be valid, else its attention is not a number.
    """
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, float("-inf"))[:, None, None, None]


def causal_bias(length: int, device: torch.device | None = None) -> Tensor:
    """Attention bias ``(length, length)`` float32 with minus infinity above the diagonal."""
    return torch.full((length, length), float("-inf"), device=device).triu(1)


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
    ) -> Tensor:
        """``(B, S, L, D)`` of x ``(B, S or 1, L, D)`` and a memory ``(B, S or 1, M, D)``; of the last row only if
        asked.

        `self_bias` (causal part included) is broadcastable to ``(B, S, H, L, L)``, `memory_bias` to ``(B, S, H, L,
        M)``; without a memory the cross-attention block is skipped.
        """
        query = x
        if last_row_only:
            query, self_bias = x[..., -1:, :], self_bias[..., -1:, :]
        x = self.self_norm(query + self.dropout(self.self_attention(query, x, self_bias)))
        if memory is not None:
            if self.cross_attention is None or self.cross_norm is None:
                raise ValueError("this decoder layer was built without cross-attention")
            x = self.cross_norm(x + self.dropout(self.cross_attention(x, memory, memory_bias)))
        return self.final_norm(x + self.dropout(self.fc2(F.relu(self.fc1(x)))))


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
    ) -> Tensor:
        """``(B, S, L, D)`` after all layers; of the last position only if asked, which all but the last layer ignore.

        Arguments as in `DecoderLayer.forward`, but for `key_bias`, the bias on the keys of the self-attention
        without its causal part, broadcastable to ``(B, S, 1, 1, L)``.
        """
        self_bias = key_bias + causal_bias(x.shape[-2], x.device)  # (B, S, 1, L, L)
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            x = layer(x, self_bias, memory, memory_bias, last_row_only=last_row_only and number == last)
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
