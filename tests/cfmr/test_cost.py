"""What a pass costs, counted while it runs, against the bars that the published figures set."""

import numpy as np
import pytest
import torch

from cfmr import losses
from cfmr.config import Config, ModelConfig
from cfmr.model import CFMR, Clips, Words
from factories import flops
from vmr_train.cli.config import bundled_config

pytestmark = pytest.mark.parity

WORDS_PER_QUERY = {"charades": 7.22, "tacos": 9.12}  # means of the test splits
CLASSES = {"charades": 1112, "tacos": 2288}


def config_of(name: str) -> Config:
    return bundled_config("cfmr", Config, name)


def model_of(config: Config, classes: int) -> CFMR:
    return CFMR(
        config.model,
        clip_dim=config.data.features.dim,
        word_dim=300,
        classes=classes,
        learned_summary=config.quirks == "fixed",
    )


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


def macs(function) -> float:
    return flops(function) / 2


def clips_of(config: Config, videos: int) -> Clips:
    shape = (videos, config.data.clips // 4)
    return Clips(torch.zeros(*shape, config.data.features.dim), torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize(("name", "published"), [("charades", 0.16), ("tacos", 0.19)])
def test_the_text_branch_costs_what_was_published(name, published):
    config = config_of(name)
    found = paper_text_macs(config.model, 300, WORDS_PER_QUERY[name])
    assert round(found / 1e8, 2) == published
    words = round(WORDS_PER_QUERY[name])
    query = Words(torch.zeros(1, words + 2, 300), torch.tensor([words]))
    model = model_of(config, 10).eval()
    with torch.no_grad():
        ours = macs(lambda: model.encode_text(query))
    assert ours < paper_text_macs(config.model, 300, words)


def test_the_published_number_of_parameters_is_that_of_the_text_branch():
    assert paper_text_parameters(ModelConfig(concepts=7), 300) == 2_976_344
    assert paper_text_parameters(ModelConfig(concepts=8), 300) == 3_042_136
    assert round(paper_text_parameters(ModelConfig(concepts=3), 300) / 1e6, 2) == 2.71


@pytest.mark.parametrize(("name", "bar"), [("charades", 1.35e9), ("tacos", 6.8e9)])
def test_encoding_a_video_stays_under_the_bar(name, bar):
    config = config_of(name)
    model = model_of(config, 10).eval()
    with torch.no_grad():
        found = macs(lambda: model.encode_video(clips_of(config, 1)))
    assert 0.5 * bar < found <= bar


def training_macs() -> float:
    """Of the passes forward and backward per query, at the size of Charades, queries as long as its own."""
    config = config_of("charades")
    batch, rng = 32, np.random.default_rng(0)
    lengths = torch.from_numpy(np.clip(rng.poisson(WORDS_PER_QUERY["charades"], size=batch), 3, 15))
    places = int(lengths.max()) + 1
    with torch.device("meta"):  # tensors without memory: the products are counted, not computed
        model = model_of(config, CLASSES["charades"])
        words = Words(torch.empty(batch, places + 2, 300), torch.empty(batch, dtype=torch.int64))
        targets = torch.empty(batch, places, dtype=torch.int64)
        given = {
            "video_of": torch.empty(batch, dtype=torch.int64),
            "glance": torch.empty(batch),
            "masked": torch.empty(batch, places + 2, dtype=torch.bool),
            "progress": torch.empty(()),
            "reference": config.loss.reference_contrast or config.loss.reference_alignment,
        }
        clips = clips_of(config, batch)

    def run() -> None:
        output = model(clips, words, targets, **given)
        losses.total(output.concepts, output.proposals, output.nll, config.loss)["total"].backward()

    return macs(run) / batch


def test_a_training_step_costs_a_third_of_the_authors():
    assert 0.31 < training_macs() / (3 * 1.47e9) <= 0.345
