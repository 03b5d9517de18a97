"""Reading other systems' files; writing and checking what the servers take."""

import contextlib
import copy
import gzip
import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmr_common.errors import UserError
from vmr_common.evaluation import prediction_files, submissions
from vmr_common.predictions import read_predictions
from vmr_common.types import Prediction, Query, write_predictions

QUERIES = [Query(id=str(n), video=f"v{n}", text=f"sentence {n}", duration=10.0) for n in range(3)]
NLQ = [Query(id=f"a_b_{n}", video="clip", text="where is it", duration=480.0) for n in range(3)]


def predictions(queries, saliency=None):
    return [
        Prediction(query=query.id, video="", moments=[[0, 4], [2, 8]], scores=[0.25, 0.75], saliency=saliency)
        for query in queries
    ]


def test_qvhighlights_export_sorts_by_score_and_takes_sentence_and_video_from_the_query(tmp_path):
    path = tmp_path / "out.jsonl"
    submissions.write_qvhighlights(path, predictions(QUERIES, saliency=np.arange(5.0)), QUERIES)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[1] == {
        "qid": 1,
        "query": "sentence 1",
        "vid": "v1",
        "pred_relevant_windows": [[2.0, 8.0, 0.75], [0.0, 4.0, 0.25]],
        "pred_saliency_scores": [0.0, 1.0, 2.0, 3.0, 4.0],
    }
    again = prediction_files.read_any(path)
    assert [p.query for p in again] == ["0", "1", "2"]
    assert again[0].moments.tolist() == [[2, 8], [0, 4]]


@pytest.mark.parametrize(
    ("given", "written"), [([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5]), ([1, 2, 3], [1, 2, 3, 0, 0])]
)
def test_highlight_scores_are_fitted_to_the_clips_as_the_server_does(tmp_path, given, written):
    path = tmp_path / "out.jsonl"
    remarks = submissions.write_qvhighlights(
        path, predictions(QUERIES, saliency=np.array(given, float)), QUERIES
    )
    assert [row.saliency.tolist() for row in read_predictions(path)] == [written] * 3
    assert remarks == [
        "3 of 3 lists of highlight scores cut or padded with 0 to the number of clips, as the server does"
    ]


def test_ego4d_export_round_trip(tmp_path):
    path = tmp_path / "out.json"
    submissions.write_ego4d(path, predictions(NLQ), NLQ)
    content = json.loads(path.read_text())
    assert (content["version"], content["challenge"]) == ("1.0", "ego4d_nlq_challenge")
    assert content["results"][2] == {
        "clip_uid": "clip",
        "annotation_uid": "a_b",
        "query_idx": 2,
        "predicted_times": [[0.0, 4.0], [2.0, 8.0]],
    }
    again = prediction_files.read_any(path)
    assert [p.query for p in again] == [q.id for q in NLQ]
    assert again[0].moments.tolist() == [[0, 4], [2, 8]]
    assert (np.diff(again[0].scores) < 0).all()


def test_further_columns_of_an_ego4d_file_are_ignored(tmp_path):
    entry = {
        "clip_uid": "c",
        "annotation_uid": "a",
        "query_idx": 0,
        "predicted_times": [[1, 2, 0.5], [3, 4, 0.9]],
    }
    path = tmp_path / "in.json"
    path.write_text(json.dumps({"results": [entry]}))
    assert prediction_files.read_any(path)[0].moments.tolist() == [[1, 2], [3, 4]]


def test_all_that_a_server_refuses_is_told_at_once_and_nothing_is_written(tmp_path, caplog):
    path = tmp_path / "out"
    made = [*predictions(QUERIES[:1]), *predictions([replace(QUERIES[0], id=name) for name in "wxyz"])]
    empty = Prediction(query="1", video="v1", moments=[], scores=[], saliency=np.ones(5))
    with pytest.raises(UserError) as caught:
        submissions.write_qvhighlights(path, [*made, empty], QUERIES)
    assert str(caught.value) == (
        f"{path} not written: 4 of 6 predictions are for no query of the split ('w', 'x', 'y' and 1 more; "
        "--ignore-unknown skips them), 2 of 3 queries have no window ('1', '2'; --fill-missing answers by [0, 0], a "
        "miss), 2 of 3 queries have no highlight scores ('0', '2'; --fill-missing gives scores of 0)"
    )
    assert "no query of the split: 'w', 'x', 'y', 'z'" in caplog.text
    with pytest.raises(UserError, match=r"1 of 3 queries have no window \('a_b_2'; --fill-missing"):
        submissions.write_ego4d(path, predictions(NLQ[:2]), NLQ)
    misnamed = [Query(id=name, video="v", text="", duration=10.0) for name in ("7", "s30_0", "a_07")]
    for write, what in (
        (submissions.write_ego4d, r"2 of 3 query ids are not <annotation_uid>_<query_idx> \('7', 'a_07'"),
        (submissions.write_qvhighlights, r"2 of 3 query ids are not a decimal number \('s30_0', 'a_07'"),
    ):
        with pytest.raises(UserError, match=what):
            write(path, predictions(misnamed), misnamed)
    with pytest.raises(UserError, match="query '0' holds a number that is not finite"):
        submissions.write_qvhighlights(path, predictions(QUERIES, saliency=np.array([np.nan])), QUERIES)
    assert not path.exists()


def test_what_a_server_scores_as_nothing_is_written_and_counted(tmp_path):
    odd = Prediction(
        query="0", video="", moments=[[4, 4], [8, 2], [0, 4]], scores=[3, 2, 1], saliency=np.ones(5)
    )
    remarks = submissions.write_qvhighlights(tmp_path / "q", [odd], QUERIES, fill=True)
    assert remarks == [
        "2 without a window, answered by [0, 0], a miss",
        "2 without highlight scores, given scores of 0",
        "2 windows that do not start before they end: the server gives them an overlap of 0",
    ]
    first, second, _ = read_predictions(tmp_path / "q")
    assert first.moments.tolist() == [[4, 4], [8, 2], [0, 4]]
    assert (second.moments.tolist(), second.scores.tolist(), second.saliency.sum()) == ([[0, 0]], [0], 0)
    remarks = submissions.write_ego4d(tmp_path / "e", predictions(NLQ[:2]), NLQ, fill=True)
    assert remarks == ["1 without a window, answered by [0, 0], a miss"]
    assert [one.moments.tolist() for one in prediction_files.read_any(tmp_path / "e")][2] == [[0, 0]]


def test_highlight_scores_alone_are_a_submission(tmp_path):
    alone = [
        Prediction(query=one.id, video="", moments=[], scores=[], saliency=np.arange(5.0)) for one in QUERIES
    ]
    assert submissions.write_qvhighlights(tmp_path / "q", alone, QUERIES) == [
        "highlight scores alone, for no prediction has a window"
    ]
    rows = [json.loads(line) for line in (tmp_path / "q").read_text().splitlines()]
    assert [sorted(row) for row in rows] == [["pred_saliency_scores", "qid", "query", "vid"]] * 3
    with pytest.raises(UserError, match="3 of 3 queries have no window"):
        submissions.write_ego4d(tmp_path / "e", alone, QUERIES)


QVH_ROW = {"qid": 0, "query": "x", "vid": "v0", "pred_relevant_windows": [[0, 4, 0.9], [2, 8, 0.1]]}
EGO4D_ENTRY = {"clip_uid": "clip", "annotation_uid": "a_b", "query_idx": 0, "predicted_times": [[0, 4]]}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"clip_uid": "other"}, "about video 'other', the query is about 'clip'"),
        ({"clip_uid": None}, "clip_uid must be text or a whole number, found None"),
        ({"annotation_uid": ["a"]}, "annotation_uid must be text or a whole number, found a list of 1"),
        ({"query_idx": "0"}, "query_idx must be an integer from 0 on, found '0'"),
        ({"query_idx": True}, "query_idx must be an integer from 0 on, found True"),
        ({"predicted_times": [[4]]}, r"predicted_times\[0\] must be \[start, end\], found a list of 1"),
        ({"predicted_times": [0, 4]}, r"predicted_times\[0\] must be \[start, end\], found 0"),
        ({"predicted_times": [["0", "4"]]}, r"predicted_times\[0\] start must be a number, found '0'"),
        ({"predicted_times": 3}, "predicted_times must be a list, found 3"),
        ({"predicted_times": [[0, float("nan")]]}, "end must be a finite number, found nan"),
        (None, "expected an object with clip_uid, annotation_uid, query_idx, predicted_times"),
    ],
)
def test_each_problem_of_an_ego4d_file_is_named(tmp_path, change, problem):
    path = tmp_path / "in.json"
    entry = {} if change is None else {**EGO4D_ENTRY, **change}
    path.write_text(json.dumps({"results": [entry]}))
    with pytest.raises(UserError, match=rf"results\[0\].*{problem}"):
        prediction_files.read_any(path, NLQ[:1])
    path.write_text(json.dumps({"results": [EGO4D_ENTRY, EGO4D_ENTRY]}))
    with pytest.raises(UserError, match=r"results\[1\]: query id 'a_b_0' occurs twice"):
        prediction_files.read_any(path, NLQ[:1])
    path.write_text(json.dumps({"results": 1}))
    with pytest.raises(UserError, match="not an Ego4D submission"):
        prediction_files.read_any(path)


def test_an_ego4d_window_that_ends_before_it_starts_is_remarked(tmp_path, caplog):
    caplog.set_level("INFO")
    path = tmp_path / "in.json"
    path.write_text(json.dumps({"results": [{**EGO4D_ENTRY, "predicted_times": [[9, 2]]}]}))
    prediction_files.read_any(path, NLQ[:1])
    assert "windows that end before they start, kept as answered: 1" in caplog.text


def test_arrays_with_ids_or_in_the_order_of_the_split(tmp_path):
    windows = np.array([[[0, 400], [200, 800]]] * 3, dtype=np.int32)
    np.savez(tmp_path / "plain.npz", pred_cs=windows)
    read = prediction_files.read_any(tmp_path / "plain.npz", QUERIES)
    assert [p.query for p in read] == ["0", "1", "2"]
    assert read[0].moments.tolist() == [[0, 4], [2, 8]]
    np.savez(
        tmp_path / "ids.npz", moments=windows / 100, scores=np.ones((3, 2)), ids=np.array(["b", "a", "c"])
    )
    read = prediction_files.read_any(tmp_path / "ids.npz")
    assert [p.query for p in read] == ["b", "a", "c"]
    assert read[0].scores.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": np.zeros(3)}, "no windows; expected one of moments.*found other"),
        ({"moments": np.zeros((3, 2))}, r"moments must have shape \(N, K, 2\), found \(3, 2\)"),
        ({"moments": np.zeros((3, 2, 3))}, r"must have shape \(N, K, 2\), found \(3, 2, 3\)"),
        ({"moments": np.zeros(())}, r"must have shape \(N, K, 2\), found \(\)"),
        ({"moments": np.full((3, 1, 2), np.nan)}, "moments holds a number that is not finite in row 0"),
        (
            {"moments": np.array([[["1", "2"]]])},
            "moments holds <U1, expected whole or floating-point numbers",
        ),
        ({"moments": np.array([[[b"1", b"2"]]])}, "moments holds .S1"),
        ({"moments": np.ones((3, 1, 2), dtype=bool)}, "moments holds bool"),
        ({"moments": np.ones((3, 1, 2), dtype=complex)}, "moments holds complex128"),
        ({"moments": np.zeros((3, 1, 2), dtype="M8[s]")}, "moments holds datetime64"),
        ({"moments": np.zeros((3, 1, 2), dtype="m8[s]")}, "moments holds timedelta64"),
        ({"moments": np.zeros((3, 1), dtype=[("a", "f4"), ("b", "f4")])}, "moments holds "),
        ({"moments": np.zeros((3, 1, 2)), "pred_cs": np.zeros((3, 1, 2))}, "holds both moments and pred_cs"),
        ({"moments": np.zeros((3, 1, 2)), "scores": np.zeros(3)}, r"scores must have shape \(3, 1\)"),
        ({"moments": np.zeros((3, 1, 2)), "scores": np.zeros((3, 1, 1))}, r"scores must have shape \(3, 1\)"),
        (
            {"moments": np.zeros((3, 1, 2)), "scores": np.full((3, 1), np.inf)},
            "scores holds a number that is not",
        ),
        ({"moments": np.zeros((3, 1, 2)), "scores": np.array([["1"]] * 3)}, "scores holds <U1"),
        (
            {"moments": np.zeros((3, 1, 2)), "ids": np.array(["a"])},
            r"ids must have shape \(3,\).*found \(1,\)",
        ),
        (
            {"moments": np.zeros((3, 1, 2)), "ids": np.array([["a"], ["b"], ["c"]])},
            r"ids must have shape \(3,\)",
        ),
        ({"moments": np.zeros((3, 1, 2)), "ids": np.array([1.0, 2.0, 3.0])}, "ids holds float64"),
        ({"moments": np.zeros((3, 1, 2)), "ids": np.array([True, False, True])}, "ids holds bool"),
        (
            {"moments": np.zeros((3, 1, 2)), "ids": np.array(["a", "b", "a"])},
            r"'a' occurs twice \(rows 0 and 2\)",
        ),
        ({"moments": np.zeros((3, 1, 2)), "ids": np.array(["a", "", "c"])}, r"ids\[1\] is empty"),
        ({"moments": np.zeros((4, 1, 2))}, "4 rows without array ids, but the number of queries is 3"),
        ({"moments": np.array([[[{}, {}]]], dtype=object)}, "moments holds object"),
    ],
)
def test_wrong_arrays_are_the_users_error(tmp_path, arrays, message):
    np.savez(tmp_path / "in.npz", **arrays)
    with pytest.raises(UserError, match=message):
        prediction_files.read_any(tmp_path / "in.npz", QUERIES)


def test_whole_numbers_are_ids_too_and_windows_are_not_copied_row_by_row(tmp_path):
    np.savez(tmp_path / "in.npz", moments=np.ones((3, 4, 2), dtype=np.float32), ids=np.array([7, -2, 30]))
    read = prediction_files.read_any(tmp_path / "in.npz")
    assert [one.query for one in read] == ["7", "-2", "30"]
    assert len({id(one.moments.base) for one in read}) == 1


def test_an_archive_that_declares_far_more_than_it_holds_is_not_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "in.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        header = io.BytesIO()
        shape = (1 << 24, 8, 2)
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
        archive.writestr("moments.npy", header.getvalue() + bytes(1000))
    with pytest.raises(UserError, match="array 'moments'"):
        prediction_files.read_any(tmp_path / "in.npz", QUERIES)


def test_a_broken_archive_is_the_users_error(tmp_path):
    (tmp_path / "in.npz").write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(UserError, match=r"not a readable \.npz archive"):
        prediction_files.read_any(tmp_path / "in.npz", QUERIES)


def test_a_number_with_thousands_of_digits_is_the_users_error(tmp_path):
    for content in (b"[" + b"1" * 5000 + b"]", b'{"results": ' + b"1" * 5000 + b"}"):
        (tmp_path / "in.jsonl").write_bytes(content)
        with pytest.raises(UserError, match="not usable JSON"):
            prediction_files.read_any(tmp_path / "in.jsonl")


def test_gzipped_lines_are_read(tmp_path):
    write_predictions(tmp_path / "in.jsonl", predictions(QUERIES))
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress((tmp_path / "in.jsonl").read_bytes()))
    assert len(prediction_files.read_any(tmp_path / "in.jsonl.gz")) == 3


@contextlib.contextmanager
def one_clean_error_at_most():
    messages = []
    try:
        yield
    except UserError as error:
        messages.append(str(error))
    assert all("\n" not in message and len(message) < 800 for message in messages)


SEEDS = (
    json.dumps(QVH_ROW).encode() + b"\n" + json.dumps({**QVH_ROW, "qid": 1}).encode() + b"\n",
    json.dumps({"version": "1.0", "challenge": "x", "results": [EGO4D_ENTRY]}).encode(),
)


@settings(max_examples=300)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.integers(0, 400), st.binary(max_size=4)), min_size=1, max_size=4),
)
@pytest.mark.e2e
def test_damaged_text_gives_predictions_or_one_clean_error(tmp_path_factory, seed, edits):
    data = bytearray(seed)
    for place, piece in edits:
        data[place % len(data) : place % len(data) + len(piece)] = piece or b"]"
    path = tmp_path_factory.getbasetemp() / "damaged.jsonl"
    path.write_bytes(bytes(data))
    for read in (prediction_files.read_any, read_predictions):
        with one_clean_error_at_most():
            read(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**400) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300)
@given(st.sampled_from([*QVH_ROW, "pred_saliency_scores"]), st.sampled_from([*EGO4D_ENTRY]), JSON)
@pytest.mark.e2e
def test_any_json_value_in_any_place_is_read_or_refused_cleanly(tmp_path_factory, row_key, entry_key, value):
    path = tmp_path_factory.getbasetemp() / "odd.json"
    row, entry = copy.deepcopy(QVH_ROW), copy.deepcopy(EGO4D_ENTRY)
    row[row_key], entry[entry_key] = value, value
    for content in (row, {"results": [entry]}):
        path.write_text(json.dumps(content))
        with one_clean_error_at_most():
            prediction_files.read_any(path)
