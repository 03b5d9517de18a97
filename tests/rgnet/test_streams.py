"""Short videos joined into streams: every moment lies on the rows it lay on before."""

import json

import numpy as np
import pytest

from rgnet.stream_plan import plan_streams, shift_queries
from rgnet.streams import write_concat
from vmr_common.errors import UserError
from vmr_common.features.store import FeatureStore, Manifest, write_features
from vmr_common.splits.objects import read_objects
from vmr_common.types import Query, as_moments


def make_lengths(count=25):
    return {f"v{n}": 4 + n % 5 for n in range(count)}


def make_queries(lengths, stride_s=2.0):
    return [
        Query(
            id=f"{video}_{n}",
            video=video,
            text=f"sentence {n} of {video}",
            duration=rows * stride_s - 0.6,
            moments=as_moments([[n + 0.5, n + 3.0]]),
            glance=n + 1.0,
        )
        for video, rows in lengths.items()
        for n in range(2)
    ]


def marked(video, rows, dim=3):
    """Rows that say which video and row they are."""
    return np.array([[float(video[1:]), row, 1.0] for row in range(rows)])[:, :dim]


def write_store(path, lengths, stride_s=2.0):
    items = [(video, marked(video, rows)) for video, rows in lengths.items()]
    write_features(path, items, Manifest(extractor="toy", stride_s=stride_s, source="synthetic"))
    return path


def one(video="v0", start=1.0, end=3.0, **more):
    fields = {"id": "q", "text": "t", "duration": 10.0, "moments": as_moments([[start, end]])}
    return Query(video=video, as_annotated=True, **{**fields, **more})


# --- the plan ---


def test_streams_hold_every_video_once_and_about_as_many_each():
    lengths = make_lengths(103)
    streams = plan_streams("train", lengths, videos_per_stream=20, stride_s=0.5, seed=0)
    assert [len(stream.parts) for stream in streams] == [21, 21, 21, 20, 20]
    videos = [part.video for stream in streams for part in stream.parts]
    assert sorted(videos) == sorted(lengths)
    assert videos != list(lengths)
    for stream in streams:
        place = 0.0
        for part in stream.parts:
            assert (part.start_s, part.rows) == (place, lengths[part.video])
            place += part.rows * 0.5
        assert stream.duration == place


def test_the_seed_decides_the_order_and_the_order_of_videos_does_not():
    lengths = make_lengths()
    backwards = dict(reversed(lengths.items()))

    def plan(given, seed):
        return plan_streams("a", given, videos_per_stream=5, stride_s=1.0, seed=seed)

    assert plan(lengths, 0) == plan(backwards, 0) != plan(lengths, 1)


def test_fewer_videos_than_a_stream_make_one():
    assert len(plan_streams("a", {"x": 3}, videos_per_stream=20, stride_s=1.0, seed=0)) == 1
    for wrong in ({"videos_per_stream": 0}, {"stride_s": 0.0}, {"stride_s": float("nan")}, {"lengths": {}}):
        fields = {"lengths": {"x": 3}, "videos_per_stream": 20, "stride_s": 1.0, "seed": 0, **wrong}
        with pytest.raises(UserError, match="expected"):
            plan_streams("a", **fields)


# --- the queries ---


def shifted(queries, rows=10, stride_s=1.0):
    lengths = {query.video: rows for query in queries}
    streams = plan_streams("s", lengths, videos_per_stream=9, stride_s=stride_s, seed=0)
    return shift_queries(queries, streams, stride_s)


def test_moments_keep_their_place_in_their_video():
    lengths = make_lengths()
    streams = plan_streams("s", lengths, videos_per_stream=7, stride_s=2.0, seed=3)
    joined = shift_queries(make_queries(lengths), streams, 2.0)
    places = {part.video: (stream, part) for stream in streams for part in stream.parts}
    original = {query.id: query for query in make_queries(lengths)}
    assert {query.id for query in joined.queries} == set(original)
    for query in joined.queries:
        before = original[query.id]
        stream, part = places[before.video]
        assert (query.video, query.duration, query.text) == (stream.id, stream.duration, before.text)
        assert np.allclose(query.moments - part.start_s, before.moments)
        assert query.glance == pytest.approx(before.glance + part.start_s)


@pytest.mark.parametrize(
    ("times", "kept", "said"),
    [
        ((2.0, 12.5), [[2.0, 10.0]], "cut: end to the video's last row"),
        ((10.0, 12.0), None, "dropped: outside the video's rows"),
        ((-1.0, 4.0), [[0.0, 4.0]], None),
        ((6.0, 4.0), [[4.0, 6.0]], None),
    ],
)
def test_moments_never_reach_into_the_next_video(times, kept, said):
    joined = shifted([one("v0", *times), one("v1", 1.0, 2.0, id="r", text="u")])
    other = next(q for q in joined.queries if q.id == "r")
    start = 10.0 if other.moments[0, 0] < 10 else 0.0  # where v0 lies
    found = [(q.moments - start).tolist() for q in joined.queries if q.id == "q"]
    assert found == ([kept] if kept else [])
    assert joined.counts == ({said: 1} if said else {})


def test_queries_without_times_keep_none():
    (query,) = shifted([one(moments=as_moments([]))]).queries
    assert query.moments.shape == (0, 2)


def test_the_same_sentence_twice_in_a_stream_is_counted():
    joined = shifted([one("v0"), one("v1", id="r", text="T "), one("v2", id="s", text="u")])
    assert joined.counts == {"with the sentence of another query of their stream": 2}


def test_rows_that_do_not_fit_the_duration_say_that_the_stride_is_wrong():
    with pytest.raises(UserError, match=r"video 'v0': 10 rows of 2 s are 20 s, its duration is 10 s"):
        shifted([one()], stride_s=2.0)


# --- the files ---


def test_rows_of_a_moment_are_the_rows_it_had_in_its_own_video(tmp_path):
    lengths = make_lengths()
    with FeatureStore(write_store(tmp_path / "f.h5", lengths)) as store:
        write_concat(tmp_path / "out", {"train": make_queries(lengths)}, store, videos_per_stream=6, seed=1)
    queries = read_objects(tmp_path / "out/train.jsonl").queries
    with FeatureStore(tmp_path / "out/features.h5") as streams:
        assert streams.manifest.stride_s == 2.0
        assert streams.manifest.extractor == "toy"
        assert streams.manifest.source == "25 videos joined into streams (not recorded as such): synthetic"
        for query in queries:
            rows = streams[query.video]
            assert len(rows) * 2.0 == query.duration
            first = int(query.moments[0, 0] // 2)
            video, number = query.id[1:].split("_")
            assert rows[first, 0] == float(video)
            assert rows[first, 1] == (int(number) + 0.5) // 2
    about = json.loads((tmp_path / "out/streams.json").read_text())
    assert sum(len(parts) for parts in about["streams"]["train"].values()) == 25


@pytest.fixture
def root(tmp_path):
    lengths = make_lengths(12)
    write_store(tmp_path / "f.h5", {v: rows for v, rows in lengths.items() if v != "v11"})
    rows = [[q.video, q.duration, q.moments[0].tolist(), q.text, q.glance] for q in make_queries(lengths)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    parts = {"one": [f"v{n}" for n in range(8)], "two": ["v8", "v9", "v10", "v11"]}
    (tmp_path / "lists.json").write_text(json.dumps(parts))
    return tmp_path


ONE = ("--annotations", "a.json", "--features", "f.h5")
LISTS = (*ONE, "--videos", "lists.json", "--parts", "train=one", "test=two", "--per-stream", "4")


def test_a_user_joins_the_parts_of_a_file_and_gets_a_data_set(root, vmr_data, rgnet_data):
    out = root / "long"
    status, said, err = rgnet_data(root, "concat", *LISTS, "--out", str(out), "--dtype", "float16")
    assert (status, err) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == [
        "features.h5",
        "streams.json",
        "test.jsonl",
        "train.jsonl",
    ]
    assert f"{out / 'train.jsonl'}: 2 streams of" in said
    assert "  2 left out: no features for the video" in said
    for part, streams in (("train", ["train-0000", "train-0001"]), ("test", ["test-0000"])):
        files = ("--annotations", out / f"{part}.jsonl", "--features", out / "features.h5")
        assert vmr_data(root, "check", *files)[0] == 0
        queries = read_objects(out / f"{part}.jsonl").queries
        assert sorted({query.video for query in queries}) == streams
    again = root / "again"
    rgnet_data(root, "concat", *LISTS, "--out", str(again), "--dtype", "float16")
    for path in out.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_one_part_is_called_all(root, rgnet_data):
    status, _, _ = rgnet_data(root, "concat", *ONE, "--out", str(root / "long"))
    assert status == 0
    assert {query.video for query in read_objects(root / "long/all.jsonl").queries} == {"all-0000"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--annotations", "a.json"), "nothing to join: give --features"),
        (("--features", "f.h5"), "nothing to join: give --split or --annotations"),
        ((*ONE, "--parts", "train=one"), "--parts names lists of --videos"),
        ((*ONE, "--videos", "lists.json", "--parts", "../x=one"), "expected PART=NAME"),
        ((*ONE, "--videos", "lists.json", "--parts", "x"), "expected PART=NAME"),
        ((*ONE, "--videos", "lists.json", "--parts", "x=one", "x=two"), "--parts: found a name twice"),
        ((*ONE, "--videos", "lists.json", "--parts", "x=one", "y=one"), "is in x and in y"),
        ((*ONE, "--videos", "lists.json", "--parts", "x=three"), "no list 'three'"),
        ((*ONE, "--stride-s", "1"), "the manifest says 2 s from row to row (stride_s), asked for 1 s"),
        ((*ONE, "--per-stream", "0"), "--per-stream: expected a whole number, at least 1"),
        (("--features", "f.h5", "--parts", "a=nosuch/train"), "split 'nosuch/train' is unknown"),
    ],
)
def test_wrong_options_are_one_line_and_leave_nothing(root, rgnet_data, arguments, message):
    status, _, err = rgnet_data(root, "concat", *arguments, "--out", str(root / "long"))
    assert status == 2
    assert message in err
    assert not (root / "long").exists()


def test_a_stride_that_nobody_knows_is_told_by_rows_or_asked_for(root, rgnet_data, caplog):
    write_features(root / "f.h5", [(f"v{n}", np.ones((5, 3))) for n in range(9)], Manifest())
    status, _, err = rgnet_data(root, "concat", *ONE, "--out", str(root / "long"))
    assert (status, "rows each (pooled?)" in err, "say it with --stride-s" in err) == (2, True, True)
    rows = {video: np.ones((rows, 3)) for video, rows in make_lengths(12).items()}
    write_features(root / "f.h5", rows.items(), Manifest())
    status, said, _ = rgnet_data(root, "concat", *ONE, "--out", str(root / "long"))
    assert (status, "all.jsonl: 1 stream of" in said) == (0, True)
    assert "f.h5: 2 s a row (told by rows and durations of 12 videos); --stride-s or" in caplog.text
    assert json.loads((root / "long/streams.json").read_text())["stride_s"] == 2


def test_all_files_that_are_missing_are_named_at_once(root, rgnet_data):
    given = ("--features", "no.h5", "f.h5", "--parts", "a=charades-sta-rgn/test", "--out", str(root / "long"))
    status, _, err = rgnet_data(root, "concat", *given)
    names = (
        root / "no.h5",
        root / "charades_sta/point_rgn/glance_test_charades.json",
        "and in the current folder",
    )
    assert (status, [str(name) in err for name in names]) == (2, [True] * 3)


def test_the_check_names_videos_that_the_stated_stride_does_not_fit(root, vmr_data):
    rows = [{"video_id": v, "duration": 30, "query": "a b", "windows": [[1, 2]]} for v in ("fits", "double")]
    (root / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    items = [("fits", np.ones((29, 3))), ("double", np.ones((60, 3)))]
    write_features(root / "own.h5", items, Manifest(stride_s=1.0))
    status, out, _ = vmr_data(root, "check", "--annotations", "own.jsonl", "--features", "own.h5")
    assert status == 2
    assert "video 'double' has 60 rows for its 30 s: 0.5 s a row, not 1 s a row (manifest: stride_s)" in out
    assert "'fits'" not in out


def test_registered_splits_can_be_joined(tmp_path, rgnet_data):
    folder = tmp_path / "charades_sta/point_rgn"
    folder.mkdir(parents=True)
    lengths = make_lengths(4)
    rows = [[q.video, q.duration, q.moments[0].tolist(), q.text, q.glance] for q in make_queries(lengths)]
    (folder / "glance_test_charades.json").write_text(json.dumps(rows))
    write_store(tmp_path / "f.h5", lengths)
    given = ("--features", "f.h5", "--parts", "test=charades-sta-rgn/test", "--out", str(tmp_path / "long"))
    assert rgnet_data(tmp_path, "concat", *given)[0] == 0
    assert len(read_objects(tmp_path / "long/test.jsonl").queries) == 8


def test_real_clip_features_become_streams_of_about_ten_minutes(shared_data, tmp_path, vmr_data, rgnet_data):
    features, lists = "features/charades_clip_b32_1fps.h5", "features/charades_clip_b32_1fps_splits.json"
    words = "word_vectors/glove_charades.txt.gz"
    for name in (features, lists, words):
        assert (shared_data / name).is_file()
    status, said, _ = rgnet_data(
        shared_data, "concat",
        "--annotations", "charades_sta/charades_sta_test.txt", "--durations", "charades_sta/Charades_v1_test.csv",
        "--policy", "cut-then-drop", "--features", features, "--stride-s", "1", "--videos", lists,
        "--parts", "train=mini_train", "test=mini_test", "--out", str(tmp_path / "long"), "--dtype", "float16",
    )  # fmt: skip
    assert status == 0
    assert "10 streams of" in said
    assert "5 streams of" in said
    with (
        FeatureStore(tmp_path / "long/features.h5", dim=512) as streams,
        FeatureStore(shared_data / features) as videos,
    ):
        about = json.loads((tmp_path / "long/streams.json").read_text())["streams"]
        for stream, parts in about["test"].items():
            assert 400 < streams.length(stream) < 900
            assert np.array_equal(streams[stream], np.concatenate([videos[part["video"]] for part in parts]))
    for part, count in (("train", 585), ("test", 276)):
        queries = read_objects(tmp_path / f"long/{part}.jsonl").queries
        assert len(queries) == count
        annotations = tmp_path / f"long/{part}.jsonl"
        words_asked = ("--word-vectors", words, "--token-dim", 300)
        assert rgnet_data(shared_data, "check", "--annotations", annotations, *words_asked)[0] == 0


def test_videos_of_different_widths_are_not_joined(tmp_path):
    (tmp_path / "features").mkdir()
    for video, width in (("v0", 3), ("v1", 2)):
        np.save(tmp_path / "features" / f"{video}.npy", np.ones((5, width), np.float32))
    store = FeatureStore(tmp_path / "features")
    queries = [Query(id=video, video=video, text="a", duration=5.0) for video in ("v0", "v1")]
    with pytest.raises(UserError, match=r"video 'v\d' has width \d, but 'v\d' has \d: expected one width"):
        write_concat(tmp_path / "out", {"train": queries}, store, videos_per_stream=2, seed=1, stride_s=1.0)
    assert not (tmp_path / "out").exists()


def test_a_stream_longer_than_any_time_is_one_error(tmp_path):
    path = write_store(tmp_path / "f.h5", {f"v{n}": 3 for n in range(4)}, stride_s=3e8)
    queries = [Query(id=f"v{n}", video=f"v{n}", text="a", duration=9e8) for n in range(4)]
    store = FeatureStore(path)
    with pytest.raises(UserError, match=r"query 'v\d': duration must be positive seconds up to 1e\+09"):
        write_concat(tmp_path / "out", {"train": queries}, store, videos_per_stream=4, seed=1)
