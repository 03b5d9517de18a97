"""The objective of 2D-map methods: binary cross-entropy against a scaled temporal overlap (2D-TAN, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vmr_common.errors import require
from vmr_common.ranges import Share, require_ranges


@dataclass(frozen=True, kw_only=True)
class MapLossConfig:
    """The objective."""

    min_iou: Share = 0.5
    """Overlap up to which a proposal's target is 0."""
    max_iou: Share = 1.0
    """Overlap from which on a proposal's target is 1."""

    def __post_init__(self) -> None:
        require_ranges(self, "loss")
        fits = 0 <= self.min_iou < self.max_iou <= 1
        require(fits, "loss.min_iou", self.min_iou, f"0 <= min_iou < max_iou ({self.max_iou}) <= 1")


def scaled_iou(iou: Tensor, low: float, high: float) -> Tensor:
    """Overlaps as targets: 0 up to `low`, 1 from `high` on, linear between; any shape."""
    return ((iou - low) / (high - low)).clamp(0.0, 1.0)


def scaled_iou_loss(logits: Tensor, target: Tensor, *, of_probabilities: bool) -> Tensor:
    """Mean binary cross-entropy, a scalar, in float32.

    Args:
        logits: Of the valid cells of all maps, any shape.
        target: Same shape, from `scaled_iou`.
        of_probabilities: Whether it is taken of float32 probabilities, as the released codes do: above a logit of 16.6
            the probability is 1, the gradient 0 and the loss the cut logarithm's 100. Else it is taken of the logits,
            and nothing is cut.
    """
    if not of_probabilities:
        return F.binary_cross_entropy_with_logits(logits.float(), target.float())
    probability = logits.float().sigmoid()
    with torch.autocast(logits.device.type, enabled=False):
        # torch refuses what is no number, on an accelerator by ending the process; here the loss is no number either
        loss = F.binary_cross_entropy(probability.nan_to_num(), target.float())
    return loss + 0 * probability.sum()
