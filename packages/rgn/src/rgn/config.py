"""The schema of an RGN configuration; every field says its meaning and unit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from vmr_common.errors import UserError


def _require(condition: bool, key: str, value: object, expected: str) -> None:
    if not condition:
        raise UserError(f"{key}: found {value}, expected {expected}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes of the network."""

    hidden: int = 256
    """Model width D, a multiple of `heads`."""
    heads: int = 4
    """Attention heads."""
    video_layers: int = 3
    """Layers of each video decoder."""
    text_layers: int = 3
    """Layers of each text decoder."""
    candidates: int = 8
    """Candidate moments K per query."""
    sigma: float = 9.0
    """Sharpness of the Gaussians: standard deviation = width / sigma."""
    gamma: float = 0.5
    """How the negatives move in over the epochs: 0.5 * (epoch / epochs) ** gamma; 0 = fixed."""
    dropout: float = 0.1
    """Dropout on the raw inputs and after every sub-block."""

    def __post_init__(self) -> None:
        _require(self.hidden > 0 and self.hidden % self.heads == 0, "model.hidden", self.hidden, f"a multiple of model.heads ({self.heads})")
        _require(self.candidates >= 1, "model.candidates", self.candidates, "at least 1")
        _require(self.sigma > 0, "model.sigma", self.sigma, "a positive number")
        _require(0 <= self.dropout < 1, "model.dropout", self.dropout, "a probability below 1")


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """Weights and margins of the objective (symbols of the paper)."""

    theta: float = 0.5
    """Share of the complete video in the semantic reference, 0 to 1."""
    beta_1: float = 0.5
    """Weight of the semantic reference (re-glance and complete video)."""
    beta_2: float = 0.5
    """Weight of the best candidate's reconstruction."""
    delta_1: float = 1.0
    """Weight of the distance between candidate centres and the glance."""
    delta_2: float = 1.0
    """Weight of the squared difference between candidate and re-glance windows."""
    margin_1: float = 0.05
    """Margin of the best candidate over the re-glance."""
    margin_2: float = 0.1
    """Margin of the best candidate over the complete video."""
    margin_3: float = 0.15
    """Margin of the best candidate over its negatives."""
    alpha_1: float = 1.0
    """Weight of the hinges."""
    alpha_2: float = 5.0
    """Weight of the diversity term."""
    lambda_: float = 0.146
    """Preferred squared norm of a scaled window: width about sigma / (2 sqrt(pi) (P - 1) lambda)."""
