"""Multiply-accumulates by formula, as the paper counts them; benchmarks and tests count what really runs."""

from __future__ import annotations

from cfmr.config import ModelConfig


def paper_text_macs(config: ModelConfig, word_dim: int, words: float) -> float:
    """What the paper's table calls the FLOPs of a query: its text branch, without padding.

    Word projection, all encoder layers at all n + 2 positions and the neck; attention as full matrices. The
    products with the videos' vectors and everything on the video's side are left out.

    Args:
        config: Sizes.
        word_dim: Word vector size.
        words: Words n of the query, or their mean.

    Example:
        >>> round(paper_text_macs(ModelConfig(), 300, 7.22) / 1e8, 2)
        0.16
    """
    d, positions = config.hidden, words + 2
    layer = 8 * positions * d**2 + 2 * positions**2 * d
    return positions * word_dim * d + config.encoder_layers * layer + d**2 + config.concepts * d**2


def paper_text_parameters(config: ModelConfig, word_dim: int) -> int:
    """What the paper's table calls the parameters: the text branch, its unused cross-attention included.

    Example:
        >>> paper_text_parameters(ModelConfig(), 300)
        2976344
    """
    d = config.hidden
    attention = 4 * d**2 + 4 * d
    layer = 2 * attention + 4 * d**2 + 3 * d + 3 * 2 * d
    neck = d**2 + d + (d + 1) * config.concepts * d
    return (word_dim + 1) * d + config.encoder_layers * layer + neck + 2 * word_dim
