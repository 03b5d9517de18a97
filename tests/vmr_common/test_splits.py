"""Registered and custom splits: published counts, published irregularities, clear errors."""

import gzip
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from vmr_common.errors import UserError
from vmr_common.evaluation import protocol
from vmr_common.splits import generated
from vmr_common.splits.formats import FORMATS
from vmr_common.splits.load import ENTRIES, custom_split, data_root, load_split
from vmr_common.splits.policies import POLICIES
from vmr_common.splits.sources import origin
from vmr_train.splits import SplitConfig, load

ASCII = "characters outside ASCII in the sentence"
FEED = "line feed in the sentence"
POINT_TOO = "same video, moment, sentence and time point as an earlier query"
LATE = "end after the duration"
BLANK = "blank at the start or end of the sentence"
SAME = "same video and moment as an earlier query"
EXACT = "same video, moment and sentence as an earlier query"
POINT_LATE = "time point after the duration"
WHOLE = "moment over the whole video (99 % or more)"
SHORT = "video shorter than its id says"

# Queries, videos (two of 5,338 in Charades-STA train keep no query), irregularities; None: not published.
PUBLISHED = {
    "charades-sta/train": (12_404, 5_336, {LATE: 1_805,
        "end more than 0.5 s after the duration": 1_619, "end more than 1 s after the duration": 734,
        "start after the end": 4, "start at or after the duration": 3,
        "double blank in the sentence": 33, SAME: 3_214,
        "start equal to the end": 0,
        "negative start": 0, EXACT: 0}),
    "charades-sta/test": (3_720, 1_334, {LATE: 562, "end more than 0.5 s after the duration": 514,
        "end more than 1 s after the duration": 228, "double blank in the sentence": 9,
        SAME: 1_142, EXACT: 0}),
    "charades-sta-cpl/train": (10_602, None, {LATE: 1_805}),
    "charades-sta-cpl/test": (3_158, None, {LATE: 562}),
    "charades-sta-viga/train": (12_408, 5_338, {"start after the end": 0,
        "start at or after the duration": 3}),
    "charades-sta-viga/test": (3_720, 1_334, {POINT_LATE: 82}),
    "charades-sta-rgn/train": (11_675, 4_842, {LATE: 1_072, POINT_LATE: 163,
        "time point before the start": 25,
        "time point after the end": 36, "start after the end": 0}),
    "charades-sta-rgn/test": (3_548, 1_225, {LATE: 390, POINT_LATE: 51}),
    "charades-sta-cfmr/train": (12_354, 5_303, {LATE: 1_751, POINT_LATE: 240}),
    "charades-sta-cfmr/test": (3_712, 1_329, {LATE: 554, POINT_LATE: 79}),
    "charades-sta-cfmr/debug": (1_000, 420, {LATE: 146, POINT_LATE: 18}),
    "tacos/train": (9_790, 75, {EXACT: 1_201, SAME: 6_260, LATE: 43, BLANK: 21, "one-word sentence": 1}),
    "tacos/val": (4_436, 27, {EXACT: 516, SAME: 2_435, LATE: 0, BLANK: 12}),
    "tacos/test": (4_001, 25, {EXACT: 567, SAME: 2_463, LATE: 5, BLANK: 20, "one-word sentence": 1}),
    "tacos-glance/train": (9_790, 75, {POINT_LATE: 4, LATE: 43,
        POINT_TOO: 13}),
    "tacos-glance/val": (4_436, 27, {POINT_TOO: 2}),
    "tacos-glance/test": (4_001, 25, {POINT_LATE: 0, LATE: 5,
        POINT_TOO: 5}),
    "tacos-viga/train": (9_790, 75, {}),
    "tacos-viga/val": (4_436, 27, {}),
    "tacos-viga/test": (4_001, 25, {}),
    "activitynet/train": (37_417, 10_009, {"start after the end": 2, "start equal to the end": 2,
        LATE: 261,
        WHOLE: 1_137, BLANK: 25_731, FEED: 5, ASCII: 24}),
    "activitynet/val_1": (17_505, 4_917, {LATE: 134, WHOLE: 607, BLANK: 11_639, FEED: 2,
        ASCII: 24, EXACT: 0}),
    "activitynet/val_2": (17_031, 4_885, {LATE: 111, WHOLE: 761, BLANK: 11_483, FEED: 3,
        ASCII: 8, EXACT: 0}),
    "activitynet-viga/val_2": (17_031, 4_885, {LATE: 111}),
    "activitynet-glance/test": (17_031, 4_885, {LATE: 111, POINT_LATE: 0}),
    "qvhighlights/train": (7_218, None, {SHORT: 213, ASCII: 6}),
    "qvhighlights/val": (1_550, None, {SHORT: 39, ASCII: 1}),
    "qvhighlights/test": (1_542, None, {SHORT: 47, ASCII: 1,
        "no clip scored 2 or more by any annotator": 1}),
    "qvhighlights/test-hidden": (1_542, None, {SHORT: 47}),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_registered_split_has_the_published_counts_and_irregularities(shared_data, name):
    queries, videos, irregular = PUBLISHED[name]
    split = load_split(name, shared_data)
    assert len(split.queries) == split.report.kept == queries
    assert videos is None or len({query.video for query in split.queries}) == videos
    assert {words: split.report.counts.get(words, 0) for words in irregular} == irregular
    assert split.report.notes == ()
    assert split.protocol == ENTRIES[name].protocol


def test_every_available_split_is_in_the_table_above(shared_data):
    absent = {
        name for name in ENTRIES if name not in PUBLISHED and not name.startswith(("shapes/", "shapes-long/"))
    }
    for name in absent:
        with pytest.raises(UserError, match=rf"^split {re.escape(name)}: .*: no such file \(.*https?://"):
            load_split(name, shared_data)


@pytest.mark.parametrize(
    ("key", "rgn", "official"),
    [("dev_train", 2_493, 2_589), ("dev_test", 711, 787), ("mini_train", 585, 585), ("mini_test", 276, 276)],
)
def test_a_list_of_videos_restricts_any_annotation_file(shared_data, key, rgn, official):
    videos = "features/charades_clip_b32_1fps_splits.json"
    config = SplitConfig(
        annotations="charades_sta/point_rgn/glance_test_charades.json", videos=videos, videos_key=key
    )
    split = load(config, shared_data)
    assert len(split.queries) == split.report.kept == rgn
    whole = {query.id: query.text for query in load_split("charades-sta-rgn/test", shared_data).queries}
    assert all(whole[query.id] == query.text for query in split.queries)
    registered = load(SplitConfig(split="charades-sta/test", videos=videos, videos_key=key), shared_data)
    assert len(registered.queries) == official
    assert registered.name == f"charades-sta/test[{key}]"


# --- with data of our own ----------------------------------------------------------------------------------

ROWS = [
    ["a", 10.0, [1, 2], "one two", 1.5],
    ["b", 10.0, [1, 12], "three four", 1.5],
    ["a", 9.0, [3, 4], "x y", 3.5],
]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "charades_sta/point_rgn").mkdir(parents=True)
    (tmp_path / "charades_sta/point_rgn/glance_test_charades.json").write_text(json.dumps(ROWS))
    (tmp_path / "videos.json").write_text(
        json.dumps({"some": ["a", "z"], "none": ["q"], "bad": [1], "empty": []})
    )
    return tmp_path


def test_a_count_that_differs_from_the_published_one_is_noted(root):
    split = load_split("charades-sta-rgn/test", root)
    assert "  warning: 3 records, published are 3548" in split.report.lines()
    assert "  warning: 3 queries kept, published are 3548" in split.report.lines()


def test_files_may_be_gzipped(root):
    path = root / "charades_sta/point_rgn/glance_test_charades.json"
    plain = load_split("charades-sta-rgn/test", root)
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert load_split("charades-sta-rgn/test", root).hash == plain.hash


def test_a_missing_file_says_where_it_was_looked_for_and_what_it_is(tmp_path):
    with pytest.raises(UserError) as caught:
        load_split("charades-sta/train", tmp_path)
    message = str(caught.value)
    assert (
        f"{tmp_path / 'charades_sta/charades_sta_train.txt'}: no such file (Charades-STA moments, https://"
        in message
    )
    assert f"{tmp_path / 'charades_sta/Charades_v1_train.csv'}: no such file (" in message
    assert message.endswith(
        f"; looked for under {tmp_path} (--data-root, else $VMR_DATA, else data) and in the current folder"
    )


def test_a_registered_split_has_an_origin_a_reader_a_policy_and_a_protocol():
    for entry in ENTRIES.values():
        assert all(map(origin, entry.files)), entry.name
        assert entry.format in FORMATS
        assert entry.policy in POLICIES
        assert protocol(entry.protocol).name == entry.protocol


def test_an_unknown_split_lists_the_known_ones():
    with pytest.raises(
        UserError, match=r"split 'charades' is unknown, expected one of charades-sta/\{train,test\}, "
    ):
        load_split("charades", "data")
    with pytest.raises(
        UserError, match=r"'mad/dev' is unknown, expected one of mad/train, mad/val, mad/test$"
    ):
        load_split("mad/dev", "data")


def test_a_custom_split_restricts_without_renaming(root):
    path = root / "charades_sta/point_rgn/glance_test_charades.json"
    split = custom_split(path, videos=root / "videos.json", videos_key="some")
    assert [query.id for query in split.queries] == ["a_0", "a_1"]
    assert split.name == "glance_test_charades.json[some]"
    assert split.protocol == "strict"
    assert any("1 of these videos have no query" in line for line in split.report.lines())
    assert custom_split(path).report.kept == 3


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (None, r"holds several lists \(some, none, bad, empty\)"),
        ("absent", r"no list 'absent' \(found: some, none, bad, empty\)"),
        ("none", r"none of the 1 videos of 'none' has a query"),
        ("bad", "expected a list of video ids under 'bad'"),
        ("empty", "expected a list of video ids under 'empty'"),
    ],
)
def test_an_unusable_list_of_videos_is_one_error(root, key, message):
    path = root / "charades_sta/point_rgn/glance_test_charades.json"
    with pytest.raises(UserError, match=message):
        custom_split(path, videos=root / "videos.json", videos_key=key)


def test_a_plain_list_of_videos_takes_no_key(root):
    (root / "plain.json").write_text('["b"]')
    path = root / "charades_sta/point_rgn/glance_test_charades.json"
    assert [query.id for query in custom_split(path, videos=root / "plain.json").queries] == ["b_0"]
    with pytest.raises(UserError, match="holds one list"):
        custom_split(path, videos=root / "plain.json", videos_key="some")


def test_a_split_of_nothing_is_an_error(tmp_path):
    path = tmp_path / "g.json"
    path.write_text("[]")
    with pytest.raises(UserError, match=r"g\.json: no query is left of 0 records"):
        custom_split(path)


def test_durations_may_be_given_for_formats_without(tmp_path):
    (tmp_path / "c.txt").write_text("AB 1 2##a b")
    (tmp_path / "d.csv").write_text("id,length\nAB,5\n")
    split = load(SplitConfig(annotations="c.txt", durations="d.csv"), tmp_path)
    assert split.queries[0].duration == 5.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give either split .* or annotations"),
        ({"split": "a/b", "annotations": "c"}, "give either split .* or annotations"),
        ({"split": "a/b", "videos_key": "c"}, "videos_key needs videos"),
        ({"annotations": "a", "policy": "c"}, "policy 'c' is unknown"),
        ({"annotations": "a", "fields": {"words": "c"}}, "fields: 'words' is no field of a record"),
        ({"split": "a/b", "subset": "c"}, "fields and subset are for annotations"),
    ],
)
def test_a_contradictory_configuration_is_refused_at_once(fields, message):
    with pytest.raises(UserError, match=message):
        SplitConfig(**fields)


def test_the_hash_tells_splits_apart_and_nothing_else(root):
    path = root / "charades_sta/point_rgn/glance_test_charades.json"
    registered, custom = load_split("charades-sta-rgn/test", root), custom_split(path)
    assert registered.hash == custom.hash
    assert len(custom.hash) == 64
    assert replace(custom, queries=custom.queries[:2]).hash != custom.hash
    path.write_text(json.dumps([*ROWS[:2], [*ROWS[2][:4], 3.5000001]]))
    assert custom_split(path).hash != custom.hash


class Offered:
    """An entry point that offers a function."""

    def __init__(self, function):
        self.load = lambda: function


def test_a_data_set_is_generated_by_the_package_that_offers_it(tmp_path, monkeypatch):
    def write(folder):
        folder.mkdir()
        row = {"query_id": "v_0", "video_id": "v", "duration": 9.0, "query": "it spins", "windows": [[1, 2]]}
        (folder / "train.jsonl").write_text(json.dumps(row) + "\n")

    offers = {("vmr_common.datasets", "shapes"): [Offered(write)]}
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group, name: offers.get((group, name), []))
    assert [query.text for query in load_split("shapes/train", tmp_path).queries] == ["it spins"]
    assert generated.offered("vmr_common.video_frames", "shapes") is None


def test_without_its_package_a_generated_data_set_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group, name: [])
    with pytest.raises(
        UserError, match=r"^data set 'shapes-long' is generated by .*: pip install vmr-shapes$"
    ):
        load_split("shapes-long/val", tmp_path)
    assert not (tmp_path / "shapes-long").exists()


def test_the_data_root_is_the_given_one_then_the_environments_then_the_remembered_one(monkeypatch, tmp_path):
    monkeypatch.delenv("VMR_DATA", raising=False)
    gone = str(tmp_path / "gone")
    assert data_root(None, str(tmp_path)) == tmp_path
    assert data_root(None, gone) == data_root() == Path("data")
    monkeypatch.setenv("VMR_DATA", "elsewhere")
    assert data_root(None, str(tmp_path)) == Path("elsewhere")
    assert data_root("given", str(tmp_path)) == Path("given")
