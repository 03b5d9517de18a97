"""Answers of video language models, as they are written down, are read and ranked as listed, or refused in one line."""

import json

import pytest

from vmr_common.cli.score import main
from vmr_common.errors import UserError
from vmr_common.evaluation.answers import LONGEST_TEXT, windows_in
from vmr_common.evaluation.prediction_files import read_any
from vmr_common.types import Query

QUERIES = [
    Query(id=name, video=video, text=text, duration=60.0, moments=[moment])
    for name, video, text, moment in (
        ("0", "AB", "a door opens.", [10, 20]),
        ("1", "AB", "a door opens.", [40, 50]),
        ("2", "s1.avi", "She cuts", [5, 6]),
    )
]


def put(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def found(path):
    return {one.query: one.moments.tolist() for one in read_any(path, QUERIES)}


@pytest.mark.parametrize(
    ("text", "windows"),
    [
        ("The event happens in 12.5 - 20 seconds.", [[12.5, 20]]),
        ("From 12.5 to 20.0 s, and again from 30 to 31 s", [[12.5, 20], [30, 31]]),
        ("00:12 - 01:20", [[12, 80]]),
        ("starts at 00:00:18 and ends at 00:00:23.", [[18, 23]]),
        ("1:00:02.5 to 1:00:04", [[3602.5, 3604]]),
        ("between 5 and 10 seconds", [[5, 10]]),
        ("[[12.5, 20.0], [3, 4]]", [[12.5, 20], [3, 4]]),
        ("Starting time: 0.8 seconds. Ending time: 1.1 seconds", [[0.8, 1.1]]),
        ("It runs from <4> to <11.5> seconds", [[4, 11.5]]),
        ("<think>From 1 to 2 s? No.</think><answer>4 to 11 s</answer>", [[4, 11]]),
        ("<answer>[4, 11]</answer> (20 to 30 s is later)", [[4, 11]]),
        ("3 – 4", [[3, 4]]),  # noqa: RUF001
        ("20 to 10", [[20, 10]]),
        ("2-3 people stand there from 5.0 to 7.0", [[5, 7]]),
        ("from 1 minute 4 seconds to 2 minutes", [[64, 120]]),
        ("1 min 4 s - 2 min", [[64, 120]]),
        ("1m4s-2m", [[64, 120]]),
        ("between 1 minute and 4 seconds and 2 minutes", [[64, 120]]),
        ("1 to 2 minutes", [[60, 120]]),
        ('Sure: {"start": 4, "end": 11}.', [[4, 11]]),
        ('{"start_time": "00:04", "end_time": "00:11"}', [[4, 11]]),
        ("start: 4.0, end: 11.0", [[4, 11]]),
        ("starts at 4 and ends at 11", [[4, 11]]),
        ("starts at 4 s and lasts until 11 s", [[4, 11]]),
        ("from second 4 until second 11", [[4, 11]]),
        ("**~4.0s** --> **~11.0s**", [[4, 11]]),
        ("[4,11]", [[4, 11]]),
        ("(4, 11)", [[4, 11]]),
        ("4.0, 11.0", [[4, 11]]),
        ("- 4 to 11\n- 20 to 30", [[4, 11], [20, 30]]),
        ("Event 1: 12.333333333333334 to 13", [[12.333333333333334, 13]]),
        ("1\n00:00:35,000 --> 00:00:55,500\nA dog runs.", [[35, 55.5]]),  # SubRip
        ("00:35,250 to 01:55,000, and 1:00:02,000 - 1:00:03,000", [[35.25, 115], [3602, 3603]]),
        ("It never happens.", []),
        ("at 5 seconds", []),
        ("10.20.30 - 4", []),
        ("", []),
    ],
)
def test_times_are_found_in_text(text, windows):
    assert windows_in(text) == windows


@pytest.mark.parametrize(
    "text",
    [
        *(
            "4,5 to 11,5 seconds",
            "4,5",
            "(4,500)",
            "1,000 to 1,010 seconds",
            "1 000 to 1 010",
            "1'000 to 1'010",
        ),
        *("[1,010]", "-4 to 11", "from -4 to 11", "4 to -11", "4--11", "[-4, 11]", "minus 4 to 11"),
        *("1 min to 2", "30 to 1 minute", "1:04 to 11", "0:75 to 1:80", "from minute 1 to minute 2"),
        *("from frame 4 to frame 11", "4% to 11%", "1 - 4 - 11", "1e3 to 2e3", ".5 to 1.5", "1/2 to 3/4"),
        *("5 and 10", "2-3 people stand there", "starts at 4-5 s and ends at 11 s", "[1, 2, 3]"),
        "from 3 to 5 s, or from 4,5 to 11,5 s",
        *("00:35,0001 to 00:40,000", "00:35,000 to 00:40,000:10"),
    ],
)
def test_text_that_is_not_clear_names_no_window(text):
    assert windows_in(text) == []


def test_text_of_any_length_is_read_in_bounded_time():
    for part in (
        "1" * 50,
        "1:",
        "1 - ",
        "from ",
        "1.1.",
        " ",
        "1 ",
        "1,",
        "[",
        "\n",
        "starts 1 ",
        "1 min and ",
    ):
        windows_in((part * LONGEST_TEXT)[:LONGEST_TEXT])
    assert windows_in(" " * (LONGEST_TEXT - 6) + "4 to 6") == [[4, 6]]
    assert windows_in(" " * 1_000_000 + "4 to 6") == []


def test_nothing_is_a_counted_miss_and_reversed_windows_are_kept_and_counted(tmp_path, caplog):
    caplog.set_level("INFO")
    (tmp_path / "a.json").write_text(json.dumps({"0": None, "1": "20 to 10 s", "2": {"answer": None}}))
    assert found(tmp_path / "a.json") == {"0": [], "1": [[20, 10]], "2": []}
    assert "a.json: 2 of 3 predictions have no window" in caplog.text
    assert "a.json: windows that end before they start, kept as answered: 1" in caplog.text
    path = put(tmp_path / "samples.jsonl", {"doc_id": 0, "filtered_resps": None})
    assert found(path) == {"0": []}


@pytest.mark.parametrize(
    "document",
    [
        {"0": [[10, 20]], "1": [40, 50], "2": "from 5 to 6 seconds"},
        {
            "0": {"timestamp": [[10.0, 20.0]], "vid": "AB.mp4"},
            "1": {"windows": [[40, 50, 0.5]]},
            "2": {"answer": "5 - 6"},
        },
        [
            {"id": "of a run", "question_id": 0, "spans": [[10, 20]]},
            {"id": "1", "response": "40.0 to 50"},
            {"id": 2, "moments": [5, 6]},
        ],
        {"results": [{"qid": n, "segment": q.moments.tolist()[0]} for n, q in enumerate(QUERIES)]},
        [{"vid": q.video, "sentence": q.text, "windows": q.moments.tolist()} for q in QUERIES],
        [{"qid": n, "pred_relevant_windows": q.moments.tolist()} for n, q in enumerate(QUERIES)],
        {
            "AB.mp4>>>A door  opens>>>[10, 20]": "10 to 20 s",
            "1": [40, 50],
            "videos/s1.avi>>>she cuts.": [[5, 6]],
        },
    ],
)
def test_answers_in_one_json_text_are_read_whatever_their_form(tmp_path, document):
    whole = {"0": [[10, 20]], "1": [[40, 50]], "2": [[5, 6]]}
    for indent in (None, 1):
        (tmp_path / "a.json").write_text(json.dumps(document, indent=indent))
        assert found(tmp_path / "a.json") == whole
    if isinstance(document, list):
        assert found(put(tmp_path / "a.jsonl", *document)) == whole


def test_windows_without_scores_are_ranked_as_listed(tmp_path):
    path = put(tmp_path / "p.jsonl", {"qid": 0, "pred_relevant_windows": [[1, 2], [3, 4]]})
    (one,) = read_any(path)
    assert one.scores.tolist() == [1, 0.5]
    put(path, {"qid": 0, "pred_relevant_windows": [[1, 2], [3, 4, 0.5]]})
    with pytest.raises(
        UserError, match=r"p\.jsonl:1: pred_relevant_windows\[0\] must be \[start, end, score\]"
    ):
        read_any(path)


def test_samples_of_lmms_eval_are_matched_by_video_and_sentence(tmp_path, capsys):
    doc = {"video": "AB.mp4", "caption": "a door opens", "timestamp": [10, 20]}
    rows = [
        {"doc_id": 0, "doc": doc, "target": [10, 20], "filtered_resps": ["10.0 - 20.0 seconds"]},
        {"doc_id": 1, "doc": doc, "resps": [["40 to 50"]]},
        {"doc_id": 2, "submission": {"s1.avi>>>She cuts>>>[5, 6]": "5 - 6"}, "filtered_resps": "not there"},
    ]
    path = put(tmp_path / "samples.jsonl", *rows)
    assert found(path) == {"0": [[10, 20]], "1": [[40, 50]], "2": []}
    for document in (rows, {"args": {}, "logs": rows}):
        assert found(put(path, document)) == {"0": [[10, 20]], "1": [[40, 50]], "2": []}
    assert found(put(path, {"doc_id": 2, "filtered_resps": ["5 to 6 s"]})) == {"2": [[5, 6]]}
    annotations = [{"query_id": q.id, "video_id": q.video, "query": q.text, "duration": 60} for q in QUERIES]
    rows_ = [{**row, "windows": q.moments.tolist()} for row, q in zip(annotations, QUERIES, strict=True)]
    put(tmp_path / "annotations.jsonl", *rows_)
    put(path, *rows)
    assert (
        main([str(path), "--annotations", str(tmp_path / "annotations.jsonl"), "--json", "--no-baselines"])
        == 0
    )
    (result,) = json.loads(capsys.readouterr().out)["results"]
    assert result["systems"][0]["values"]["R@1,IoU@0.5"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"0": [["10 s", "20"]]}, r"'0': answer\[0\] start must be a number, found '10 s'"),
        ({"0": 7}, r"'0': answer must be text, \[start, end\] or a list of windows, found 7"),
        ({"0": [[1, 2, 3, 4]]}, r"answer\[0\] must be \[start, end, score\], found a list of 4"),
        (
            {"0": {"answer": "1 to 2", "response": "3 to 4"}},
            r"'0': expected one of the keys answer, response, found 2",
        ),
        (
            {"0": {"text": "1 to 2"}},
            r"expected one of the keys pred_relevant_windows, .*\(found: text, qid\)",
        ),
        (
            {"0": {"spans": [[1, 2]], "vid": "CD.mp4"}},
            r"query '0' is about video 'CD\.mp4', the query is about 'AB'",
        ),
        ({"CD.mp4>>>a door opens": "1 to 2"}, r"no \(further\) query 'a door opens' about video 'CD\.mp4'"),
        (
            [{"answer": "1 to 2"}],
            r"record 0: expected one of the keys qid, query_id, .*, id \(found: answer\)",
        ),
        (
            [{"id": 0, "answer": "1 to 2"}, {"id": "0", "answer": ""}],
            r"record 1: query id '0' occurs twice \(first at a\.json: record 0\)",
        ),
        ([7], r"record 0 is 7, not an object; read are JSON lines or"),
        ({"doc_id": 3, "filtered_resps": ["1 to 2"]}, r"doc_id must be a number below 3, .* found 3"),
        ({"doc_id": 0}, r":1: key 'resps' is missing \(found: doc_id\)"),
        ({"doc_id": 0, "resps": [["a", "b"]]}, r"filtered_resps must be text, found a list of 2"),
        (
            [["AB", 60, [10, 20], "a door opens.", 15]],
            r"record 0 is a list of 5, not an object; read are JSON",
        ),
        (
            {"model": "x", "epoch": 3},
            r"an object with the keys model, epoch, none of them a query; read are JSON",
        ),
        (7, r"begins with '7'; read are JSON lines"),
        (
            {"qid": 0, "vid": "AB", "relevant_windows": [[10, 20]]},
            r":1: expected .*; relevant_windows are annotations, not predictions",
        ),
        (
            {
                "query_id": "0",
                "video_id": "AB",
                "duration": 60,
                "query": "a door opens.",
                "windows": [[10, 20]],
            },
            r"a\.json: annotations, not predictions: each window is that of the query",
        ),
        (
            {"query": "a door opens.", "begin": 1, "end": 2},
            r":1: expected one of the keys qid, .*found: query, begin",
        ),
        ({"vid": "AB"}, r":1: expected one of the keys qid, .* \(found: vid\)"),
    ],
)
def test_what_is_no_answer_is_refused(tmp_path, content, message):
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as caught:
        read_any(tmp_path / "a.json", QUERIES)
    assert str(caught.value).startswith(str(tmp_path / "a.json"))
