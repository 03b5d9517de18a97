"""How CONE and RGNet choose the queries of Ego4D, NaQ and MAD: every rule, counted in the report."""

import gzip
import json

import numpy as np
import pytest

from vmr_common.cli.data import main
from vmr_common.errors import UserError
from vmr_common.splits.formats import detect_format
from vmr_common.splits.load import ENTRIES, load_split
from vmr_common.splits.policies import too_brief
from vmr_train.splits import SplitConfig, load

BRIEF = "dropped: start and end agree to 0.1 s"
LATE = "dropped: start where the features end"
NO_NEGATIVE = "dropped: no window outside the moment"


def ego4d(queries, start=120.4, end=600.4):
    """An official file of one clip whose length is `end` - `start`; a query is (text, start, end)."""
    asked = [{"query": text, "clip_start_sec": first, "clip_end_sec": last} for text, first, last in queries]
    annotation = {"annotation_uid": "u", "language_queries": asked}
    clip = {"clip_uid": "c", "video_start_sec": start, "video_end_sec": end, "annotations": [annotation]}
    return {"version": "1", "videos": [{"video_uid": "v", "clips": [clip]}]}


def write(root, entry, document):
    path = root / ENTRIES[entry].file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


KEPT = ("where is it?", 130.0, 140.0)


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        (("where?", 479.9, 485.0), LATE),
        (("where?", 479.895, 479.99), LATE),
        (("where?", 479.89, 490.0), None),
        (("where?", 600.0, 700.0), LATE),
        (("where?", 3.0, 3.0), BRIEF),
        (("where?", 3.01, 3.04), BRIEF),
        (("where?", 3.04, 3.06), None),
        (("where?", 119.9, 420.1), NO_NEGATIVE),
        (("where?", 120.0, 479.0), None),
        (("where?", 0.0, 420.0), None),
        (("where?", None, None), None),
        (("  ", 1.0, 5.0), "dropped: no sentence"),
        ((None, 1.0, 5.0), "dropped: no sentence"),
    ],
)
@pytest.mark.parametrize("entry", ["ego4d-nlq-v1-rgnet/train", "ego4d-naq/train"])
def test_training_queries_are_dropped_for_one_of_the_published_reasons(tmp_path, entry, query, reason):
    write(tmp_path, entry, ego4d([KEPT, query]))
    split = load_split(entry, tmp_path)
    assert [q.id for q in split.queries] == (["u_0"] if reason else ["u_0", "u_1"])
    assert {w: n for w, n in split.report.counts.items() if w.startswith("dropped")} == (
        {reason: 1} if reason else {}
    )
    assert split.queries[0].duration == 480
    assert split.protocol == "ego4d-nlq"


def test_a_start_after_its_end_is_judged_as_it_stands_and_swapped(tmp_path):
    write(tmp_path, "ego4d-naq/train", ego4d([("it opens", 300.0, 290.5), ("it ends", 479.95, 100.0)]))
    split = load_split("ego4d-naq/train", tmp_path)
    assert [q.moments.tolist() for q in split.queries] == [[[290.5, 300.0]]]
    assert split.report.counts["swapped: start and end"] == 1
    assert split.report.counts[LATE] == 1


def test_validation_drops_the_brief_ones_only_and_says_both_counts(tmp_path):
    queries = [KEPT, ("", 0, 0), ("where?", 5.0, 5.04), ("where?", 0.0, 470.0), ("where?", 479.9, 480.0)]
    write(tmp_path, "ego4d-nlq-v1-rgnet/val", ego4d(queries))
    split = load_split("ego4d-nlq-v1-rgnet/val", tmp_path)
    assert [q.id for q in split.queries] == ["u_0", "u_3", "u_4"]
    lines = "\n".join(split.report.lines())
    assert "1 dropped: start and end agree to 0.1 s" in lines
    assert "3 of the 3874 queries of the official evaluation" in lines
    assert "published are 3529" in lines
    # the official split of the same file keeps all that have a sentence
    assert len(load_split("ego4d-nlq-v1/val", tmp_path).queries) == 4


def test_clip_lengths_are_whole_seconds_of_rounded_ends(tmp_path):
    write(tmp_path, "ego4d-nlq-v1-rgnet/val", ego4d([KEPT], start=10.5, end=490.49))
    (query,) = load_split("ego4d-nlq-v1-rgnet/val", tmp_path).queries
    assert query.duration == 479  # 490 - 11
    (query,) = load_split("ego4d-nlq-v1/val", tmp_path).queries
    assert np.isclose(query.duration, 479.99)


def test_test_queries_without_times_stay(tmp_path):
    write(tmp_path, "ego4d-nlq-v1-rgnet/test", ego4d([("where?", None, None)]))
    (query,) = load_split("ego4d-nlq-v1-rgnet/test", tmp_path).queries
    assert query.moments.shape == (0, 2)


@pytest.mark.parametrize(
    ("times", "kept"),
    [
        ([1.0, 5.0], [[1.0, 5.0]]),
        ([5.0, 1.0], [[1.0, 5.0]]),
        ([90.0, 130.0], [[90.0, 130.0]]),
        ([-0.5, 5.0], None),
        ([100.0, 120.0], None),
        ([5.0, 5.0], None),
    ],
)
def test_training_queries_of_mad(tmp_path, times, kept):
    rows = {
        str(n): {"movie": "m", "sentence": "A door.", "timestamps": pair, "movie_duration": 100.0}
        for n, pair in enumerate([[2.0, 3.0], times])
    }
    write(tmp_path, "mad-rgnet/train", rows)
    split = load_split("mad-rgnet/train", tmp_path)
    assert [q.moments.tolist() for q in split.queries[1:]] == ([kept] if kept else [])
    assert len(load_split("mad/train", tmp_path).queries) == 2


def test_the_rules_serve_any_file_in_the_flat_layout(tmp_path):
    row = {"query": "where?", "query_id": "u_0", "duration": 480, "clip_id": "c", "timestamps": [9.0, 8.0]}
    (tmp_path / "naq.jsonl").write_text(json.dumps(row) + "\n")
    split = load(SplitConfig(annotations="naq.jsonl", policy="rgnet-ego4d-train"), tmp_path)
    assert split.queries[0].moments.tolist() == [[8.0, 9.0]]
    assert detect_format(tmp_path / "naq.jsonl") == "objects"


def test_the_command_shows_what_was_dropped(tmp_path, capsys):
    write(tmp_path, "ego4d-nlq-v1-rgnet/val", ego4d([KEPT, ("where?", 5.0, 5.0)]))
    assert main(["check", "--data-root", str(tmp_path), "--split", "ego4d-nlq-v1-rgnet/val"]) == 0
    out = capsys.readouterr().out
    assert "2 records read, 1 kept (policy drop-brief" in out
    assert "  1 dropped: start and end agree to 0.1 s" in out


def test_nothing_left_is_said(tmp_path):
    write(tmp_path, "ego4d-naq/train", ego4d([("where?", 5.0, 5.0)]))
    path = tmp_path / ENTRIES["ego4d-naq/train"].file
    with pytest.raises(UserError, match="no query is left of 1 records"):
        load(SplitConfig(annotations=str(path), policy="drop-brief"), tmp_path)


def test_no_moment_of_the_second_version_is_too_brief(shared_data):
    with gzip.open(shared_data / "ego4d_nlq/nlq_val_times.tsv.gz", "rt") as file:
        head, *rows = (line.rstrip("\n").split("\t") for line in file)
    first, last = head.index("start_sec"), head.index("end_sec")
    spans = [(float(row[first]), float(row[last])) for row in rows]
    assert len(spans) == 3_983
    assert not any(too_brief(span, 480.0) for span in spans)
