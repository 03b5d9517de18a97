"""From videos and sentences by a pretrained network to trained models: the files that vmr-extract writes are enough."""

import json

import numpy as np
import pytest
import yaml

import cdn.cli
import rgnet.cli
import tiny_networks
from cdn.training import command as cdn_train
from rgnet.training import command as rgnet_train
from tiny_papers import OWN
from videos import pictures, write_video
from vmr_common.predictions import read_predictions
from vmr_video.cli.extract import main as extract

PARTS = {"train": 8, "val": 2, "test": 3}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data root with features of videos and sentences, and annotations."""
    root = tmp_path_factory.mktemp("data")
    (root / "videos").mkdir()
    network = str(tiny_networks.clip(root / "clip"))
    words = ["a bright square moves", "the colours change slowly", "a square jumps up"]
    number = 0
    for part, count in PARTS.items():
        rows = []
        for _ in range(count):
            write_video(root / "videos" / f"v{number}.mp4", pictures(80, 48, 32, seed=number))
            start = number % 4
            rows.append(
                {"qid": number, "query": words[number % 3], "vid": f"v{number}", "duration": 8.0}
                | {"relevant_windows": [[start, start + 3]]}
            )
            number += 1
        (root / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [
        "".join(f"{word} {' '.join(map(str, np.arange(12) + len(word)))}" for word in [w])
        for w in " ".join(words).split()
    ]
    (root / "words.txt").write_text("\n".join(dict.fromkeys(lines)) + "\n")
    options = ["--weights", network, "--device", "cpu"]
    assert (
        extract(
            [
                str(root / "videos"),
                *options,
                "--fps",
                "2",
                "--workers",
                "0",
                "--out",
                str(root / "features.h5"),
            ]
        )
        == 0
    )
    whole = root / "all.jsonl"
    whole.write_text("".join((root / f"{part}.jsonl").read_text() for part in PARTS))
    assert extract(["--annotations", str(whole), *options, "--out", str(root / "text.h5")]) == 0
    return root


def config_of(paper: str, data, **own) -> str:
    own = {
        **OWN[paper]["data"],
        **own,
        "features": {
            "path": "features.h5",
            "dim": 16,
            "expected_manifest": {"extractor": "CLIP ViT-B/32", "fps": 2},
        },
    }
    splits = {"train": "train", "validation": "val", "test": "test"}
    config = {
        "name": "video",
        **OWN[paper],
        "data": own | {"splits": {part: {"annotations": f"{n}.jsonl"} for part, n in splits.items()}},
        "train": {"epochs": 1, "global_batch": 4, "device": "cpu"},
    }
    path = data / f"{paper}.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """The run of each paper."""
    queries = {"path": "text.h5", "token_dim": 32, "sentence_dim": 16}
    configs = {
        "cdn": config_of("cdn", data, word_vectors="words.txt"),
        "rgnet": config_of("rgnet", data, queries=queries),
    }
    out = tmp_path_factory.mktemp("runs")
    for paper, config in configs.items():
        train = {"cdn": cdn_train, "rgnet": rgnet_train}[paper]
        assert train(["--cfg", config, "--data-root", str(data), "--runs", str(out)]) == 0
    return {paper: out / paper / "video" for paper in configs}


def moments(text: str) -> np.ndarray:
    return np.array([row["pred_relevant_windows"] for row in map(json.loads, text.splitlines())])


def test_cdn_and_rgnet_train_on_them(runs):
    for paper, run in runs.items():
        assert len(read_predictions(run / "predictions.jsonl")) == PARTS["test"]
        rows = {row["name"] for row in json.loads((run / "results.json").read_text())}
        assert ("zero-shot" in rows) == (paper == "rgnet")


def test_a_video_file_is_answered_as_its_features_in_the_file(data, runs, tmp_path, done):
    file, sentence = data / "videos/v10.mp4", "a square jumps up"
    for paper, predict in (("cdn", cdn.cli.predict), ("rgnet", rgnet.cli.predict)):
        run = ["--checkpoint", runs[paper], "--json"]
        asked = ["--query", sentence] if paper == "cdn" else ["--query-id", "11"]
        stored = moments(done(predict, *run, "--video", "v10", *asked))
        run += ["--cache", tmp_path / "cache", "--query", sentence]
        found = moments(done(predict, *run, "--video-file", file))
        np.testing.assert_allclose(found, stored, atol=1e-4)
        # where neither annotations nor features are, the words and the network that was named are enough
        words = data if paper == "cdn" else "gone"
        alone = done(predict, *run, "--video-file", file, "--data-root", words, "--weights", data / "clip")
        np.testing.assert_array_equal(moments(alone), found)


def test_rgnet_encodes_new_sentences_as_its_file_of_query_features(data, runs, tmp_path, done, refused):
    run = ["--checkpoint", runs["rgnet"], "--json", "--video", "v10"]
    known = moments(done(rgnet.cli.predict, *run, "--query-id", "11"))
    np.testing.assert_allclose(
        moments(done(rgnet.cli.predict, *run, "--query", "a square jumps up")), known, atol=1e-4
    )
    other = tiny_networks.clip(tmp_path / "other", seed=1)
    said = refused(rgnet.cli.predict, *run, "--query", "all new", "--weights", other)
    assert "a new sentence has none made alike" in said
    assert "weights" in said
    model = rgnet.load(runs["rgnet"])
    entry, new = model.predict("v10", ["11", "the colours are all new"])
    np.testing.assert_allclose(entry.moments, known[0, : len(entry), :2], atol=1e-4)
    assert len(new) == len(entry)
    assert model.evaluate()[0]["num_queries"] == PARTS["test"]
