"""CDN's commands as a user types them: train, evaluate, predict, import; two processes train as one."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cdn import cli
from vmr_common.records import read_predictions
from vmr_common.training import load_checkpoint

CASE = Path(__file__).parents[1] / "parity/golden/cdn/case_a.npz"
CONFIG = """
name: tiny
protocols: [proposal-map, strict]
data:
  splits:
    train: {annotations: shapes/train.jsonl}
    validation: {annotations: shapes/val.jsonl}
    test: {annotations: shapes/test.jsonl}
  features: {path: shapes/features.h5, dim: 16}
  frames: 16
  standardise: true
  word_vectors: shapes/words.txt
model: {hidden: 12, text_layers: 1, clips: 8, scales: [8], attention_steps: 2, attention_hidden: 8, layers: 2,
  dynamic_layers: [0], kernels: 2, kernel_dropout: 0.0}
loss: {beta: 0.1}
optim: {lr: 0.001}
train: {epochs: 1, global_batch: 8, device: cpu}
"""
REQUEST = ["--video", "test-0001", "--query", "the red circle spins"]


@pytest.fixture(scope="module")
def arguments(tmp_path_factory, tiny_data):
    folder = tmp_path_factory.mktemp("cdn")
    (folder / "tiny.yaml").write_text(CONFIG)
    given = ["--cfg", folder / "tiny.yaml", "--data-root", tiny_data, "--runs", folder / "runs"]
    return [str(argument) for argument in given]


@pytest.fixture(scope="module")
def run(arguments) -> Path:
    """The folder of a finished run."""
    assert cli.train(arguments) == 0
    return Path(arguments[-1]) / "cdn" / "tiny"


@pytest.fixture
def asked(run, tiny_data):
    return ["--checkpoint", str(run), "--data-root", str(tiny_data)]


def test_a_run_leaves_scores_under_its_own_protocol_predictions_and_a_report(run):
    assert (run / "report.html").stat().st_size > 10_000
    rows = json.loads((run / "results.json").read_text())
    assert rows[0]["protocol"] == "proposal-map"
    predictions = read_predictions(run / "predictions.jsonl")
    assert predictions
    assert all(1 <= len(prediction.moments) <= 5 for prediction in predictions)


def test_eval_of_the_restored_checkpoint_repeats_the_predictions_of_the_training(
    run, asked, tmp_path, capsys
):
    capsys.readouterr()
    assert cli.evaluate([*asked, "--out", str(tmp_path / "mine.jsonl")]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{row} " in out for row in ("cdn", "chance", "bias"))
    assert (tmp_path / "mine.jsonl").read_text() == (run / "predictions.jsonl").read_text()


def test_predict_answers_with_ranked_moments_also_with_words_it_never_met(asked, capsys):
    capsys.readouterr()
    assert cli.predict([*asked, *REQUEST, "--json", "-k", "2"]) == 0
    windows = json.loads(capsys.readouterr().out)["pred_relevant_windows"]
    assert len(windows) == 2
    assert windows[0][2] >= windows[1][2]
    assert cli.predict([*asked, "--video", "test-0001", "--query", "qwertz uiop"]) == 0


def test_selecting_on_test_is_labelled(arguments, caplog):
    with caplog.at_level("INFO"):
        assert cli.train([*arguments, "--name", "on-test", "--train.select", "test"]) == 0
    assert "ON TEST" in caplog.text
    run = Path(arguments[-1]) / "cdn" / "on-test"
    assert load_checkpoint(run, package="cdn").meta["selection"]["select"] == "test"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert any(name.startswith("test/") for row in rows for name in row)


def test_two_processes_under_torchrun_train_as_one(arguments, run, start):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    both = start([*launcher, "-m", "cdn", "train", *arguments, "--name", "two"])
    assert both.returncode == 0, both.stderr
    one, two = (load_checkpoint(run.parent / name, package="cdn").weights for name in ("tiny", "two"))
    one.pop("frames.energy.bias")  # a softmax does not see it: its gradient is rounding, which Adam blows up
    for name, weight in one.items():
        # sums in another order
        torch.testing.assert_close(two[name].float(), weight.float(), rtol=1e-3, atol=1e-4, msg=name)


def test_released_weights_are_imported_and_evaluate(tmp_path, tiny_data, capsys):
    with np.load(CASE, allow_pickle=False) as arrays:
        weights = {
            f"module.{name[6:]}": torch.from_numpy(arrays[name])
            for name in arrays.files
            if name.startswith("param/")
        }
    torch.save({"model": weights, "step": 7}, tmp_path / "released.pt")
    given = json.loads(CASE.with_suffix(".json").read_text())["config"]
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
    assert cli.import_official([str(part) for pair in options.items() for part in pair]) == 0
    assert "parameters" in capsys.readouterr().out
    assert load_checkpoint(tmp_path / "ours.safetensors", package="cdn").weights
    options["--model.kernels"] = given["W"] + 1
    capsys.readouterr()
    assert cli.import_official([str(part) for pair in options.items() for part in pair]) == 2
    assert "Traceback" not in capsys.readouterr().err
