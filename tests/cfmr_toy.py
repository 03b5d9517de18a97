"""A small CFMR."""

import torch

from cfmr.config import LossConfig, ModelConfig
from cfmr.method import CFMRMethod
from cfmr.model import CFMR
from factories import CLASS_VECTORS, VOCABULARY, shake
from vmr_train.preprocessing import Preprocessor

SMALL = ModelConfig(hidden=16, heads=2, encoder_layers=2, reconstructor_layers=1, concepts=3)


def make_method(
    sizes: ModelConfig = SMALL,
    *,
    seed: int = 0,
    learned_summary: bool = True,
    loss: LossConfig | None = None,
    chunk: int = 0,
) -> CFMRMethod:
    """A method with weights far from zero, in evaluation mode."""
    torch.manual_seed(seed)
    model = CFMR(
        sizes, clip_dim=5, word_dim=6, classes=31, learned_summary=learned_summary, passes_per_chunk=chunk
    )
    shake(model, 0.3)
    return CFMRMethod(model.eval(), loss or LossConfig(), Preprocessor(VOCABULARY, CLASS_VECTORS))
