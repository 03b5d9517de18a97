"""Small models and videos of RGNet."""

import numpy as np
import torch

from factories import shake
from rgnet.config import ModelConfig
from rgnet.model import RGNet
from rgnet.search.search import LongVideoSearch, TextVectors

SMALL = ModelConfig(
    hidden=16, heads=2, inner=32, cross_layers=2, self_layers=2, decoder_layers=3, queries=4, input_dropout=0.0,
    dropout=0.0,
)  # fmt: skip
FRAME_DIM, TOKEN_DIM, WINDOW, SECONDS = 6, 5, 10, 0.5


def network(config: ModelConfig = SMALL, *, released: bool = False, seed: int = 0) -> RGNet:
    """A model with weights far from zero, in evaluation mode."""
    torch.manual_seed(seed)
    model = RGNet(
        config, frame_dim=FRAME_DIM, token_dim=TOKEN_DIM, sentence_dim=FRAME_DIM, released_mask=released
    )
    shake(model, 0.2)
    return model.eval()


def video(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng([seed, rows]).normal(size=(rows, FRAME_DIM)).astype(np.float32)
    )


def text(words: int, seed: int = 0, *, sentence: bool = True) -> TextVectors:
    rng = np.random.default_rng([seed, words, 7])
    tokens = torch.from_numpy(rng.normal(size=(words, TOKEN_DIM)).astype(np.float32))
    whole = torch.from_numpy(rng.normal(size=FRAME_DIM).astype(np.float32))
    return TextVectors(tokens / tokens.norm(dim=1, keepdim=True), whole / whole.norm() if sentence else None)


def searcher(model: RGNet, config) -> LongVideoSearch:
    return LongVideoSearch(model, config, window=WINDOW, feature_stride=SECONDS)
