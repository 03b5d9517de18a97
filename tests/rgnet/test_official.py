"""Released checkpoints: their names, and the option namespace that lies beside their weights."""

import argparse

import pytest
import torch

from factories import Trap
from golden import released_weights
from rgnet.official import from_official
from vmr_common.errors import UserError
from vmr_train.released_weights import read_weights


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


def test_a_file_that_would_run_code_is_refused(tmp_path, released):
    path = tmp_path / "model.ckpt"
    torch.save({"model": released, "opt": argparse.Namespace(lr=Trap(tmp_path / "sprung"))}, path)
    with pytest.raises(
        UserError, match=r"not weights that can be read safely \(it holds .*, which is never loaded\)"
    ):
        read_weights(path)
    assert not (tmp_path / "sprung").exists()


def test_only_the_last_layers_refinement_is_left_out_of_the_decoder(released):
    layers = {name.split(".")[2] for name in from_official(released) if name.startswith("decoder.refine.")}
    given = {name.split(".")[3] for name in released if name.startswith("transformer.decoder.bbox_embed.")}
    assert len(layers) == len(given) - 1


def test_weights_without_a_decoder_are_refused():
    with pytest.raises(UserError, match="bbox_embed"):
        from_official({"global_rep_token": torch.zeros(4)})
