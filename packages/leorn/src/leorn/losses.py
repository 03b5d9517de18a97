"""LEORN's objective: the map's scores against the scaled temporal overlap."""

from __future__ import annotations

from torch import Tensor

from vmr_common.nn.map_loss import MapLossConfig, scaled_iou, scaled_iou_loss


def total(logits: Tensor, overlaps: Tensor, config: MapLossConfig) -> dict[str, Tensor]:
    """The one term, `overlap`, as `total` too.

    Args:
        logits: ``(P, B)`` scores of the valid cells.
        overlaps: ``(P, B)`` temporal overlap of each cell with the query's moment.
        config: Range of the target.
    """
    loss = scaled_iou_loss(logits, scaled_iou(overlaps, config.min_iou, config.max_iou))
    return {"overlap": loss, "total": loss}
