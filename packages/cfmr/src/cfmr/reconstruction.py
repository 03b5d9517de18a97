"""Reconstruction of the masked query: how badly a pass of the reconstructor tells its words, lowest is best."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vmr_train.layers.recompute import activation_checkpoint

# Same as rgn.reconstruction.LABEL_SMOOTHING
LABEL_SMOOTHING = 0.1


# Same as rgn.reconstruction.reconstruction_nll
def reconstruction_nll(
    states: Tensor, classifier: nn.Linear, targets: Tensor, mask: Tensor, passes_per_chunk: int = 0
) -> Tensor:
    """Smoothed NLL ``(B, S)`` float32 of the query under each pass, the mean of its positions, masked words or not.

    Args:
        states: ``(B, S, L, D)`` decoder outputs.
        classifier: D to V.
        targets: ``(B, L)`` int64 word classes.
        mask: ``(B, L)`` bool, True = the position counts; at least one per query.
        passes_per_chunk: With a large V, classify this many of the S passes at a time and recompute their
            logits in the backward pass (0: all at once).
    """

    def classify(rows: Tensor) -> Tensor:
        return smoothed_nll(classifier(rows), targets[:, None])  # (B, s, L)

    chunks = states.split(passes_per_chunk or states.shape[1], dim=1)
    wanted = passes_per_chunk > 0
    nll = torch.cat([activation_checkpoint(classify, rows, wanted=wanted) for rows in chunks], dim=1)
    weight = mask[:, None].float()
    return (nll * weight).sum(-1) / weight.sum(-1)


# Same as rgn.reconstruction.smoothed_nll
def smoothed_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with label smoothing 0.1 over all classes, without a copy of the log-softmax.

    ``logsumexp - 0.9 * logit[target] - 0.1 * mean(logit)``, ``(...)`` float32, for logits ``(..., V)`` and int64
    targets that are broadcast to ``(...)``.
    """
    logits = logits.float()
    target = logits.gather(-1, targets.expand(logits.shape[:-1])[..., None])[..., 0]
    return logits.logsumexp(-1) - (1 - LABEL_SMOOTHING) * target - LABEL_SMOOTHING * logits.mean(-1)
