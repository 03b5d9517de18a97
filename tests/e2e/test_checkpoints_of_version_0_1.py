"""Checkpoints that version 0.1 wrote load still, and predict what they predicted then."""

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from folders import MODELS
from leorn.object_features.shapes_file import ensure_objects
from vmr_common.predictions import read_predictions
from vmr_shapes import ShapesSpec, ensure
from vmr_shapes.video_files import Form, write_videos

RECORDED = Path(__file__).parent / "checkpoints-0.1"
SPEC = ShapesSpec(train=8, val=4, test=6, duration=(6.0, 9.0), size=40, feature_dim=16, word_dim=12)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    ensure(root / "shapes", SPEC)
    ensure_objects(root / "shapes", SPEC).rename(root / "objects.h5")
    return root


@pytest.mark.parametrize("package", MODELS)
def test_a_checkpoint_of_version_0_1_predicts_what_it_did(package, data, tmp_path, capsys):
    command = import_module(f"{package}.cli")
    given = {
        "--checkpoint": RECORDED / f"{package}.safetensors",
        "--data-root": data,
        "--out": tmp_path / "found",
    }
    assert command.evaluate([str(word) for pair in given.items() for word in pair]) == 0, (
        capsys.readouterr().err
    )
    wanted = json.loads((RECORDED / f"{package}.json").read_text())  # the first window of every query
    found = {one.query: one for one in read_predictions(tmp_path / "found")}
    assert found.keys() == wanted.keys()
    for query, (start, end, score) in wanted.items():
        # two windows whose scores differ by rounding may change places
        scores = found[query].scores
        np.testing.assert_allclose(scores[0], score, atol=1e-4)
        first = found[query].moments[scores > scores[0] - 1e-4]
        assert np.abs(first - [start, end]).sum(axis=1).min() < 1e-3, query


@pytest.mark.parametrize("package", MODELS)
def test_a_checkpoint_of_version_0_1_takes_a_video_file(package, data, tmp_path, capsys):
    (file,) = write_videos(tmp_path, SPEC, ["test-0000"], Form(lossless=True))
    command = import_module(f"{package}.cli")
    run = ["--checkpoint", RECORDED / f"{package}.safetensors", "--data-root", data, "--json"]
    found = []
    for video in (["--video", "test-0000"], ["--video-file", file, "--cache", tmp_path / "cache"]):
        asked = [*run, *video, "--query", "the red circle spins"]
        assert command.predict([str(word) for word in asked]) == 0, capsys.readouterr().err
        found.append(json.loads(capsys.readouterr().out)["pred_relevant_windows"])
    np.testing.assert_allclose(found[1], found[0], atol=1e-4)
