"""Checkpoint files: whole or absent, never a pickle, and clear about what is wrong with them."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vmr_common.errors import UserError
from vmr_common.training import find_checkpoint, load_checkpoint, load_weights, save_checkpoint

META = {
    "package": "toy", "role": "last", "update": 3, "epoch": 1, "batch": 3,
    "state": {"words": ["ä", "b"]}, "describe": {"package": "toy"},
}  # fmt: skip


def write(path: Path, **changes) -> Path:
    parts = {"model": {"a.w": torch.arange(6.0).reshape(2, 3)}, "state": {"vectors": torch.ones(2, 2)}}
    save_checkpoint(path, parts, {**META, **changes})
    return path


def test_what_is_saved_comes_back(tmp_path):
    found = load_checkpoint(write(tmp_path / "last.safetensors"), package="toy")
    assert found.meta == {"format": 1, **META}
    assert found.state == {"words": ["ä", "b"]}
    assert torch.equal(found.weights["a.w"], torch.arange(6.0).reshape(2, 3))
    assert torch.equal(found.state_tensors["vectors"], torch.ones(2, 2))


def test_tied_and_transposed_weights_can_be_saved(tmp_path):
    weight = torch.arange(6.0).reshape(2, 3)
    save_checkpoint(tmp_path / "c.safetensors", {"model": {"a": weight, "b": weight, "c": weight.T}}, META)
    found = load_checkpoint(tmp_path / "c.safetensors").weights
    assert torch.equal(found["a"], found["b"])
    assert torch.equal(found["c"], weight.T)


def test_averaged_weights_are_the_ones_to_evaluate(tmp_path):
    parts = {"model": {"w": torch.zeros(1)}, "ema": {"w": torch.ones(1)}}
    save_checkpoint(tmp_path / "c.safetensors", parts, META)
    assert load_checkpoint(tmp_path / "c.safetensors").weights["w"].item() == 1


def test_a_run_folder_stands_for_its_best_else_its_last_checkpoint(tmp_path):
    last = write(tmp_path / "run/checkpoints/last.safetensors")
    assert find_checkpoint(tmp_path / "run") == last
    best = write(tmp_path / "run/checkpoints/best.safetensors", role="best")
    assert find_checkpoint(tmp_path / "run") == find_checkpoint(tmp_path / "run/checkpoints") == best
    assert find_checkpoint(tmp_path / "run", "last") == last


def truncated(path):
    write(path)
    os.truncate(path, path.stat().st_size - 5)


def cut_header(path):
    write(path)
    os.truncate(path, 40)


def foreign(path):
    save_file({"w": torch.zeros(1)}, path, metadata={"format": "pt"})


def future(path):
    save_file({"w": torch.zeros(1)}, path, metadata={"vmr": json.dumps({**META, "format": 2})})


def incomplete(path):
    meta = {key: value for key, value in META.items() if key != "state"}
    save_file({"w": torch.zeros(1)}, path, metadata={"vmr": json.dumps({**meta, "format": 1})})


def not_json(path):
    save_file({"w": torch.zeros(1)}, path, metadata={"vmr": "{"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (truncated, "not a whole safetensors file"),
        (cut_header, "not a whole safetensors file"),
        (lambda path: path.write_bytes(b""), "not a whole safetensors file"),
        (lambda path: path.write_text("hello " * 40), "not a whole safetensors file"),
        (lambda path: torch.save({"a": 1}, path), "looks like a pickled PyTorch file"),
        (lambda path: path.write_bytes(b"\x80\x04}."), "looks like a pickled PyTorch file"),
        (foreign, "not a checkpoint of ours: expected metadata 'vmr', found format"),
        (future, "checkpoint format 2, expected 1"),
        (incomplete, "metadata key 'state' is missing"),
        (not_json, "metadata 'vmr' is not JSON"),
        (lambda path: write(path, package="rgn"), "a checkpoint of package 'rgn', expected 'toy'"),
        (lambda path: None, "no such checkpoint file or run folder"),
        (lambda path: path.mkdir(), "this folder holds no checkpoint"),
    ],
)
def test_a_file_that_is_no_usable_checkpoint_is_one_clear_line(tmp_path, make, message):
    path = tmp_path / "x.safetensors"
    make(path)
    with pytest.raises(UserError, match=message) as caught:
        load_checkpoint(path, package="toy")
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_fit_are_named():
    model = nn.Linear(2, 3)
    weights = {"weight": torch.zeros(3, 4), "extra": torch.zeros(1)}
    with pytest.raises(UserError) as caught:
        load_weights(model, weights, "best.safetensors")
    assert str(caught.value) == (
        "best.safetensors: the weights do not fit this model; 1 missing: bias; 1 unexpected: extra; "
        "1 of another shape: weight (found (3, 4), expected (3, 2))"
    )


def test_a_full_disk_leaves_the_previous_checkpoint_whole(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk needs root; the file-size limit test covers the rest")
    try:
        path = write(disk / "last.safetensors")
        before = path.read_bytes()
        with pytest.raises(UserError, match=r"cannot write .*last\.safetensors: No space left on device"):
            save_checkpoint(path, {"model": {"w": torch.zeros(100_000)}}, META)
        assert path.read_bytes() == before
        assert os.listdir(disk) == ["last.safetensors"]
    finally:
        subprocess.run(["umount", disk], check=True)
