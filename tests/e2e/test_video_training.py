"""From videos and sentences by a pretrained network to trained models: the files that vmr-extract writes are enough."""

import json

import numpy as np
import pytest
import yaml

import tiny_networks
from cdn.training import command as cdn_train
from rgnet.training import command as rgnet_train
from tiny_papers import OWN
from videos import pictures, write_video
from vmr_common.types import read_predictions
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
    assert extract([str(root / "videos"), *options, "--fps", "2", "--out", str(root / "features.h5")]) == 0
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


def test_cdn_and_rgnet_train_on_them(data, tmp_path):
    queries = {"path": "text.h5", "token_dim": 32, "sentence_dim": 16}
    runs = {
        cdn_train: config_of("cdn", data, word_vectors="words.txt"),
        rgnet_train: config_of("rgnet", data, queries=queries),
    }
    for train, config in runs.items():
        out = tmp_path / train.__module__
        assert train(["--cfg", config, "--data-root", str(data), "--runs", str(out)]) == 0
        (predictions,) = out.rglob("predictions.jsonl")
        assert len(read_predictions(predictions)) == PARTS["test"]
        rows = {row["name"] for row in json.loads((predictions.parent / "results.json").read_text())}
        assert ("zero-shot" in rows) == (train is rgnet_train)
