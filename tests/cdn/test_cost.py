"""What a pass of CDN costs, counted while it runs, against the bars of the specification."""

import pytest
import torch

from cdn.config import Config
from cdn.data import QueryWords
from cdn.model import CDN
from factories import flops
from vmr_train.cli.config import bundled_config

pytestmark = pytest.mark.parity

WORDS, WORD_DIM = 10, 300


def config_of(name: str) -> Config:
    return bundled_config("cdn", Config, name)


def model_of(name: str) -> CDN:
    config = config_of(name)
    # tensors without memory: the products are counted, not computed
    with torch.device("meta"):
        return CDN(config.model, frame_dim=config.data.features.dim, word_dim=WORD_DIM).to("meta")


def giga_flops(name: str, *, training: bool) -> float:
    """Of one query and its video."""
    config, model = config_of(name), model_of(name).train(training)
    with torch.device("meta"):
        frames = torch.empty(1, config.data.frames, config.data.features.dim)
        words = QueryWords(torch.empty(1, WORDS, WORD_DIM), torch.full((1,), WORDS))
        video_of = torch.zeros(1, dtype=torch.int64)
    with torch.set_grad_enabled(training):
        return flops(lambda: model(frames, video_of, words)) / 1e9


@pytest.mark.parametrize(
    ("name", "training", "most"),
    [
        ("tacos", False, 760),
        ("tacos", True, 940),
        ("tacos-conv", False, 760),
        ("tacos-conv", True, 940),
        ("charades", False, 20.4),
        ("charades", True, 22.8),
        ("charades-conv", True, 22.8),
    ],
)
def test_a_forward_pass_stays_under_the_bar(name, training, most):
    assert 0.85 * most < giga_flops(name, training=training) <= most


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("charades", 248_930_594),
        ("charades-conv", 257_065_250),
        ("tacos", 247_880_994),
        ("tacos-conv", 269_397_282),
    ],
)
def test_the_shipped_configurations_have_the_published_number_of_parameters(name, parameters):
    assert sum(parameter.numel() for parameter in model_of(name).parameters()) == parameters
