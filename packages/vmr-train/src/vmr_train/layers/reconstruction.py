"""Masked-query reconstruction: the learning signal of the point-supervised methods (CPL, RGN, CFMR)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from vmr_train.layers.recompute import activation_checkpoint

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


def end_token_mask(lengths: Tensor, places: int) -> Tensor:
    """The places that count: the words, and the end token behind them where there is room for it.

    Args:
        lengths: ``(B,)`` int64 words per query.
        places: Places L that the batch has.

    Returns:
        ``(B, L)`` bool.
    """
    return torch.arange(places, device=lengths.device) <= lengths[:, None]


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

    chunks = hidden.split(passes_per_chunk or hidden.shape[1], dim=1)
    nll = torch.cat(
        [activation_checkpoint(classify, rows, wanted=passes_per_chunk > 0) for rows in chunks], dim=1
    )
    weight = mask[:, None].float()
    return (nll * weight).sum(-1) / weight.sum(-1)


def best_pass(nll: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest of each query's ``(B, S)``: its value ``(B,)`` and which pass it is ``(B,)`` int64."""
    smallest = nll.min(dim=1)
    return smallest.values, smallest.indices


def picked(values: Tensor, index: Tensor) -> Tensor:
    """Of each query's passes ``(B, S, ...)`` the one that `index` ``(B,)`` names, ``(B, ...)``."""
    return values[torch.arange(len(index), device=index.device), index]
