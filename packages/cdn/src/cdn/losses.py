"""CDN's objective: scaled overlap, and a distance of the frame attention from a multiple of the identity."""

from __future__ import annotations

import torch
from torch import Tensor

from cdn.config import LossConfig
from vmr_train.layers.gram import orthogonality_penalty
from vmr_train.layers.map_loss import scaled_iou, scaled_iou_loss


def attention_distance(attention: Tensor, lambda_: float, *, over_steps: bool = False) -> Tensor:
    """``|A A^T - lambda I|^2`` (squared Frobenius norm), its mean over maps and clips.

    Args:
        attention: ``(B, N, s, M)``: matrices A of s frames and M steps.
        lambda_: What the diagonal should be.
        over_steps: Take ``A^T A``, the products of the steps with each other, as the usual penalty for orthogonal
            attention does; the released code takes the products of frames.

    Returns:
        Scalar.
    """
    a = attention.float()
    return orthogonality_penalty(a.transpose(-2, -1) if over_steps else a, lambda_).mean()


def total(
    logits: Tensor, overlaps: Tensor, attention: Tensor, config: LossConfig, *, released: bool
) -> dict[str, Tensor]:
    """All weighted terms and their sum, `total`; the attention distance is there if it has a weight.

    Args:
        logits: ``(P, B)`` scores of the valid cells.
        overlaps: ``(P, B)`` temporal overlap of each cell with the query's moment.
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
