"""The objective of 2D-map methods: binary cross-entropy against a scaled temporal overlap (2D-TAN, section 3.4)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def scaled_iou(iou: Tensor, low: float, high: float) -> Tensor:
    """Overlaps as targets: 0 up to `low`, 1 from `high` on, linear between; any shape."""
    return ((iou - low) / (high - low)).clamp(0.0, 1.0)


def scaled_iou_loss(logits: Tensor, target: Tensor, cells: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy over the valid cells of all maps, from logits in float32 (no logarithm is cut).

    Args:
        logits: ``(B, 1, N, N)`` maps, or any shape with `cells` None.
        target: Same shape, from `scaled_iou`.
        cells: ``(N, N)`` bool; None: every value counts.

    Returns:
        Scalar.
    """
    if cells is not None:
        logits, target = logits[..., cells], target[..., cells]  # (B, 1, P)
    return F.binary_cross_entropy_with_logits(logits.float(), target.float())
