"""How results look on the terminal."""

import os
import sys
from argparse import Namespace
from dataclasses import dataclass

import numpy as np
import pytest

from vmr_common.errors import UserError
from vmr_common.predictions import read_predictions
from vmr_common.splits.irregular import Report
from vmr_common.splits.load import Split, custom_split
from vmr_common.types import Prediction, Query
from vmr_train.cli.checks import check_run, metrics_of, selection_split
from vmr_train.cli.commands import print_results
from vmr_train.cli.results import moment_table, score_all
from vmr_train.config import TrainConfig
from vmr_train.splits import Splits


@dataclass(frozen=True)
class Toy:
    """What a run of any paper says about its evaluation."""

    train: TrainConfig
    protocols: tuple[str, ...] = ("strict",)


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


def split_of(*truths, name="mine"):
    """A split of a query each for moments and glances; the answers of `answered` lie from 2 s to 4 s of 10 s."""
    queries = [
        Query(id=str(n), video=f"v{n}", text="red", duration=10.0, moments=moments, glance=glance)
        for n, (moments, glance) in enumerate(truths)
    ]
    return Split(name, queries, Report(name, len(queries), len(queries)), "strict")


GLANCES = split_of(([], 3.0), ([], 9.0))
HIDDEN = split_of(([], None), ([], None), name="hidden")


def answered(split):
    found = [[2.0, 4.0]]
    return [Prediction(query=q.id, video=q.video, moments=found, scores=[1.0]) for q in split.queries]


def test_glances_alone_are_measured_by_what_they_can_tell():
    results = score_all("model", GLANCES, answered(GLANCES), ["viga", "strict"], GLANCES.queries)
    ((name, rows),) = results.tables
    assert (name, [row for row, _ in rows]) == ("glance", ["model", "chance"])
    assert rows[0][1].values["R@1,glance"] == 0.5
    assert results.text().endswith(
        "no recall: mine has glances and no moments\n"
        "no bias row: the training queries have no moments, which would choose its windows"
    )


def test_of_a_hidden_truth_it_is_said_that_nothing_can_be_measured(capsys, caplog, tmp_path):
    results = score_all("model", HIDDEN, answered(HIDDEN), ["strict"], GLANCES.queries)
    assert (results.tables, results.to_dict()) == ([], [])
    print_results(Namespace(json=False, out=str(tmp_path / "out.jsonl")), results)
    assert capsys.readouterr().out == (
        "no table: hidden has neither moments nor glances, so that nothing can be measured\n"
    )
    assert len(read_predictions(tmp_path / "out.jsonl")) == 2


def test_queries_without_a_moment_are_left_out_of_recall_and_counted():
    mixed = split_of(([[2.0, 4.0]], None), ([], 3.0), ([], None))
    results = score_all("model", mixed, answered(mixed), ["strict"], mixed.queries)
    assert ", 1 query (and 2 without a target, left out), 0 without prediction" in results.text()
    assert results.tables[0][1][0][1].values["R@1,IoU@0.7"] == 1.0
    assert not results.remarks


def test_an_epoch_is_chosen_by_what_the_validation_can_tell(caplog):
    caplog.set_level("INFO")
    splits = Splits(GLANCES, GLANCES, HIDDEN)

    def chosen(splits, **given):
        config = Toy(train=TrainConfig(device="cpu", **given))
        return check_run(config, splits, selection_split(config.train, splits)).select_metric

    assert chosen(splits) == "R@1,glance"
    assert caplog.messages == [
        "mine has glances and no moments: R@1,glance chooses the epoch, in place of R@1,mIoU"
    ]
    assert metrics_of(GLANCES, "strict")(answered(GLANCES))["R@1,glance"] == 0.5
    assert chosen(Splits(GLANCES, HIDDEN, HIDDEN), select="last") == "R@1,mIoU"
    for select in ("validation", "test"):
        with pytest.raises(UserError, match="hidden has neither moments nor glances to choose by"):
            chosen(Splits(GLANCES, HIDDEN, HIDDEN), select=select)
    with pytest.raises(UserError, match=r"select_metric: found 'R@9', expected one of R@1,IoU@0\.3"):
        chosen(Splits(GLANCES, split_of(([[2.0, 4.0]], None)), HIDDEN), select_metric="R@9")
