"""Annotation readers: what each format gives, what is counted, what is refused and how."""

import gzip
import json

import numpy as np
import pytest

from vmr_common.errors import UserError
from vmr_common.splits.ego4d import read_ego4d_nlq
from vmr_common.splits.formats import detect_format, read_annotations
from vmr_common.splits.json_files import read_activitynet, read_glance_list, read_mad, read_tacos
from vmr_common.splits.objects import read_objects, write_canonical
from vmr_common.splits.policies import POLICIES
from vmr_common.splits.text_files import read_charades_sta, read_durations, read_durations_csv, read_viga

GLANCE = [["AB", 30.0, [4.0, 11.0], "person opens a box.", 6.5], ["AB", 30.0, [12, 20], "person sits.", 13]]


def put(folder, name, content):
    path = folder / name
    if not isinstance(content, str | bytes):
        content = json.dumps(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(*rows):
    return "\n".join(json.dumps(row) for row in rows)


def facts(annotations):
    return [
        (query.id, query.video, query.text, query.duration, query.moments.tolist(), query.glance)
        for query in annotations.queries
    ]


# --- each format -------------------------------------------------------------------------------------------


def test_glance_lists_give_queries_with_points(tmp_path):
    found = read_glance_list(put(tmp_path, "g.json", GLANCE))
    assert facts(found) == [
        ("AB_0", "AB", "person opens a box.", 30.0, [[4.0, 11.0]], 6.5),
        ("AB_1", "AB", "person sits.", 30.0, [[12.0, 20.0]], 13.0),
    ]
    assert (found.report.read, found.report.kept, found.report.counts) == (2, 2, {})


def test_lists_without_points_are_read_when_every_record_lacks_it(tmp_path):
    rows = [row[:4] for row in GLANCE]
    assert [query.glance for query in read_glance_list(put(tmp_path, "a.json", rows)).queries] == [None, None]
    with pytest.raises(
        UserError, match=r"b\.json: record 1: expected .*without the time point, as in record 0"
    ):
        read_glance_list(put(tmp_path, "b.json", [rows[0], GLANCE[1]]))
    with pytest.raises(UserError, match=r"c\.json: record 1: expected .* found a list of 4"):
        read_glance_list(put(tmp_path, "c.json", [GLANCE[0], rows[1]]))


def test_charades_lines_are_read_with_stray_number_signs(tmp_path):
    path = put(tmp_path, "c.txt", "AB 4.0 11.5##a #1 cup##is here.\r\n\nCD 0 3##b.\n")
    assert facts(read_charades_sta(path, {"AB": 30.0, "CD": 9.5}, policy="as-annotated")) == [
        ("AB_0", "AB", "a #1 cup##is here.", 30.0, [[4.0, 11.5]], None),
        ("CD_0", "CD", "b.", 9.5, [[0.0, 3.0]], None),
    ]


def test_viga_lines_carry_the_point(tmp_path):
    path = put(tmp_path, "v.txt", "AB 4.0 11.5##5.5##a ## b.")
    assert facts(read_viga(path, {"AB": 30.0})) == [("AB_0", "AB", "a ## b.", 30.0, [[4.0, 11.5]], 5.5)]


def test_tacos_frames_become_seconds(tmp_path):
    entry = {"timestamps": [[10, 20], [0, 30]], "sentences": ["a", "b"], "num_frames": 100, "fps": 10.0}
    plain = read_tacos(put(tmp_path, "t.json", {"s1.avi": entry}))
    assert facts(plain) == [
        ("s1.avi_0", "s1.avi", "a", 10.0, [[1.0, 2.0]], None),
        ("s1.avi_1", "s1.avi", "b", 10.0, [[0.0, 3.0]], None),
    ]
    points = read_tacos(put(tmp_path, "p.json", {"s1.avi": {**entry, "glance": [15, 3]}}))
    assert [query.glance for query in points.queries] == [1.5, 0.3]


def test_activitynet_seconds_are_kept(tmp_path):
    entry = {"timestamps": [[0, 4.14]], "sentences": [" a man\njumps"], "duration": 55.15, "glance": [3]}
    found = read_activitynet(put(tmp_path, "a.json", {"v_x": entry}))
    assert facts(found) == [("v_x_0", "v_x", " a man\njumps", 55.15, [[0.0, 4.14]], 3.0)]
    assert found.report.counts == {
        "blank at the start or end of the sentence": 1,
        "line feed in the sentence": 1,
    }


def test_qvhighlights_lines_carry_windows_and_saliency(tmp_path):
    row = {
        "qid": 7,
        "query": "a dog",
        "duration": 148,
        "vid": "x_60.0_210.0",
        "relevant_windows": [[0, 4], [10, 12]],
        "relevant_clip_ids": [0, 1, 5],
        "saliency_scores": [[1, 1, 0], [0, 1, 1], [0, 0, 0]],
    }
    hidden = {"qid": 8, "query": "a cat", "duration": 150, "vid": "x_60.0_210.0"}
    found = read_objects(put(tmp_path, "q.jsonl", lines(row, hidden)))
    first, second = found.queries
    assert first.id == "7"
    assert first.moments.tolist() == [[0, 4], [10, 12]]
    assert first.saliency_clips.tolist() == [0, 1, 5]
    assert first.saliency.tolist() == row["saliency_scores"]
    assert second.moments.shape == (0, 2)
    assert second.saliency is None
    assert found.report.counts == {
        "no clip scored 2 or more by any annotator": 1,
        "video shorter than its id says": 1,
        "another duration of the video than in an earlier query": 1,
    }


def test_cone_lines_use_the_clip_as_video(tmp_path):
    row = {"query_id": "a_3", "query": "where?", "video_id": "v", "clip_id": "c", "duration": 480}
    film = {"query_id": 5, "query": "b", "video_id": "f", "duration": 7000.5, "timestamps": [1, 2.5]}
    found = read_objects(put(tmp_path, "c.jsonl", lines({**row, "timestamps": [301.4, 305.9]}, film)))
    assert facts(found) == [
        ("a_3", "c", "where?", 480.0, [[301.4, 305.9]], None),
        ("5", "f", "b", 7000.5, [[1.0, 2.5]], None),
    ]
    assert read_objects(put(tmp_path, "h.jsonl", lines(row))).queries[0].moments.shape == (0, 2)


def ego4d(*queries, **clip):
    clip = {
        "clip_uid": "c1",
        **clip,
        "annotations": [{"annotation_uid": "a1", "language_queries": list(queries)}],
    }
    return {"version": "1", "videos": [{"video_uid": "v", "clips": [clip]}]}


def test_ego4d_queries_are_named_by_annotation_and_index(tmp_path):
    times = {"clip_start_sec": 2.5, "clip_end_sec": 3.0}
    document = ego4d(
        {"query": "where?", **times},
        {"query": None, **times},
        {**times},
        {"query": "who?", **times},
        video_start_sec=0.5,
        video_end_sec=480.5,
    )
    found = read_ego4d_nlq(put(tmp_path, "nlq.json", document))
    assert facts(found) == [
        ("a1_0", "c1", "where?", 480.0, [[2.5, 3.0]], None),
        ("a1_3", "c1", "who?", 480.0, [[2.5, 3.0]], None),
    ]
    assert (found.report.read, found.report.kept) == (4, 2)
    assert found.report.counts["dropped: no sentence"] == 2


def test_ego4d_without_clip_times_needs_durations(tmp_path):
    path = put(tmp_path, "nlq.json", ego4d({"query": "where?"}))
    assert facts(read_ego4d_nlq(path, durations={"c1": 480})) == [("a1_0", "c1", "where?", 480.0, [], None)]
    with pytest.raises(
        UserError, match=r"nlq\.json: clip 'c1': video_start_sec and video_end_sec are missing"
    ):
        read_ego4d_nlq(path)


def test_mad_is_read_by_its_timestamps(tmp_path):
    row = {
        "movie": "m",
        "sentence": " SOMEONE runs.",
        "timestamps": [1, 2],
        "ext_timestamps": [0.5, 3],
        "movie_duration": 7000,
    }
    path = put(tmp_path, "mad.json", {"17": row})
    assert facts(read_mad(path)) == [("17", "m", " SOMEONE runs.", 7000.0, [[1.0, 2.0]], None)]


def test_durations_come_from_csv_and_json(tmp_path):
    path = put(tmp_path, "d.csv", 'id,script,length\r\nAB,"two\nlines, and a comma",30.5\r\nCD,,7\r\n')
    assert read_durations_csv(path) == {"AB": 30.5, "CD": 7.0}
    assert read_durations(put(tmp_path, "e.csv", "video,duration\nAB,3\n")) == {"AB": 3.0}
    assert read_durations(put(tmp_path, "d.json", {"AB": 30.5})) == {"AB": 30.5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected the columns id and length"),
        ("id,size\nAB,3\n", r"d\.csv:1: expected the columns id and length, found 'id,size'"),
        ("id,length\nAB,\n", r"d\.csv:2: length must be a number, found ''"),
        ("id,length\nAB\n", r"d\.csv:2: expected 2 fields \(id, length\), found 1"),
        ("id,length\nAB,nan\n", r"d\.csv:2: length must be a finite number"),
        ("id,length\nAB,0\n", r"d\.csv:2: length must be positive seconds"),
        ("id,length\nAB,3\nAB,4\n", r"d\.csv:3: id 'AB' occurs twice"),
        ("id,length\nAB," + "3" * 200_000, "not a table of separated columns"),
        ("id,length\nAB,3,4\n", r"d\.csv:2: expected 2 fields \(id, length\), found 3"),
        ("id,length,length\nAB,3,4\n", r"d\.csv:1: the column 'length' is there twice"),
        ('id,length\nAB,3\nCD,"4\nEF,5\n', r"d\.csv:\d: not a table of separated columns"),
        ("id,length\n ,3\n", r"d\.csv:2: id is empty"),
        ("id,length\nAB,-3\n", r"d\.csv:2: length must be positive seconds, found -3"),
        ("id,length\nAB,inf\n", r"d\.csv:2: length must be a finite number"),
        ("id,length\nAB,1e300\n", r"d\.csv:2: length must be at most 1e\+09 seconds"),
        ("id,length\nAB,1_0\n", r"d\.csv:2: length must be a number, found '1_0'"),
        ("id,length\nAB,\u0663\n", r"d\.csv:2: length must be a number"),
        ("id,length\nAB,True\n", r"d\.csv:2: length must be a number, found 'True'"),
        ("\n\nid,length\n\nAB,3\n\nAB,4\n", r"d\.csv:7: id 'AB' occurs twice"),
        ("id,length\nAB\0,3\n" * 2, r"d\.csv:3: length must be a number, found 'length'"),
    ],
)
def test_a_broken_table_of_durations_is_one_error(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_durations_csv(put(tmp_path, "d.csv", content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"AB": "30"}, r"d\.json: duration of 'AB' must be a number, found '30'"),
        ({"AB": True}, r"d\.json: duration of 'AB' must be a number, found True"),
        ({"AB": None}, r"duration of 'AB' must be a number, found None"),
        ({"AB": float("nan")}, r"duration of 'AB' must be a finite number, found nan"),
        ({"AB": -1}, r"duration of 'AB' must be positive seconds, found -1"),
        ({"AB": 10**12}, r"duration of 'AB' must be at most 1e\+09 seconds"),
        ({"": 3}, r"d\.json: a video id is empty"),
        ('{"AB": 3, "AB": 4}', r"d\.json: the key 'AB' occurs twice"),
        ([["AB", 3]], r"d\.json: the file must be an object, found a list of 1"),
    ],
)
def test_a_broken_object_of_durations_is_one_error(tmp_path, content, message):
    with pytest.raises(UserError, match=message):
        read_durations(put(tmp_path, "d.json", content))


def test_a_number_and_its_text_are_one_id(tmp_path):
    rows = [
        {"query_id": name, "video_id": 3, "duration": 9, "query": "a", "windows": []} for name in (7, "7")
    ]
    path = put(tmp_path, "x.jsonl", lines(*rows))
    with pytest.raises(UserError, match=r"x\.jsonl:2: id '7' occurs twice \(first at .*x\.jsonl:1\)"):
        read_objects(path)
    assert read_objects(put(tmp_path, "x.jsonl", lines(rows[0]))).queries[0].video == "3"


@pytest.mark.parametrize(
    ("reader", "row"),
    [
        (
            read_objects,
            {"query_id": 1, "video_id": "v", "duration": 9, "query": "a", "windows": [[1, 1e10]]},
        ),
        (read_objects, {"query_id": 1, "video_id": "v", "duration": 1e10, "query": "a", "windows": []}),
        (read_objects, {"query_id": 1, "video_id": "v", "duration": 1e-9, "query": "a", "windows": []}),
        (
            read_objects,
            {"qid": 1, "vid": "v", "duration": 9, "query": "a", "relevant_windows": [[-1e10, 1]]},
        ),
        (read_objects, {"qid": 1, "vid": "v", "duration": 9, "query": "a", "relevant_window": [[1, 2]]}),
        (read_objects, {"qid": 1, "vid": "v", "duration": 9, "query": "a", "pred_relevant_windows": []}),
        (
            read_objects,
            {"query_id": 1, "clip_id": "v", "duration": 9, "query": "a", "timestamps": [1, 1e308]},
        ),
        (read_objects, {"query_id": 1, "clip_id": "v", "duration": 9, "query": "a", "timestmp": [1, 2]}),
    ],
)
def test_times_that_are_none_and_misspelt_keys_are_refused(tmp_path, reader, row):
    with pytest.raises(
        UserError, match=r"x\.jsonl:1: (.* must be |unknown key '.*' \(did you mean '|holds predictions )"
    ):
        reader(put(tmp_path, "x.jsonl", lines(row)), policy="as-annotated")


def test_a_clip_scored_twice_is_an_error(tmp_path):
    row = {"qid": 1, "vid": "v", "duration": 9, "query": "a", "relevant_clip_ids": [1, 1]}
    with pytest.raises(UserError, match="relevant_clip_ids holds a clip twice"):
        read_objects(put(tmp_path, "x.jsonl", lines({**row, "saliency_scores": [[1], [4]]})))


@pytest.mark.parametrize(
    "content",
    [
        b"\0" * 5000,
        b"AB 1 2##" + b"\0\n",
        b"x" * 3_000_000,
        b"AB 1 2##a\nAB 1 2\0##b\n",
        b"\xff\xfe\0A",
        b"[" * 999_999,
    ],
    ids=["zeros", "zero in a sentence", "one long word", "zero in a time", "UTF-16", "brackets"],
)
@pytest.mark.parametrize("form", ["auto", "charades-sta", "viga", "canonical", "glance-list"])
def test_text_that_is_none_is_queries_or_one_line(tmp_path, content, form):
    path = tmp_path / "x.txt"
    path.write_bytes(content)
    said = "x.txt"
    try:
        read_annotations(path, form, durations={"AB": 30.0})
    except UserError as error:
        said = str(error)
    assert "x.txt" in said
    assert "\n" not in said
    assert len(said) < 700


# --- recognising formats -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("AB 1 2##a b.\n", "charades-sta"),
        ("AB 1 2##1.5##a b.\n", "viga"),
        ("AB 1 2##nice##a b.\n", "charades-sta"),
        (GLANCE, "glance-list"),
        ({"v": {"timestamps": [], "sentences": [], "num_frames": 3, "fps": 1}}, "tacos"),
        ({"v": {"timestamps": [], "sentences": [], "duration": 3}}, "activitynet"),
        ({"v": {"spans": [], "queries": [], "duration": 3}}, "timelens"),
        ({"1": {"movie": "m", "sentence": "a"}}, "mad"),
        ({"videos": []}, "ego4d-nlq"),
        (lines({"qid": 1, "query": "a"}), "objects"),
        (lines({"query_id": 1, "windows": []}) + "\n" + lines({"query_id": 2}), "objects"),
        ("\n" + lines({"query_id": 1, "timestamps": []}), "objects"),
        (json.dumps({"v": {"timestamps": [], "sentences": [], "duration": 3}}, indent=2), "activitynet"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_formats_are_recognised_by_content(tmp_path, content, name, zipped):
    path = put(tmp_path, "file.any", content)
    if zipped:
        path = put(tmp_path, "file.gz", gzip.compress(path.read_bytes()))
    assert detect_format(path) == name


@pytest.mark.parametrize("content", ["", "  \n", "hello", "{}", '{"a": 3}', '{"a": {"b": 1}}'])
def test_an_unknown_format_is_one_error(tmp_path, content):
    with pytest.raises(UserError, match=r"x\.json.*(empty|not an annotation file of a known format)"):
        read_annotations(put(tmp_path, "x.json", content))


def test_formats_and_policies_are_named_when_unknown(tmp_path):
    path = put(tmp_path, "g.json", GLANCE)
    with pytest.raises(
        UserError, match="annotation format 'glance' is unknown, expected auto, objects, table"
    ):
        read_annotations(path, "glance")
    with pytest.raises(UserError, match="policy 'loose' is unknown, expected one of checked"):
        read_annotations(path, policy="loose")
    with pytest.raises(UserError, match="charades-sta needs a table of durations"):
        read_annotations(put(tmp_path, "c.txt", "AB 1 2##a"))


# --- policies ----------------------------------------------------------------------------------------------


def one(folder, start, end, policy, duration=10.0):
    return read_glance_list(put(folder, "g.json", [["v", duration, [start, end], "a b"]]), policy=policy)


@pytest.mark.parametrize(
    ("policy", "times", "kept"),
    [
        ("as-annotated", (-1, 12), (-1, 12)),
        ("as-annotated", (9, 3), (9, 3)),
        ("checked", (2, 12), (2, 12)),
        ("checked", (3, 3), (3, 3)),
        ("cut-then-drop", (2, 12), (2, 10)),
        ("cut-then-drop", (11, 12), None),
        ("cut-then-drop", (10, 12), None),
        ("cut-then-drop", (9, 3), None),
        ("drop-then-cut", (-1, 12), (0, 10)),
        ("drop-then-cut", (3, 3), None),
        ("drop-then-cut", (9, 3), None),
        ("drop-late", (2, 12), None),
        ("drop-late", (2, 10), (2, 10)),
        ("drop-late", (9, 3), None),
    ],
)
def test_each_policy_does_what_it_says_and_counts_it(tmp_path, policy, times, kept):
    found = one(tmp_path, *times, policy)
    assert [query.moments[0].tolist() for query in found.queries] == ([] if kept is None else [list(kept)])
    acted = {words for words in found.report.counts if words.startswith(("dropped", "cut", "raised"))}
    assert bool(acted) == (kept != times)
    assert (found.report.read, found.report.kept, found.report.policy) == (1, int(kept is not None), policy)


def test_the_checked_policy_refuses_reversed_and_negative_times(tmp_path):
    with pytest.raises(UserError, match=r"g\.json: record 0: start 9 is after end 3 \(policy checked; other"):
        one(tmp_path, 9, 3, "checked")
    with pytest.raises(UserError, match=r"g\.json: record 0: start -1 is negative"):
        one(tmp_path, -1, 3, "checked")


def test_the_report_counts_every_irregularity(tmp_path):
    rows = [
        ["v", 10.0, [0, 10], "one  two ", 10.5],
        ["v", 10.0, [0, 10], "one  two ", 10.5],
        ["v", 10.0, [0, 10], "one  two ", 4],
        ["v", 10.0, [0, 10], "other words", 4],
        ["v", 10.0, [12, 13.5], "é", 11],
        ["v", 10.0, [5, 4], "x y", 4.5],
        ["v", 10.0, [-1, -1], "x y", -2],
    ]
    found = read_glance_list(put(tmp_path, "g.json", rows), policy="as-annotated")
    assert found.report.counts == {
        "blank at the start or end of the sentence": 3,
        "characters outside ASCII in the sentence": 1,
        "double blank in the sentence": 3,
        "end after the duration": 1,
        "end more than 0.5 s after the duration": 1,
        "end more than 1 s after the duration": 1,
        "moment over the whole video (99 % or more)": 4,
        "negative start": 1,
        "one-word sentence": 1,
        "same video and moment as an earlier query": 3,
        "same video, moment and sentence as an earlier query": 2,
        "same video, moment, sentence and time point as an earlier query": 1,
        "start after the end": 1,
        "start at or after the duration": 1,
        "start equal to the end": 1,
        "time point after the duration": 3,
        "time point after the end": 3,
        "time point before the start": 3,
    }
    text = found.report.lines()
    assert text[0].endswith("7 records read, 7 kept (policy as-annotated: every record is kept as it is)")
    assert "  1 negative start" in text


def test_every_policy_explains_itself():
    assert all(policy.summary and policy.name == name for name, policy in POLICIES.items())


# --- the canonical form ------------------------------------------------------------------------------------


def test_the_canonical_form_comes_back_bit_for_bit(tmp_path):
    rows = [
        ["a/b.avi", 30.123456789012345, [0.1, 1 / 3], ' "quoted"\n\u2028é ', 0.30000000000000004],
        ["v", 1e-3, [0, 5e-324], "x", 1e9],
    ]
    queries = read_glance_list(put(tmp_path, "g.json", rows)).queries
    scored = read_objects(
        put(
            tmp_path,
            "q.jsonl",
            lines(
                {
                    "qid": 1,
                    "query": "a",
                    "duration": 4,
                    "vid": "v",
                    "relevant_clip_ids": [1],
                    "saliency_scores": [[2]],
                },
                {
                    "qid": 2,
                    "query": "b",
                    "duration": 4,
                    "vid": "v",
                    "relevant_clip_ids": [],
                    "saliency_scores": [],
                },
            ),
        )
    ).queries
    path = tmp_path / "canonical.jsonl"
    write_canonical(path, [*queries, *scored])
    again = read_objects(path).queries
    for old, new in zip([*queries, *scored], again, strict=True):
        assert (old.id, old.video, old.text, old.duration, old.glance) == (
            new.id,
            new.video,
            new.text,
            new.duration,
            new.glance,
        )
        assert np.array_equal(old.moments, new.moments)
        if old.saliency is not None:
            assert np.array_equal(old.saliency, new.saliency)
            assert np.array_equal(old.saliency_clips, new.saliency_clips)
    second = tmp_path / "again.jsonl"
    write_canonical(second, again)
    assert second.read_bytes() == path.read_bytes()


# --- hostile files -----------------------------------------------------------------------------------------


def glance(**changes):
    keys = ("video", "duration", "moment", "text", "point")
    values = dict(zip(keys, GLANCE[0], strict=True)) | changes
    return json.dumps([[values[key] for key in keys]])


HOSTILE_LISTS = [
    ('[["AB", 30.0, [4.0, 11.0', r"g\.json:1: not JSON"),
    ("[" * 100_000, r"g\.json: not usable JSON \(nested too deeply\)"),
    ('{"a": 1}', r"the file must be a list, found an object of 1"),
    ("[3]", r"record 0: expected \[video, duration"),
    ('[["AB", 30.0]]', r"record 0: expected \[video, duration.* found a list of 2"),
    (glance(video=""), r"record 0: video \(element 0\) is empty"),
    (glance(video=None), r"record 0: video \(element 0\) must be text or a whole number, found None"),
    (
        glance(video=["AB"]),
        r"record 0: video \(element 0\) must be text or a whole number, found a list of 1",
    ),
    (glance(duration="30"), r"record 0: duration \(element 1\) must be a number, found '30'"),
    (glance(duration=True), r"record 0: duration \(element 1\) must be a number, found True"),
    (glance(duration=0), r"record 0: duration \(element 1\) must be positive seconds, found 0"),
    (glance(duration=-3), r"duration \(element 1\) must be positive seconds, found -3"),
    (glance(duration=float("nan")), r"duration \(element 1\) must be a finite number, found nan"),
    (glance(duration=10**400), r"duration \(element 1\) must be a finite number, found 1000"),
    ('[["AB", ' + "9" * 5000 + ', [1, 2], "a", 1]]', r"g\.json:1: not usable JSON"),
    (glance(moment=[4.0]), r"moment \(element 2\) must be \[start, end\], found a list of 1"),
    (glance(moment=[4.0, 5.0, 6.0]), r"moment \(element 2\) must be \[start, end\], found a list of 3"),
    (glance(moment="4-5"), r"moment \(element 2\) must be \[start, end\], found '4-5'"),
    (glance(moment=[4.0, float("inf")]), r"moment \(element 2\) end must be a finite number, found inf"),
    (glance(moment=[4.0, None]), r"moment \(element 2\) end must be a number, found None"),
    (glance(moment=[11.0, 4.0]), r"record 0: start 11 is after end 4"),
    (glance(moment=[-0.5, 4.0]), r"record 0: start -0.5 is negative"),
    (glance(text=""), r"record 0: the sentence is empty"),
    (glance(text=" \n"), r"record 0: the sentence is empty"),
    (glance(text=None), r"sentence \(element 3\) must be text, found None"),
    (glance(text="\ud800"), "holds half a surrogate pair"),
    (glance(point=[6.5, [[1, 2]]]), r"time point \(element 4\) must be a number, found a list of 2"),
    (glance(point=None), r"time point \(element 4\) must be a number, found None"),
    (b'[["AB", 30.0, [4.0, 11.0], "caf\xe9", 6.5]]', r"g\.json: not UTF-8 text \(byte 0xe9"),
]


@pytest.mark.parametrize(("content", "message"), HOSTILE_LISTS)
def test_a_malformed_list_is_one_error_that_names_the_record(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as caught:
        read_glance_list(put(tmp_path, "g.json", content))
    assert "g.json" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("reader", "content", "message"),
    [
        (read_tacos, {"s": 3}, r"f: video 's': the entry must be an object, found 3"),
        (
            read_tacos,
            {"s": {"timestamps": []}},
            r"video 's': key 'sentences' is missing \(found: timestamps\)",
        ),
        (
            read_tacos,
            {"s": {"timestamps": [[1, 2]], "sentences": []}},
            r"sentences must hold 1 entries, found 0",
        ),
        (
            read_tacos,
            {"s": {"timestamps": [], "sentences": [], "num_frames": 9, "fps": 0}},
            r"video 's': fps must be positive",
        ),
        (
            read_activitynet,
            {"s": {"timestamps": [[1, 2], [1]], "sentences": ["a", "b"], "duration": 9}},
            r"video 's', entry 1: timestamps must be \[start, end\]",
        ),
        (
            read_activitynet,
            '{"s": {"timestamps": [], "sentences": [], "duration": 9}, "s": {}}',
            r"f:1: the key 's' occurs twice",
        ),
        (read_mad, {"1": {"movie": "m"}}, r"record '1': key 'sentence' is missing"),
        (read_mad, [], r"the file must be an object"),
        (read_ego4d_nlq, {"video": []}, r"key 'videos' is missing"),
        (read_ego4d_nlq, {"videos": [{"clips": [{}]}]}, r"video 0, clip 0: key 'clip_uid' is missing"),
        (
            read_ego4d_nlq,
            ego4d({"query": "a", "clip_start_sec": 1}, video_start_sec=0, video_end_sec=9),
            r"annotation 'a1', query 0: clip_start_sec, clip_end_sec end must be a number, found None",
        ),
        (
            read_ego4d_nlq,
            ego4d(video_start_sec=9, video_end_sec=9),
            r"clip 'c1': video_end_sec - video_start_sec must be positive",
        ),
        (read_objects, lines({"qid": 1}), r"f:1: key 'query' and key 'video_id' are missing \(found: qid\)"),
        (
            read_objects,
            lines(*[{"qid": 1, "vid": "v", "query": "a", "duration": 3}] * 2),
            r"f:2: id '1' occurs twice \(first at .*f:1\)",
        ),
        (
            read_objects,
            lines({"qid": 1, "vid": "v", "query": "a", "duration": 3, "relevant_windows": [[1, 2], 3]}),
            r"f:1: relevant_windows\[1\] must be \[start, end\], found 3",
        ),
        (
            read_objects,
            lines(
                {
                    "qid": 1,
                    "vid": "v",
                    "query": "a",
                    "duration": 3,
                    "relevant_clip_ids": [0, 1],
                    "saliency_scores": [[1, 2], [1]],
                }
            ),
            r"f:1: saliency_scores\[1\] must be \[label, label\], found a list of 1",
        ),
        (
            read_objects,
            lines(
                {
                    "qid": 1,
                    "vid": "v",
                    "query": "a",
                    "duration": 3,
                    "relevant_clip_ids": ["0"],
                    "saliency_scores": [[1, 2]],
                }
            ),
            r"f:1: relevant_clip_ids must be numbers from 0 on",
        ),
        (read_objects, '{"query_id": "1"\n', r"f:2: not JSON"),
        (
            read_objects,
            "[1, 2]\n",
            r"f: expected one JSON object a line, or a list of objects, found a list of 2",
        ),
        (read_objects, lines({"query_id": "1"}) + "\n3", r"f:1: key 'query' and key 'video_id' are missing"),
        (
            read_objects,
            lines({"query_id": None, "clip_id": "c", "query": "a"}),
            r"f:1: query_id must be text or a whole number, found None",
        ),
    ],
)
def test_a_malformed_file_is_one_error_that_names_the_place(tmp_path, reader, content, message):
    with pytest.raises(UserError, match=message):
        reader(put(tmp_path, "f", content))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("AB 1 2#a", r"c\.txt:2: expected VIDEO START END##sentence, found 'AB 1 2#a'"),
        ("AB 1##a", r"c\.txt:2: expected VIDEO START END##sentence"),
        ("AB one 2##a", r"c\.txt:2: start must be a number, found 'one'"),
        ("AB 1 nan##a", r"c\.txt:2: end must be a finite number, found nan"),
        ("XY 1 2##a", r"c\.txt:2: video 'XY' is not among the 1 of the table of durations"),
        ("AB 1 2##", r"c\.txt:2: the sentence is empty"),
        ("AB 3 2##a", r"c\.txt:2: start 3 is after end 2"),
    ],
)
def test_a_malformed_line_is_one_error_that_names_it(tmp_path, line, message):
    with pytest.raises(UserError, match=message):
        read_charades_sta(put(tmp_path, "c.txt", f"AB 1 2##a\n{line}\n"), {"AB": 9.0}, policy="checked")


def test_broken_gzip_data_is_one_error(tmp_path):
    data = gzip.compress(json.dumps(GLANCE * 50).encode())
    for broken in (data[:-9], b"not gzip", data[:20] + b"\0" * 30 + data[50:]):
        with pytest.raises(UserError, match=r"cannot read .*g\.json\.gz"):
            read_glance_list(put(tmp_path, "g.json.gz", broken))


def test_an_empty_list_gives_no_query(tmp_path):
    assert read_glance_list(put(tmp_path, "g.json", [])).queries == []


# --- real files --------------------------------------------------------------------------------------------


def test_one_record_per_line_files_equal_the_filtered_moment_files(shared_data):
    folder = shared_data / "charades_sta"
    for part in ("train", "test"):
        csv = folder / f"Charades_v1_{part}.csv"
        table = read_durations_csv(csv if csv.exists() else f"{csv}.gz")
        text = read_charades_sta(folder / f"charades_sta_{part}.txt", table, policy="cut-then-drop")
        rows = read_objects(folder / f"jsonl/charades_{part}_release.jsonl.gz")
        assert len(text.queries) == len(rows.queries)
        for ours, theirs in zip(text.queries, rows.queries, strict=True):
            assert (ours.video, ours.text, ours.duration) == (theirs.video, theirs.text, theirs.duration)
            assert np.array_equal(ours.moments, theirs.moments)


def test_tacos_forms_agree_with_each_other(shared_data):
    folder = shared_data / "tacos"
    for part in ("train", "val", "test"):
        moments = read_tacos(folder / f"{part}.json").queries
        points = read_glance_list(folder / f"point/glance_{part}_tacos.json").queries
        viga = read_tacos(folder / f"point_viga/{part}.json.gz").queries
        for first, second, third in zip(moments, points, viga, strict=True):
            assert first.id == second.id == third.id
            assert first.text == second.text == third.text
            assert np.allclose(first.moments, second.moments, atol=1e-9, rtol=0)
            assert abs(second.glance - third.glance) < 1e-9


def test_documented_long_video_layouts_are_read(shared_data, tmp_path):
    layouts = json.loads((shared_data / "ego4d_nlq/nlq_documented_layout.json").read_text())
    found = read_annotations(put(tmp_path, "nlq.json", layouts["annotated"]))
    assert [query.duration for query in found.queries] == pytest.approx([480.0])
    clips = [clip["clip_uid"] for video in layouts["unannotated"]["videos"] for clip in video["clips"]]
    hidden = read_annotations(
        put(tmp_path, "test.json", layouts["unannotated"]), durations=dict.fromkeys(clips, 480.0)
    )
    assert [len(query.moments) for query in hidden.queries] == [0, 0]
    mad = read_annotations(shared_data / "mad/mad_sample.json")
    assert len(mad.queries) == 3
    assert mad.report.counts["blank at the start or end of the sentence"] == 1


def own_row(**changes):
    row = {"query_id": "a", "video_id": "v", "duration": 9, "query": "a b", "windows": [[1, 2]], "point": 1.5}
    row.update(changes)
    return {key: value for key, value in row.items() if value is not None}


def test_own_rows_without_ids_get_them(tmp_path):
    path = put(tmp_path, "x.jsonl", lines(own_row(query_id=None), own_row(query_id=None)))
    assert [query.id for query in read_annotations(path).queries] == ["v_0", "v_1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"windows": None, "window": [[1, 2]]},
            r"x\.jsonl:1: unknown key 'window' \(did you mean 'windows'\?\); --fields moments=window reads it",
        ),
        ({"point": None, "points": 1.5}, r"x\.jsonl:1: unknown key 'points' \(did you mean 'point'\?\)"),
        (
            {"query_id": None, "queryid": 1},
            r"x\.jsonl:1: unknown key 'queryid' \(did you mean 'query_id'\?\)",
        ),
    ],
)
def test_a_misspelt_key_of_own_rows_is_one_error(tmp_path, changes, message):
    row = own_row(**changes)
    with pytest.raises(UserError, match=message):
        read_annotations(put(tmp_path, "x.jsonl", lines(row, row)))


def test_real_rows_survive_the_canonical_form(shared_data, tmp_path):
    queries = read_objects(shared_data / "qvhighlights/highlight_val_release.jsonl").queries
    path = tmp_path / "canonical.jsonl"
    write_canonical(path, queries)
    again = read_objects(path).queries
    assert len(again) == 1550
    for old, new in zip(queries, again, strict=True):
        assert old.id == new.id
        assert np.array_equal(old.moments, new.moments)
        assert np.array_equal(old.saliency, new.saliency)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"num_frames": 5e-324, "fps": 29.4}, "duration must be positive seconds, found 0"),
        ({"num_frames": 1e308, "fps": 1e-308}, "num_frames / fps must be a finite number"),
        (
            {"num_frames": 1, "fps": 1e-5, "timestamps": [[1, 1e308]]},
            "timestamps / fps must be a finite number",
        ),
    ],
)
def test_a_quotient_of_frames_and_rate_that_is_no_time_is_one_error(tmp_path, entry, message):
    path = tmp_path / "tacos.json"
    path.write_text(json.dumps({"s.avi": {"timestamps": [[1, 2]], "sentences": ["a b"], **entry}}))
    with pytest.raises(UserError, match=message):
        read_tacos(path)


def test_timelens_has_a_span_for_each_query(tmp_path):
    path = tmp_path / "charades-timelens.json"
    entry = {"duration": 30.5, "spans": [[1, 2.5], [0, 30]], "queries": ["a door opens", "all of it"]}
    path.write_text(json.dumps({"v": entry}))
    found = read_annotations(path)
    assert [(query.id, query.text, query.moments.tolist()) for query in found.queries] == [
        ("v_0", "a door opens", [[1, 2.5]]),
        ("v_1", "all of it", [[0, 30]]),
    ]
    path.write_text(json.dumps({"v": {**entry, "queries": ["one"]}}))
    with pytest.raises(UserError, match=r"video 'v': queries must hold 2 entries, found 1"):
        read_annotations(path)
