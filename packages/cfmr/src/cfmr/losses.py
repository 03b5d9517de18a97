"""CFMR's objective (paper section 3.4): reconstruction, concept alignment, concept diversity, point-guided contrast."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from cfmr.config import LossConfig
from cfmr.model import Passes, unit_concepts
from vmr_train.layers.gram import orthogonality_penalty
from vmr_train.layers.reconstruction import best_pass, picked


@dataclass(frozen=True)
class Nll:
    """Reconstruction NLL: `text` ``(B,)``; `positive`, `left`, `right` ``(B, M)``; `reference` ``(B,)`` or None."""

    text: Tensor
    positive: Tensor
    left: Tensor
    right: Tensor
    reference: Tensor | None


def reconstruction(nll: Nll, config: LossConfig) -> dict[str, Tensor]:
    """How badly the query is told from its own concepts and from the best proposal's (L_rec), weighted."""
    return {
        "reconstruction_text": config.alpha_2 * nll.text.mean(),
        "reconstruction_video": config.alpha_1 * best_pass(nll.positive)[0].mean(),
    }


def alignment(concepts: Passes, best: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """Draws the query's concepts to those of the best proposal ``(B,)`` and off the others' (L_cma).

    The video's side is a fixed target: these terms train the text branch alone.
    """
    text = concepts.text[:, 0].float()  # (B, K, D)
    positive, left, right = (
        picked(side.detach().float(), best) for side in (concepts.positive, concepts.left, concepts.right)
    )
    similar = F.cosine_similarity(positive, text, dim=-1)  # (B, K)

    def hinge(other: Tensor, margin: float) -> Tensor:
        found = F.cosine_similarity(other, text, dim=-1)
        return F.relu(found - similar + margin).sum(-1).mean()

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
    """How far the K concepts of a proposal, and of a query, are from pointing K different ways (L_conc)."""
    return {
        "diversity_video": orthogonality_penalty(unit_concepts(concepts.positive)).mean(),
        "diversity_text": orthogonality_penalty(unit_concepts(concepts.text)).mean(),
    }


def contrast(nll: Nll, config: LossConfig) -> dict[str, Tensor]:
    """The best proposal must tell the query better than its negatives, by a margin (L_pcl), weighted."""
    smallest, best = best_pass(nll.positive)
    terms = {
        "contrast_left": F.relu(smallest - picked(nll.left, best) + config.margin_2).mean(),
        "contrast_right": F.relu(smallest - picked(nll.right, best) + config.margin_2).mean(),
    }
    if config.reference_contrast:
        assert nll.reference is not None
        terms["contrast_reference"] = F.relu(smallest - nll.reference + config.margin_1).mean()
    return {name: config.alpha_1 * term for name, term in terms.items()}


def total(concepts: Passes, nll: Nll, config: LossConfig) -> dict[str, Tensor]:
    """All weighted terms by name (scalars, batch means) and their sum ``total``."""
    terms = (
        reconstruction(nll, config)
        | alignment(concepts, best_pass(nll.positive)[1], config)
        | diversity(concepts)
        | contrast(nll, config)
    )
    return {**terms, "total": torch.stack(list(terms.values())).sum()}
