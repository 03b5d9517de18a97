"""Annotations, features and word vectors that cannot be right end in one clear line, exit status 2 and nothing lost."""

import json
import pickle
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from vmr_common.io import read_json_lines


def change_rows(place, split: str, change) -> Path:
    path = place.data / "shapes" / f"{split}.jsonl"
    rows = [row for _, row in read_json_lines(path)]
    path.write_text("".join(json.dumps(row) + "\n" for row in change(rows)))
    return path


def change_first(place, split: str, **changes) -> Path:
    return change_rows(place, split, lambda rows: [{**rows[0], **changes}, *rows[1:]])


# annotations


def test_a_data_root_that_is_not_there(place, refused_training):
    shutil.rmtree(place.data)
    message = refused_training()
    assert "train.jsonl" in message
    assert "no such file" in message


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"windows": [[4.0, 1.0]]}, ["start", "4", "1"]),
        ({"windows": [[1.0, float("nan")]]}, ["windows"]),
        ({"windows": "all"}, ["windows"]),
        ({"duration": -1.0}, ["duration", "-1"]),
        ({"duration": "long"}, ["duration", "long"]),
        ({"query": ""}, ["sentence is empty"]),
        ({"query": None}, ["query"]),
        ({"video_id": ""}, ["video_id"]),
        ({"query_id": "train-0001_0"}, ["train-0001_0", "twice"]),
        ({"point": "soon"}, ["point"]),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_record_that_cannot_be_right(place, refused_training, changes, fragments):
    path = change_first(place, "train", **changes)
    message = refused_training()
    assert str(path) in message
    assert [fragment for fragment in fragments if fragment not in message] == []


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (b"", "train.jsonl"),
        (b'{"query_id": "caf\xe9"}\n', "not UTF-8"),
        (b"\x80\x04\x95\x00", "train.jsonl"),
        (b'{"query_id": "0", "video_id"', "train.jsonl"),
    ],
    ids=["empty", "latin-1", "pickle", "cut-short"],
)
def test_an_annotation_file_of_another_kind(place, refused_training, content, fragment):
    (place.data / "shapes" / "train.jsonl").write_bytes(content)
    assert fragment in refused_training()


def test_training_queries_without_a_glance(place, refused_training):
    change_rows(place, "train", lambda rows: [{k: v for k, v in row.items() if k != "point"} for row in rows])
    message = refused_training()
    assert "RGN learns from glances" in message
    assert "train-0000_0" in message


def test_training_queries_of_unknown_words_only(place, refused_training):
    change_rows(place, "train", lambda rows: [{**row, "query": "qwertz uiop"} for row in rows])
    message = refused_training()
    assert "words.txt" in message
    assert "wanted words" in message


@pytest.mark.parametrize("split", ["val", "test"])
def test_evaluated_queries_of_unknown_words_only(place, refused_training, split):
    change_rows(place, split, lambda rows: [{**row, "query": "qwertz uiop"} for row in rows])
    message = refused_training()
    assert f"{split}.jsonl: the model knows no word of any" in message


def test_selection_on_validation_where_nothing_is_held_out(refused_training):
    message = refused_training("--data.splits.validation", "null", "--data.splits.held_out", "0")
    assert "train.select is validation" in message


def test_too_few_videos_to_hold_some_out(place, refused_training):
    change_rows(place, "train", lambda rows: [row for row in rows if row["video_id"] == "train-0000"])
    message = refused_training("--data.splits.validation", "null")
    assert "too few videos" in message


# features and words


def test_a_truncated_feature_file(place, refused_training):
    path = place.features
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert str(path) in refused_training()


def test_a_video_without_features(place, refused_training):
    with h5py.File(place.features, "a") as file:
        del file["test-0002"]
    message = refused_training()
    assert "'test-0002'" in message
    assert "test.jsonl" in message


def test_features_of_another_width(refused_training):
    message = refused_training("--data.features.dim", "512")
    assert "has width 16, expected 512" in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_feature_that_is_not_a_number(place, refused_training, value):
    with h5py.File(place.features, "a") as file:
        file["val-0001"][2, 3] = value
    message = refused_training()
    assert "'val-0001'" in message
    assert "NaN" in message


def test_a_video_without_rows(place, refused_training):
    with h5py.File(place.features, "a") as file:
        del file["train-0003"]
        file["train-0003"] = np.zeros((0, 16), dtype=np.float32)
    assert "'train-0003'" in refused_training()


def test_features_made_by_another_extractor(refused_training):
    message = refused_training("--data.features.expected_manifest", "{extractor: CLIP ViT-B/32, fps: 1}")
    assert "Shapes pixel statistics" in message
    assert "CLIP ViT-B/32" in message


def test_a_manifest_field_that_does_not_exist(refused_training):
    message = refused_training("--data.features.expected_manifest", "{extracter: CLIP}")
    assert "'extracter'" in message
    assert "extractor" in message


@pytest.mark.parametrize("kind", ["missing", "text", "folder"])
def test_a_feature_path_that_holds_none(place, refused_training, kind):
    path = place.features
    path.unlink()
    if kind == "text":
        path.write_text("these are no features\n")
    elif kind == "folder":
        path.mkdir()
    assert str(path) in refused_training()


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (pickle.dumps({"red": [0.1, 0.2]}), "GloVe text"),
        (b"red 0.1 0.2 0.3\ngreen 0.1\n", "words.txt:2"),
        (b"red 0.1 inf\n", "'red'"),
        (b"", "no vectors"),
        (None, "no such file"),
    ],
    ids=["pickle", "ragged", "infinite", "empty", "missing"],
)
def test_word_vectors_of_another_kind(place, refused_training, content, fragment):
    path = place.data / "shapes" / "words.txt"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    message = refused_training()
    assert str(path) in message
    assert fragment in message
