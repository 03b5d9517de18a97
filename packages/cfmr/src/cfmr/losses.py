"""CFMR's objective, its terms named as in the paper's overview figure: L_rec + L_cma + L_conc + L_pcl.

Shapes: B queries, M proposals of each, K concepts, D model width, W word places, V word classes. v are the concepts of
a proposal, q those of the query, left and right the negatives; a star marks the best proposal of a query, which
reconstructs it with the smallest NLL, and ``<.>`` is the mean over the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cfmr.config import LossConfig
from cfmr.model import Passes, unit_concepts
from vmr_train.layers.recompute import activation_checkpoint

# Same as rgn.losses.LABEL_SMOOTHING
LABEL_SMOOTHING = 0.1


def total(concepts: Passes, nll: Passes, config: LossConfig) -> dict[str, Tensor]:
    """All weighted terms by name (scalars, batch means) and their plain sum ``total``.

    Args:
        concepts: ``(B, N, K, D)`` of every kind.
        nll: ``(B, N)`` of every kind, how badly the query is reconstructed from them.
        config: Weights and margins.
    """
    terms = (
        reconstruction(nll, config)
        | alignment(concepts, nll.positive.min(dim=1).indices, config)
        | diversity(concepts)
        | contrast(nll, config)
    )
    return {**terms, "total": torch.stack(list(terms.values())).sum()}


def reconstruction(nll: Passes, config: LossConfig) -> dict[str, Tensor]:
    """Reconstruction L_rec from the query's concepts and the best proposal's: ``alpha_2 <nll> + alpha_1 <nll*>``."""
    return {
        "reconstruction_text": config.alpha_2 * nll.text.mean(),
        "reconstruction_video": config.alpha_1 * nll.positive.min(dim=1).values.mean(),
    }


def alignment(concepts: Passes, best: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """Cross-modal alignment L_cma: pulls text concepts towards the best proposal and pushes them from the negatives.

    ``<(v* - q)^2> + <sum_k max(0, cos_k(left*, q) - cos_k(v*, q) + margin_4)>``, the same for right, and with margin_3
    for the complete video. The video's side is a fixed target: these terms train the text branch alone.

    Args:
        concepts: ``(B, N, K, D)`` of every kind.
        best: ``(B,)`` int64 number of the best proposal.
        config: Margins.
    """
    text = concepts.text[:, 0].float()  # (B, K, D)
    positive, left, right = (
        picked(side.detach().float(), best) for side in (concepts.positive, concepts.left, concepts.right)
    )
    similarity = F.cosine_similarity(positive, text, dim=-1)  # (B, K)

    def hinge(other: Tensor, margin: float) -> Tensor:
        return F.relu(F.cosine_similarity(other, text, dim=-1) - similarity + margin).sum(-1).mean()

    terms = {
        "alignment_distance": ((positive - text) ** 2).mean(),
        "alignment_left": hinge(left, config.margin_4),
        "alignment_right": hinge(right, config.margin_4),
    }
    if config.reference_alignment:
        assert concepts.reference is not None
        terms["alignment_reference"] = hinge(concepts.reference[:, 0].detach().float(), config.margin_3)
    return terms


def diversity(concepts: Passes) -> dict[str, Tensor]:
    """Concept diversity L_conc: the K concepts of every proposal, and of the query, should be orthogonal."""
    return {
        "diversity_video": gram_penalty(unit_concepts(concepts.positive)).mean(),
        "diversity_text": gram_penalty(unit_concepts(concepts.text)).mean(),
    }


def gram_penalty(rows: Tensor) -> Tensor:
    """``||I - A A^T||_F^2`` of matrices A ``(..., K, D)`` of K unit vectors, ``(...)``."""
    identity = torch.eye(rows.shape[-2], device=rows.device)
    return ((identity - rows @ rows.transpose(-2, -1)) ** 2).sum((-2, -1))


def contrast(nll: Passes, config: LossConfig) -> dict[str, Tensor]:
    """Point-guided contrast L_pcl: the best proposal must reconstruct the query better than its negatives, by a margin.

    ``alpha_1 <max(0, nll* - nll(left*) + margin_2)>``, the same for right, and with margin_1 for the complete video.
    """
    smallest, best = nll.positive.min(dim=1)  # (B,)
    terms = {
        "contrast_left": F.relu(smallest - picked(nll.left, best) + config.margin_2).mean(),
        "contrast_right": F.relu(smallest - picked(nll.right, best) + config.margin_2).mean(),
    }
    if config.reference_contrast:
        assert nll.reference is not None
        terms["contrast_reference"] = F.relu(smallest - nll.reference[:, 0] + config.margin_1).mean()
    return {name: config.alpha_1 * term for name, term in terms.items()}


def picked(values: Tensor, best: Tensor) -> Tensor:
    """The proposal of each query that `best` ``(B,)`` names, ``(B, ...)`` out of ``(B, M, ...)``."""
    return values[torch.arange(len(best), device=best.device), best]


# Same as rgn.losses.reconstruction_nll
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


# Same as rgn.losses.smoothed_nll
def smoothed_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with label smoothing 0.1 over all classes, without a copy of the log-softmax.

    ``logsumexp - 0.9 * logit[target] - 0.1 * mean(logit)``, ``(...)`` float32, for logits ``(..., V)`` and int64
    targets that are broadcast to ``(...)``.
    """
    logits = logits.float()
    target = logits.gather(-1, targets.expand(logits.shape[:-1])[..., None])[..., 0]
    return logits.logsumexp(-1) - (1 - LABEL_SMOOTHING) * target - LABEL_SMOOTHING * logits.mean(-1)


# Same as rgn.losses.end_token_mask
def end_token_mask(lengths: Tensor, places: int) -> Tensor:
    """Positions ``(B, L)`` bool that count: each query's words, and the end token (class 0) where L leaves room."""
    return torch.arange(places, device=lengths.device) <= lengths[:, None]
