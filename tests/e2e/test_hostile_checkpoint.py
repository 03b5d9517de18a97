"""Checkpoints, requests and released weights that cannot be right end in one clear line, exit status 2."""

import json
import pickle
import shutil
from pathlib import Path

import h5py
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from factories import Trap
from rgn import cli


@pytest.fixture
def checkpoint(trained, tmp_path) -> Path:
    """A copy of the best weights of a finished run."""
    return shutil.copy(trained.place.run / "checkpoints" / "best.safetensors", tmp_path / "mine.safetensors")


@pytest.fixture
def asked(checkpoint, tiny_data) -> list[str]:
    """What eval and predict need at least."""
    return ["--checkpoint", str(checkpoint), "--data-root", str(tiny_data)]


# checkpoints


def rewrite(path: Path, **changes) -> None:
    """Changes keys of the description that a checkpoint holds."""
    with safe_open(path, framework="pt") as file:
        meta = json.loads(file.metadata()["vmr"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    save_file(tensors, path, metadata={"vmr": json.dumps({**meta, **changes})})


def test_no_checkpoint_at_all(refused):
    for arguments in ([], ["--checkpoint"]):
        assert "checkpoint" in refused(cli.evaluate, *arguments)
        assert "checkpoint" in refused(cli.predict, "--video", "v", "--query", "a", *arguments)


def test_a_checkpoint_that_is_not_there(refused, tmp_path):
    assert "no such checkpoint" in refused(cli.evaluate, "--checkpoint", tmp_path / "none.safetensors")
    assert "holds no checkpoint" in refused(cli.evaluate, "--checkpoint", tmp_path)


def test_a_checkpoint_of_another_package(asked, checkpoint, refused):
    rewrite(checkpoint, package="cfmr")
    message = refused(cli.evaluate, *asked)
    assert "'cfmr'" in message
    assert "'rgn'" in message


def test_a_checkpoint_cut_short(asked, checkpoint, refused):
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    message = refused(cli.predict, *asked, "--video", "test-0000", "--query", "the red circle spins")
    assert str(checkpoint) in message
    assert "cut short" in message


def test_a_pickle_as_checkpoint_is_never_loaded(asked, checkpoint, refused, tmp_path):
    checkpoint.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    assert "never loaded" in refused(cli.evaluate, *asked)
    torch.save({"model": torch.zeros(2)}, checkpoint)
    assert "never loaded" in refused(cli.evaluate, *asked)
    assert not (tmp_path / "sprung").exists()


def test_safetensors_that_are_no_checkpoint(asked, checkpoint, refused):
    save_file({"weight": torch.zeros(2)}, checkpoint)
    assert "not a checkpoint of ours" in refused(cli.evaluate, *asked)


@pytest.mark.parametrize(
    ("changes", "fragment"),
    [
        ({"describe": {}}, "holds no configuration"),
        ({"describe": None}, "key describe: found None"),
        ({"describe": {"config": {"name": "a"}}}, "required and not given: data.splits.train"),
        ({"state": {}}, "'words'"),
        ({"state": {"words": 3}}, "words"),
        ({"state": {"words": ["red", "red"]}}, "words"),
        ({"format": 99}, "99"),
        ({"state": None}, "key state: found None"),
        ({"role": 1}, "key role: found 1"),
        ({"selection": []}, "key selection: found []"),
        ({"later": 1}, "unknown key 'later'"),
    ],
    ids=str,
)
def test_a_checkpoint_with_a_damaged_description(asked, checkpoint, refused, changes, fragment):
    rewrite(checkpoint, **changes)
    message = refused(cli.evaluate, *asked)
    assert str(checkpoint) in message
    assert fragment in message


def section(config: dict, key: str) -> tuple[dict, str]:
    """Where a dotted key of a configuration lies, and its last part."""
    *sections, name = key.split(".")
    for part in sections:
        config = config[part]
    return config, name


@pytest.mark.parametrize(
    ("key", "value", "fragment"),
    [
        ("model.depth", 3, "unknown key model.depth"),
        ("model", 3, "model must hold keys and values, found 3"),
        ("model.hidden", "wide", "model.hidden: found 'wide', expected a whole number"),
        ("model.hidden", 65_536, "do not fit this model"),
        (
            "model.hidden",
            1 << 60,
            "model.hidden: found 1152921504606846976, expected a whole number, at least 1 and",
        ),
        ("model.video_layers", 50, "do not fit this model"),
        ("data.splits.train", {"class_path": "os.abort"}, "unknown key data.splits.train.class_path"),
        ("optim.lr", None, "optim.lr: found None, expected a finite number"),
        ("name", "../up", "name: found '../up', expected the name of a folder"),
        ("protocols", [["strict"]], "protocols: key [0]: found ['strict'], expected text"),
    ],
    ids=str,
)
def test_a_checkpoint_whose_configuration_is_not_its_own(asked, checkpoint, refused, key, value, fragment):
    with safe_open(checkpoint, framework="pt") as file:
        describe = json.loads(file.metadata()["vmr"])["describe"]
    part, name = section(describe["config"], key)
    part[name] = value
    rewrite(checkpoint, describe=describe)
    message = refused(cli.evaluate, *asked)
    assert fragment in message
    assert str(checkpoint) in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_give_no_table(asked, checkpoint, refused, value):
    change_weights(checkpoint, lambda tensor: tensor.index_fill_(0, torch.tensor([0]), value))
    message = refused(cli.evaluate, *asked)
    assert str(checkpoint) in message
    assert "hold values that are not finite" in message


def test_weights_beyond_any_measure_give_no_table(asked, checkpoint, refused):
    change_weights(checkpoint, lambda tensor: tensor * 1e30)
    request = ["--video", "test-0000", "--query", "the red circle spins"]
    assert "not made of finite numbers" in refused(cli.evaluate, *asked)
    assert "not made of finite numbers" in refused(cli.predict, *asked, *request)


def change_weights(path: Path, change) -> None:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = {
        name: change(tensor) if name.startswith("model.") else tensor
        for name, tensor in load_file(path).items()
    }
    save_file(tensors, path, metadata=metadata)


def test_a_checkpoint_of_other_sizes_than_asked_for(asked, refused):
    message = refused(cli.evaluate, *asked, "--model.hidden", "32")
    assert "do not fit this model" in message
    assert "found" in message


def test_a_configuration_beside_a_checkpoint(asked, refused):
    assert "the checkpoint holds its configuration" in refused(cli.evaluate, *asked, "--cfg", "shapes")


# evaluation and prediction


@pytest.mark.parametrize(
    ("more", "fragment"),
    [
        (["--split", "exam"], "'exam'"),
        (["--annotations", "none.jsonl"], "none.jsonl"),
        (["--protocols", "[lenient]"], "lenient"),
        (["--protocols", "[]"], "protocols"),
        (["--train.eval_batch", "0"], "train.eval_batch"),
    ],
)
def test_an_evaluation_that_cannot_be_done(asked, refused, more, fragment):
    assert fragment in refused(cli.evaluate, *asked, *more)


def test_predictions_that_cannot_be_written_do_not_cost_the_scores(asked, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    status = cli.evaluate([*asked, "--out", str(tmp_path / "file" / "out.jsonl")])
    captured = capsys.readouterr()
    assert status == 2
    assert "error: cannot write" in captured.err
    assert "chance" in captured.out


@pytest.mark.parametrize(
    ("more", "fragments"),
    [
        (["--video", "test-0000", "--query", "the red circle spins", "-k", "-1"], ["-k", "-1"]),
        (["--video", "test-0000", "--query", "the red circle spins", "-k", "some"], ["k: ", "some"]),
        (["--video", "test-0000", "--query", "the red circle spins", "--duration", "0"], ["--duration", "0"]),
        (
            ["--video", "test-0000", "--query", "the red circle spins", "--duration", "-3"],
            ["--duration", "-3"],
        ),
        (
            ["--video", "test-0000", "--query", "the red circle spins", "--duration", "nan"],
            ["duration", "nan"],
        ),
        (
            ["--video", "test-0000", "--query", "the red circle spins", "--duration", "1e308"],
            ["--duration: expected a number, at least 1e-06 and at most 1e+09, found '1e308'"],
        ),
        (["--video", "test-9999", "--query", "the red circle spins"], ["'test-9999'", "features.h5"]),
        (["--video", "", "--query", "the red circle spins"], ["--video"]),
        (["--video", "test-0000", "--query", " "], ["--query"]),
        (["--video", "test-0000", "--query", "qwertz"], ["no word of the query"]),
        (["--video", "test-0000"], ["--query"]),
        (["--query", "the red circle spins"], ["--video"]),
        ([], ["--video", "--query"]),
        (["--queries", "none.jsonl"], ["none.jsonl"]),
        (["--queries", "q.jsonl", "--video", "test-0000"], ["either --queries"]),
        (["--queries", "q.jsonl", "--duration", "3"], ["either --queries"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_request_that_cannot_be_answered(asked, refused, more, fragments):
    message = refused(cli.predict, *asked, *more)
    assert [fragment for fragment in fragments if fragment not in message] == []


def test_a_length_that_is_not_known_is_asked_for(asked, place, refused):
    for split in ("train", "val", "test"):
        (place.data / "shapes" / f"{split}.jsonl").unlink()
    with h5py.File(place.features, "a") as file:
        del file.attrs["manifest"]
    request = ["--data-root", place.data, "--video", "test-0000", "--query", "the red circle spins"]
    assert "give --duration" in refused(cli.predict, *asked, *request)


# import


@pytest.fixture
def imported(place, tmp_path):
    words = tmp_path / "words.txt"
    words.write_text("red\nspins\n")
    given = [
        "--cfg",
        place.config,
        "--data-root",
        place.data,
        "--words",
        words,
        "--out",
        tmp_path / "out.safetensors",
    ]
    return lambda weights, *more: [*given, "--weights", weights, *more]


def test_released_weights_that_are_not_there(imported, refused, tmp_path):
    assert "no such file" in refused(cli.import_official, *imported(tmp_path / "none.pt"))


@pytest.mark.parametrize(
    "content",
    [b"", b"text", b"PK\x03\x04 cut short", b"\x80\x02}q\x00.", b"\x80\x04K\x01", bytes(range(256))],
    ids=["empty", "text", "zip", "old", "no-end", "noise"],
)
def test_released_weights_of_another_kind(imported, refused, tmp_path, content):
    for suffix in (".pt", ".safetensors", ".npz"):
        weights = tmp_path / f"weights{suffix}"
        weights.write_bytes(content)
        assert str(weights) in refused(cli.import_official, *imported(weights))


def test_a_pickle_as_released_weights_is_never_run(imported, refused, tmp_path):
    weights = tmp_path / "weights.pt"
    weights.write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    assert str(weights) in refused(cli.import_official, *imported(weights))
    torch.save({"model_parameters": Trap(tmp_path / "sprung")}, weights)
    assert str(weights) in refused(cli.import_official, *imported(weights))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("tensors", "fragment"),
    [
        ({"head.weight": torch.zeros(2)}, "'head.weight'"),
        ({"mask_vec": torch.zeros(2)}, "words"),
        ({"fc_comp.bias": torch.zeros(3)}, "do not fit this model"),
        ({"fc_comp.bias": torch.zeros(())}, "the weights expect 0"),
    ],
    ids=["other names", "no classifier", "nothing else", "scalar"],
)
def test_released_weights_that_do_not_fit(imported, refused, tmp_path, tensors, fragment):
    weights = tmp_path / "weights.pt"
    torch.save({"model_parameters": tensors}, weights)
    assert fragment in refused(cli.import_official, *imported(weights))
    assert not (tmp_path / "out.safetensors").exists()


def test_a_word_list_that_cannot_be_right(imported, refused, tmp_path):
    weights, words = tmp_path / "weights.pt", tmp_path / "words.txt"
    torch.save({"fc_comp.bias": torch.zeros(3)}, weights)
    words.write_text("red\nqwertz\n")
    assert "'qwertz'" in refused(cli.import_official, *imported(weights))
    words.write_text("red\nred\n")
    assert "twice" in refused(cli.import_official, *imported(weights))
    words.write_bytes(b"\xff\n")
    assert "not UTF-8" in refused(cli.import_official, *imported(weights))
