"""RGN's commands as a user types them."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open

import rgn
from golden import GOLDEN, released_sizes, released_weights
from processes import PATIENCE_S, launched
from rgn import cli
from rgn.config import Config
from rgn.training import command as train
from vmr_common.evaluation import protocol
from vmr_common.features.store import Manifest, write_features
from vmr_common.io import read_json_lines
from vmr_common.predictions import read_predictions
from vmr_common.splits.load import custom_split
from vmr_train.checkpoint import amend_checkpoint, load_checkpoint
from vmr_train.cli.config import bundled_config, bundled_configs, completed_config

BIN = Path(sys.executable).parent


@pytest.fixture
def asked(trained):
    return ["--checkpoint", trained.place.run, "--data-root", trained.place.data]


def count(trained, split: str) -> int:
    return sum(1 for _ in read_json_lines(trained.place.data / "shapes" / f"{split}.jsonl"))


# training


def test_training_leaves_a_complete_run_folder(trained):
    files = {
        str(path.relative_to(trained.place.run)) for path in trained.place.run.rglob("*") if path.is_file()
    }
    assert files == {
        ".lock",
        "config.yaml",
        "checkpoints/best.safetensors",
        "checkpoints/last.safetensors",
        "metrics.jsonl",
        "predictions.jsonl",
        "results.json",
        "run.json",
        "report.html",
        "report.json",
    }


def test_the_last_lines_are_the_table_and_the_next_command(trained):
    table, _, ending = trained.done.stdout.partition("\n\nreport")
    assert table.startswith("protocol strict")
    assert f"{count(trained, 'test')} queries, 0 without prediction" in table
    tables, _, presence = table.partition("presence: ")
    rows = [
        line.split()[0] for line in tables.splitlines() if line and not line.startswith(("protocol", "%"))
    ]
    assert rows == ["rgn", "chance", "bias"] * 2
    assert re.match(r"AUROC 0\.\d\d .*, recall at 5 % false alarms [01]\.\d\d ", presence)
    run, data = trained.place.run, trained.place.data
    assert f"rgn-eval --checkpoint {run} --data-root {data}\n" in ending
    assert f"rgn-predict --checkpoint {run} --data-root {data} --video test-0000 --query '" in ending


def test_the_run_records_what_it_was_made_of(trained):
    with safe_open(trained.place.run / "checkpoints" / "best.safetensors", framework="pt") as file:
        meta = json.loads(file.metadata()["vmr"])
    split = custom_split(trained.place.data / "shapes" / "train.jsonl")
    recorded = meta["describe"]["splits"]["train"]
    assert recorded == {"name": "train.jsonl", "queries": len(split.queries), "hash": split.hash}
    assert meta["describe"]["features"]["files"] == ["features.h5"]
    assert meta["describe"]["features"]["manifest"]["extractor"].startswith("Shapes pixel statistics")
    assert meta["versions"]["torch"] == torch.__version__
    assert meta["versions"]["kernels"] == torch.backends.cpu.get_cpu_capability()
    assert yaml.safe_load((trained.place.run / "config.yaml").read_text()) == meta["describe"]["config"]


def test_the_run_records_its_figures_for_programs(trained):
    run = json.loads((trained.place.run / "run.json").read_text())
    with safe_open(trained.place.run / "checkpoints" / "best.safetensors", framework="pt") as file:
        meta = json.loads(file.metadata()["vmr"])
        weights = sum(file.get_tensor(name).numel() for name in file.keys() if name.startswith("model."))  # noqa: SIM118
    assert (run["package"], run["name"], run["seed"], run["quirks"]) == ("rgn", "tiny", 0, "fixed")
    assert (run["select"], run["epoch"], run["precision"]) == ("validation", 1, "fp32")
    assert (run["device"], run["threads"], run["processes"]) == ("cpu", 1, 1)
    assert run["versions"] == meta["versions"]
    assert run["parameters"] == weights
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", run["date"])
    assert run["seconds"] > 0
    # a model of 16 columns and 9 clips: more than a product of a row with each weight, less than a second of anything
    assert 2 * weights < run["flops_per_query"] < 1e9


def test_the_scores_are_those_of_the_predictions(trained):
    rows = json.loads((trained.place.run / "results.json").read_text())
    queries = custom_split(trained.place.data / "shapes" / "test.jsonl").queries
    found = protocol("strict").score(queries, read_predictions(trained.place.run / "predictions.jsonl"))
    first = rows[0]
    assert (first["name"], first["protocol"], first["split"]) == ("rgn", "strict", "test.jsonl")
    assert first["values"] == pytest.approx(found.values)
    assert (first["machine"]["device"], first["machine"]["threads"]) == ("cpu", 1)
    assert {*first["machine"]} == {"device", "threads", "cpu", "kernels", "torch"}
    assert all(first["machine"].values())
    assert not any("machine" in row for row in rows[1:3])  # chance and bias are the same everywhere


def test_the_report_draws_the_reglance_and_needs_no_network(trained):
    html = (trained.place.run / "report.html").read_text()
    assert "re-glance" in html
    links = re.findall(r"(?:src|href)=[\"']([^\"']+)|url\(([^)]+)", html)
    assert [link for pair in links for link in pair if link and not link.startswith(("data:", "#"))] == []


def interrupted_training(place) -> subprocess.CompletedProcess[str]:
    """Starts a long training as a shell would, sends it Ctrl-C once rows of metrics are there, and waits."""
    more = ["--train.epochs", "500", "--train.log_updates", "1"]
    command = [sys.executable, "-m", "rgn", "train", *place.train_arguments(*more)]
    with launched(command) as process:
        limit = time.monotonic() + PATIENCE_S
        rows = place.run / "metrics.jsonl"
        while not (rows.exists() and rows.read_text().count("\n") > 12):
            assert process.poll() is None, process.stderr.read()
            assert time.monotonic() < limit
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE_S)
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def test_glances_alone_are_enough_and_a_hidden_truth_is_answered(place, done, caplog):
    for part, hidden in (("train", ["windows"]), ("val", ["windows"]), ("test", ["windows", "point"])):
        path = place.data / "shapes" / f"{part}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()[:16]]
        path.write_text(
            "".join(json.dumps({k: row[k] for k in row if k not in hidden}) + "\n" for row in rows)
        )
    caplog.set_level("INFO")
    said = done(train, *place.train_arguments())
    assert said.startswith("no table: test.jsonl has neither moments nor glances")
    assert f"\npredictions {place.run}/predictions.jsonl\n" in said
    assert "R@1,glance chooses the epoch" in caplog.text
    assert "so that nothing can be measured" in (place.run / "report.html").read_text()
    ids = [row["query_id"] for row in rows]
    assert [found.query for found in read_predictions(place.run / "predictions.jsonl")] == ids
    asked = ["--checkpoint", place.run, "--data-root", place.data]
    table = done(cli.evaluate, *asked, "--split", "validation")
    assert table.startswith("protocol glance (")
    assert "no bias row" in table


def test_an_interrupted_training_says_how_to_go_on_and_does(place, done):
    stopped = interrupted_training(place)
    assert stopped.returncode == 130, stopped.stderr
    assert "the same command with --resume goes on" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    before = [row for _, row in read_json_lines(place.run / "metrics.jsonl")]
    epochs = before[-1]["epoch"] + 1
    # without --cfg: the run's own configuration
    out = done(
        train,
        *("--resume", "--name", "tiny", "--runs", place.runs, "--data-root", place.data),
        *("--train.epochs", epochs),
    )
    assert "rgn-predict" in out
    after = [row for _, row in read_json_lines(place.run / "metrics.jsonl")]
    assert after[: len(before)] == before
    updates = [row["update"] for row in after if row["kind"] == "interval"]
    per_epoch = -(-sum(1 for _ in read_json_lines(place.data / "shapes" / "train.jsonl")) // 8)
    assert updates == list(range(1, per_epoch * epochs + 1))
    assert [row["epoch"] for row in after if row["kind"] == "epoch"] == list(range(1, epochs + 1))
    command = json.loads((place.run / "report.json").read_text())["command"]
    assert command.startswith(f"rgn-train --cfg {place.run / 'config.yaml'} --name tiny"), (
        "a run from nothing"
    )
    assert "--resume" not in command


def test_two_processes_under_torchrun_train_as_one(place, start, done):
    more = ["--model.dropout", "0", "--train.epochs", "2"]
    done(train, *place.train_arguments("--name", "one", *more))
    launcher = [BIN / "torchrun", "--standalone", "--nproc-per-node", "2", "-m", "rgn", "train"]
    both = start([*launcher, *place.train_arguments("--name", "two", *more)])
    assert both.returncode == 0, both.stderr
    assert both.stdout.count("protocol strict") == 1
    one, two = (place.runs / "rgn" / name for name in ("one", "two"))
    pairs = zip(
        read_predictions(one / "predictions.jsonl"), read_predictions(two / "predictions.jsonl"), strict=True
    )
    for alone, together in pairs:
        assert alone.query == together.query
        # sums in another order, and ranks of almost equal scores may change places
        np.testing.assert_allclose(np.sort(alone.moments, 0), np.sort(together.moments, 0), atol=0.02)
        np.testing.assert_allclose(alone.scores, together.scores, atol=2e-3)
    values = [json.loads((run / "results.json").read_text())[0]["values"] for run in (one, two)]
    assert values[0] == pytest.approx(values[1], abs=0.05)


# evaluation


def test_eval_repeats_the_table_of_the_training(trained, start, tmp_path, asked):
    done = start([BIN / "rgn-eval", *asked, "--out", tmp_path / "mine.jsonl"])
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == trained.done.stdout.partition("\n\nreport")[0].strip()
    written = (trained.place.run / "predictions.jsonl").read_text()
    assert (tmp_path / "mine.jsonl").read_text() == written


def test_eval_prints_json(asked, trained, done):
    rows = json.loads(done(cli.evaluate, *asked, "--json"))
    assert rows == json.loads((trained.place.run / "results.json").read_text())


def test_eval_takes_other_splits_and_files(asked, trained, done):
    train = json.loads(done(cli.evaluate, *asked, "--split", "train", "--json"))
    assert (train[0]["split"], train[0]["num_queries"]) == ("train.jsonl", count(trained, "train"))
    annotations = trained.place.data / "shapes" / "val.jsonl"
    given = json.loads(
        done(cli.evaluate, *asked, "--annotations", annotations, "--json", "--protocols", "[point]")
    )
    assert (given[0]["protocol"], given[0]["num_queries"]) == ("point", count(trained, "val"))


def test_an_evaluation_tells_of_queries_without_prediction(asked, trained, tmp_path, done):
    rows = [row for _, row in read_json_lines(trained.place.data / "shapes" / "test.jsonl")]
    rows[0]["query"] = "qwertz uiop"
    (tmp_path / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = done(cli.evaluate, *asked, "--annotations", tmp_path / "some.jsonl")
    assert f"{len(rows)} queries, 1 without prediction" in out


# prediction

REQUEST = ["--video", "test-0001", "--query", "the red circle spins"]


def test_predict_prints_a_table_of_moments(asked, done):
    lines = done(cli.predict, *asked, *REQUEST, "-k", 2).splitlines()
    assert lines[0] == "test-0001  the red circle spins"
    assert lines[1].split() == ["rank", "start", "end", "score"]
    assert [line.split()[0] for line in lines[2:]] == ["1", "2"]


def test_predict_and_eval_name_the_words_that_are_unknown(asked, trained, tmp_path, done, refused, caplog):
    video = ["--video", "test-0001", "--query"]
    done(cli.predict, *asked, *video, "the red qwertz spins in asdf")
    assert "unknown to the model: 'qwertz', 'in', 'asdf'" in caplog.messages
    assert "knows no word of the query (unknown to the model: 'qwertz')" in refused(
        cli.predict, *asked, *video, "qwertz!"
    )
    rows = [json.loads(line) for line in (trained.place.data / "shapes/test.jsonl").read_text().splitlines()]
    rows[0]["query"] += " with a qwertz"
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done(cli.evaluate, *asked, "--annotations", tmp_path / "other.jsonl")
    (line,) = [line for line in caplog.messages if line.startswith("other.jsonl: ") and "unknown" in line]
    assert "'qwertz'" in line
    assert f"of {len(rows)} queries" in line


def test_predict_prints_json_lines_that_the_score_command_reads(asked, trained, done):
    queries = trained.place.data / "shapes" / "test.jsonl"
    out = done(cli.predict, *asked, "--queries", queries, "--json", "-k", 3)
    assert out == (trained.place.run / "predictions.jsonl").read_text()
    row = json.loads(done(cli.predict, *asked, *REQUEST, "--json", "-k", 1))
    assert row["vid"] == "test-0001"
    (start, end, _score) = row["pred_relevant_windows"][0]
    assert 0 <= start <= end <= 9


@pytest.fixture
def telling(trained, tmp_path):
    """Makes a copy of the checkpoint whose evidence tells, or of which nothing is known."""

    def make(known: bool) -> list:
        path = tmp_path / "best.safetensors"
        shutil.copy(trained.place.run / "checkpoints" / "best.safetensors", path)
        kept = load_checkpoint(path)
        calibration = {**kept.meta["presence"], "slope": 0.0, "intercept": -2.0, "auroc": 0.9, "low": 0.8}
        amend_checkpoint(path, {"presence": calibration if known else None})
        changed = load_checkpoint(path)
        assert all(torch.equal(tensor, changed.tensors[name]) for name, tensor in kept.tensors.items())
        return ["--checkpoint", path, "--data-root", trained.place.data]

    return make


def test_answers_say_how_likely_there_is_such_a_moment(telling, trained, tmp_path, done):
    asked = telling(known=True)
    assert done(cli.predict, *asked, *REQUEST).endswith("\npresence 12 %: probably no such moment\n")
    row = json.loads(done(cli.predict, *asked, *REQUEST, "--json"))
    assert row["presence"] == pytest.approx(0.1192, abs=1e-4)
    found = rgn.load(asked[1], data_root=trained.place.data).predict(*REQUEST[1::2])
    assert found.presence == row["presence"]
    assert repr(found).endswith("probably no such moment")
    done(cli.evaluate, *asked, "--out", tmp_path / "all.jsonl")
    assert {one.presence for one in read_predictions(tmp_path / "all.jsonl")} == {row["presence"]}


def test_no_presence_is_told_of_words_that_mean_nothing_to_the_model(telling, done, caplog):
    asked = [*telling(known=True), "--video", REQUEST[1], "--query", "the dog barks", "--json"]
    assert "presence" not in json.loads(done(cli.predict, *asked))
    assert "none of the words that carry the sentence" in caplog.text


def test_a_checkpoint_without_presence_answers_as_before(telling, done, caplog):
    asked = telling(known=False)
    lines = done(cli.predict, *asked, *REQUEST).splitlines()
    assert lines[-1].startswith("   3 ")
    assert "presence" not in json.loads(done(cli.predict, *asked, *REQUEST, "--json"))
    assert "answers have no presence: there was no validation" in done(cli.evaluate, *asked)
    assert "presence" not in caplog.text


def test_predict_takes_the_length_from_the_features_where_there_are_no_annotations(asked, place, done):
    known = done(cli.predict, *asked, *REQUEST)
    for split in ("train", "val", "test"):
        (place.data / "shapes" / f"{split}.jsonl").unlink()
    data = ["--data-root", place.data]
    assert done(cli.predict, *asked, *data, *REQUEST) == known
    assert done(cli.predict, *asked, *data, *REQUEST, "--duration", 900) != known


def test_a_reader_that_closes_the_pipe_is_no_error(asked, trained):
    words = [
        BIN / "rgn-predict",
        *asked,
        "--queries",
        trained.place.data / "shapes" / "train.jsonl",
        "--json",
    ]
    command = " ".join(f"'{word}'" for word in words)
    script = f"set -o pipefail; {command} | head -n 1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert "vid" in json.loads(done.stdout)
    assert "Error" not in done.stderr


# importing released weights


def word_of(number: int) -> str:
    return "word" + "".join(chr(ord("a") + int(digit)) for digit in str(number))


@pytest.fixture
def released(tmp_path):
    """The recorded case as a user would have it: a checkpoint, a word list, word vectors, features, queries."""
    about, weights = released_sizes("rgn"), released_weights("rgn")
    arrays = np.load(GOLDEN / "rgn/case_a.npz", allow_pickle=False)
    torch.save({"num_updates": 7, "model_parameters": weights}, tmp_path / "released.pt")
    sizes = about["config"]
    words = [word_of(number) for number in range(1, sizes["vocab_size"])]
    (tmp_path / "words.tsv").write_text("".join(f"{word}\t1\n" for word in words))
    vectors = np.random.default_rng(0).normal(size=(sizes["vocab_size"], about["word_dim"]))
    ids = arrays["in/words_id"][0, : about["words_len"][0]]
    vectors[ids] = arrays["in/words_feat"][0, 1 : len(ids) + 1]
    rows = (
        f"{word} {' '.join(map(repr, row.tolist()))}\n" for word, row in zip(words, vectors[1:], strict=True)
    )
    (tmp_path / "glove.txt").write_text("".join(rows))
    write_features(tmp_path / "features.h5", [("video", arrays["in/frames_feat"][0])], Manifest())
    query = {
        "query_id": "0",
        "video_id": "video",
        "duration": about["durations"][0],
        "query": " ".join(map(word_of, ids)),
        "windows": [about["gt"][0]],
    }
    (tmp_path / "queries.jsonl").write_text(json.dumps(query) + "\n")
    transformer, queries = sizes["DualTransformer"], {"annotations": "queries.jsonl"}
    config = {
        "quirks": "released",
        "data": {
            "splits": {"train": queries, "test": queries, "held_out": 0},
            "features": {"path": "features.h5", "dim": about["frame_dim"]},
            "clips": about["n_frames"],
            "word_vectors": "glove.txt",
        },
        "model": {
            "hidden": sizes["hidden_size"],
            "heads": transformer["num_heads"],
            "video_layers": transformer["num_decoder_layers1"],
            "text_layers": transformer["num_decoder_layers2"],
            "candidates": sizes["num_props"],
            "sigma": sizes["sigma"],
        },
    }
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(config))
    return tmp_path, arrays["out/eval/spans"][0] * about["durations"][0]


def test_imported_weights_find_the_moments_of_the_released_code(released, done):
    folder, expected = released
    checkpoint = folder / "imported.safetensors"
    out = done(
        cli.import_official,
        *("--cfg", folder / "case.yaml", "--data-root", folder, "--words", folder / "words.tsv"),
        *("--weights", folder / "released.pt", "--out", checkpoint),
    )
    assert f"rgn-eval --checkpoint {checkpoint} --data-root {folder}" in out
    asked = ["--checkpoint", checkpoint, "--data-root", folder]
    assert "1 query, 0 without prediction" in done(cli.evaluate, *asked)
    row = json.loads(done(cli.predict, *asked, "--queries", folder / "queries.jsonl", "--json"))
    # the recorded word mask is another one than ours, so the same moments may be ranked otherwise
    found = np.array(row["pred_relevant_windows"])[:, :2]
    order = (np.lexsort(moments.T) for moments in (found, expected))
    np.testing.assert_allclose(found[next(order)], expected[next(order)], atol=1e-3)


# configurations


@pytest.mark.parametrize("name", bundled_configs("rgn"))
def test_every_bundled_configuration_is_complete_and_can_be_printed(name, capsys):
    config = bundled_config("rgn", Config, name)
    assert config.name == name
    with pytest.raises(SystemExit):
        train(["--cfg", name, "--print_config"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert completed_config(config_part(printed), Config, "rgn") == config


def config_part(printed: dict) -> dict:
    return {name: value for name, value in printed.items() if name in Config.__dataclass_fields__}
