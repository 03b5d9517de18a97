"""What is promised of the authors' weights for every model: names, prefixes, and shapes that cannot be right."""

import importlib
import io
import re
import zipfile

import numpy as np
import pytest
import torch

from folders import MODELS
from golden import released_weights
from vmr_common.errors import UserError
from vmr_train.released_weights import read_weights

pytestmark = pytest.mark.e2e

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


def declared_larger(path):
    """Zeros, of which a zip archive needs almost nothing."""
    torch.save({"a": torch.zeros(300 << 18)}, path)
    with zipfile.ZipFile(path) as plain:
        members = {name: plain.read(name) for name in plain.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)


def same_member_often(path):
    content = io.BytesIO()
    np.save(content, np.zeros(100 << 18, np.float32))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in "abc":
            archive.writestr(f"{name}.npy", content.getvalue())


@pytest.mark.filterwarnings("ignore:Validating sparse tensor")
@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("w.pt", declared_larger, r"w\.pt declares [\d,]+ bytes"),
        ("w.npz", same_member_often, r"w\.npz declares [\d,]+ bytes"),
        (
            "w.pt",
            lambda path: torch.save({"a": torch.zeros(1).expand(1 << 20, 1 << 20)}, path),
            "'a' declares",
        ),
        ("w.pt", lambda path: torch.save({"a": torch.eye(3).to_sparse()}, path), "'a' is not a plain array"),
        (
            "w.pt",
            lambda path: torch.save({"a": torch.zeros(3, device="meta")}, path),
            "'a' is not a plain array",
        ),
        (
            "w.pt",
            lambda path: torch.save({"a": torch.ones(1), "module.a": torch.zeros(1)}, path),
            "holds 'a' twice",
        ),
        ("w.pt", lambda path: torch.save({1: torch.ones(1)}, path), "holds no tensors by name"),
        (
            "w.pt",
            lambda path: path.write_bytes(b"PK\x03\x04" + bytes(99)),
            "not weights that can be read safely",
        ),
        ("w.npz", lambda path: np.savez(path, a=np.array(["x"])), "not weights that can be read safely"),
    ],
)
def test_weights_that_declare_more_than_they_hold_or_are_none_are_one_line(tmp_path, name, write, message):
    path = tmp_path / name
    write(path)
    with pytest.raises(UserError, match=message) as refused:
        read_weights(path)
    assert "\n" not in str(refused.value)
