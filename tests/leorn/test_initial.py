"""The first stage's weights in the second stage's model."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from golden import released_sizes, released_weights
from leorn.config import InitConfig, ModelConfig
from leorn.initial import load_pretrained
from leorn.model import LEORN
from vmr_common.errors import UserError

GIVEN = released_sizes("leorn")
SIZES = ModelConfig(
    hidden=GIVEN["hidden"],
    text_layers=GIVEN["gru_layers"],
    blocks=GIVEN["corm_layers"],
    feed_forward=GIVEN["ff_dim"],
    clips=8,
    scales=[8],
    layers=1,
    kernel=3,
)


def second_stage(sizes: ModelConfig = SIZES) -> LEORN:
    torch.manual_seed(0)
    return LEORN(sizes, object_dim=GIVEN["object_dim"], word_dim=GIVEN["word_dim"], clip_dim=3)


@pytest.fixture(params=["", "module."])
def released(request, tmp_path) -> Path:
    path = tmp_path / "released.pt"
    weights = {request.param + name: value for name, value in released_weights("leorn").items()}
    torch.save({"model": weights}, path)
    return path


def changed(model: LEORN) -> set[str]:
    """The parts that differ from an untouched second stage."""
    fresh = second_stage().state_dict()
    return {n.split(".")[0] for n, value in model.state_dict().items() if not torch.equal(value, fresh[n])}


def test_the_authors_weights_give_the_objects_alone(released):
    model = second_stage()
    load_pretrained(model, InitConfig(objects=str(released)))
    assert changed(model) == {"objects"}
    wanted = released_weights("leorn")["object_interaction_layer.rcnn_linear.weight"]
    np.testing.assert_array_equal(model.objects.projection.weight.detach(), wanted)


def test_the_text_encoder_comes_along_on_request(released):
    model = second_stage()
    load_pretrained(model, InitConfig(objects=str(released), text=True))
    assert changed(model) == {"objects", "text"}


def test_without_a_file_nothing_changes():
    model = second_stage()
    load_pretrained(model, InitConfig())
    assert changed(model) == set()
    with pytest.raises(UserError, match=r"init\.text"):
        InitConfig(text=True)


def test_a_stage_of_other_sizes_is_refused(released):
    with pytest.raises(UserError, match="do not fit this model"):
        load_pretrained(second_stage(dataclasses.replace(SIZES, blocks=2)), InitConfig(objects=str(released)))


def test_a_file_without_objects_is_refused(tmp_path):
    path = tmp_path / "head.pt"
    torch.save({"pred_layer.bias": torch.zeros(1)}, path)
    with pytest.raises(UserError, match="holds no weights of objects"):
        load_pretrained(second_stage(), InitConfig(objects=str(path)))
