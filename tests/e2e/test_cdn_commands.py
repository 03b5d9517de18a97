"""CDN's commands as a user types them: train, evaluate, predict, import; two processes train as one."""

import itertools
import json
import sys
from pathlib import Path

import pytest
import torch

from cdn import cli
from cdn.training import command as train
from golden import released_sizes, released_weights
from vmr_common.predictions import read_predictions
from vmr_train.checkpoint import load_checkpoint

CONFIG = """
protocols: [proposal-map, strict]
data:
  features: {path: shapes/features.h5, dim: 16}
  frames: 16
  standardise: true
  word_vectors: shapes/words.txt
model: {hidden: 12, text_layers: 1, clips: 8, scales: [8], attention_steps: 2, attention_hidden: 8, layers: 2,
  dynamic_layers: [0], kernels: 2, kernel_dropout: 0.0}
loss: {beta: 0.1}
"""
REQUEST = ["--video", "test-0001", "--query", "the red circle spins"]


@pytest.fixture(scope="module")
def tiny(place_of, tiny_data):
    return place_of("cdn", CONFIG, tiny_data)


@pytest.fixture(scope="module")
def run(tiny) -> Path:
    """The folder of a finished run."""
    assert train(tiny.train_arguments()) == 0
    return tiny.run


@pytest.fixture
def asked(run, tiny_data):
    return ["--checkpoint", run, "--data-root", tiny_data]


def test_a_run_leaves_scores_under_its_own_protocol_predictions_and_a_report(run):
    assert (run / "report.html").stat().st_size > 10_000
    rows = json.loads((run / "results.json").read_text())
    assert rows[0]["protocol"] == "proposal-map"
    predictions = read_predictions(run / "predictions.jsonl")
    assert predictions
    assert all(1 <= len(prediction.moments) <= 5 for prediction in predictions)


def test_eval_of_the_restored_checkpoint_repeats_the_predictions_of_the_training(run, asked, tmp_path, done):
    out = done(cli.evaluate, *asked, "--out", tmp_path / "mine.jsonl")
    assert all(f"\n{row} " in out for row in ("cdn", "chance", "bias"))
    assert (tmp_path / "mine.jsonl").read_text() == (run / "predictions.jsonl").read_text()


def test_predict_answers_with_ranked_moments_and_names_unknown_words(asked, done, refused, caplog):
    windows = json.loads(done(cli.predict, *asked, *REQUEST, "--json", "-k", 2))["pred_relevant_windows"]
    assert len(windows) == 2
    assert windows[0][2] >= windows[1][2]
    assert not [line for line in caplog.messages if "unknown" in line]
    done(cli.predict, *asked, "--video", "test-0001", "--query", "the red qwertz uiop spins")
    assert "unknown to the model: 'qwertz', 'uiop'" in caplog.messages
    nothing = refused(cli.predict, *asked, "--video", "test-0001", "--query", "qwertz uiop")
    assert "knows no word of the query (unknown to the model: 'qwertz', 'uiop')" in nothing
    several = ["--video", "test-0001", "--query", "qwertz", "--query", "the red circle spins", "-k", 1]
    first, second = map(json.loads, done(cli.predict, *asked, *several, "--json").splitlines())
    assert (first["pred_relevant_windows"], first["reason"]) == ([], "the model knows no word of it")
    assert (len(second["pred_relevant_windows"]), "reason" in second) == (1, False)


def test_selecting_on_test_is_labelled(tiny, caplog):
    with caplog.at_level("INFO"):
        assert train(tiny.train_arguments("--name", "on-test", "--train.select", "test")) == 0
    assert "ON TEST" in caplog.text
    run = tiny.run_named("on-test")
    assert load_checkpoint(run, package="cdn").meta["selection"]["select"] == "test"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any(name.startswith("test/") for row in rows for name in row)


def test_two_processes_under_torchrun_train_as_one(tiny, run, start):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    both = start([*launcher, "-m", "cdn", "train", *tiny.train_arguments("--name", "two")])
    assert both.returncode == 0, both.stderr
    one, two = (load_checkpoint(run.parent / name, package="cdn").weights for name in ("tiny", "two"))
    one.pop("frames.energy.bias")  # a softmax does not see it: its gradient is rounding, which Adam blows up
    for name, weight in one.items():
        # sums in another order
        torch.testing.assert_close(two[name].float(), weight.float(), rtol=1e-3, atol=1e-4, msg=name)


def test_released_weights_are_imported_and_evaluate(tmp_path, tiny_data, done, refused):
    weights = {f"module.{name}": value for name, value in released_weights("cdn").items()}
    torch.save({"model": weights, "step": 7}, tmp_path / "released.pt")
    given = released_sizes("cdn")
    words = tmp_path / "words.txt"
    words.write_text("".join(f"{word} {' '.join(['0.5'] * given['TI'])}\n" for word in ("red", "circle")))
    options = {
        "--weights": tmp_path / "released.pt",
        "--out": tmp_path / "ours.safetensors",
        "--data-root": tiny_data,
        "--data.features.dim": given["VI"],
        "--data.frames": given["NSC"],
        "--data.standardise": "false",
        "--data.word_vectors": words,
        "--model.clips": given["NSC"] // given["stride"],
        "--model.scales": given["scales"],
        "--model.hidden": given["H"],
        "--model.text_layers": 3,
        "--model.attention_steps": given["sqn"],
        "--model.attention_hidden": 256,
        "--model.layers": given["L"],
        "--model.dynamic_layers": [0, 1],
        "--model.kernels": given["W"],
    }
    assert "parameters" in done(cli.import_official, *itertools.chain(*options.items()))
    assert load_checkpoint(tmp_path / "ours.safetensors", package="cdn").weights
    options["--model.kernels"] = given["W"] + 1
    assert refused(cli.import_official, *itertools.chain(*options.items()))
