"""The files that a configuration needs, from its fields and its registered splits."""

import importlib
from argparse import Namespace

import pytest

from folders import MODELS
from vmr_common.errors import UserError
from vmr_train import needs
from vmr_train.cli.config import bundled_config, bundled_configs


def config_of(package, name, *options):
    return bundled_config(package, importlib.import_module(f"{package}.config").Config, name, *options)


@pytest.mark.parametrize("package", MODELS)
def test_every_bundled_configuration_names_its_files(package, tmp_path):
    for name in bundled_configs(package):
        config = config_of(package, name)
        found = needs.needed_files(config)
        assert len(found) >= 3
        assert {"data.splits.train", "data.splits.test"} <= {key.rpartition(".")[0] for key in found.values()}
        if name.startswith("shapes"):
            needs.check_files(config, tmp_path)
        else:
            with pytest.raises(
                UserError, match=rf"{len(found)} of {len(found)} files of {config.name} are missing"
            ):
                needs.check_files(config, tmp_path)


def test_sizes_and_origins_are_told(tmp_path, capsys):
    places = ("charades_sta/charades_sta_train.txt", "charades_sta/charades_sta_test.txt.gz", "clips")
    for place in places[:2]:
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(bytes(1_230_000))
    (tmp_path / "clips").mkdir()
    config = config_of("cdn", "charades", "--data.features.path", "clips", "--data.word_vectors", "mine.txt")
    with pytest.raises(UserError, match=r"^3 of 6 files of charades are missing"):
        needs.check_files(config, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["1.2", "MB", places[0], "data.splits.train.split"]
    assert lines[1].split()[:2] == ["missing", "charades_sta/Charades_v1_train.csv"]
    assert "https://" in lines[2]
    assert ["folder", "clips", "data.features.path"] in [line.split() for line in lines]
    assert lines[-2].strip() == "not a file of a known data set"
    assert str(tmp_path) in lines[-1]
    assert "$VMR_DATA" in lines[-1]
    assert "does not exist" not in lines[-1]
    with pytest.raises(UserError, match="6 of 6 files"):
        needs.check_files(config, tmp_path / "nowhere")
    last = capsys.readouterr().out.splitlines()[-1]
    assert f"looked for under {tmp_path / 'nowhere'} (" in last
    assert "; this folder does not exist)" in last


def test_word_vectors_of_an_embedded_data_set_are_made_for_its_own_splits_alone(tmp_path):
    words = ("--data.word_vectors", "shapes/words.txt")
    needs.require_files(config_of("rgn", "shapes"), tmp_path)
    with pytest.raises(UserError, match=r"shapes/words.txt: no such file \(.*make it: vmr-shapes"):
        needs.require_files(config_of("rgn", "charades", *words), tmp_path, ["data.splits", "data.features"])


def test_an_evaluation_names_all_that_its_split_and_the_model_lack(tmp_path):
    config = config_of("rgn", "charades")

    def lacking(**options):
        with pytest.raises(UserError) as caught:
            needs.require_requested(config, Namespace(root=tmp_path, **options))
        names = ("glance_train", "glance_test", "i3d_features", "glove", "own.jsonl", "tacos/test.json")
        return [name for name in names if name in str(caught.value)]

    evaluation = {"annotations": None, "split": "test"}
    assert lacking(**evaluation) == ["glance_train", "glance_test", "i3d_features"]
    assert lacking(**evaluation | {"split": "tacos/test"}) == [
        "glance_train",
        "i3d_features",
        "tacos/test.json",
    ]
    assert lacking(**evaluation | {"annotations": "own.jsonl"}) == [
        "glance_train",
        "i3d_features",
        "own.jsonl",
    ]
    assert lacking(queries=None) == ["i3d_features"]
    assert lacking(queries="own.jsonl") == ["i3d_features", "own.jsonl"]


def test_a_training_from_python_names_them_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"glance_train_charades.* no such file .*i3d_features\.hdf5: no such file"
    ):
        importlib.import_module("rgn").train("charades", data_root=tmp_path)
    assert not (tmp_path / "runs").exists()
