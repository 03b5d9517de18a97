"""Multi-head attention with one packed projection and an additive bias on the logits.

Shapes: B batch, S passes over the same item that differ only in the bias (for example one per Gaussian), L query
positions, M key positions, D model width, H heads, d = D / H. Either side may have S = 1 and is then shared by all
passes without being copied.
"""

from __future__ import annotations

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
        """Attends from `query` to `memory`.

        Args:
            query: ``(B, S or 1, L, D)``.
            memory: ``(B, S or 1, M, D)``, source of keys and values.
            bias: Added to the logits, broadcastable to ``(B, S, H, L, M)``; minus infinity hides a key.

        Returns:
            ``(B, S, L, D)``.
        """
        values = self.project(memory, 2)
        mixed = self.weights(query, memory, bias) @ values  # (B, S, H, L, d)
        return self.out_proj(mixed.transpose(-3, -2).flatten(-2))  # (B, S, L, D)

    def weights(self, query: Tensor, memory: Tensor, bias: Tensor | None) -> Tensor:
        """Attention weights ``(B, S, H, L, M)``, each row summing to one; arguments as in `forward`."""
        q, k = self.project(query, 0), self.project(memory, 1)
        logits = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)  # (B, S or 1, H, L, M)
        if bias is not None:
            logits = logits + bias
        # float32: biases down to log(1e-10) do not survive in half precision
        return logits.softmax(-1, dtype=torch.float32).to(q.dtype)

    def project(self, x: Tensor, part: int) -> Tensor:
        """Query (0), key (1) or value (2) heads of `x` ``(..., L, D)``, as ``(..., H, L, d)``."""
        rows = slice(part * x.shape[-1], (part + 1) * x.shape[-1])
        y = F.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])
        return y.unflatten(-1, (self.heads, -1)).transpose(-3, -2)


def key_bias(mask: Tensor) -> Tensor:
    """Attention bias ``(B, 1, 1, 1, M)`` that hides the keys where `mask` ``(B, M)`` (bool, True = valid) is False.

    At least one key per item must be valid, else its attention is not a number.
    """
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, float("-inf"))[:, None, None, None]


def causal_bias(length: int, device: torch.device | None = None) -> Tensor:
    """Attention bias ``(length, length)`` float32 with minus infinity above the diagonal."""
    return torch.full((length, length), float("-inf"), device=device).triu(1)
