"""Binds RGN's model, data and losses to the training loop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rgn.model import Proposals
from vmr_common.timeline import centre_width_to_moments


@dataclass(frozen=True)
class Ranked:
    """Candidates by ascending NLL: `order` ``(B, K)`` int64, `moments` ``(B, K, 2)`` normalised, `nll` ``(B, K)``."""

    order: Tensor
    moments: NDArray[np.float64]
    nll: NDArray[np.float64]


def rank(proposals: Proposals, nll: Tensor) -> Ranked:
    """Ranks candidates by how well they reconstruct the query, lowest NLL ``(B, K)`` first (ties by index)."""
    order = nll.argsort(dim=1, stable=True)
    moments = centre_width_to_moments(
        proposals.centre.gather(1, order).double().cpu().numpy(),
        proposals.width.gather(1, order).double().cpu().numpy(),
    )
    return Ranked(order, moments, nll.gather(1, order).double().cpu().numpy())
