"""RGN's objective: semantic, localization and intra-video terms over the reconstruction NLL of every pass.

C* is the candidate that reconstructs its query best, R the re-glance, F the complete video, N1 and N2 the left and
right negatives of C*; ``<.>`` is the mean over the batch and ``[x]+`` is ``max(x, 0)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rgn.config import LossConfig
from rgn.model import Proposals
from vmr_train.layers.recompute import activation_checkpoint

LABEL_SMOOTHING = 0.1


@dataclass(frozen=True)
class Nll:
    """Reconstruction NLL: `candidates`, `left`, `right` ``(B, K)``; `complete`, `reglance` ``(B,)``."""

    candidates: Tensor
    left: Tensor
    right: Tensor
    complete: Tensor
    reglance: Tensor


def total(
    proposals: Proposals, nll: Nll, glance: Tensor, reglance_window: Tensor, config: LossConfig
) -> dict[str, Tensor]:
    """The three weighted terms (scalars, batch means) and their sum ``total``; for the log, the parts of
    ``intra_video`` without weights.
    """
    hinges, spread = triple_hinge(nll, config), diversity(proposals, config)
    terms = {
        "semantic": semantic(nll, config),
        "localization": localization(proposals, glance, reglance_window, config),
        "intra_video": config.alpha_1 * torch.stack(list(hinges.values())).sum() + config.alpha_2 * spread,
    }
    return {**terms, **hinges, "diversity": spread, "total": torch.stack(list(terms.values())).sum()}


def semantic(nll: Nll, config: LossConfig) -> Tensor:
    """``beta_1 ((1 - theta) <R> + theta <F>) + beta_2 <C*>``, scalar."""
    reference = (1 - config.theta) * nll.reglance.mean() + config.theta * nll.complete.mean()
    return config.beta_1 * reference + config.beta_2 * nll.candidates.min(dim=1).values.mean()


def localization(proposals: Proposals, glance: Tensor, reglance_window: Tensor, config: LossConfig) -> Tensor:
    """Candidates gather at the glance ``(B,)`` and take the shape of the re-glance ``(B, P)``, a fixed target."""
    distance = (proposals.centre - glance[:, None]).abs().mean()
    shape = ((proposals.window - reglance_window.detach()[:, None]) ** 2).mean()
    return config.delta_1 * distance + config.delta_2 * shape


def triple_hinge(nll: Nll, config: LossConfig) -> dict[str, Tensor]:
    """``<[C* - reference + margin]+>`` per reference: re-glance, complete video and both negatives, unweighted."""
    candidate, best = nll.candidates.min(dim=1)  # (B,)
    rows = torch.arange(len(best), device=best.device)
    return {
        "hinge_reglance": F.relu(candidate - nll.reglance + config.margin_1).mean(),
        "hinge_complete": F.relu(candidate - nll.complete + config.margin_2).mean(),
        "hinge_left": F.relu(candidate - nll.left[rows, best] + config.margin_3).mean(),
        "hinge_right": F.relu(candidate - nll.right[rows, best] + config.margin_3).mean(),
    }


def diversity(proposals: Proposals, config: LossConfig) -> Tensor:
    """``<||lambda I - G G^T||_F^2>``, scalar, G being the windows ``(B, K, P)`` scaled to sum 1.

    Windows should not overlap, and lambda is the squared norm that one should have: the larger, the narrower.
    """
    scaled = proposals.window / proposals.window.sum(-1, keepdim=True)
    wanted = config.lambda_ * torch.eye(scaled.shape[-2], device=scaled.device)
    return ((wanted - scaled @ scaled.transpose(-2, -1)) ** 2).sum((-2, -1)).mean()


def reconstruction_nll(
    states: Tensor, classifier: nn.Linear, targets: Tensor, mask: Tensor, passes_per_chunk: int = 0
) -> Tensor:
    """Smoothed NLL of the query under each pass, averaged over the valid positions, masked words or not.

    Args:
        states: ``(B, S, L, D)`` decoder outputs.
        classifier: D to V.
        targets: ``(B, L)`` int64 word classes.
        mask: ``(B, L)`` bool, True = the position counts; at least one per query.
        passes_per_chunk: With a large V, classify this many of the S passes at a time and recompute their
            logits in the backward pass (0: all at once).

    Returns:
        ``(B, S)`` float32.
    """

    def classify(rows: Tensor) -> Tensor:
        return smoothed_nll(classifier(rows), targets[:, None])  # (B, s, L)

    chunks = states.split(passes_per_chunk or states.shape[1], dim=1)
    classified = [
        activation_checkpoint(classify, rows) if passes_per_chunk else classify(rows) for rows in chunks
    ]
    nll = torch.cat(classified, dim=1)
    weight = mask[:, None].float()
    return (nll * weight).sum(-1) / weight.sum(-1)


def smoothed_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with label smoothing 0.1 over all classes, without a copy of the log-softmax.

    ``logsumexp - 0.9 * logit[target] - 0.1 * mean(logit)``, ``(...)`` float32, for logits ``(..., V)`` and int64
    targets that are broadcast to ``(...)``.
    """
    logits = logits.float()
    target = logits.gather(-1, targets.expand(logits.shape[:-1])[..., None])[..., 0]
    return logits.logsumexp(-1) - (1 - LABEL_SMOOTHING) * target - LABEL_SMOOTHING * logits.mean(-1)


def end_token_mask(lengths: Tensor, places: int) -> Tensor:
    """Positions ``(B, L)`` bool that count: each query's words, and the end token (class 0) where L leaves room."""
    return torch.arange(places, device=lengths.device) <= lengths[:, None]
