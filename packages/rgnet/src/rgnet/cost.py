"""FLOPs by formula of the released program, which runs every pair in full; tests count what really runs here."""

from __future__ import annotations

from rgnet.config import ModelConfig


def released_flops(config: ModelConfig, *, frames: int, tokens: int, frame_dim: int, token_dim: int) -> float:
    """FLOPs (two per multiplication and addition) of one window with one text in the released forward pass.

    Projections, all layers at all places, the decoder with every frame projected, and the heads; norms, softmax and
    the like are left out.

    Args:
        config: Sizes.
        frames: Frames per window V.
        tokens: Tokens per text T.
        frame_dim: Width of a frame feature.
        token_dim: Width of a token.

    Example:
        >>> ego4d = released_flops(ModelConfig(), frames=90, tokens=20, frame_dim=256, token_dim=512)
        >>> film = released_flops(ModelConfig(), frames=900, tokens=25, frame_dim=512, token_dim=512)
        >>> round(ego4d / 1e9, 2), round(film / 1e9, 2)
        (1.33, 13.48)
    """
    d, inner, queries, places = config.hidden, config.inner, config.queries, frames + 1
    projections = frames * (frame_dim + d) * d + tokens * (token_dim + d) * d
    cross = 2 * frames * d * d + 2 * tokens * d * d + 2 * frames * tokens * d + 2 * frames * d * inner
    own = 4 * places * d * d + 2 * places * places * d + 2 * places * d * inner
    of_frames = 3 * frames * d * d + 3 * queries * frames * d
    of_queries = queries * ((6 + 4 + 7) * d * d + 2 * d * inner)
    heads = frames * d * d + d * d + config.decoder_layers * queries * 2 * d * d
    layers = config.cross_layers * cross + config.self_layers * own
    return 2.0 * (projections + layers + config.decoder_layers * (of_frames + of_queries) + heads)
