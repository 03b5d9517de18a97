"""A configuration that cannot work ends in one clear line, exit status 2 and nothing lost."""

import json

import pytest
import torch
import yaml

from rgn.training import command as train


def change_config(place, **changes) -> None:
    values = yaml.safe_load(place.config.read_text())
    place.config.write_text(yaml.safe_dump({**values, **changes}))


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"epochs": 3}, ["unknown key epochs", "accepted: name, quirks, protocols"]),
        ({"model": {"hiden": 16}}, ["unknown key model.hiden", "did you mean model.hidden"]),
        ({"model": {"hidden": "wide"}}, ["model.hidden", "wide"]),
        ({"model": {"hidden": 30}}, ["model.hidden", "30", "multiple of model.heads (4)"]),
        ({"model": 3}, ["model must hold keys and values", "3"]),
        ({"model": [16]}, ["model must hold keys and values", "16"]),
        ({"model": {"dropout": 1.5}}, ["model.dropout", "1.5"]),
        ({"loss": {"theta": -1}}, ["loss.theta", "-1"]),
        ({"optim": {"lr": 0}}, ["optim.lr", "0"]),
        ({"optim": {"lr": ".nan"}}, ["optim.lr", "nan"]),
        ({"train": {"epochs": 0}}, ["train.epochs", "0"]),
        ({"train": {"epochs": 1.5}}, ["train.epochs", "1.5"]),
        ({"train": {"select": "luck"}}, ["train.select", "luck", "validation"]),
        ({"train": {"select_metric": "R@1"}}, ["train.select_metric", "'R@1'", "R@1,mIoU"]),
        ({"train": {"device": "abacus"}}, ["device 'abacus'", "expected auto, cpu, cuda"]),
        ({"quirks": "both"}, ["quirks", "both", "released"]),
        ({"protocols": []}, ["protocols"]),
        ({"protocols": ["strict", "lenient"]}, ["lenient", "proposal-map"]),
        ({"name": ""}, ["name"]),
        ({"name": "../../elsewhere"}, ["name", "../../elsewhere"]),
        ({"data": None}, ["data must hold keys and values"]),
        ({"data": {"clips": 8}}, ["required", "data.features.path", "data.word_vectors"]),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_configuration_that_cannot_work(place, refused_training, changes, fragments):
    change_config(place, **changes)
    message = refused_training()
    assert [fragment for fragment in fragments if fragment not in message] == []


def test_an_unknown_option(refused_training):
    assert "--model.hiden" in refused_training("--model.hiden", "16")


def test_an_option_without_its_value(refused_training):
    assert "--model.hidden" in refused_training("--model.hidden")


def test_a_configuration_file_that_is_not_there(place, refused):
    message = refused(train, "--cfg", place.config.with_name("none.yaml"))
    assert "none.yaml" in message
    assert "no such file" in message


def test_a_name_that_is_no_bundled_configuration(refused):
    message = refused(train, "--cfg", "charade")
    assert "charades" in message
    assert "shapes" in message


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"- a\n- b\n", "expected keys and values"),
        (b"", "expected keys and values"),
        (b"name: [tiny\n", "not YAML"),
        (b"name: !!python/object/apply:os.system ['true']\n", "line 1: found the tag"),
        (b"name: caf\xe9\n", "not UTF-8"),
        (b"\x80\x04\x95", "not UTF-8"),
        (b"1: 2\n", "line 1: found the key '1', expected text"),
    ],
    ids=["list", "empty", "cut-short", "python-object", "latin-1", "pickle", "number-as-key"],
)
def test_a_configuration_file_of_another_kind(place, refused_training, content, fragment):
    place.config.write_bytes(content)
    message = refused_training()
    assert fragment in message
    assert "tiny.yaml" in message


def test_a_split_and_annotations_at_once(refused_training):
    assert "not both" in refused_training("--data.splits.train.split", "shapes/train")


def test_a_split_that_does_not_exist(refused_training):
    more = ["--data.splits.test.annotations", "null", "--data.splits.test.split", "shapes/exam"]
    message = refused_training(*more)
    assert "'shapes/exam'" in message
    assert "shapes/test" in message


def test_a_cuda_device_where_there_is_none(refused_training):
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    assert "torch finds 0 CUDA devices" in refused_training("--train.device", "cuda")
