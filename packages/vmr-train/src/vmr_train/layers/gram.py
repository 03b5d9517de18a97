"""How far vectors are from being orthogonal and of one length, a penalty of several papers."""

from __future__ import annotations

import torch
from torch import Tensor


def orthogonality_penalty(rows: Tensor, preferred: float = 1.0) -> Tensor:
    """``|preferred I - A A^T|^2`` (squared Frobenius norm).

    Args:
        rows: ``(..., K, D)``: matrices A of K vectors.
        preferred: The squared length that a vector should have.

    Returns:
        ``(...)``.
    """
    wanted = preferred * torch.eye(rows.shape[-2], device=rows.device)
    return ((wanted - rows @ rows.transpose(-2, -1)) ** 2).sum((-2, -1))
