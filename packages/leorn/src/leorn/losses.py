"""LEORN's objective: the map's scores against the scaled temporal overlap."""

from __future__ import annotations

from torch import Tensor

from vmr_train.layers.map_loss import MapLossConfig, scaled_iou, scaled_iou_loss


def total(logits: Tensor, overlaps: Tensor, config: MapLossConfig, *, released: bool) -> dict[str, Tensor]:
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
