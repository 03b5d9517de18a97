"""Post-norm causal decoder of the point-supervised methods (CPL, RGN, CFMR)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from vmr_train.layers.attention import MultiHeadAttention, causal_bias


class DecoderLayer(nn.Module):
    """Self-attention, optional cross-attention and a ReLU feed-forward net, each followed by LayerNorm.

    ``x -> LN(x + drop(self)) -> LN(x + drop(cross)) -> LN(x + drop(W2 ReLU(W1 x)))``

    Args:
        dim: Model width D.
        heads: Attention heads.
        dropout: Probability after each sub-block.
        cross_attention: Whether the layer has a cross-attention block; without it `memory` must be None.
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
        """One layer.

        Args:
            x: ``(B, S or 1, L, D)``.
            self_bias: Broadcastable to ``(B, S, H, L, L)``, causal part included.
            memory: ``(B, S or 1, M, D)``, or None to skip the cross-attention block.
            memory_bias: Broadcastable to ``(B, S, H, L, M)``.
            last_row_only: Compute the output of position L - 1 only.

        Returns:
            ``(B, S, L, D)``, or ``(B, S, 1, D)`` for the last row.
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
        """Runs all layers causally.

        The first layer's projections are computed once for all passes when `x` has S = 1 and a bias differs.

        Args:
            x: ``(B, S or 1, L, D)``.
            key_bias: Bias on the keys of the self-attention, broadcastable to ``(B, S, 1, 1, L)``.
            memory: ``(B, S or 1, M, D)`` or None.
            memory_bias: Broadcastable to ``(B, S, 1, 1, M)``.
            last_row_only: Return the last position only; all but the last layer still see every position.

        Returns:
            ``(B, S, L or 1, D)``.
        """
        self_bias = key_bias + causal_bias(x.shape[-2], x.device)  # (B, S, 1, L, L)
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            x = layer(x, self_bias, memory, memory_bias, last_row_only=last_row_only and number == last)
        return x
