"""Multi-head attention with one packed projection and an additive bias on the logits.

Shapes: B batch, S passes over the same item that differ only in the bias (for example one per Gaussian), L query
positions, M key positions, D model width, H heads, d = D / H. Either side may have S = 1 and is then shared by all
passes without being copied.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def split_heads(x: Tensor, heads: int) -> Tensor:
    """``(..., L, D)`` to heads ``(..., H, L, d)``."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


class PackedAttention(nn.Module):
    """The weights of a multi-head attention with one packed projection; how they are applied is up to its user.

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

    def project(self, x: Tensor, part: int, *, bias: bool = True) -> Tensor:
        """Query (0), key (1) or value (2) of ``(..., D)``, all heads side by side, ``(..., D)``."""
        rows = slice(part * x.shape[-1], (part + 1) * x.shape[-1])
        return F.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows] if bias else None)

    def split(self, x: Tensor) -> Tensor:
        """``(..., L, D)`` to heads ``(..., H, L, d)``."""
        return split_heads(x, self.heads)

    def query_weights(self) -> tuple[Tensor, Tensor]:
        """The query projection of each head, to fold it into the keys: weight ``(H, d, D)`` and bias ``(H, d)``."""
        dim = self.in_proj_weight.shape[1]
        weight, bias = self.in_proj_weight[:dim], self.in_proj_bias[:dim]
        return weight.unflatten(0, (self.heads, -1)), bias.unflatten(0, (self.heads, -1))

    def output_weights(self) -> Tensor:
        """The output projection of each head, ``(H, d, D)``, to fold it into the values."""
        return self.out_proj.weight.unflatten(1, (self.heads, -1)).permute(1, 2, 0)


class MultiHeadAttention(PackedAttention):
    """Attention as in fairseq-style decoders: packed query, key and value projection, scaled logits, no dropout.

    Args:
        dim: Model width D, a multiple of `heads`.
        heads: Number of heads H.
    """

    def forward(self, query: Tensor, memory: Tensor, bias: Tensor | None) -> Tensor:
        """Attends from `query` to `memory`.

        When the memory is much shorter than the query, the query and output projections are folded into the
        memory's side, which takes fewer products; the result is the same up to rounding.

        Args:
            query: ``(B, S or 1, L, D)``.
            memory: ``(B, S or 1, M, D)``, source of keys and values.
            bias: Added to the logits, broadcastable to ``(B, S, H, L, M)``; minus infinity hides a key.

        Returns:
            ``(B, S, L, D)``.
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
        key = self.split(self.project(memory, 1)) * self.scale  # (B, S, H, M, d)
        query_weight, query_bias = self.query_weights()
        logits = query[..., None, :, :] @ (key @ query_weight).transpose(-2, -1)  # (B, S, H, L, M)
        weights = _softmax(logits + query_bias[:, None] @ key.transpose(-2, -1), bias)
        values = self.split(self.project(memory, 2)) @ self.output_weights()  # (B, S, H, M, D)
        return (weights @ values).sum(-3) + self.out_proj.bias


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
