"""Problems of features that ``vmr-data check`` finds, each kind said in a few lines."""

import json
import re

import h5py
import numpy as np
import pytest

from vmr_common.errors import LISTED, UserError
from vmr_common.features.checking import check_features, shape_problems
from vmr_common.features.manifest import Manifest
from vmr_common.features.store import FeatureStore, write_features


def saved(folder, shapes, **manifest):
    for video, shape in shapes.items():
        np.save(folder / f"{video}.npy", np.ones(shape, np.float32))
    if manifest:
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return FeatureStore(folder)


@pytest.mark.parametrize(
    ("shapes", "dim", "message"),
    [
        (
            {"a": (32, 50), "b": (32, 71)},
            None,
            "look swapped: the videos have 50, 71 columns and 32 rows everywhere",
        ),
        (
            {"a": (32, 50), "b": (32, 50)},
            32,
            "look swapped: the videos have 50 columns and 32 rows everywhere",
        ),
        ({"a": (32, 50)}, 32, "look swapped"),
        (
            {"a": (50, 32), "b": (71, 33)},
            None,
            r"widths differ: 32 columns \(1 video, as 'a'\), 33 columns \(1 ",
        ),
        (
            {"a": (50, 32), "b": (71, 32), "c": (32, 64)},
            None,
            r"widths differ: 32 .*; rows and columns .* in 'c'",
        ),
    ],
)
def test_widths_that_look_wrong(shapes, dim, message):
    (line,) = shape_problems(shapes, dim)
    assert re.search(message, line)


@pytest.mark.parametrize(
    ("shapes", "dim"), [({}, 3), ({"a": (5, 3)}, 3), ({"a": (5, 3)}, None), ({"a": (3, 3), "b": (3, 3)}, 3)]
)
def test_widths_that_are_well(shapes, dim):
    assert shape_problems(shapes, dim) == []


def test_widths_are_held_against_the_manifest(tmp_path):
    store = saved(tmp_path, {"a": (32, 50), "b": (32, 71)}, dim=32)
    with pytest.raises(UserError, match="video 'a' has width 50, expected 32; rows and columns look swapped"):
        FeatureStore(tmp_path, dim=32)["a"]
    lines = list(check_features(store, store.videos()).lines())
    assert [line.partition(": ")[2][:20] for line in lines] == [
        "video 'a' has width ",
        "video 'b' has width ",
        "rows and columns loo",
    ]


def test_what_concerns_many_is_said_once_and_counted(tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for number in range(40):
            file[f"v{number:02d}/c3d"] = np.ones((number + 1, 3))
    videos = [f"v{number:02d}" for number in range(40)]
    found = check_features(
        FeatureStore(tmp_path / "f.h5", key="other"), [*videos, *(f"x{n}.avi" for n in range(30))]
    )
    keys, missing = found.lines()
    assert found.count == 70
    assert "video 'v00' has no data set 'other' (found: c3d)" in keys
    assert keys.endswith("(and so 39 more: 'v01', 'v02', ...)")
    assert "'x0.avi' is missing" in missing
    assert missing.endswith("(and so 29 more: 'x1.avi', 'x2.avi', ...)")
    (line,) = check_features(FeatureStore(tmp_path / "f.h5", key="c3d"), ["a.b", "b", "c", "a-a"]).lines()
    assert line.endswith(
        "f.h5: video 'a.b' is missing (the file holds 'v00', 'v01', 'v02' and 37 more) (and so 3 more: 'b', 'c', ...)"
    )
    # what differs from video to video is listed, up to a limit
    lines = list(check_features(FeatureStore(tmp_path / "f.h5", key="c3d"), videos, min_rows=99).lines())
    assert (len(lines), lines[-1]) == (LISTED + 1, "and 20 more videos with too few rows")
    assert (
        len(list(check_features(FeatureStore(tmp_path / "f.h5"), [f"x{n}" for n in range(10)]).lines())) == 1
    )


def test_without_a_manifest_videos_that_disagree_among_themselves_are_named(tmp_path):
    durations = {"a": 90.0, "b": 61.0, "c": 130.0, "d": 75.0, "e": 100.0}
    store = saved(tmp_path, {"a": (90, 2), "b": (305, 2), "c": (130, 2), "d": (75, 2), "e": (83, 2)})
    found = check_features(store, durations, durations)
    (line,) = found.lines()
    assert (
        "video 'b' has 305 rows for its 61 s: 0.2 s a row, not 1 s a row (told by rows and durations of 5"
        in line
    )
    assert (
        "1 video is a little off (frame rates that differ?): video 'e' has 83 rows for its 100 s"
        in found.remarks[0]
    )
    assert found.good == ["a", "c", "d", "e"]


def test_two_rates_are_named_where_neither_is_that_of_most(tmp_path):
    durations = {"a": 90.0, "b": 61.0}
    (line,) = check_features(saved(tmp_path, {"a": (90, 2), "b": (305, 2)}), durations, durations).lines()
    assert line.endswith(
        "rows were taken at several rates: 0.2 s a row in video 'b' (305 rows for its 61 s), "
        "1 s a row in video 'a' (90 rows for its 90 s)"
    )


def test_rows_that_follow_nothing_are_a_remark(tmp_path):
    found = check_features(saved(tmp_path, {"a": (64, 2), "b": (64, 2)}), "ab", {"a": 40.0, "b": 90.0})
    assert found.count == 0
    assert "videos have 64 rows each (pooled?), 0.625 to 1.41 s a row" in found.remarks[0]


def test_side_files_are_held_against_rows_and_manifest(tmp_path):
    saved(tmp_path, {"a_clip": (4, 2), "b_clip": (4, 2)}, fps=1.0)
    np.save(tmp_path / "a_fps.npy", np.array(25.0))
    np.save(tmp_path / "a_timestamps_ms.npy", np.arange(7) * 40.0)
    lines = [line.rpartition("/")[2] for line in check_features(FeatureStore(tmp_path), ["a", "b"]).lines()]
    assert lines == [
        "a_timestamps_ms.npy: 7 times for 4 rows of features",
        "a_fps.npy: tells fps 25, the manifest says 1",
    ]
    np.save(tmp_path / "b_fps.npy", np.array(-25.0))
    (line, *_) = check_features(FeatureStore(tmp_path), ["b"]).lines()
    assert "b_fps.npy: expected one positive number, frames per second" in line


def extracted(folder, strides, fps=25.0):
    """A folder as an extractor leaves it, a row a second whatever the side files tell."""
    for number, stride in enumerate(strides):
        saved(folder, {f"v{number:02d}": (42, 2)})
        np.save(folder / f"v{number:02d}_fps.npy", np.array(fps + number % 2))
        np.save(folder / f"v{number:02d}_timestamps_ms.npy", np.arange(42) * 1000 * stride)
    return FeatureStore(folder)


def test_side_files_that_disagree_are_named(tmp_path, vmr_data):
    store = extracted(tmp_path, [1, 1, 2, 1.1, 1, 1])
    found = check_features(store, store.videos(), dict.fromkeys(store.videos(), 42.0))
    told = "v02_timestamps_ms.npy: tells stride_s 2, those of most others 1 (42 rows for its 42 s)"
    assert [line.rpartition("/")[2] for line in found.lines()] == [told]
    said = [
        "side files disagree on fps: 25 (3 videos, as 'v00'), 26 (3 videos, as 'v01')",
        "side files disagree on stride_s: 1 (4 videos, as 'v00'), 2 (1 video, as 'v02'), 1.1 (1 video, as 'v03')",
    ]
    assert [remark.partition(": ")[2] for remark in found.remarks[:2]] == said
    status, out, _ = vmr_data(tmp_path, "info", "--features", str(tmp_path))
    assert (status, all(line in out for line in said)) == (0, True)


def test_a_malformed_side_file_concerns_its_video_alone(tmp_path):
    store = extracted(tmp_path, [1, 1, 1])
    np.save(tmp_path / "v01_fps.npy", np.array(-25.0))
    found = check_features(store, store.videos())
    assert found.good == ["v00", "v02"]


def test_side_files_of_joined_sources_are_held_against_their_own_rows(tmp_path):
    for name, rows in {"slow": 30, "fast": 60}.items():
        (tmp_path / name).mkdir()
        saved(tmp_path / name, {"a": (rows, 2)})
        np.save(tmp_path / name / "a_timestamps_ms.npy", np.arange(rows) * 60000 / rows)
    store = FeatureStore([tmp_path / "slow", tmp_path / "fast"], resample=True)
    found = check_features(store, "a", {"a": 60.0})
    assert (list(found.lines()), found.shapes) == ([], {"a": (30, 4)})


def test_side_files_of_which_half_disagree_are_a_problem(tmp_path):
    store = extracted(tmp_path, [1, 2, 1, 2])
    (line,) = check_features(store, store.videos()).lines()
    assert line.endswith("disagree on stride_s: 1 (2 videos, as 'v00'), 2 (2 videos, as 'v01')")


def test_sources_of_different_rates_are_one_line(tmp_path):
    for name, rows in {"slow": 30, "fast": 60}.items():
        (tmp_path / name).mkdir()
        saved(tmp_path / name, {f"v{n}": (rows + n * rows // 30, 2) for n in range(9)})
    store = FeatureStore([tmp_path / "slow", tmp_path / "fast"])
    (line,) = check_features(store, store.videos()).lines()
    assert "video 'v0' has 30, 60 rows, expected at most 2 rows of difference" in line
    assert line.endswith("(and so 8 more: 'v1', 'v2', ...)")


def annotations(path, moments):
    rows = [
        {"video_id": video, "duration": 60, "query": f"query {n}", "windows": [moment]}
        for n, (video, moment) in enumerate(moments)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_the_check_writes_the_videos_that_are_in_order(tmp_path, vmr_data):
    annotations(tmp_path / "own.jsonl", [(video, [1, 2]) for video in "abc"])
    saved(tmp_path, {"a": (60, 2), "c": (60, 2)})
    (tmp_path / "c.npy").write_bytes(b"")
    options = ("--annotations", "own.jsonl", "--features", str(tmp_path))
    status, out, err = vmr_data(
        tmp_path, "check", *options, "--write-videos-with-features", str(tmp_path / "keep.json")
    )
    assert (status, json.loads((tmp_path / "keep.json").read_text())) == (2, ["a"])
    assert "keep.json: 1 of 3 videos, those with features in order (for --videos)" in out
    hint = "--write-videos-with-features FILE lists"  # for who did not give it
    assert (hint in out, hint in vmr_data(tmp_path, "check", *options)[1]) == (False, True)
    assert err.endswith("2 problems with 3 videos, listed above\n")
    status, out, _ = vmr_data(tmp_path, "check", *options, "--videos", "keep.json")
    assert (status, "1 video, all well" in out) == (0, True)


def test_moments_outside_their_videos_are_listed_by_record(tmp_path, vmr_data):
    annotations(tmp_path / "own.jsonl", [("a", [1, 2]), ("b", [4521, 4530]), *[("c", [2000, 3000])] * 3])
    status, out, err = vmr_data(tmp_path, "check", "--annotations", "own.jsonl")
    assert (status, err) == (2, "error: own.jsonl: 4 problems with 5 queries, listed above\n")
    assert "own.jsonl:2: query 'b_0': the moment 4521 to 4530 s lies wholly outside the video of 60 s" in out
    assert "4 queries that lie outside their videos (are the times milliseconds, and not seconds?)" in out


def test_info_never_says_one_width_of_several(tmp_path, vmr_data):
    saved(tmp_path, {"a": (32, 50), "b": (32, 71)})
    status, out, _ = vmr_data(tmp_path, "info", "--features", str(tmp_path))
    assert (status, "2 videos, 50 to 71 columns, 32 rows" in out, "look swapped" in out) == (0, True, True)


def test_commands_take_endings_and_resample(tmp_path, vmr_data):
    for ending, rows in {"_rgb": 30, "_flow": 60}.items():
        (tmp_path / ending).mkdir()
        saved(tmp_path / ending, {f"a{ending}": (rows, 2)}, stride_s=60 / rows)
    folders = ("--features", str(tmp_path / "_rgb"), str(tmp_path / "_flow"), "--ending", "_rgb", "_flow")
    status, _, err = vmr_data(tmp_path, "convert", *folders, "--out", str(tmp_path / "o.h5"))
    assert (status, "2 s and 1 s from row to row" in err) == (2, True)
    status, out, _ = vmr_data(tmp_path, "convert", *folders, "--out", str(tmp_path / "o.h5"), "--resample")
    assert status == 0
    with FeatureStore(tmp_path / "o.h5") as store:
        assert (store.shape("a"), store.manifest.stride_s) == ((30, 4), 2)
    annotations(tmp_path / "own.jsonl", [("a", [1, 2])])
    status, out, _ = vmr_data(
        tmp_path, "info", *folders[:2], "--ending", "_rgb", "--annotations", "own.jsonl"
    )
    assert "names end in _rgb, which is no part of the ids" in out
    assert "  2 s a row (manifest: stride_s)" in out


def test_a_store_with_a_manifest_of_no_sense_is_still_checked(tmp_path):
    write_features(tmp_path / "f.h5", [("a", np.ones((3, 2)))], Manifest())
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        file.attrs["manifest"] = "{"
    lines = list(check_features(FeatureStore(tmp_path / "f.h5"), ["a", "b"], {"a": 3.0}).lines())
    assert "f.h5: manifest: not JSON" in lines[0]
    assert "video 'b' is missing" in lines[1]


def test_durations_in_milliseconds_are_found(tmp_path):
    store = saved(tmp_path, {"a": (30, 4), "b": (20, 4)})
    (line,) = check_features(store, store.videos(), durations={"a": 30_000.0, "b": 20_000.0}).lines()
    assert "1000 s a row" in line
    assert line.endswith("are the durations milliseconds, or frames?")
