"""What a pass of LEORN costs, counted while it runs, against the bars of the specification."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from factories import flops
from leorn.config import Config
from leorn.data import Objects, QueryWords, Videos
from leorn.model import LEORN
from leorn.text import QueryEncoder, QueryFeatures
from vmr_train.cli.config import bundled_config, bundled_configs

pytestmark = pytest.mark.parity

WORDS, WORD_DIM = 10, 300


def config_of(name: str) -> Config:
    return bundled_config("leorn", Config, name)


def model_of(config: Config) -> LEORN:
    # tensors without memory: the products are counted, not computed
    with torch.device("meta"):
        return LEORN(
            config.model,
            object_dim=config.data.objects.dim,
            word_dim=WORD_DIM,
            clip_dim=None if config.data.features is None else config.data.features.dim,
        ).to("meta")


def videos_of(config: Config, count: int = 1) -> Videos:
    shape = (count, config.data.frames, config.data.objects.objects)
    with torch.device("meta"):
        objects = Objects(
            torch.empty(*shape, config.data.objects.dim),
            torch.empty(shape, dtype=torch.bool),
            torch.empty(*shape, 4),
        )
        clips = config.data.features and torch.empty(count, config.data.frames, config.data.features.dim)
    return Videos(objects, clips)


class NoQuery(torch.nn.Module):
    """In place of the text encoder, whose packing needs real numbers; it is counted by itself."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden

    def forward(self, words: QueryWords) -> QueryFeatures:
        return QueryFeatures(*torch.empty(2, len(words.lengths), self.hidden, device="meta"))


def macs(function, *, training: bool = False) -> float:
    with torch.set_grad_enabled(training):
        return flops(function) / 2e9


def text_macs(config: Config) -> float:
    encoder = QueryEncoder(WORD_DIM, config.model.hidden, config.model.text_layers)
    return macs(lambda: encoder(QueryWords(torch.zeros(1, WORDS, WORD_DIM), torch.tensor([WORDS]))))


def pass_macs(config: Config, *, training: bool) -> tuple[float, float]:
    """Of the part that no query changes, and of the rest without the text encoder, one query and its video."""
    model = model_of(config).train(training)
    model.text = NoQuery(config.model.hidden)
    words = QueryWords(torch.empty(1, WORDS, WORD_DIM), torch.tensor([WORDS]))
    videos = videos_of(config)
    seen = macs(lambda: model.encode_video(videos), training=training)
    return seen, macs(
        lambda: model.fuse_and_predict(model.encode_video(videos), model.encode_text(words)),
        training=training,
    ) - seen


@pytest.mark.parametrize(
    ("name", "authors", "share"),
    [
        ("tacos", 956.3, 0.49),
        ("tacos-fusion", 956.9, 0.49),
        ("charades", 396.8, 0.49),
        ("charades-fusion", 397.0, 0.49),
    ],
)
def test_a_forward_pass_in_evaluation_stays_under_the_bar(name, authors, share):
    config = config_of(name)
    seen, asked = pass_macs(config, training=False)
    assert 0.8 * share < (seen + asked + text_macs(config)) / authors <= share
    # a further query about the same video does not pay for the video again
    assert seen > 7


@pytest.mark.parametrize(("name", "authors"), [("tacos", 956.3), ("charades", 396.8)])
def test_a_training_forward_pass_costs_less_than_the_authors(name, authors):
    config = config_of(name)
    assert sum(pass_macs(config, training=True)) + text_macs(config) < 0.63 * authors


class Widths(TorchDispatchMode):
    """Notes how wide the tensors are that are made by copying others."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[int] = set()

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        made = function(*arguments, **(options or {}))
        if function.overloadpacket in (torch.ops.aten.cat, torch.ops.aten.clone) and made.ndim == 4:
            self.found.add(made.shape[-1])
        return made


def test_nothing_is_copied_side_by_side_for_a_linear_layer():
    config = config_of("charades-fusion")
    model = model_of(config)
    model.text = NoQuery(config.model.hidden)
    words = QueryWords(torch.empty(1, WORDS, WORD_DIM), torch.tensor([WORDS]))
    with torch.no_grad(), Widths() as widths:
        model.fuse_and_predict(model.encode_video(videos_of(config)), model.encode_text(words))
    # slots of the model's width, where the sentinel is put in front of the objects or attention puts heads together
    assert max(widths.found) == config.model.hidden


@pytest.mark.parametrize(
    ("name", "entries", "trained", "millions"),
    [
        ("charades", 190, 141, 112.07),
        ("charades-fusion", 197, 145, 112.85),
        ("tacos", 218, 157, 79.57),
        ("tacos-fusion", 225, 161, 81.93),
    ],
)
def test_the_shipped_configurations_have_the_published_number_of_parameters(name, entries, trained, millions):
    model = model_of(config_of(name))
    parameters = list(model.parameters())
    assert len(model.state_dict()) == entries - 1  # the released one holds a constant
    assert len(parameters) == trained
    assert round(sum(parameter.numel() for parameter in parameters) / 1e6, 2) == millions


def test_the_configurations_with_clip_features_are_those_called_fusion():
    for name in bundled_configs("leorn"):
        assert (config_of(name).data.features is not None) == name.endswith("-fusion"), name
