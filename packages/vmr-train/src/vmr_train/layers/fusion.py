"""A proposal map meets a sentence: Hadamard product and L2 norm, at the valid cells alone (2D-TAN, CDN, LEORN)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class MapFusion(nn.Module):
    """``normalise(W_t q * (W_v m))`` per cell.

    Args:
        text_dim: Sentence feature size.
        map_dim: Channels of the map.
        dim: Channels of the result.
    """

    def __init__(self, text_dim: int, map_dim: int, dim: int) -> None:
        super().__init__()
        self.text = nn.Linear(text_dim, dim)
        self.video = nn.Linear(map_dim, dim)

    def project(self, rows: Tensor) -> Tensor:
        """The video's side, which no query changes: rows ``(P, V, C)`` to ``(P, V, D)``."""
        return self.video(rows)

    def forward(self, projected: Tensor, sentence: Tensor) -> Tensor:
        """Rows ``(P, B, D)`` of unit length (float32) from projected rows ``(P, B, D)`` and sentences ``(B, T)``."""
        return F.normalize(projected.float() * self.text(sentence).float(), dim=-1, eps=1e-12)
