"""Reading other systems' files; writing and checking what the servers take."""

import contextlib
import copy
import gzip
import io
import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmr_common.errors import UserError
from vmr_common.evaluation import submissions
from vmr_common.types import Prediction, Query, read_predictions, write_predictions

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
    assert submissions.check_qvhighlights(path, QUERIES) == []
    again = submissions.read_any(path)
    assert [p.query for p in again] == ["0", "1", "2"]
    assert again[0].moments.tolist() == [[2, 8], [0, 4]]


@pytest.mark.parametrize(
    ("given", "written"), [([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5]), ([1, 2, 3], [1, 2, 3, 0, 0])]
)
def test_highlight_scores_are_fitted_to_the_clips_as_the_server_does(tmp_path, caplog, given, written):
    path = tmp_path / "out.jsonl"
    caplog.set_level("INFO")
    submissions.write_qvhighlights(path, predictions(QUERIES, saliency=np.array(given, float)), QUERIES)
    assert [row.saliency.tolist() for row in read_predictions(path)] == [written] * 3
    assert submissions.check_qvhighlights(path, QUERIES) == []
    assert "3 of 3 lists of highlight scores were cut or padded with 0" in caplog.text


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
    assert submissions.check_ego4d(path, NLQ) == []
    again = submissions.read_any(path)
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
    assert submissions.read_any(path)[0].moments.tolist() == [[1, 2], [3, 4]]


def test_a_file_that_would_not_pass_is_not_written(tmp_path):
    path = tmp_path / "out"
    with pytest.raises(UserError, match=r"out not written: 1 of 3 queries are missing \(first: 2\)"):
        submissions.write_qvhighlights(path, predictions(QUERIES[:2]), QUERIES)
    with pytest.raises(UserError, match="1 of 3 queries are missing"):
        submissions.write_ego4d(path, predictions(NLQ[:2]), NLQ)
    with pytest.raises(UserError, match="'7' is not of the form"):
        submissions.write_ego4d(path, predictions([Query(id="7", video="v", text="", duration=1.0)]), NLQ)
    text_ids = [Query(id="s30_0", video="v", text="", duration=10.0)]
    with pytest.raises(UserError, match="qid must be an integer, found 's30_0'"):
        submissions.write_qvhighlights(path, predictions(text_ids), text_ids)
    assert not path.exists()


QVH_ROW = {"qid": 0, "query": "x", "vid": "v0", "pred_relevant_windows": [[0, 4, 0.9], [2, 8, 0.1]]}
QVH_PROBLEMS = [
    ({"qid": "0"}, "qid must be an integer, found '0'"),
    ({"qid": False}, "qid must be an integer, found False"),
    ({"qid": 9}, "the split has no such query"),
    ({"vid": "other"}, "vid is 'other', expected 'v0'"),
    ({"pred_relevant_windows": []}, "no window"),
    ({"pred_relevant_windows": [[0, 1]]}, "pred_relevant_windows[0] must be [start, end, score]"),
    ({"pred_relevant_windows": [[0, 1, 2], [3]]}, "pred_relevant_windows[1] must be [start, end, score]"),
    ({"pred_relevant_windows": "abc"}, "pred_relevant_windows must be a list, found 'abc'"),
    ({"pred_relevant_windows": None}, "pred_relevant_windows must be a list, found None"),
    ({"pred_relevant_windows": [[0, float("inf"), 1]]}, "[0] end must be a finite number, found inf"),
    ({"pred_relevant_windows": [[4, 4, 1]]}, "window 0 does not start before it ends (4 to 4)"),
    ({"pred_relevant_windows": [[0, 4, 0.1], [2, 8, 0.9]]}, "scores are not descending"),
    ({"pred_saliency_scores": [0.0] * 4}, "4 pred_saliency_scores for 5 clips"),
    ({"pred_saliency_scores": ["a"]}, "pred_saliency_scores[0] must be a number, found 'a'"),
    ({"pred_saliency_scores": [0.0, True]}, "pred_saliency_scores[1] must be a number, found True"),
]


@pytest.mark.parametrize(("change", "problem"), QVH_PROBLEMS)
def test_each_problem_of_a_qvhighlights_file_is_named(tmp_path, change, problem):
    path = tmp_path / "in.jsonl"
    path.write_text(json.dumps({**QVH_ROW, **change}) + "\n")
    found = submissions.check_qvhighlights(path, QUERIES[:1])
    assert any("line 1" in line and problem in line for line in found), found


def test_repeated_queries_and_partial_saliency_are_named(tmp_path):
    path = tmp_path / "in.jsonl"
    rows = [QVH_ROW, QVH_ROW, {**QVH_ROW, "qid": 1, "vid": "v1", "pred_saliency_scores": [0.0] * 5}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = submissions.check_qvhighlights(path, QUERIES[:2])
    assert found[0] == "line 2 (qid 0): the query occurs twice"
    assert found[1] == "1 of 2 lines have no pred_saliency_scores"


EGO4D_ENTRY = {"clip_uid": "clip", "annotation_uid": "a_b", "query_idx": 0, "predicted_times": [[0, 4]]}
EGO4D_PROBLEMS = [
    ({"clip_uid": "other"}, "clip_uid is 'other', expected 'clip'"),
    ({"clip_uid": None}, "clip_uid must be text or a whole number, found None"),
    ({"annotation_uid": ["a"]}, "annotation_uid must be text or a whole number, found a list of 1"),
    ({"query_idx": "0"}, "query_idx must be an integer from 0 on, found '0'"),
    ({"query_idx": True}, "query_idx must be an integer from 0 on, found True"),
    ({"query_idx": 7}, "the split has no such query"),
    ({"predicted_times": []}, "no window"),
    ({"predicted_times": [[4, 1]]}, "window 0 does not start before it ends (4 to 1)"),
    ({"predicted_times": [[4]]}, "predicted_times[0] must be [start, end], found a list of 1"),
    ({"predicted_times": [0, 4]}, "predicted_times[0] must be [start, end], found 0"),
    ({"predicted_times": [["0", "4"]]}, "predicted_times[0] start must be a number, found '0'"),
    ({"predicted_times": 3}, "predicted_times must be a list, found 3"),
    ({"predicted_times": [[0, float("nan")]]}, "end must be a finite number, found nan"),
]


@pytest.mark.parametrize(("change", "problem"), EGO4D_PROBLEMS)
def test_each_problem_of_an_ego4d_file_is_named(tmp_path, change, problem):
    path = tmp_path / "in.json"
    content = {"version": "1.0", "challenge": "ego4d_nlq_challenge", "results": [{**EGO4D_ENTRY, **change}]}
    path.write_text(json.dumps(content))
    found = submissions.check_ego4d(path, NLQ[:1])
    assert any("results[0]" in line and problem in line for line in found), found


def test_the_frame_of_an_ego4d_file_is_checked(tmp_path):
    path = tmp_path / "in.json"
    path.write_text(json.dumps({"version": 1.0, "results": [EGO4D_ENTRY, EGO4D_ENTRY, {}]}))
    found = "\n".join(submissions.check_ego4d(path, NLQ[:1]))
    for problem in ("version must be '1.0'", "challenge must be", "the query occurs twice", "results[2]"):
        assert problem in found
    path.write_text("[]")
    assert submissions.check_ego4d(path, NLQ) == [
        "expected an object with version, challenge and a list results"
    ]
    path.write_text(json.dumps({"results": 1}))
    with pytest.raises(UserError, match="not an Ego4D submission"):
        submissions.read_any(path)


def test_arrays_with_ids_or_in_the_order_of_the_split(tmp_path):
    windows = np.array([[[0, 400], [200, 800]]] * 3, dtype=np.int32)
    np.savez(tmp_path / "plain.npz", pred_cs=windows)
    read = submissions.read_any(tmp_path / "plain.npz", QUERIES)
    assert [p.query for p in read] == ["0", "1", "2"]
    assert read[0].moments.tolist() == [[0, 4], [2, 8]]
    np.savez(
        tmp_path / "ids.npz", moments=windows / 100, scores=np.ones((3, 2)), ids=np.array(["b", "a", "c"])
    )
    read = submissions.read_any(tmp_path / "ids.npz")
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
        submissions.read_any(tmp_path / "in.npz", QUERIES)


def test_whole_numbers_are_ids_too_and_windows_are_not_copied_row_by_row(tmp_path):
    np.savez(tmp_path / "in.npz", moments=np.ones((3, 4, 2), dtype=np.float32), ids=np.array([7, -2, 30]))
    read = submissions.read_any(tmp_path / "in.npz")
    assert [one.query for one in read] == ["7", "-2", "30"]
    assert len({id(one.moments.base) for one in read}) == 1


def test_an_archive_that_declares_far_more_than_it_holds_is_not_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "in.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        header = io.BytesIO()
        shape = (1 << 24, 8, 2)
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
        archive.writestr("moments.npy", header.getvalue() + bytes(1000))
    with pytest.raises(UserError, match="array 'moments'"):
        submissions.read_any(tmp_path / "in.npz", QUERIES)


def test_a_broken_archive_is_the_users_error(tmp_path):
    (tmp_path / "in.npz").write_bytes(b"PK\x03\x04 not an archive")
    with pytest.raises(UserError, match=r"not a readable \.npz archive"):
        submissions.read_any(tmp_path / "in.npz", QUERIES)


def test_a_number_with_thousands_of_digits_is_the_users_error(tmp_path):
    for content in (b"[" + b"1" * 5000 + b"]", b'{"results": ' + b"1" * 5000 + b"}"):
        (tmp_path / "in.jsonl").write_bytes(content)
        with pytest.raises(UserError, match="not usable JSON"):
            submissions.read_any(tmp_path / "in.jsonl")


def test_gzipped_lines_are_read(tmp_path):
    write_predictions(tmp_path / "in.jsonl", predictions(QUERIES))
    (tmp_path / "in.jsonl.gz").write_bytes(gzip.compress((tmp_path / "in.jsonl").read_bytes()))
    assert len(submissions.read_any(tmp_path / "in.jsonl.gz")) == 3


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
    for read in (submissions.read_any, lambda p: submissions.check_ego4d(p, NLQ), read_predictions):
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
    checks = (submissions.check_qvhighlights, QUERIES), (submissions.check_ego4d, NLQ)
    for content, (check, queries) in zip((row, {"results": [entry]}), checks, strict=True):
        path.write_text(json.dumps(content))
        assert isinstance(check(path, queries), list)
        with one_clean_error_at_most():
            submissions.read_any(path)
