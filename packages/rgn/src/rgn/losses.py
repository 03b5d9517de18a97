"""RGN's objective (paper section 3.4): semantic, localization and triple hinge with diversity."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rgn.config import LossConfig
from rgn.model import Proposals
from vmr_train.layers.gaussian import diversity_penalty
from vmr_train.layers.reconstruction import best_pass, picked


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
