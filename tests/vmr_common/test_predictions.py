"""Prediction files are read as they are written, or refused: nothing is regrouped, converted or overlooked."""

import dataclasses
import json
import os
import threading

import numpy as np
import pytest

from vmr_common.cli.score import main
from vmr_common.errors import UserError
from vmr_common.evaluation import prediction_files, protocol
from vmr_common.predictions import read_predictions
from vmr_common.splits.load import custom_split
from vmr_common.types import Prediction, Query, encode_id, write_predictions

ROW = {"qid": 7, "vid": "kitchen", "query": "a pan", "pred_relevant_windows": [[2, 5.5, 0.75], [0, 9, -1]]}
QUERIES = [Query(id="7", video="kitchen", text="a pan", duration=12.0, moments=[[2, 5]])]


def put(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_whole_numbers_fractions_and_no_windows_at_all_are_fine(tmp_path):
    first, second = read_predictions(put(tmp_path / "p", ROW, {"qid": "b", "pred_relevant_windows": []}))
    assert (first.query, first.video, first.text) == ("7", "kitchen", "a pan")
    assert first.moments.tolist() == [[2, 5.5], [0, 9]]
    assert first.scores.tolist() == [0.75, -1]
    assert (second.video, second.moments.shape, second.scores.shape) == ("", (0, 2), (0,))


@pytest.mark.parametrize(
    "change",
    [
        {"pred_relevant_windows": [["2", "5.5", "0.75"], ["0", "9", "-1"]]},
        {
            "pred_relevant_windows": [
                {"start": 2, "end": 5.5, "score": 0.75},
                {"begin": 0, "finish": 9, "score": -1},
            ]
        },
        {"windows": [[2, 5.5, 0.75], [0, "9", -1]]},
        {"timestamps": [[2, 5.5, 0.75], {"start_time": "0", "end_time": 9, "confidence": -1}]},
    ],
)
@pytest.mark.parametrize(
    "names", [{}, {"qid": "query_id", "vid": "video_id", "query": "sentence"}, {"vid": "video"}]
)
def test_other_names_of_keys_and_forms_of_windows_are_read_alike(tmp_path, change, names):
    row = {**ROW, "vid": "videos/kitchen.mp4"}
    if "pred_relevant_windows" not in change:
        del row["pred_relevant_windows"]
    row = {names.get(key, key): value for key, value in {**row, **change}.items()}
    (one,) = read_predictions(put(tmp_path / "p.jsonl", row), QUERIES)
    assert (one.query, one.video, one.text) == ("7", "kitchen", "a pan")
    assert one.moments.tolist() == [[2, 5.5], [0, 9]]
    assert one.scores.tolist() == [0.75, -1]


def test_one_window_needs_no_list_and_highlight_scores_need_no_window(tmp_path):
    rows = [{"timestamp": ["2", 5]}, {"windows": {"start": 2, "end": 5}}, {"start": 2, "end": "5"}]
    rows += [{"pred_saliency_scores": [0.5, 1]}, {"pred_relevant_windows": None}]
    rows = [{"qid": n, **row} for n, row in enumerate(rows)]
    *found, third, nothing = read_predictions(put(tmp_path / "p.jsonl", *rows))
    assert [one.moments.tolist() for one in found] == [[[2, 5]]] * 3
    assert nothing.moments.shape == (0, 2)
    assert (third.moments.shape, third.saliency.tolist()) == ((0, 2), [0.5, 1])


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ([[2, 5], [0, 9, 1], [1, 3]], "a window without a score (nothing was regrouped)"),
        ([[2, 5, 1], [0, 9]], "pred_relevant_windows[1] must be"),
        ([2, 5, 0.75], "pred_relevant_windows[0] must be [start, end, score], found 2"),
        ([[2, 5, 0.75, 0, 9, 0.5]], "found a list of 6"),
        ([[[2, 5, 0.75]]], "found a list of 1"),
        ([[[2], [5], [0.75]]], "pred_relevant_windows[0] start must be a number, found a list of 1"),
        ([["2s", "5", "0.75"]], "pred_relevant_windows[0] start must be a number, found '2s'"),
        ([[2, 5, 1], [0, "1e3", 1]], "pred_relevant_windows[1] end must be a number, found '1e3'"),
        ([["00:02", "00:05", "1"]], "pred_relevant_windows[0] start must be a number, found '00:02'"),
        ([[2, 5, True]], "pred_relevant_windows[0] score must be a number, found True"),
        ([[2, 5, None]], "score must be a number, found None"),
        ([[2, 5, float("nan")]], "score must be a finite number, found nan"),
        ([[2, 10**400, 1]], "end must be a finite number"),
        ([{"start": 2, "stop": 5, "score": 1}], "found an object of 3"),
        (["abc"], "[0] must be [start, end, score], found 'abc'"),
        ([None], "found None"),
        ({"0": [2, 5, 1]}, "pred_relevant_windows must be a list, found an object of 1"),
        ("[[2, 5, 1]]", "pred_relevant_windows must be a list, found '[[2, 5, 1]]'"),
    ],
)
def test_windows_of_another_shape_or_type_are_refused_by_number(tmp_path, windows, message):
    path = put(tmp_path / "p.jsonl", {**ROW, "qid": 1}, {**ROW, "pred_relevant_windows": windows})
    with pytest.raises(UserError) as caught:
        read_predictions(path)
    assert str(caught.value).startswith(f"{path}:2: pred_relevant_windows")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"qid": True}, "qid must be text or a whole number, found True"),
        ({"qid": 7.0}, "qid must be text or a whole number, found 7.0"),
        ({"qid": [7]}, "qid must be text or a whole number, found a list of 1"),
        ({"qid": None}, "qid must be text or a whole number, found None"),
        ({"qid": ""}, "qid is empty"),
        ({"query_id": "8"}, "expected one of the keys qid, query_id, found several that differ"),
        ({"video": "garden"}, "expected one of the keys vid, video, found several that differ"),
        ({"vid": 1.5}, "vid must be text or a whole number, found 1.5"),
        ({"vid": None}, "vid must be text or a whole number, found None"),
        ({"vid": False}, "vid must be text or a whole number, found False"),
        ({"query": 3}, "query must be text, found 3"),
        ({"query": ["a"]}, "query must be text, found a list of 1"),
        ({"pred_saliency_scores": [[0.5]]}, "pred_saliency_scores[0] must be a number, found a list of 1"),
        ({"pred_saliency_scores": [0.5, "1"]}, "pred_saliency_scores[1] must be a number, found '1'"),
        ({"pred_saliency_scores": [True]}, "pred_saliency_scores[0] must be a number, found True"),
        ({"pred_saliency_scores": [float("inf")]}, "must be a finite number, found inf"),
        ({"pred_saliency_scores": 3}, "pred_saliency_scores must be a list, found 3"),
        ({"pred_saliency_scores": {}}, "pred_saliency_scores must be a list, found an object of 0"),
    ],
)
def test_every_other_value_has_its_type(tmp_path, change, message):
    path = put(tmp_path / "p.jsonl", {**ROW, **change})
    with pytest.raises(UserError) as caught:
        read_predictions(path)
    assert str(caught.value).startswith(f"{path}:1: ")
    assert message in str(caught.value)


def test_a_key_twice_and_an_id_twice_are_refused(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text(
        '{"qid": 1, "pred_relevant_windows": [[1, 2, 3]], "pred_relevant_windows": [[4, 5, 6]]}\n'
    )
    with pytest.raises(UserError, match=r":1: the key 'pred_relevant_windows' occurs twice"):
        prediction_files.read_any(path)
    with pytest.raises(UserError, match=r":2: query id '7' occurs twice \(first at p\.jsonl:1\)"):
        read_predictions(put(path, ROW, {**ROW, "qid": "7"}))


def test_a_prediction_for_another_video_is_refused_with_both_names(tmp_path, answer):
    other = put(tmp_path / "p.jsonl", {**ROW, "vid": "garden"})
    truth = {"query_id": "7", "video_id": "kitchen", "duration": 12, "query": "a pan", "windows": [[2, 5]]}
    status, out, err = answer(main, other, "--annotations", put(tmp_path / "a.jsonl", truth))
    assert (status, out) == (2, "")
    assert (
        err
        == f"error: {other}:1: the prediction for query '7' is about video 'garden', the query is about 'kitchen'\n"
    )
    entry = {"clip_uid": "garden", "annotation_uid": "a", "query_idx": 7, "predicted_times": [[0, 4]]}
    other.write_text(json.dumps({"results": [entry]}))
    with pytest.raises(UserError, match=r"results\[0\].*'garden'.*'kitchen'"):
        prediction_files.read_any(other, [Query(id="a_7", video="kitchen", text="", duration=9.0)])
    with pytest.raises(UserError, match=r"'garden'.*'kitchen'"):
        protocol("strict").score(
            QUERIES, [Prediction(query="7", video="garden", moments=[[0, 1]], scores=[1])]
        )


def test_video_ids_compare_as_text_and_may_be_left_out(tmp_path):
    queries = [Query(id="7", video="12", text="", duration=9.0)]
    rows = {**ROW, "vid": 12}, {**ROW, "vid": "12"}, {**ROW, "vid": ""}
    without = {key: value for key, value in ROW.items() if key != "vid"}
    for row in (*rows, without):
        assert read_predictions(put(tmp_path / "p", row), queries)


def test_a_file_without_predictions_is_no_score_of_zero(tmp_path, answer):
    truth = {"query_id": "7", "video_id": "kitchen", "duration": 12, "query": "a pan", "windows": [[2, 5]]}
    annotations = put(tmp_path / "a.jsonl", truth)
    for content in ("", "\n\n", "{}", '{"results": []}'):
        (tmp_path / "p").write_text(content)
        status, _, err = answer(main, tmp_path / "p", "--annotations", annotations)
        assert (status, err) == (2, f"error: {tmp_path / 'p'}: holds no prediction\n")
    put(tmp_path / "p", {**ROW, "qid": 8})
    status, _, err = answer(main, tmp_path / "p", "--annotations", annotations, "--ignore-unknown")
    assert (status, err) == (2, f"error: {tmp_path / 'p'}: holds no prediction for the split\n")


def test_what_is_read_once_may_come_through_a_pipe(tmp_path):
    put(tmp_path / "p", ROW)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for content, name in (
        ((tmp_path / "p").read_bytes(), "7"),
        (
            b'{"results": [{"clip_uid": "c", "annotation_uid": "a",\n "query_idx": 0, "predicted_times": [[0, 4]]}]}',
            "a_0",
        ),
    ):
        writer = threading.Thread(target=pipe.write_bytes, args=(content,))
        writer.start()
        assert [prediction.query for prediction in prediction_files.read_any(pipe)] == [name]
        writer.join()


def test_ids_of_any_length_come_back(tmp_path):
    names = ["0", "7", "-7", "007", "٣", "1" * 639, "1" * 5000, "s30_0"]
    assert [type(encode_id(name)) for name in names] == [int, int, str, str, str, int, str, str]
    predictions = [Prediction(query=name, video="v", moments=np.zeros((0, 2)), scores=[]) for name in names]
    write_predictions(tmp_path / "p", predictions)
    assert [prediction.query for prediction in read_predictions(tmp_path / "p")] == names


@pytest.mark.parametrize("moment", [[40, 20], [np.nan, 20], [5, np.nan]])
def test_a_query_refuses_a_moment_that_ends_before_it_starts(moment):
    with pytest.raises(UserError, match=r"^query 'a': a moment must be \[start, end\], found \["):
        Query(id="a", video="v", text="t", duration=60, moments=[[1, 2], moment])
    kept = Query(id="a", video="v", text="t", duration=60, moments=[moment], as_annotated=True)
    assert np.array_equal(kept.moments, [moment], equal_nan=True)
    assert Query(id="a", video="v", text="t", duration=60, moments=[[20, 20]]).moments.tolist() == [[20, 20]]


def test_a_reader_keeps_a_reversed_record_where_its_policy_does(tmp_path):
    (tmp_path / "glance.json").write_text('[["v", 60, [40, 20], "t", 30]]')
    (query,) = custom_split(tmp_path / "glance.json", policy="as-annotated").queries
    assert query.moments.tolist() == [[40, 20]]
    assert dataclasses.replace(query, id="b").moments.tolist() == [[40, 20]]
    with pytest.raises(UserError, match="start 40 is after end 20"):
        custom_split(tmp_path / "glance.json")


def test_a_whole_number_and_its_digits_are_one_id(tmp_path):
    queries = [Query(id=number, video=np.int64(3), text="t", duration=60) for number in (7, "7", np.int32(7))]
    assert {(query.id, query.video) for query in queries} == {("7", "3")}
    made = Prediction(query=7, video=3, moments=[[0, 1]], scores=[1])
    assert (made.query, made.video) == ("7", "3")
    write_predictions(tmp_path / "p.jsonl", [made])
    (read,) = read_predictions(tmp_path / "p.jsonl", queries[:1])
    assert (read.query, read.video) == ("7", "3")
    for wrong in (True, 7.0, None, b"7"):
        with pytest.raises(UserError, match=r"^Query: id must be text or a whole number, found "):
            Query(id=wrong, video="v", text="t", duration=60)
