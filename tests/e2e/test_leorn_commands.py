"""LEORN's commands as a user types them: train in two stages, evaluate, predict and explain, import."""

import itertools
import json
import shutil
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from golden import released_sizes, released_weights
from leorn import cli
from leorn.object_features.shapes_file import ensure_objects
from leorn.training import command as train
from tiny_papers import SPEC
from vmr_common.predictions import read_predictions
from vmr_shapes import frames, read_spec
from vmr_shapes.video_files import Form, write_videos
from vmr_train.checkpoint import load_checkpoint

CONFIG = """
protocols: [proposal-map, strict]
data:
  objects: {path: objects.h5, dim: 59, objects: 5, expected_manifest: {box_units: normalised}}
  frames: 16
  word_vectors: shapes/words.txt
model: {hidden: 16, text_layers: 1, blocks: 2, feed_forward: 16, clips: 8, scales: [8], layers: 2, kernel: 3,
  dropout: 0.0, box_dropout: 0.0}
"""
TWO_STREAMS = [
    "--data.features.path",
    "shapes/features.h5",
    "--data.features.dim",
    "16",
    "--data.standardise",
    "true",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory, tiny_data) -> Path:
    """The small Shapes with their objects, under a path of their own."""
    root = tmp_path_factory.mktemp("leorn-data")
    shutil.copytree(tiny_data, root, dirs_exist_ok=True)
    ensure_objects(root / "shapes", read_spec(root / "shapes")).rename(root / "objects.h5")
    return root


@pytest.fixture(scope="module")
def tiny(place_of, data):
    return place_of("leorn", CONFIG, data)


@pytest.fixture(scope="module")
def run(tiny) -> Path:
    """The folder of a finished run."""
    assert train(tiny.train_arguments()) == 0
    return tiny.run


@pytest.fixture
def asked(run, data):
    return ["--checkpoint", run, "--data-root", data]


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(run, package="leorn").weights)


def test_a_run_leaves_scores_predictions_and_a_report(run):
    assert (run / "report.html").stat().st_size > 10_000
    rows = json.loads((run / "results.json").read_text())
    assert rows[0]["protocol"] == "proposal-map"
    predictions = read_predictions(run / "predictions.jsonl")
    assert predictions
    assert all(1 <= len(prediction.moments) <= 5 for prediction in predictions)
    meta = load_checkpoint(run, package="leorn").meta
    assert meta["describe"]["features"]["files"] == ["objects.h5"]
    assert meta["describe"]["features"]["manifest"]["box_units"] == "normalised"


def test_eval_of_the_restored_checkpoint_repeats_the_predictions_of_the_training(run, asked, tmp_path, done):
    out = done(cli.evaluate, *asked, "--out", tmp_path / "mine.jsonl")
    assert all(f"\n{row} " in out for row in ("leorn", "chance", "bias"))
    assert (tmp_path / "mine.jsonl").read_text() == (run / "predictions.jsonl").read_text()


def test_predict_answers_and_explains_with_the_frames_of_the_video(
    asked, data, tmp_path, done, refused, caplog
):
    pictures, _ = frames(data / "shapes", "test-0001")
    np.save(tmp_path / "test-0001.npy", pictures)
    request = [*asked, "--video", "test-0001", "--query", "the red circle qwertz", "--explain"]
    out = tmp_path / "red.png"
    with caplog.at_level("INFO"):
        said = done(cli.predict, *request, out, "--frames", tmp_path, "--json", "-k", 2)
    windows = json.loads(said)["pred_relevant_windows"]
    assert len(windows) == 2
    assert "unknown to the model: 'qwertz'" in caplog.messages
    assert out.read_bytes().startswith(b"\x89PNG")
    assert "on the sentinel" in caplog.text
    assert "--frames" in refused(cli.predict, *request, tmp_path / "no.png")
    assert not (tmp_path / "no.png").exists()


def test_the_second_stage_begins_with_the_objects_of_the_first(
    tiny, run, data, tmp_path, done, refused, caplog
):
    second = tiny.train_arguments(*TWO_STREAMS, "--name", "two-streams", "--init.objects", str(run))
    frozen = json.dumps({"objects.": 0.0})
    with caplog.at_level("INFO"):
        done(train, *second, "--optim.group_lr", frozen)
    assert "of objects taken over" in caplog.text
    one, two = weights_of(run), weights_of(tiny.run_named("two-streams"))
    for name in one:
        if name.startswith("objects.") and "running" not in name and "num_batches" not in name:
            assert torch.equal(one[name], two[name]), name
    assert not torch.equal(one["text.sentence.weight"], two["text.sentence.weight"])
    assert two["clips.clip_projection.weight"].shape == (16, 16)
    again = ["--checkpoint", tiny.run_named("two-streams"), "--data-root", data]
    done(cli.evaluate, *again, "--out", tmp_path / "mine.jsonl")
    written = tiny.run_named("two-streams") / "predictions.jsonl"
    assert (tmp_path / "mine.jsonl").read_text() == written.read_text()
    assert "do not fit" in refused(train, *second, "--overwrite", "--model.blocks", 1)
    # a video file is seen by both extractors, of which the checkpoint keeps both manifests
    (file,) = write_videos(tmp_path, SPEC, ["test-0000"], Form(lossless=True))
    asked = [*again, "--query", "the red circle spins", "--json"]
    stored = done(cli.predict, *asked, "--video", "test-0000")
    found = done(cli.predict, *asked, "--video-file", file, "--cache", tmp_path / "cache")
    windows = [json.loads(text)["pred_relevant_windows"] for text in (stored, found)]
    np.testing.assert_allclose(*windows, atol=1e-4)


def test_a_run_is_not_resumed_on_other_objects(tiny, run, data, refused):
    kept = (data / "objects.h5").read_bytes()
    with h5py.File(data / "objects.h5", "r+") as file:
        file.attrs["changed"] = 1
    try:
        message = refused(train, *tiny.train_arguments("--resume"))
    finally:
        (data / "objects.h5").write_bytes(kept)
    assert "cannot resume, the features were objects.h5" in message


@pytest.mark.slow  # RGN's and CDN's run by default
def test_two_processes_under_torchrun_train_as_one(tiny, run, start):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    both = start([*launcher, "-m", "leorn", "train", *tiny.train_arguments("--name", "two")])
    assert both.returncode == 0, both.stderr
    one, two = weights_of(run), weights_of(run.parent / "two")
    assert sum("running_var" in name for name in one) > 5
    # biases that a normalisation or a softmax undoes: their gradients are rounding, which Adam blows up
    rounding = ("bias", "in_proj_bias")
    for name, weight in one.items():
        if not name.endswith(rounding):
            torch.testing.assert_close(two[name].float(), weight.float(), rtol=2e-3, atol=2e-4, msg=name)


def test_released_weights_are_imported_and_serve_as_the_first_stage(data, tmp_path, done, refused):
    weights = {f"module.{name}": value for name, value in released_weights("leorn").items()}
    torch.save({"model": weights, "optimizer": {}, "step": 7}, tmp_path / "released.pt")
    given = released_sizes("leorn")
    words = tmp_path / "words.txt"
    words.write_text(
        "".join(f"{word} {' '.join(['0.5'] * given['word_dim'])}\n" for word in ("red", "circle"))
    )
    options = {
        "--weights": tmp_path / "released.pt",
        "--out": tmp_path / "ours.safetensors",
        "--data-root": data,
        "--data.objects.dim": given["object_dim"],
        "--data.frames": given["frames"],
        "--data.word_vectors": words,
        "--model.hidden": given["hidden"],
        "--model.text_layers": given["gru_layers"],
        "--model.blocks": given["corm_layers"],
        "--model.feed_forward": given["ff_dim"],
        "--model.clips": given["frames"] // given["stride"],
        "--model.scales": given["scale_layers"],
        "--model.layers": given["map_layers"],
        "--model.kernel": given["map_kernel"],
    }
    assert "parameters" in done(cli.import_official, *itertools.chain(*options.items()))
    imported = weights_of(tmp_path / "ours.safetensors")
    assert torch.equal(
        imported["objects.sentinel"], weights["module.object_interaction_layer.sentinel_vector"]
    )
    options["--model.blocks"] = given["corm_layers"] + 1
    assert refused(cli.import_official, *itertools.chain(*options.items()))
