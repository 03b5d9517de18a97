"""How results look on the terminal."""

import os
import sys
from argparse import Namespace

import numpy as np
import pytest

from vmr_common.predictions import read_predictions
from vmr_common.splits.load import custom_split
from vmr_common.types import Prediction
from vmr_train.cli.commands import print_results
from vmr_train.cli.results import moment_table, score_all


def test_moments_stand_in_columns_below_their_sentence():
    found = moment_table(
        "the door {opens}",
        {"rank": ">4", "video": "<6", "start": ">7"},
        [("1", "a", "0:01.0"), ("2", "b{}", "12:00.0")],
    )
    assert found.split("\n") == [
        "the door {opens}",
        "rank  video     start",
        "   1  a        0:01.0",
        "   2  b{}     12:00.0",
    ]


@pytest.mark.parametrize("as_json", [True, False])
def test_predictions_are_written_where_the_reader_of_the_tables_has_gone(as_json, tmp_path, monkeypatch):
    annotations = tmp_path / "a.jsonl"
    annotations.write_text(
        '{"query_id": "q", "video_id": "v", "duration": 9.0, "query": "red", "windows": [[1, 2]]}\n'
    )
    answer = Prediction(query="q", video="v", moments=np.array([[1.0, 2.0]]), scores=np.ones(1))
    results = score_all("model", custom_split(str(annotations)), [answer], ["strict"], None)
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", buffering=1) as closed:  # as with PYTHONUNBUFFERED
        monkeypatch.setattr(sys, "stdout", closed)
        with pytest.raises(BrokenPipeError):
            print_results(Namespace(json=as_json, out=str(tmp_path / "out.jsonl")), results)
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), writing)
    assert [found.query for found in read_predictions(tmp_path / "out.jsonl")] == ["q"]


def test_further_baselines_have_rows_in_every_table(tmp_path):
    annotations = tmp_path / "a.jsonl"
    annotations.write_text(
        '{"query_id": "q", "video_id": "v", "duration": 9.0, "query": "red", "windows": [[1, 2]]}\n'
    )
    split = custom_split(str(annotations))
    answer = Prediction(query="q", video="v", moments=np.array([[1.0, 2.0]]), scores=np.ones(1))
    results = score_all("model", split, [], ["strict", "viga"], split.queries, {"zero-shot": [answer]})
    for _, rows in results.tables:
        assert [name for name, _ in rows] == ["model", "chance", "bias", "zero-shot"]
        assert rows[-1][1].values["R@1,IoU@0.5"] == 1
    assert "zero-shot" in results.text()
