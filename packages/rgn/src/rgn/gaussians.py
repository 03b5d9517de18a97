"""Gaussian windows over normalised time: proposals, their negatives, the re-glance (paper section 3.2, after CPL)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MIN_SPREAD = 0.01
"""Widths (and negative centres) below this fraction of the video count as this much."""

ATTENTION_FLOOR = 1e-10
"""Added to a Gaussian weight before it multiplies attention: nothing is ever hidden completely."""


def unit_grid(points: int, device: torch.device | None = None) -> Tensor:
    """``points`` equidistant times from 0 to 1, ``(points,)`` float32."""
    return torch.linspace(0, 1, points, device=device)


def gaussian_window(grid: Tensor, centre: Tensor, std: Tensor) -> Tensor:
    """Gaussians ``(..., P)`` of centre and standard deviation ``(...)`` on a grid ``(P,)``, their maximum there 1."""
    exponent = -((grid - centre[..., None]) ** 2) / (2 * std[..., None] ** 2)
    # the largest exponent is subtracted first: a narrow Gaussian off the grid would divide 0 by 0
    return torch.exp(exponent - exponent.amax(-1, keepdim=True))


def positive_window(grid: Tensor, centre: Tensor, width: Tensor, sigma: float) -> Tensor:
    """Window of a moment: standard deviation ``max(width, 0.01) / sigma``; shapes as in `gaussian_window`."""
    return gaussian_window(grid, centre, width.clamp_min(MIN_SPREAD) / sigma)


def negative_windows(
    grid: Tensor, centre: Tensor, width: Tensor, sigma: float, progress: Tensor
) -> tuple[Tensor, Tensor]:
    """Left and right negative windows ``(..., P)``, annealed from the video's borders towards the moment.

    `progress`, a scalar, says how far they have come: 0 at the border, 0.5 in the middle between border and moment. The
    standard deviation is ``max(distance from the border, 0.01) / (sigma / 2)``.
    """
    left = progress * (centre - width / 2).clamp_min(0)
    right = 1 - progress * (1 - centre - width / 2).clamp_min(0)
    return (
        gaussian_window(grid, left, left.clamp_min(MIN_SPREAD) / (sigma / 2)),
        gaussian_window(grid, right, (1 - right).clamp_min(MIN_SPREAD) / (sigma / 2)),
    )


def negative_progress(epoch: int, epochs: int, gamma: float) -> float:
    """``0.5 * min(epoch / epochs, 1) ** gamma`` with `epoch` counted from 1; gamma 0 keeps it at 0.5."""
    return 0.5 * float(min(epoch / epochs, 1.0) ** gamma)


def attention_log_weight(window: Tensor) -> Tensor:
    """The logit bias that multiplies attention by ``window + 1e-10`` and renormalises, ``(..., P)``."""
    return torch.log(window + ATTENTION_FLOOR)


def preferred_norm(width: float, sigma: float, points: int) -> float:
    """Squared norm of a window of that width (share of the video) scaled to sum 1 on a grid of `points`.

    ``sigma / (2 sqrt(pi) (P - 1) width)``, the integral of a squared Gaussian: the lambda of the diversity term.
    """
    return sigma / (2 * math.sqrt(math.pi) * (points - 1) * width)
