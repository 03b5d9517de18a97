"""LEORN's objective: the map's scores against the scaled temporal overlap."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from leorn.config import LossConfig


# Same as cdn.losses.scaled_iou
def scaled_iou(iou: Tensor, low: float, high: float) -> Tensor:
    """Overlaps as targets: 0 up to `low`, 1 from `high` on, linear between; any shape (2D-TAN, section 3.4)."""
    return ((iou - low) / (high - low)).clamp(0.0, 1.0)


# Same as cdn.losses.scaled_iou_loss
def scaled_iou_loss(logits: Tensor, target: Tensor, *, of_probabilities: bool) -> Tensor:
    """Binary cross-entropy L_sIoU, its mean over the valid cells of all maps, a scalar in float32.

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


def total(logits: Tensor, overlaps: Tensor, config: LossConfig, *, released: bool) -> dict[str, Tensor]:
    """The one term, `overlap`, as `total` too.

    Args:
        logits: ``(P, B)`` scores of the valid cells.
        overlaps: ``(P, B)`` temporal overlap of each cell with the query's moment.
        config: Range of the target.
        released: Whether the cross-entropy is taken of float32 probabilities, as in the released code (see
            `scaled_iou_loss`).
    """
    target = scaled_iou(overlaps, config.min_iou, config.max_iou)
    loss = scaled_iou_loss(logits, target, of_probabilities=released)
    return {"overlap": loss, "total": loss}
