"""CFMR's commands as a user types them: train, evaluate, predict, import, index and search."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cfmr import cli
from cfmr.index.cli import index, search
from cfmr.training import command as train
from golden import released_weights
from processes import PATIENCE_S, launched
from vmr_common.metrics import iou
from vmr_common.predictions import read_predictions
from vmr_common.splits.formats import read_annotations
from vmr_search import Search
from vmr_search.folder import open_index

CONFIG = """
quirks: fixed
protocols: [strict, point]
data:
  features: {path: shapes/features.h5, dim: 16}
  clips: 32
  word_vectors: shapes/words.txt
model: {hidden: 16, heads: 2, encoder_layers: 1, reconstructor_layers: 1, concepts: 2, centres: 4, widths: 2}
"""
SENTENCE = "the red circle spins"


@pytest.fixture(scope="module")
def run(place_of, tiny_data) -> Path:
    """The folder of a finished run."""
    tiny = place_of("cfmr", CONFIG, tiny_data)
    assert train(tiny.train_arguments()) == 0
    return tiny.run


@pytest.fixture
def built(tmp_path, run, tiny_data, done) -> Path:
    folder = tmp_path / "index"
    done(index, "--checkpoint", run, "--out", folder, "--data-root", tiny_data)
    return folder


def test_a_run_leaves_its_scores_predictions_and_report(run):
    assert (run / "report.html").stat().st_size > 10_000
    predictions = read_predictions(run / "predictions.jsonl")
    assert predictions
    assert all(prediction.moments.shape == (8, 2) for prediction in predictions)


def test_eval_scores_the_stored_weights_beside_chance_and_bias(run, tiny_data, done):
    out = done(cli.evaluate, "--checkpoint", run, "--data-root", tiny_data)
    assert all(f"\n{row} " in out for row in ("cfmr", "chance", "bias"))


def test_predict_and_search_in_one_video_agree(run, built, tiny_data, done):
    video = open_index(built).engine.videos()[0]
    wanted = ["--checkpoint", run, "--data-root", tiny_data, "--video", video, "--query", SENTENCE]
    best = json.loads(done(cli.predict, *wanted, "-k", 1, "--json"))["pred_relevant_windows"][0]
    found = json.loads(done(search, built, SENTENCE, "-k", 1, "--video", video, "--json"))["moments"][0]
    assert found["score"] == pytest.approx(best[2], abs=2e-3)


def test_the_command_under_next_can_be_typed(run, tiny_data, tmp_path, done):
    out = done(index, "--checkpoint", run, "--out", tmp_path / "index", "--data-root", tiny_data)
    _, _, words = out.rpartition("\nnext  cfmr-search ")
    assert "rank" in done(search, *shlex.split(words))


def test_search_prints_a_table_and_answers_a_file_of_questions(built, tmp_path, done):
    lines = done(search, built, SENTENCE, "-k", 3).splitlines()
    assert lines[0] == SENTENCE
    assert len(lines) == 5
    questions = tmp_path / "questions.jsonl"
    questions.write_text(
        '{"qid": 7, "query": "the red circle spins"}\n{"qid": "b", "query": "a star grows"}\n'
    )
    out = done(search, built, "--queries", questions, "--json", "-k", 2)
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["qid"] for row in rows] == [7, "b"]
    assert all(len(row["moments"]) == 2 for row in rows)


def test_search_and_predict_name_the_words_that_are_unknown(run, built, tiny_data, tmp_path, done, caplog):
    def said(command, *arguments):
        caplog.clear()
        done(command, *arguments)
        return [line for line in caplog.messages if "unknown" in line]

    one, line = "the red qwertz spins", "unknown to the model: 'qwertz'"
    asked = ["--checkpoint", run, "--data-root", tiny_data, "--video", "test-0001"]
    assert said(cli.predict, *asked, "--query", one) == [line]
    assert said(search, built, one) == [line]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"query": text}) + "\n" for text in (one, SENTENCE, one)))
    assert said(search, built, "--queries", questions) == [f"1 word in 2 of 3 queries is {line}"]


def test_the_index_command_adds_removes_compacts_and_verifies(built, tiny_data, done):
    first = open_index(built).engine.videos()[0]
    out = done(index, "--out", built, "--remove", first, "--compact", "--verify")
    assert first not in open_index(built).engine
    assert "every byte is as it was written" in out
    done(index, "--out", built, "--add", "--data-root", tiny_data)
    assert first in open_index(built).engine
    again = done(index, "--out", built, "--add", "--replace", "--data-root", tiny_data)
    assert again.startswith("0 videos added; ")
    assert "were there already" in again
    assert " and are replaced\n" in again


def test_wrong_use_ends_in_one_line(run, built, tmp_path, tiny_data, refused):
    assert "--checkpoint is needed" in refused(index, "--out", tmp_path / "new")
    assert "no index to add to" in refused(
        index, "--out", tmp_path / "new", "--checkpoint", run, "--add", "--data-root", tiny_data
    )
    assert "not an index" in refused(search, tmp_path, SENTENCE)
    assert "no word" in refused(search, built, "qwertz")
    assert "is empty" in refused(search, built, " ")
    assert "give one sentence" in refused(search, built)
    assert "a sentence behind --video is read as a video" in refused(search, built, "--video", "x", SENTENCE)
    assert "holds no video 'x'" in refused(search, built, SENTENCE, "--video", "x")
    for k in ("0", "-1", "1.5", "ten", "9" * 5000):
        assert "argument -k: expected a whole number, at least 1 and at most 1,000" in refused(
            search, built, SENTENCE, "-k", k
        )
    for overlap in ("nan", "2", "-0.1", "inf", "half"):
        assert "argument --nms: expected a number, at least 0 and at most 1" in refused(
            search, built, SENTENCE, "--nms", overlap
        )
    for count in ("0", "1000000000000"):
        assert "at least 1 and at most 65,536" in refused(index, "--out", built, "--shard-videos", count)
    assert "no.h5: no such file" in refused(index, "--out", built, "--add", "--features", tmp_path / "no.h5")
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"qid": 7}\n')
    assert "key 'query' must hold a sentence" in refused(search, built, "--queries", questions)
    assert "--add builds or adds" in refused(index, "--out", built, "--compact", "--add")
    assert "holds float16 vectors, --dtype asks for float32" in refused(
        index, "--out", built, "--add", "--dtype", "float32", "--data-root", tiny_data
    )


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("d.json", '{"test-0000": NaN}', "finite number"),
        ("d.json", '{"test-0000": 1e400}', "finite number"),
        ("d.json", '{"test-0000": "9"}', "must be a number"),
        ("d.json", '{"test-0000": true}', "must be a number"),
        ("d.json", '{"test-0000": 9, "test-0000": 8}', "occurs twice"),
        ("d.csv", "id,length\ntest-0000,nan\n", "d.csv:2: length must be a finite number"),
        ("d.csv", "id,length\ntest-0000,9\ntest-0000,9\n", "d.csv:3: id 'test-0000' occurs twice"),
        ("d.csv", "id,length\ntest-0000,-9\n", "d.csv:2: length must be positive"),
        ("d.csv", "id,length\ntest-0000,9\n", "the duration of"),
    ],
)
def test_a_wrong_table_of_durations_is_named_and_nothing_is_built(
    run, tmp_path, tiny_data, refused, name, text, message
):
    (tmp_path / name).write_text(text)
    out = tmp_path / "index"
    given = ["--checkpoint", run, "--out", out, "--durations", tmp_path / name, "--data-root", tiny_data]
    assert message in refused(index, *given)
    assert not out.exists()


def test_a_folder_of_something_else_is_refused_before_a_model_is_read(tmp_path, refused):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "train-000000.tar").write_text("precious")
    message = refused(index, "--out", tmp_path, "--checkpoint", tmp_path / "no-such-model")
    assert "not an index, and not empty (holds 'shards')" in message
    assert [path.name for path in tmp_path.rglob("*")] == ["shards", "train-000000.tar"]


def test_a_wrong_question_is_named_before_any_is_answered(built, tmp_path, capsys):
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"query": SENTENCE}) + '\n{"query": "the red \\ud800 circle"}\n')
    assert search([str(built), "--queries", str(questions), "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {questions}:2: ")


def test_answers_come_while_others_are_searched_and_a_reader_may_leave(built, tmp_path):
    questions = tmp_path / "questions.jsonl"
    questions.write_text("".join(json.dumps({"qid": n, "query": SENTENCE}) + "\n" for n in range(1_000)))
    command = [sys.executable, "-m", "cfmr", "search", built, "--queries", questions, "--json"]
    with launched(command) as process:
        assert json.loads(process.stdout.readline())["qid"] == 0
        assert process.poll() is None
        process.stdout.close()
        assert process.wait(timeout=PATIENCE_S) == 0
        assert process.stderr.read() == ""


def test_a_pipe_of_questions_is_answered(built, tmp_path):
    questions = "".join(json.dumps({"qid": n, "query": SENTENCE}) + "\n" for n in range(40))
    os.mkfifo(tmp_path / "pipe")
    command = [sys.executable, "-m", "cfmr", "search", built, "--queries", tmp_path / "pipe", "--json"]
    with launched(command) as process:
        (tmp_path / "pipe").write_text(questions)
        answers, problems = process.communicate(timeout=PATIENCE_S)
    assert problems == ""
    assert [json.loads(line)["qid"] for line in answers.splitlines()] == list(range(40))


def test_more_than_one_process_and_a_missing_package_are_one_line(built, refused, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("WORLD_SIZE", "2")
        assert "by one process, found torchrun with more" in refused(search, built, SENTENCE)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "cfmr-index needs vmr-search, which is not installed: pip install 'vmr-cfmr[search]'" in refused(
        index, "--out", built
    )


def test_an_index_without_some_videos_is_measured_by_the_others(built, tiny_data, done, refused, caplog):
    queries = read_annotations(tiny_data / "shapes/test.jsonl").queries
    videos = list(dict.fromkeys(query.video for query in queries))
    measured = [search, built, "--measure", "test", "--data-root", tiny_data]
    done(index, "--out", built, "--remove", videos[0])
    left = [query for query in queries if query.video != videos[0]]
    assert json.loads(done(*measured, "--json"))["queries"] == len(left)
    assert f"{len(queries) - len(left)} of {len(queries)} queries are left out" in caplog.text
    assert caplog.text.count(f"'{videos[0]}'") == 1
    done(index, "--out", built, "--remove", *videos[1:])
    message = refused(*measured)
    assert (
        f"holds none of the {len(videos)} videos that the queries ask for, for example '{videos[0]}'"
        in message
    )
    assert "cfmr-index --add" in message


def test_recall_over_a_collection_is_counted_from_its_search(tmp_path, run, tiny_data, done):
    folder = tmp_path / "test-videos"
    common = ["--data-root", tiny_data]
    done(index, "--checkpoint", run, "--out", folder, "--split", "test", *common)
    found = json.loads(done(search, folder, "--measure", "test", "--json", *common))
    queries = read_annotations(tiny_data / "shapes/test.jsonl").queries
    videos = sorted({query.video for query in queries})
    assert (found["queries"], found["videos"]) == (len(queries), len(videos))
    opened = open_index(folder)
    search_in = Search(opened.engine, opened.retriever)
    first = [search_in(query.text, 1)[0] for query in queries]
    right = [hit.video == query.video for hit, query in zip(first, queries, strict=True)]
    assert found["video"]["1"] == pytest.approx(sum(right) / len(queries))
    assert found["video_chance"]["1"] == pytest.approx(1 / len(videos))
    overlapping = [
        ok and iou(query.moments, np.array([hit.start, hit.end])).max() >= 0.5
        for ok, hit, query in zip(right, first, queries, strict=True)
    ]
    assert found["moment"]["1"] == pytest.approx(sum(overlapping) / len(queries))
    assert 0 < found["moment_chance"]["1"] < found["video_chance"]["1"]


def test_a_build_that_was_killed_goes_on_where_it_stopped(tmp_path, run, tiny_data, built, done):
    folder = tmp_path / "killed"
    arguments = ["--checkpoint", run, "--out", folder, "--data-root", tiny_data, "--shard-videos", "3"]
    command = [sys.executable, "-m", "cfmr", "index", *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        reported = ""
        while "videos encoded, and in the index" not in reported and (line := process.stderr.readline()):
            reported = line
        process.send_signal(signal.SIGKILL)
    opened = open_index(folder)
    opened.verify()
    before = opened.engine.videos()
    assert len(before) >= int(reported.split()[0])
    done(index, *arguments)
    after = open_index(folder).engine.videos()
    assert after == open_index(built).engine.videos()
    assert after[: len(before)] == before


@pytest.mark.parametrize("options", [[], ["--quirks", "released-torch"]])
def test_weights_under_the_released_names_become_a_checkpoint(options, tmp_path, capsys, refused):
    weights = released_weights("cfmr")
    if options:  # the PyTorch branch names the parts of a layer norm as torch does
        ending = {".gamma": ".weight", ".beta": ".bias"}
        weights = {re.sub(r"\.(gamma|beta)$", lambda m: ending[m[0]], name): w for name, w in weights.items()}
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
    assert cli.import_official([*arguments, *options]) == 0
    assert (tmp_path / "C.safetensors").exists()
    assert "needs released" not in capsys.readouterr().err
    assert "expected released" in refused(cli.import_official, *arguments, "--quirks", "fixed")


def test_an_index_of_another_model_is_refused(run, built, tmp_path, refused):
    from vmr_train.checkpoint import load_checkpoint, save_checkpoint

    stored = load_checkpoint(run)
    changed = {name: tensor + 0.01 for name, tensor in stored.weights.items()}
    save_checkpoint(
        tmp_path / "other.safetensors", {"model": changed, "state": stored.state_tensors}, stored.meta
    )
    message = refused(search, built, SENTENCE, "--checkpoint", tmp_path / "other.safetensors")
    assert "built by model" in message
    shutil.rmtree(built)
