"""What is promised of the authors' weights for every model: names, prefixes, and shapes that cannot be right."""

import importlib
import re

import pytest
import torch

from folders import MODELS
from recorded import released_weights
from vmr_common.errors import UserError

ODD = (None, torch.zeros(()), torch.zeros(0))


@pytest.fixture(params=MODELS)
def package(request):
    return request.param


@pytest.fixture
def from_official(package):
    return importlib.import_module(f"{package}.official").from_official


@pytest.fixture
def released(package):
    return released_weights(package)


def test_names_that_no_released_checkpoint_has_are_named(package, from_official, released):
    for name in ("backbone.conv", *(f"{name}x" for name in released)):
        with pytest.raises(UserError) as refused:
            from_official({**released, name: torch.zeros(1)})
        message = f"'{name}' is not a tensor of a released {package} checkpoint"
        assert str(refused.value).lower() == message.lower()


def test_weights_of_parallel_training_are_the_same(from_official, released):
    plain = from_official(released)
    parallel = from_official({f"module.{name}": tensor for name, tensor in released.items()})
    assert parallel.keys() == plain.keys()
    assert all(torch.equal(parallel[name], tensor) for name, tensor in plain.items())


def test_tensors_that_are_missing_or_of_another_shape_are_passed_on_or_refused_in_one_line(
    from_official, released
):
    messages = []
    # layers alike are tried once
    for name in {re.sub(r"\d+", "", name): name for name in released}.values():
        for tensor in ODD:
            weights = {**released, name: tensor}
            try:
                from_official({key: value for key, value in weights.items() if value is not None})
            except UserError as error:
                messages.append(str(error))
    assert all("\n" not in message for message in messages)
