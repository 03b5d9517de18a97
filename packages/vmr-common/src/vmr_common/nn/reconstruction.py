"""Masked-query reconstruction: the learning signal of the point-supervised methods (RGN 3.6 and 4, CFMR 3.6 and 4)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

LABEL_SMOOTHING = 0.1


def sinusoidal_positions(length: int, dim: int, device: torch.device | None = None) -> Tensor:
    """Position table ``(length, dim)`` float32: sines in the first half, cosines in the second, row 0 zero.

    An odd `dim` gets one more zero column.
    """
    half = dim // 2
    frequency = torch.exp(torch.arange(half, device=device) * -(math.log(10000) / (half - 1)))
    angle = torch.arange(length, device=device)[:, None] * frequency  # (length, half)
    table = torch.cat([angle.sin(), angle.cos(), angle.new_zeros(length, dim % 2)], dim=1)
    table[0] = 0
    return table


def smoothed_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with label smoothing 0.1 over all classes, without a copy of the log-softmax.

    ``logsumexp - 0.9 * logit[target] - 0.1 * mean(logit)``

    Args:
        logits: ``(..., V)``.
        targets: ``(...)`` int64, broadcastable to the leading shape of `logits`.

    Returns:
        ``(...)`` float32.
    """
    logits = logits.float()
    picked = logits.gather(-1, targets.expand(logits.shape[:-1])[..., None])[..., 0]
    return logits.logsumexp(-1) - (1 - LABEL_SMOOTHING) * picked - LABEL_SMOOTHING * logits.mean(-1)


def reconstruction_nll(
    hidden: Tensor, classifier: nn.Linear, targets: Tensor, mask: Tensor, passes_per_chunk: int = 0
) -> Tensor:
    """How badly each pass reconstructs the query: smoothed NLL averaged over the valid positions.

    Args:
        hidden: ``(B, S, L, D)`` decoder outputs.
        classifier: D to V.
        targets: ``(B, L)`` int64 word classes.
        mask: ``(B, L)`` bool, True = the position counts; at least one per item.
        passes_per_chunk: With a large V, classify this many of the S passes at a time and recompute their
            logits in the backward pass (0: all at once).

    Returns:
        ``(B, S)`` float32.
    """

    def classify(rows: Tensor) -> Tensor:
        return smoothed_nll(classifier(rows), targets[:, None])  # (B, s, L)

    if passes_per_chunk and hidden.requires_grad:
        chunks = hidden.split(passes_per_chunk, dim=1)
        nll = torch.cat([checkpoint(classify, rows, use_reentrant=False) for rows in chunks], dim=1)
    elif passes_per_chunk:
        nll = torch.cat([classify(rows) for rows in hidden.split(passes_per_chunk, dim=1)], dim=1)
    else:
        nll = classify(hidden)
    weight = mask[:, None].float()
    return (nll * weight).sum(-1) / weight.sum(-1)
