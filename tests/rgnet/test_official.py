"""Released checkpoints: their names, and the option namespace that lies beside their weights."""

import argparse

import pytest
import torch

from recorded import released_weights
from rgnet.official import from_official
from vmr_common.errors import UserError
from vmr_common.training.official import read_weights


@pytest.fixture(scope="module")
def released() -> dict[str, torch.Tensor]:
    return released_weights("rgnet")


def test_weights_are_read_from_a_file_with_optimiser_and_options(tmp_path, released):
    path = tmp_path / "model_best.ckpt"
    options = argparse.Namespace(lr=1e-4, dset_name="ego4d", device=torch.device("cpu"), lr_drop=[120, 170])
    torch.save({"model": released, "optimizer": {"state": {}}, "epoch": 99, "opt": options}, path)
    found = read_weights(path)
    assert found.keys() == released.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in released.items())


class Surprise:
    def __reduce__(self):
        return (print, ("this code ran while a file was read",))


def test_a_file_that_would_run_code_is_refused(tmp_path, released, capsys):
    path = tmp_path / "model.ckpt"
    torch.save({"model": released, "opt": argparse.Namespace(lr=Surprise())}, path)
    with pytest.raises(UserError, match="not weights that can be read safely"):
        read_weights(path)
    assert "this code ran" not in capsys.readouterr().out


def test_weights_of_parallel_training_have_the_same_names(released):
    parallel = {f"module.{name}": tensor for name, tensor in released.items()}
    assert from_official(parallel).keys() == from_official(released).keys()


def test_only_the_last_layers_refinement_is_left_out_of_the_decoder(released):
    layers = {name.split(".")[2] for name in from_official(released) if name.startswith("decoder.refine.")}
    given = {name.split(".")[3] for name in released if name.startswith("transformer.decoder.bbox_embed.")}
    assert len(layers) == len(given) - 1


def test_an_unknown_name_is_named(released):
    with pytest.raises(UserError, match=r"'backbone.conv' is not a tensor of a released RGNet checkpoint"):
        from_official({**released, "backbone.conv": torch.zeros(1)})
    with pytest.raises(UserError, match="bbox_embed"):
        from_official({"global_rep_token": torch.zeros(4)})
