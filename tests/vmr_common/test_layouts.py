"""Layouts of annotation files that people have: each is read as what it is, or one line says what was found."""

import json

import pytest

from vmr_common.cli.data import main
from vmr_common.errors import UserError
from vmr_common.splits.fields import parse_fields
from vmr_common.splits.formats import read_annotations
from vmr_common.splits.load import custom_split, load_split


def put(folder, name, content):
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


BRIEF = "moment of less than 0.1 s"
STEPS = [
    {"id": 0, "segment": [2, 6.5], "sentence": "crack an egg"},
    {"segment": [0.02, 0.05], "label": "stir"},
]
CLASSES = {"version": "x", "database": {"a": {"duration": 20, "subset": "training", "annotations": STEPS}}}
DIDEMO = {"annotation_id": 3, "video": "a.mov", "description": "a kite falls", "num_segments": 5}
HIREST = {"relevant": True, "clip": True, "v_duration": 20, "bounds": [2, 6.5], "steps": []}
WHOLE = {**HIREST, "clip": False, "bounds": [0, 0]}
CD = {"framestamps": [[1, 2]], "sentences": ["a cat sits"], "timestamps": [[2, 6.5]], "video_duration": 20.0}
MODEL = {"video": "a", "duration": 20, "timestamp": [2, 6.5], "sentence": "a cat sits", "qid": "x|0"}
TVR = {"vid_name": "a", "duration": 20, "ts": [2, 6.5], "desc": "a cat sits", "type": "v", "desc_id": 4}
HIDDEN = {"qid": 1, "query": "a cat sits", "duration": 20, "vid": "a"}
OWN = {"qid": "q", "video_id": "a", "query": "a cat sits", "duration": 20}
EGO4D = [{"query": "Query Text: where is it?", "clip_start_sec": 2, "clip_end_sec": 6.5}, {"query": None}]

LAYOUTS = {
    "detection": (CLASSES, ["a_0", "a", "crack an egg", 20, [[2, 6.5]]], {"one-word sentence", BRIEF}),
    "didemo": (
        [{**DIDEMO, "times": [[0, 1], [4, 4], [4, 4]]}],
        ["3", "a.mov", "a kite falls", 25, [[20, 25], [0, 10]]],
        {"annotators disagree on the moment"},
    ),
    "hirest": (
        {"sit well": {"a": HIREST, "b": WHOLE, "c": {"relevant": False}}},
        ["a_0", "a", "sit well", 20, [[2, 6.5]]],
        {"dropped: video relevant as a whole, without a moment", "dropped: video not relevant to its prompt"},
    ),
    "charades-cd": ({"a": CD}, ["a_0", "a", "a cat sits", 20, [[2, 6.5]]], set()),
    "list of objects": ([{**MODEL, "video_start": None}], ["x|0", "a", "a cat sits", 20, [[2, 6.5]]], set()),
    "one object": (MODEL, ["x|0", "a", "a cat sits", 20, [[2, 6.5]]], set()),
    "objects inside": ({"about": "x", "data": [MODEL]}, ["x|0", "a", "a cat sits", 20, [[2, 6.5]]], set()),
    "records of a video": (
        [{"id": 1, "video": "a", "duration": 20, "annotations": [{"id": 5, "caption": "it", "segment": [2, 6.5]}]},
            {"video": "b", "annotations": []}],
        ["5", "a", "it", 20, [[2, 6.5]]],
        {"one-word sentence"},
    ),
    "lists of a video": (
        lines({"video": "a", "duration": 20, "timestamps": [[2, 6.5], [8, 9]], "sentences": ["a cat sits", "b c"]}),
        ["a_0", "a", "a cat sits", 20, [[2, 6.5]]],
        set(),
    ),
    "hidden in lists": (
        {"a": {"duration": 20, "sentences": ["a cat sits"]}}, ["a_0", "a", "a cat sits", 20, []], set()
    ),
    "glance alone": ([["a", 20, None, "a cat sits", 3.5]], ["a_0", "a", "a cat sits", 20, []], set()),
    "tvr": (lines(TVR), ["4", "a", "a cat sits", 20, [[2, 6.5]]], set()),
    "hidden": (lines(HIDDEN), ["1", "a", "a cat sits", 20, []], set()),
    "null": (lines({**HIDDEN, "relevant_windows": None}), ["1", "a", "a cat sits", 20, []], set()),
    "point": (lines({**OWN, "glance": 3}), ["q", "a", "a cat sits", 20, []], set()),
    "start and end": (lines({**OWN, "start": 2, "end": 6.5}), ["q", "a", "a cat sits", 20, [[2, 6.5]]], set()),
    "ego4d": (
        {"videos": [{"clips": [{"clip_uid": "a", "video_start_sec": 0, "video_end_sec": 20,
            "annotations": [{"annotation_uid": "u", "language_queries": EGO4D}]}]}]},
        ["u_0", "a", "Query Text: where is it?", 20, [[2, 6.5]]],
        {"no sentence", "dropped: no sentence",
            "sentence that begins with the label of its field, such as 'Query Text:'"},
    ),
    "csv": (
        'id, video, sentence, start, end, duration\n7,a,"a cat, sits","0:00:02,00",6.5,20\n8,a,"a\ndog",,,20\n',
        ["7", "a", "a cat, sits", 20, [[2, 6.5]]],
        {"line feed in the sentence", "one-word sentence"},
    ),
    "tsv": ("video\tcaption\tmoments\tlength\na\ta cat sits\t[[2, 6.5], [8, 9]]\t0:20\n",
        ["a_0", "a", "a cat sits", 20, [[2, 6.5], [8, 9]]], set()),
    "spreadsheet": (
        "\ufeffVideo ID;Query;Start Time;End Time;Duration\r\na;a cat sits;2,0;6,5;20\r\n;;;;\r\n",
        ["a_0", "a", "a cat sits", 20, [[2, 6.5]]],
        set(),
    ),
    "pandas columns": ({k: {"0": v} for k, v in MODEL.items()}, ["x|0", "a", "a cat sits", 20, [[2, 6.5]]], set()),
    "pandas split": (
        {"columns": [*MODEL], "index": [0], "data": [[*MODEL.values()]]},
        ["x|0", "a", "a cat sits", 20, [[2, 6.5]]],
        set(),
    ),
    "lists of columns": (
        {k: [v, v] for k, v in MODEL.items() if k != "qid"},
        ["a_0", "a", "a cat sits", 20, [[2, 6.5]]],
        {"same video and moment as an earlier query", "same video, moment and sentence as an earlier query"}),
    "by id": ({"7": {k: v for k, v in MODEL.items() if k != "qid"}}, ["7", "a", "a cat sits", 20, [[2, 6.5]]], set()),
    "by video": (
        {"a": {"duration": 20, "span": [2, 6.5], "caption": "a cat sits"}},
        ["a_0", "a", "a cat sits", 20, [[2, 6.5]]],
        set(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_recognised_and_read(tmp_path, layout):
    content, first, irregular = LAYOUTS[layout]
    found = read_annotations(put(tmp_path, "file.any", content))
    query = found.queries[0]
    assert [query.id, query.video, query.text, query.duration, query.moments.tolist()] == first
    assert set(found.report.counts) == irregular


def test_labels_per_clip_are_highlight_scores(tmp_path):
    row = {**HIDDEN, "relevant_windows": None, "relevant_clip_ids": None}
    rows = [
        {**row, "label": [[1, 5], [3, 2], [4, 4]]},
        {**row, "qid": 2, "label": [[0], [1]]},
        {**row, "qid": 3},
    ]
    found = read_annotations(put(tmp_path, "tvsum.jsonl", lines(*rows)))
    assert found.queries[0].saliency.tolist() == [[1, 5], [3, 2], [4, 4]]
    assert found.queries[1].saliency_clips.tolist() == [0, 1]
    assert found.queries[2].saliency is None
    flat = {**row, "relevant_clip_ids": [0, 4], "saliency_scores": [0.5, 2]}
    (query,) = read_annotations(put(tmp_path, "curve.jsonl", lines(flat))).queries
    assert (query.saliency.tolist(), query.saliency_clips.tolist()) == ([[0.5], [2]], [0, 4])
    assert found.report.notes[-1].endswith("highlights alone, of 2 to 3 clips")
    entry = {"duration": 20, "domain": "dog", "match": [1, -1], "clip": [[0, 100], [50, 150]]}
    by_video = put(tmp_path, "anno.json", {"a": entry})
    (query,) = read_annotations(by_video, fields={"query": "domain", "labels": "match"}).queries
    assert (query.video, query.saliency.tolist()) == ("a", [[1], [-1]])


def test_queries_without_a_moment_are_noted_with_what_they_have(tmp_path):
    rows = [{**OWN, "qid": n, "windows": [], "point": point} for n, point in enumerate((3, None))]
    for some, said in (
        (rows, "no query has a moment: 1 with a time point"),
        (
            [rows[1], {**OWN, "windows": [[1, 2]], "point": 1}],
            "1 of 2 queries have no moment: their truth is hidden",
        ),
    ):
        assert read_annotations(put(tmp_path, "x", lines(*some))).report.notes[-1] == said


def test_a_part_of_a_file_is_read_where_it_is_asked_for(tmp_path):
    entry = {"duration": 20, "annotations": STEPS[:1]}
    parts = {"a": {**entry, "subset": "training"}, "b": {**entry, "subset": "validation"}}
    path = put(tmp_path, "youcookii_annotations_trainval.json", {"database": parts})
    split = custom_split(path, subset="validation")
    assert ([query.video for query in split.queries], split.report.read) == (["b"], 1)
    assert custom_split(path).report.notes == ("records by subset: training 1, validation 1; all are read",)
    with pytest.raises(UserError, match=r"no record of subset 'test' \(found: training 1, validation 1\)"):
        custom_split(path, subset="test")
    (tmp_path / "youcook2").mkdir()
    path.rename(tmp_path / "youcook2" / path.name)
    assert [query.video for query in load_split("youcook2/train", tmp_path).queries] == ["a"]


def test_fields_may_have_any_name(tmp_path):
    path = put(tmp_path, "x.csv", "clip,len,begins,stop,who says\na.mp4,20,2,6.5,a cat sits\n")
    named = ["video=clip", "duration=len", "start=begins", "end=stop", "query=who says"]
    out = tmp_path / "out.jsonl"
    main(["convert", "--annotations", str(path), "--out", str(out), "--strip-extension", "--fields", *named])
    assert json.loads(out.read_text()) == {
        "query_id": "a_0", "video_id": "a", "duration": 20, "query": "a cat sits", "windows": [[2, 6.5]]
    }  # fmt: skip


@pytest.mark.parametrize(
    ("content", "fields", "message"),
    [
        (lines({**OWN, "window": [[1, 2]]}), None, r"x:1: unknown key 'window' \(did you mean 'windows'\?\)"),
        (
            lines({**OWN, "when": [1, 2]}),
            None,
            "x:1: no key is known to hold moments or a time point; --fields moments=when reads",
        ),
        (lines({**OWN, "glance_point": 3.5}), None, "--fields point=glance_point reads"),
        (
            lines({**OWN, "frame_start": 1, "frame_stop": 2}),
            None,
            "start=frame_start end=frame_stop reads them",
        ),
        (
            "video,text,length,frame_begin,frame_end\na,b,9,1,2\n",
            None,
            "x:1: .*start=frame_begin end=frame_end",
        ),
        (lines({**OWN, "windows": [["1", 2]]}), None, r"windows\[0\] start must be a number, found '1'"),
        (lines({**OWN, "start": 1}), None, r"x:1: key 'end' is missing \(found: qid, video_id"),
        (
            lines({**OWN, "caption": "b"}),
            None,
            r"query and caption disagree .*--fields query=query chooses one",
        ),
        (lines({**OWN, "windows": [[1, 2]], "start": 1, "end": 3}), None, r"windows and start, end disagree"),
        (lines({**OWN, "pred_relevant_windows": []}), None, "x:1: holds predictions .* expected annotations"),
        (
            lines({"video": "a", "query": "b"}),
            None,
            "'duration' is missing .*, --durations FILE gives",
        ),
        (
            lines(OWN),
            {"query": "text"},
            r"x:1: fields: text \(for query\) is not there \(found: qid, video_id",
        ),
        (
            lines(OWN),
            {"words": "query"},
            "fields: 'words' is no field of a record, expected id, query, video",
        ),
        ({"a": CD}, {"query": "sentences"}, "fields are for records with named fields, those of activitynet"),
        (
            [{"a": 1, "b": 2}],
            None,
            r"found a list of 1 \(the first of them an object with the keys a, b\), expected",
        ),
        (
            {"a": {"b": 1}},
            None,
            r"found an object with the keys a \(whose first holds an object with the keys b\)",
        ),
        ("a,20,2,6.5,cat\n", None, r"x:1: key 'query' and key 'video_id' are missing \(found: a, 20, 2"),
        ("video,text,start,end,duration\na,b,2,six,20\n", None, "x:2: end must be a number, found 'six'"),
        ("video,text,start,end,duration\na,b,2\n", None, r"x:2: expected 5 fields \(video, text, .* found 3"),
        (
            [{**DIDEMO, "times": [[0]]}],
            None,
            r"record 0: times\[0\] must be \[start, end\], found a list of 1",
        ),
    ],
)
def test_what_is_not_read_is_one_line_that_says_what_was_found(tmp_path, content, fields, message):
    with pytest.raises(UserError, match=message) as caught:
        read_annotations(put(tmp_path, "x", content), fields=fields)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_first_record_without_any_key_is_refused(tmp_path):
    (tmp_path / "x").write_text("[{}]")
    with pytest.raises(UserError, match=r"x: record 0: key 'query' and key 'video_id' are missing"):
        custom_split(tmp_path / "x", format="objects")


def test_words_that_map_no_field_are_refused():
    assert parse_fields(["query=who says", "start=a=b"]) == {"query": "who says", "start": "a=b"}
    for words, message in (
        (["query"], "expected field=column"),
        (["id=a", "id=b"], "a field is there twice"),
    ):
        with pytest.raises(UserError, match=message):
            parse_fields(words)


def test_folders_and_endings_are_taken_off_ids_and_two_videos_are_never_one(tmp_path):
    rows = [{**OWN, "qid": name, "video_id": name} for name in ("videos/a.mp4", "videos/b.v2")]
    queries = custom_split(put(tmp_path, "x", lines(*rows)), strip_extension=True).queries
    assert [query.video for query in queries] == ["a", "b.v2"]
    rows = [{**OWN, "qid": name, "video_id": name} for name in ("1/a.mp4", "2/a.avi")]
    with pytest.raises(UserError, match=r"x:2: videos '1/a\.mp4' and '2/a\.avi' are one without folders and"):
        custom_split(put(tmp_path, "x", lines(*rows)), strip_extension=True)
