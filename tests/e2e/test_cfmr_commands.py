"""CFMR's commands as a user types them: train, evaluate, predict, import, index and search."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cfmr import cli
from cfmr.index import VideoIndex
from cfmr.index.cli import index, search
from vmr_common.annotations import read_annotations
from vmr_common.metrics import iou
from vmr_common.records import read_predictions

CONFIG = """
name: tiny
quirks: fixed
protocols: [strict, point]
data:
  splits:
    train: {annotations: shapes/train.jsonl}
    validation: {annotations: shapes/val.jsonl}
    test: {annotations: shapes/test.jsonl}
  features: {path: shapes/features.h5, dim: 16}
  clips: 32
  word_vectors: shapes/words.txt
model: {hidden: 16, heads: 2, encoder_layers: 1, reconstructor_layers: 1, concepts: 2, centres: 4, widths: 2}
optim: {lr: 0.001}
train: {epochs: 1, global_batch: 8, device: cpu}
"""
SENTENCE = "the red circle spins"


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_data) -> Path:
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("cfmr")
    config = folder / "tiny.yaml"
    config.write_text(CONFIG)
    arguments = ["--cfg", config, "--data-root", tiny_data, "--runs", folder / "runs"]
    assert cli.train([str(argument) for argument in arguments]) == 0
    return folder / "runs" / "cfmr" / "tiny"


@pytest.fixture
def built(tmp_path, run, tiny_data) -> Path:
    folder = tmp_path / "index"
    status = index(["--checkpoint", str(run), "--out", str(folder), "--data-root", str(tiny_data)])
    assert status == 0
    return folder


def error_of(capsys, command, *arguments) -> str:
    capsys.readouterr()
    assert command([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in "".join(lines)
    return lines[-1]


def test_a_run_leaves_its_scores_predictions_and_report(run):
    assert (run / "report.html").stat().st_size > 10_000
    predictions = read_predictions(run / "predictions.jsonl")
    assert predictions
    assert all(prediction.moments.shape == (8, 2) for prediction in predictions)


def test_eval_scores_the_stored_weights_beside_chance_and_bias(run, tiny_data, capsys):
    capsys.readouterr()
    assert cli.evaluate(["--checkpoint", str(run), "--data-root", str(tiny_data)]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{row} " in out for row in ("cfmr", "chance", "bias"))


def test_predict_and_search_in_one_video_agree(run, built, tiny_data, capsys):
    video = VideoIndex.open(built).videos()[0]
    capsys.readouterr()
    wanted = ["--checkpoint", str(run), "--data-root", str(tiny_data), "--video", video, "--query", SENTENCE]
    assert cli.predict([*wanted, "-k", "1", "--json"]) == 0
    best = json.loads(capsys.readouterr().out)["pred_relevant_windows"][0]
    assert search([str(built), SENTENCE, "-k", "1", "--video", video, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["moments"][0]
    assert found["score"] == pytest.approx(best[2], abs=2e-3)


def test_search_prints_a_table_and_answers_a_file_of_questions(built, tmp_path, capsys):
    capsys.readouterr()
    assert search([str(built), SENTENCE, "-k", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == SENTENCE
    assert len(lines) == 5
    questions = tmp_path / "questions.jsonl"
    questions.write_text(
        '{"qid": 7, "query": "the red circle spins"}\n{"qid": "b", "query": "a star grows"}\n'
    )
    assert search([str(built), "--queries", str(questions), "--json", "-k", "2"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["qid"] for row in rows] == [7, "b"]
    assert all(len(row["moments"]) == 2 for row in rows)


def test_the_index_command_adds_removes_compacts_and_verifies(run, built, tiny_data, capsys):
    first = VideoIndex.open(built).videos()[0]
    assert index(["--out", str(built), "--remove", first, "--compact", "--verify"]) == 0
    assert first not in VideoIndex.open(built)
    assert "every byte is as it was written" in capsys.readouterr().out
    assert index(["--out", str(built), "--add", "--data-root", str(tiny_data)]) == 0
    assert first in VideoIndex.open(built)


def test_wrong_use_ends_in_one_line(run, built, tmp_path, tiny_data, capsys):
    assert "--checkpoint is needed" in error_of(capsys, index, "--out", tmp_path / "new")
    assert "no index to add to" in error_of(
        capsys, index, "--out", tmp_path / "new", "--checkpoint", run, "--add", "--data-root", tiny_data
    )
    assert "not an index" in error_of(capsys, search, tmp_path, SENTENCE)
    assert "knows no word" in error_of(capsys, search, built, "qwertz")
    assert "the query is empty" in error_of(capsys, search, built, " ")
    assert "give one sentence" in error_of(capsys, search, built)
    assert "holds no video 'x'" in error_of(capsys, search, built, SENTENCE, "--video", "x")
    assert "must be at least 1" in error_of(capsys, search, built, SENTENCE, "-k", "0")
    assert "no such feature file" in error_of(
        capsys, index, "--out", built, "--add", "--features", tmp_path / "no.h5"
    )
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"qid": 7}\n')
    assert "key 'query' must hold a sentence" in error_of(capsys, search, built, "--queries", questions)


def test_recall_over_a_collection_is_counted_from_its_search(tmp_path, run, tiny_data, capsys):
    folder = tmp_path / "test-videos"
    common = ["--data-root", str(tiny_data)]
    assert index(["--checkpoint", str(run), "--out", str(folder), "--split", "test", *common]) == 0
    capsys.readouterr()
    assert search([str(folder), "--measure", "test", "--json", *common]) == 0
    found = json.loads(capsys.readouterr().out)
    queries = read_annotations(tiny_data / "shapes/test.jsonl").queries
    videos = sorted({query.video for query in queries})
    assert (found["queries"], found["videos"]) == (len(queries), len(videos))
    opened = VideoIndex.open(folder)
    first = [opened.search([query.text], 1)[0][0] for query in queries]
    right = [hit.video == query.video for hit, query in zip(first, queries, strict=True)]
    assert found["video"]["1"] == pytest.approx(sum(right) / len(queries))
    assert found["video_chance"]["1"] == pytest.approx(1 / len(videos))
    overlapping = [
        ok and iou(query.moments, np.array([hit.start, hit.end])).max() >= 0.5
        for ok, hit, query in zip(right, first, queries, strict=True)
    ]
    assert found["moment"]["1"] == pytest.approx(sum(overlapping) / len(queries))
    assert 0 < found["moment_chance"]["1"] < found["video_chance"]["1"]


def test_a_build_that_was_killed_goes_on_where_it_stopped(tmp_path, run, tiny_data, built):
    folder = tmp_path / "killed"
    arguments = ["--checkpoint", run, "--out", folder, "--data-root", tiny_data, "--shard-videos", "3"]
    command = [sys.executable, "-m", "cfmr", "index", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        reported = ""
        while "videos are in the index" not in reported and (line := process.stderr.readline()):
            reported = line
        process.send_signal(signal.SIGKILL)
    before = VideoIndex.open(folder)
    before.verify()
    assert len(before) >= int(reported.split()[0])
    assert index([str(argument) for argument in arguments]) == 0
    after = VideoIndex.open(folder)
    assert after.videos() == VideoIndex.open(built).videos()
    assert after.videos()[: len(before)] == before.videos()


def test_weights_under_the_released_names_become_a_checkpoint(tmp_path, capsys):
    golden = Path(__file__).parents[1] / "parity/golden/cfmr/case_a.npz"
    with np.load(golden, allow_pickle=False) as arrays:
        weights = {
            name.removeprefix("param/"): arrays[name] for name in arrays.files if name.startswith("param/")
        }
    np.savez(tmp_path / "weights.npz", **weights)
    words = [f"w{n}" for n in range(39)]
    (tmp_path / "words.txt").write_text("\n".join(words))
    rows = [" ".join([word, *["0.5"] * 20]) for word in words]
    (tmp_path / "glove.txt").write_text("\n".join(rows))
    arguments = [
        "--cfg", "charades", "--weights", str(tmp_path / "weights.npz"), "--words", str(tmp_path / "words.txt"),
        "--out", str(tmp_path / "C.safetensors"), "--data-root", str(tmp_path), "--data.word_vectors", "glove.txt",
        "--data.features.dim", "24", "--model.hidden", "32", "--model.encoder_layers", "2",
        "--model.reconstructor_layers", "1", "--model.concepts", "3",
    ]  # fmt: skip
    assert cli.import_official(arguments) == 0
    assert (tmp_path / "C.safetensors").exists()
    assert "needs released" not in capsys.readouterr().err
    assert "need released" in error_of(capsys, cli.import_official, *arguments, "--quirks", "fixed")


def test_an_index_of_another_model_is_refused(run, built, tmp_path, capsys):
    from vmr_common.training import load_checkpoint, save_checkpoint

    stored = load_checkpoint(run)
    changed = {name: tensor + 0.01 for name, tensor in stored.weights.items()}
    save_checkpoint(
        tmp_path / "other.safetensors", {"model": changed, "state": stored.state_tensors}, stored.meta
    )
    message = error_of(capsys, search, built, SENTENCE, "--checkpoint", tmp_path / "other.safetensors")
    assert "built by model" in message
    shutil.rmtree(built)
