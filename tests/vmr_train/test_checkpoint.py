"""Checkpoint files: whole or absent, never a pickle, and clear about what is wrong with them."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cdn.data import Preprocessor as MapPreprocessor
from vmr_common.errors import UserError
from vmr_train.checkpoint import HEADER, Checkpoint, load_checkpoint, save_checkpoint
from vmr_train.config import OptimConfig
from vmr_train.optim import WeightAverage, build_optimizer, optimizer_tensors, restore_optimizer
from vmr_train.preprocessing import Preprocessor, stored_scale
from vmr_train.run_files import find_checkpoint
from vmr_train.state import State
from vmr_train.weights import load_weights, restored

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


def raw_header(text):
    """A file that is a header and nothing else."""
    return lambda path: path.write_bytes(len(text).to_bytes(8, "little") + text.encode())


def another_header(header):
    return raw_header(json.dumps(header))


def huge_tensor(path):
    tensor = {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}
    text = json.dumps({**META, "format": 1})
    another_header({"model.w": tensor, "__metadata__": {"vmr": text}})(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (truncated, "not a whole safetensors file"),
        (cut_header, "not a whole safetensors file"),
        (lambda path: path.write_bytes(b""), "not a whole safetensors file"),
        (lambda path: path.write_text("hello " * 40), "x.safetensors: not a safetensors checkpoint"),
        (lambda path: torch.save({"a": 1}, path), "looks like a pickled PyTorch file"),
        (lambda path: path.write_bytes(b"\x80\x04}."), "looks like a pickled PyTorch file"),
        (foreign, "not a checkpoint of ours: expected metadata 'vmr', found format"),
        (future, "checkpoint format 2, expected 1"),
        (incomplete, "metadata 'vmr': key 'state' is missing"),
        (not_json, "metadata 'vmr': not JSON"),
        (another_header({"__metadata__": 3}), "header: found 3, expected an object"),
        (another_header({"__metadata__": {"vmr": 3}}), "header: key vmr: found 3, expected text"),
        (raw_header('{"__metadata__": {"vmr": "1", "vmr": "2"}}'), "header: the key 'vmr' occurs twice"),
        (raw_header('{"a": 1, "a": 2}'), "header: the key 'a' occurs twice"),
        (raw_header("[" * 5000), "header: not (usable )?JSON"),  # how deep is too deep is Python's
        (
            lambda path: path.write_bytes((HEADER + 1).to_bytes(8, "little") + b"{}"),
            "not a safetensors checkpoint",
        ),
        (huge_tensor, "not a whole safetensors file"),
        (lambda path: os.mkfifo(path), "expected a regular file"),
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


TRAINED = {
    "seconds": 1.0, "interval": {"queries": 2, "sums": {"total": 1.0}}, "whole_epoch": {"queries": 0, "sums": {}},
    "selection": {"select": "last", "metric": "R@1", "value": None, "epoch": None},
    "train_queries": 6, "train": {"seed": 1}, "optim": {"lr": 1}, "scaler": {}, "metrics": {},
    "versions": {"vmr-common": "0", "torch": "2", "python": "3", "processes": 1, "device": "cpu"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"package": 3}, "key package: found 3, expected text"),
        ({"role": "first"}, "key role: found 'first'"),
        ({"update": True}, "key update: found True, expected a whole number"),
        ({"update": 1.5}, "key update: found 1.5"),
        ({"state": None}, "key state: found None, expected an object"),
        ({"describe": ["config"]}, "key describe: found"),
        ({"seconds": "long"}, "key seconds: found 'long'"),
        ({"interval": {"queries": 1}}, "in interval, key 'sums' is missing"),
        ({"whole_epoch": {"queries": 1, "sums": {"total": None}}}, "key whole_epoch.sums.total: found None"),
        ({"selection": {**TRAINED["selection"], "select": "luck"}}, "key selection.select: found 'luck'"),
        ({"selection": {**TRAINED["selection"], "epoch": "2"}}, "key selection.epoch: found '2'"),
        ({"train": None}, "key train: found None"),
        ({"scaler": {"scale": []}}, "key scaler.scale: found"),
        ({"versions": {**TRAINED["versions"], "processes": "2"}}, "key versions.processes: found '2'"),
        ({"another": 1}, "unknown key 'another'"),
    ],
)
def test_metadata_of_wrong_types_are_one_line_that_names_the_key(tmp_path, changes, message):
    path = write(tmp_path / "x.safetensors", **{**TRAINED, **changes})
    with pytest.raises(UserError) as refused:
        load_checkpoint(path)
    assert str(refused.value).startswith(f"{path}: metadata 'vmr': ")
    assert message in str(refused.value)


def test_what_a_training_needs_is_there_as_a_whole(tmp_path):
    path = write(tmp_path / "x.safetensors", **TRAINED)
    assert load_checkpoint(path, trained=True).meta["train_queries"] == 6
    write(path, **{key: value for key, value in TRAINED.items() if key != "scaler"})
    assert load_checkpoint(path).weights
    with pytest.raises(UserError, match="key 'scaler' is missing, which training writes"):
        load_checkpoint(path, trained=True)


def test_tensors_of_no_part_are_refused(tmp_path):
    save_checkpoint(tmp_path / "x.safetensors", {"modell": {"w": torch.zeros(1)}}, META)
    with pytest.raises(
        UserError, match=r"found the tensor 'modell\.w', expected names in model, ema, optim, state"
    ):
        load_checkpoint(tmp_path / "x.safetensors")


def test_more_words_than_can_be_read_again_are_not_written(tmp_path):
    with pytest.raises(UserError, match=r"cannot write .* take more than"):
        write(tmp_path / "x.safetensors", state={"words": ["x" * HEADER]})
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (torch.full((3, 2), torch.nan), "the weights 'weight' hold values that are not finite"),
        (torch.full((3, 2), -torch.inf), "the weights 'weight' hold values that are not finite"),
        (
            torch.zeros(3, 2, dtype=torch.int64),
            r"1 of another type: weight \(found int64, expected float32\)",
        ),
        (torch.zeros(3, 2, dtype=torch.bfloat16), r"weight \(found bfloat16, expected float32\)"),
        (torch.zeros(3, 2, dtype=torch.complex64), r"weight \(found complex64, expected float32\)"),
        (torch.zeros(()), r"1 of another shape: weight \(found \(\), expected \(3, 2\)\)"),
    ],
)
def test_weights_that_are_no_numbers_of_the_model_are_named(weight, message):
    model = nn.Linear(2, 3)
    before = model.weight.clone()
    with pytest.raises(UserError, match=message):
        load_weights(model, {"weight": weight, "bias": torch.zeros(3)}, "a.safetensors")
    assert torch.equal(model.weight, before)


class Method:
    def __init__(self, width: int) -> None:
        self.model = nn.Sequential(nn.Linear(2, width), nn.Linear(width, 1))


def held(**tensors) -> Checkpoint:
    return Checkpoint(Path("a.safetensors"), tensors, META)


def test_sizes_are_compared_before_memory_is_taken():
    weights = {f"model.{name}": tensor for name, tensor in Method(3).model.state_dict().items()}
    torch.manual_seed(5)
    found = restored(lambda: Method(3), held(**weights))
    drawn = torch.rand(1)
    assert all(
        torch.equal(value, weights[f"model.{name}"]) for name, value in found.model.state_dict().items()
    )
    with pytest.raises(UserError, match=r"0.weight \(found \(3, 2\), expected \(281474976710656, 2\)\)"):
        restored(lambda: Method(1 << 48), held(**weights))
    torch.manual_seed(5)
    Method(3)
    assert torch.equal(torch.rand(1), drawn), "what is drawn later is as if the model had been made once"


@pytest.mark.parametrize(
    ("state", "vectors", "message"),
    [
        ({}, torch.zeros(3, 2), "state: key 'words' is missing"),
        ({"words": "ab"}, torch.zeros(3, 2), "state: key words: found 'ab', expected a list"),
        ({"words": ["a", 2]}, torch.zeros(3, 2), r"state: key words\[1\]: found 2, expected text"),
        ({"words": ["a", "a"]}, torch.zeros(3, 2), "holds a word twice"),
        ({"words": ["a", "b"]}, None, "no tensor state.word_vectors"),
        ({"words": ["a", "b"]}, torch.zeros(4, 2), r"found float32 \(4, 2\), expected one float32 vector"),
        ({"words": ["a", "b"]}, torch.zeros(3), r"found float32 \(3,\), expected one float32 vector"),
        ({"words": ["a", "b"]}, torch.zeros(3, 0), r"found float32 \(3, 0\)"),
        ({"words": ["a", "b"]}, torch.zeros(3, 2, dtype=torch.int32), r"found int32 \(3, 2\)"),
        ({"words": ["a", "b"]}, torch.zeros(3, 2, dtype=torch.float64), r"found float64 \(3, 2\)"),
        ({"words": ["a", "b"]}, torch.full((3, 2), torch.nan), "not finite"),
    ],
)
def test_words_and_their_vectors_belong_together(state, vectors, message):
    tensors = {} if vectors is None else {"state.word_vectors": vectors}
    checkpoint = Checkpoint(Path("a.safetensors"), tensors, {**META, "state": state})
    with pytest.raises(UserError, match=message):
        Preprocessor.restore(checkpoint, None)
    if vectors is not None and len(vectors) == 3:
        tensors = {"state.word_vectors": vectors[1:]}
    with pytest.raises(UserError):
        MapPreprocessor.restore(Checkpoint(Path("a.safetensors"), tensors, {**META, "state": state}), None)


def test_words_may_hold_any_character():
    words = ["\x85", "\u200b", "a\u00a0b", "\x1b"]
    checkpoint = Checkpoint(
        Path("a"), {"state.word_vectors": torch.ones(5, 2)}, {**META, "state": {"words": words}}
    )
    assert list(Preprocessor.restore(checkpoint, None).vocabulary.words) == words


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (None, torch.ones(3), "holds no feature_mean and feature_std"),
        (
            torch.ones(3),
            torch.ones(1),
            r"state.feature_std: found torch.float32 \(1,\), expected one float32",
        ),
        (torch.ones(3, 1), torch.ones(3), r"state.feature_mean: found torch.float32 \(3, 1\)"),
        (torch.ones(3, dtype=torch.float64), torch.ones(3), "state.feature_mean: found torch.float64"),
        (
            torch.tensor([0.0, torch.nan, 0.0]),
            torch.ones(3),
            "'feature_mean' hold values that are not finite",
        ),
        (torch.ones(3), torch.tensor([1.0, 0.0, 1.0]), "state.feature_std: found a deviation of 0"),
    ],
)
def test_the_scale_of_features_has_a_number_for_each_column(mean, std, message):
    tensors = {"state.feature_mean": mean, "state.feature_std": std}
    checkpoint = held(**{name: tensor for name, tensor in tensors.items() if tensor is not None})
    assert stored_scale(checkpoint, None) is None
    with pytest.raises(UserError, match=message):
        stored_scale(checkpoint, 3)


def trained_pair():
    model = nn.Linear(2, 3)
    optimizer = build_optimizer(model, OptimConfig())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return model, optimizer


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight.step": torch.ones(3)}, "weight.step"),
        ({"weight.step": torch.tensor(-1.0)}, "weight.step holds a number below 0"),
        ({"weight.step": torch.tensor(torch.nan)}, "'weight.step' hold values that are not finite"),
        ({"weight.step": None}, "1 missing: weight.step"),
        ({"weight.exp_avg": torch.zeros(2, 3)}, r"weight.exp_avg \(found \(2, 3\), expected \(3, 2\)\)"),
        ({"weight.exp_avg": torch.zeros(3, 2, dtype=torch.int64)}, "of another type: weight.exp_avg"),
        ({"bias.exp_avg_sq": -torch.ones(3)}, "bias.exp_avg_sq holds a number below 0"),
        ({"weight.other": torch.zeros(())}, "unexpected: weight.other"),
        ({"nowhere.step": torch.zeros(())}, "unexpected: nowhere.step"),
        ({"step": torch.zeros(())}, "unexpected: step"),
    ],
)
def test_the_state_of_an_optimiser_is_that_of_its_model(changes, message):
    model, optimizer = trained_pair()
    tensors = {**optimizer_tensors(model, optimizer), **changes}
    tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    with pytest.raises(UserError, match=f"^last.safetensors: the optimiser state.*{message}"):
        restore_optimizer(model, optimizer, tensors, Path("last.safetensors"))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"weight": torch.zeros(3, 2)}, "1 missing: bias"),
        ({"weight": torch.zeros(1), "bias": torch.zeros(3)}, "of another shape: weight"),
        (
            {"weight": torch.zeros(3, 2), "bias": torch.full((3,), torch.inf)},
            "'bias' hold values that are not finite",
        ),
    ],
)
def test_averaged_weights_are_those_of_the_model(weights, message):
    with pytest.raises(UserError, match=f"^last.safetensors: the averaged weights .*{message}"):
        WeightAverage(nn.Linear(2, 3), 0.5).load(weights, Path("last.safetensors"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"update": 7}, "metadata says update 7, which is update 3 of epoch 1, but an epoch has 4 updates"),
        ({"epoch": -(10**9)}, "epoch -1000000000"),
        ({"batch": -1, "update": -1}, "update -1"),
        ({"batch": 5, "update": 5}, "update 5 of epoch 1"),
        ({"interval": {"queries": 0, "sums": {"total": 1.0}}}, "sums over no queries"),
        ({"whole_epoch": {"queries": -2, "sums": {}}}, "sums over no queries"),
    ],
)
def test_a_position_that_no_training_reaches_is_refused(changes, message):
    assert State.from_meta({**META, **TRAINED}, Path("a"), 4).batch == 3
    with pytest.raises(UserError, match=message):
        State.from_meta({**META, **TRAINED, **changes}, Path("a"), 4)
