"""RGN's objective (paper section 3.4): semantic, localization and triple hinge with diversity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rgn.config import LossConfig
from rgn.gaussians import diversity_penalty
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


def semantic(nll: Nll, config: LossConfig) -> Tensor:
    """``beta_1 ((1 - theta) <R> + theta <F>) + beta_2 <C*>``, scalar."""
    reference = (1 - config.theta) * nll.reglance.mean() + config.theta * nll.complete.mean()
    return config.beta_1 * reference + config.beta_2 * best_pass(nll.candidates)[0].mean()


def localization(proposals: Proposals, glance: Tensor, reglance_window: Tensor, config: LossConfig) -> Tensor:
    """Candidates gather at the glance ``(B,)`` and take the shape of the re-glance ``(B, P)``, a fixed target."""
    distance = (proposals.centre - glance[:, None]).abs().mean()
    shape = ((proposals.window - reglance_window.detach()[:, None]) ** 2).mean()
    return config.delta_1 * distance + config.delta_2 * shape


def triple_hinge(nll: Nll, config: LossConfig) -> dict[str, Tensor]:
    """Unweighted hinges: the best candidate must reconstruct better than each reference by a margin."""
    candidate, best = best_pass(nll.candidates)
    return {
        "hinge_reglance": F.relu(candidate - nll.reglance + config.margin_1).mean(),
        "hinge_complete": F.relu(candidate - nll.complete + config.margin_2).mean(),
        "hinge_left": F.relu(candidate - picked(nll.left, best) + config.margin_3).mean(),
        "hinge_right": F.relu(candidate - picked(nll.right, best) + config.margin_3).mean(),
    }


def diversity(proposals: Proposals, config: LossConfig) -> Tensor:
    """Mean squared Frobenius distance of the windows' Gram matrix from ``lambda I``, scalar."""
    return diversity_penalty(proposals.window, config.lambda_).mean()


def total(
    proposals: Proposals, nll: Nll, glance: Tensor, reglance_window: Tensor, config: LossConfig
) -> dict[str, Tensor]:
    """All terms by name (scalars, batch means) and their weighted sum ``total``."""
    hinges = triple_hinge(nll, config)
    spread = diversity(proposals, config)
    terms = {
        "semantic": semantic(nll, config),
        "localization": localization(proposals, glance, reglance_window, config),
        "intra_video": config.alpha_1 * torch.stack(list(hinges.values())).sum() + config.alpha_2 * spread,
    }
    weighted = torch.stack(list(terms.values())).sum()
    return {**terms, **hinges, "diversity": spread, "total": weighted}


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
