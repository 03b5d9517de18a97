"""RGNet's commands as a user types them: train, evaluate, predict and import."""

import argparse
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from golden import released_sizes, released_weights
from rgnet import cli
from rgnet.query_features.store import QueryVectors
from rgnet.query_features.writing import write_query_features
from rgnet.training import command as train
from vmr_common.features.store import FeatureStore, Manifest
from vmr_common.predictions import read_predictions
from vmr_common.splits.load import custom_split
from vmr_train.checkpoint import load_checkpoint

CONFIG = """
quirks: fixed
protocols: [strict, ego4d-nlq]
data:
  features: {path: shapes/features.h5, dim: 16}
  feature_stride: 0.5
  window: 6
  queries: {word_vectors: shapes/words.txt, token_dim: 12}
  standardise: true
model: {hidden: 16, heads: 2, inner: 16, cross_layers: 1, self_layers: 1, decoder_layers: 2, queries: 3}
search: {windows: 3}
"""
SENTENCE = "the red circle spins"


@pytest.fixture(scope="module")
def tiny(place_of, tiny_data):
    return place_of("rgnet", CONFIG, tiny_data)


@pytest.fixture(scope="module")
def run(tiny) -> Path:
    """The folder of a finished run."""
    assert train(tiny.train_arguments()) == 0
    return tiny.run


@pytest.fixture(scope="module")
def stored_queries(tiny_data, tmp_path_factory) -> Path:
    """A file with tokens and sentence vectors of every query of the small Shapes."""
    path = tmp_path_factory.mktemp("queries") / "queries.h5"
    rng = np.random.default_rng(0)
    parts = (custom_split(tiny_data / f"shapes/{part}.jsonl").queries for part in ("train", "val", "test"))
    items = {
        query.id: QueryVectors(
            rng.normal(size=(4, 12)).astype(np.float32), rng.normal(size=16).astype(np.float32)
        )
        for queries in parts
        for query in queries
    }
    write_query_features(path, items.items(), Manifest())
    return path


def test_a_run_leaves_its_scores_predictions_and_a_report_with_window_scores(run):
    page = (run / "report.html").read_text()
    assert "windows" in page
    assert json.loads((run / "report.json").read_text())["curves"]
    predictions = read_predictions(run / "predictions.jsonl")
    assert predictions
    assert all(len(prediction.moments) for prediction in predictions)


def test_eval_shows_chance_bias_and_window_recall(run, tiny_data, done):
    out = done(cli.evaluate, "--checkpoint", run, "--data-root", tiny_data)
    assert all(f"\n{row} " in out for row in ("rgnet", "chance", "bias"))
    assert "\nwindows   R@1 " in out
    rows = json.loads(done(cli.evaluate, "--checkpoint", run, "--data-root", tiny_data, "--json"))
    assert rows[0]["name"] == "rgnet"


def test_predict_prints_moments_with_clock_window_rank_and_scores(run, tiny_data, done):
    video = FeatureStore(tiny_data / "shapes/features.h5").videos()[0]
    wanted = ["--checkpoint", run, "--data-root", tiny_data, "--video", video, "--query", SENTENCE, "-k", 3]
    lines = done(cli.predict, *wanted).splitlines()
    assert lines[0] == f"{video}  {SENTENCE}"
    assert lines[1].split() == ["rank", "start", "end", "score", "window", "retrieval", "proposal"]
    assert len(lines) == 5
    rank, start, _, score, window, *_ = lines[2].split()
    assert (rank, start[-2], start.count(":")) == ("1", ".", 1)
    assert window.split("/")[0] in "123"
    best = json.loads(done(cli.predict, *wanted, "--json"))["pred_relevant_windows"][0]
    assert best[2] == pytest.approx(float(score), abs=1e-3)


def test_predict_names_the_words_that_are_unknown(run, tiny_data, done, caplog):
    video = FeatureStore(tiny_data / "shapes/features.h5").videos()[0]
    asked = ["--checkpoint", run, "--data-root", tiny_data, "--video", video]
    done(cli.predict, *asked, "--query", f"{SENTENCE} like a qwertz")
    assert "unknown to the model: 'like', 'qwertz'" in caplog.messages


def test_wrong_use_ends_in_one_line(run, tiny, tiny_data, refused):
    where = ["--checkpoint", run, "--data-root", tiny_data]
    video = FeatureStore(tiny_data / "shapes/features.h5").videos()[0]
    nothing = refused(cli.predict, *where, "--video", video, "--query", "qwertz asdf")
    assert "vectors for any of the 2 wanted words ('asdf', 'qwertz')" in nothing
    assert "--query is empty" in refused(cli.predict, *where, "--video", video, "--query", " ")
    assert "give --query" in refused(cli.predict, *where, "--video", video, "--query-id", "x")
    assert "needs sentence vectors" in refused(
        train, "--cfg", tiny.config, "--data-root", tiny_data, "--search.coarse_windows", 3
    )
    assert "data.window" in refused(train, "--cfg", tiny.config, "--data.window", 1)


def test_training_starts_from_the_weights_it_is_given(run, tiny, tiny_data, tmp_path, done):
    arguments = ["--cfg", tiny.config, "--data-root", tiny_data, "--runs", tmp_path, "--init", run]
    changes = [
        "--optim.lr",
        1e-9,
        "--loss.negatives",
        "window",
        "--data.splits.train.annotations",
        "shapes/val.jsonl",
    ]
    done(train, *arguments, *changes)
    before, after = (load_checkpoint(path).weights for path in (run, tmp_path / "rgnet/tiny"))
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)


def test_a_model_that_reads_query_files_takes_entries_of_the_file(
    tiny, tiny_data, stored_queries, tmp_path, done, refused
):
    features = [
        "--data.queries.word_vectors", "null", "--data.queries.path", stored_queries.absolute(),
        "--data.queries.sentence_dim", 16, "--search.coarse_windows", 2, "--model.adapter", "true",
    ]  # fmt: skip
    common = ["--cfg", tiny.config, "--data-root", tiny_data, "--runs", tmp_path]
    done(train, *common, *features)
    changed = tmp_path / "changed.h5"
    shutil.copy(stored_queries, changed)
    with h5py.File(changed, "r+") as file:
        file.attrs["changed"] = 1
    other = refused(train, *common, *features, "--data.queries.path", changed, "--resume")
    assert "cannot resume, the word vectors or query features were queries.h5" in other
    query = custom_split(tiny_data / "shapes/test.jsonl").queries[0]
    where = ["--checkpoint", tmp_path / "rgnet/tiny", "--data-root", tiny_data, "--video", query.video]
    assert "a new sentence has none made alike" in refused(cli.predict, *where, "--query", SENTENCE)
    assert "no features for 1 queries" in refused(cli.predict, *where, "--query-id", "nobody")
    assert "matching" in done(cli.predict, *where, "--query-id", query.id).splitlines()[1]
    with h5py.File(changed, "r+") as file:
        file.attrs["manifest"] = json.dumps({**json.loads(file.attrs["manifest"]), "dim": 99})
    others = ["--data.queries.path", changed]
    assert "dim is 99, was 12" in refused(cli.predict, *where, "--query-id", query.id, *others)
    assert "dim is 99, was 12" in refused(cli.evaluate, *where[:4], *others)


def test_weights_under_the_released_names_become_a_checkpoint(tmp_path, done, refused):
    given, weights = released_sizes("rgnet"), released_weights("rgnet")
    torch.save({"model": weights, "opt": argparse.Namespace(lr=1e-4)}, tmp_path / "best.ckpt")
    sizes = [
        "--data.features.dim", given["v_motion_feat_dim"], "--data.queries.token_dim", given["t_feat_dim"],
        "--data.queries.sentence_dim", given["v_appear_feat_dim"], "--model.hidden", given["hidden_dim"],
        "--model.heads", given["nheads"], "--model.inner", given["dim_feedforward"],
        "--model.decoder_layers", given["dec_layers"],
    ]  # fmt: skip
    out = tmp_path / "R.safetensors"
    arguments = ["--cfg", "ego4d-nlq", "--weights", tmp_path / "best.ckpt", "--out", out, *sizes]
    done(cli.import_official, *arguments)
    assert out.exists()
    message = refused(cli.import_official, *arguments, "--model.adapter", "false")
    assert "adapter" in message
