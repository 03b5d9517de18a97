"""CDN's objective ``L = L_sIoU + beta L_dis_att`` (pipeline figure): scaled overlap, distance of frame attention."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cdn.config import LossConfig


def scaled_iou(iou: Tensor, low: float, high: float) -> Tensor:
    """Overlaps as targets: 0 up to `low`, 1 from `high` on, linear between; any shape (2D-TAN, section 3.4)."""
    return ((iou - low) / (high - low)).clamp(0.0, 1.0)


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


def attention_distance(attention: Tensor, lambda_: float, *, over_steps: bool = False) -> Tensor:
    """Attention distance L_dis_att: ``|A A^T - lambda I|^2`` (squared Frobenius norm), its mean over maps and clips.

    Args:
        attention: ``(B, N, s, M)``: matrices A of s frames and M steps.
        lambda_: Of the diagonal.
        over_steps: Take ``A^T A``, the products of the steps with each other, as the usual penalty for orthogonal
            attention does; the released code takes the products of frames.
    """
    a = attention.float()
    a = a.transpose(-2, -1) if over_steps else a  # (B, N, s, M) or (B, N, M, s)
    wanted = lambda_ * torch.eye(a.shape[-2], device=a.device)
    return ((wanted - a @ a.transpose(-2, -1)) ** 2).sum((-2, -1)).mean()


def total(
    logits: Tensor, overlaps: Tensor, attention: Tensor, config: LossConfig, *, released: bool
) -> dict[str, Tensor]:
    """All weighted terms and their sum, `total`; the attention distance is there if it has a weight.

    Args:
        logits: ``(P, B)`` scores of the valid cells.
        overlaps: ``(P, B)`` temporal IoU of each cell with the query's moment.
        attention: ``(B, N, s, M)`` frame attention of each query's video.
        config: Range of the target and weights.
        released: Whether both terms are those of the released code: the cross-entropy of float32 probabilities (see
            `scaled_iou_loss`), and the distance of the products of frames (see `attention_distance`).
    """
    target = scaled_iou(overlaps, config.min_iou, config.max_iou)
    terms = {"overlap": scaled_iou_loss(logits, target, of_probabilities=released)}
    if config.beta:
        distance = attention_distance(attention, config.lambda_, over_steps=not released)
        terms["attention"] = config.beta * distance
    return {**terms, "total": torch.stack(list(terms.values())).sum()}
