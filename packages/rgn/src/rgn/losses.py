"""RGN's objective: semantic, localization and intra-video terms.

C* is the candidate that reconstructs its query best, R the re-glance, F the complete video, N1 and N2 the left and
right negatives of C*; ``<.>`` is the mean over the batch and ``[x]+`` is ``max(x, 0)``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from rgn.config import LossConfig
from rgn.model import Compared, Proposals


def total(proposals: Proposals, nll: Compared, glance: Tensor, config: LossConfig) -> dict[str, Tensor]:
    """The three weighted terms (scalars, batch means) and their sum ``total``; for the log, the parts of
    ``intra_video`` without weights.
    """
    hinges, spread = triple_hinge(nll, config), diversity(proposals, config)
    terms = {
        "semantic": semantic(nll, config),
        "localization": localization(proposals, glance, nll.reglance_window, config),
        "intra_video": config.alpha_1 * torch.stack(list(hinges.values())).sum() + config.alpha_2 * spread,
    }
    return {**terms, **hinges, "diversity": spread, "total": torch.stack(list(terms.values())).sum()}


def semantic(nll: Compared, config: LossConfig) -> Tensor:
    """``beta_1 ((1 - theta) <R> + theta <F>) + beta_2 <C*>``, scalar."""
    reference = (1 - config.theta) * nll.reglance.mean() + config.theta * nll.complete.mean()
    return config.beta_1 * reference + config.beta_2 * nll.best.mean()


def localization(proposals: Proposals, glance: Tensor, reglance_window: Tensor, config: LossConfig) -> Tensor:
    """Candidates gather at the glance ``(B,)`` and take the shape of the re-glance ``(B, P)``, a fixed target."""
    distance = (proposals.centre - glance[:, None]).abs().mean()
    shape = ((proposals.window - reglance_window.detach()[:, None]) ** 2).mean()
    return config.delta_1 * distance + config.delta_2 * shape


def triple_hinge(nll: Compared, config: LossConfig) -> dict[str, Tensor]:
    """``<[C* - reference + margin]+>`` per reference: re-glance, complete video and both negatives, unweighted."""
    return {
        "hinge_reglance": F.relu(nll.best - nll.reglance + config.margin_1).mean(),
        "hinge_complete": F.relu(nll.best - nll.complete + config.margin_2).mean(),
        "hinge_left": F.relu(nll.best - nll.left + config.margin_3).mean(),
        "hinge_right": F.relu(nll.best - nll.right + config.margin_3).mean(),
    }


def diversity(proposals: Proposals, config: LossConfig) -> Tensor:
    """``<||lambda I - G G^T||_F^2>``, scalar, G being the windows ``(B, K, P)`` scaled to sum 1.

    Windows should not overlap, and lambda is the squared norm that one should have: the larger, the narrower.
    """
    scaled = proposals.window / proposals.window.sum(-1, keepdim=True)
    wanted = config.lambda_ * torch.eye(scaled.shape[-2], device=scaled.device)
    return ((wanted - scaled @ scaled.transpose(-2, -1)) ** 2).sum((-2, -1)).mean()
