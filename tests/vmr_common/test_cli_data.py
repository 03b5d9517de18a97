"""``vmr-data`` as a user types it: what it prints, writes and returns."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from vmr_common.cli.data import main
from vmr_common.errors import UserError
from vmr_common.features.conversion import convert_features
from vmr_common.features.store import FeatureStore, Manifest, write_features
from vmr_common.splits.objects import read_objects
from vmr_shapes.cli import main as vmr_shapes

ROWS = [
    ["a", 10.0, [1, 5], "one two", 1.5],
    ["b", 20.0, [2, 25], "three four", 3],
    ["a", 10.0, [3, 4], "x y", 3.5],
]


@pytest.fixture
def root(tmp_path):
    (tmp_path / "glance.json").write_text(json.dumps(ROWS))
    (tmp_path / "charades_sta/point_rgn").mkdir(parents=True)
    (tmp_path / "charades_sta/point_rgn/glance_test_charades.json").write_text(json.dumps(ROWS))
    write_features(
        tmp_path / "features.h5",
        [("a", np.ones((6, 3))), ("b", np.full((4, 3), 2.0)), ("c", np.ones((1, 3)))],
        Manifest(extractor="toy", fps=2.0),
    )
    return tmp_path


def test_info_describes_the_parts_of_a_data_set_that_are_there(root, vmr_data):
    status, out, err = vmr_data(root, "info", "charades-sta-rgn")
    assert (status, err) == (0, "")
    missing = root / "charades_sta/point_rgn/glance_train_charades.json"
    assert f"charades-sta-rgn/train is not there: no {missing} (nor with .gz)" in out
    row = next(line for line in out.splitlines() if line.startswith("charades-sta-rgn/test  "))
    assert re.search(
        r" 3 +2 +15\.0 \(10\.0 to 20\.0\) +9\.3 \(1\.0 to 23\.0\) +55\.0 % +2\.0 \(2 to 2\) +\d+\.\d$", row
    )
    assert re.search(
        r"strict\) of \d+ to \d+ % of the video, the best answer to all of charades-sta-rgn/test", out
    )
    assert re.search(r"^end after the duration +1$", out, re.MULTILINE)
    assert "  warning: 3 records, published are 3548" in out
    assert "policy as-annotated: " in out
    assert "charades-sta-cfmr (train 12,354, test 3,712, debug 1,000)" in out


def test_the_constant_window_is_chosen_on_the_training_part(root, vmr_data):
    early = [["a", 10.0, [0, 5], "one two", 1.5]] * 3
    (root / "charades_sta/point_rgn/glance_train_charades.json").write_text(json.dumps(early))
    for name in ("charades-sta-rgn", "charades-sta-rgn/test"):
        status, out, _ = vmr_data(root, "info", name)
        assert status == 0
        assert "of 0 to 50 % of the video, the best answer to all of charades-sta-rgn/train" in out
        row = next(line for line in out.splitlines() if line.startswith("charades-sta-rgn/test  "))
        assert row.endswith(" 33.3")  # of three windows, one is met by half or more


def test_info_describes_one_file_and_its_features(root, vmr_data):
    status, out, _ = vmr_data(root, "info", "--annotations", "glance.json", "--features", "features.h5")
    assert status == 0
    assert "glance.json, 3 records read, 3 kept" in out
    assert "features.h5: 3 videos, 3 columns, 1 to 6 rows" in out
    assert "  extractor: toy" in out
    assert "  fps: 2.0" in out


def test_info_without_a_name_lists_what_is_registered(root, vmr_data):
    status, out, _ = vmr_data(root, "info")
    assert status == 0
    assert re.search(r"charades-sta-rgn/test +3,548 +3,548 +point", out)


def test_files_are_looked_for_under_the_data_root_and_then_in_the_current_folder(root, vmr_data, monkeypatch):
    here = root / "elsewhere"
    here.mkdir()
    (root / "glance.json").rename(here / "here.json")
    monkeypatch.chdir(here)
    status, out, err = vmr_data(root, "check", "--annotations", "here.json", "--features", "features.h5")
    assert (status, err) == (0, "")
    assert "2 videos, all well" in out
    (root / "here.json").write_text(json.dumps(ROWS[:2]))
    status, out, _ = vmr_data(root, "check", "--annotations", "here.json")
    assert f"{root / 'here.json'}: 2 records read" in out
    status, _, err = vmr_data(root, "check", "--annotations", "gone.json")
    assert err.startswith(
        f"error: {root / 'gone.json'}: no such file; looked for under {root} (--data-root, "
    )
    assert err.endswith(" and in the current folder\n")
    (here / "charades_sta").mkdir()
    (root / "charades_sta/point_rgn").rename(here / "charades_sta/point_rgn")
    status, out, _ = vmr_data(root, "check", "--split", "charades-sta-rgn/test")
    assert (status, out.split(":")[0]) == (0, "charades_sta/point_rgn/glance_test_charades.json")


def test_all_missing_files_are_named_at_once(root, vmr_data):
    arguments = ("--split", "charades-sta/test", "--features", "no.h5", "--videos", "v.json")
    status, _, err = vmr_data(root, "check", *arguments)
    assert status == 2
    assert err.count("\n") == 1
    for name in (
        "charades_sta/charades_sta_test.txt",
        "charades_sta/Charades_v1_test.csv",
        "v.json",
        "no.h5",
    ):
        assert str(root / name) in err


def test_the_files_of_a_configuration_are_listed(tmp_path, capsys):
    arguments = ["needs", "--package", "rgn", "--cfg", "charades", "--data-root", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert ended.value.code == 2
    assert [line.split()[:2] for line in lines if " data." in line] == [
        ["missing", "charades_sta/point_rgn/glance_train_charades.json"],
        ["missing", "charades_sta/point_rgn/glance_test_charades.json"],
        ["missing", "charades_sta/i3d_features.hdf5"],
        ["missing", "word_vectors/glove.6B.300d.txt"],
    ]
    assert main(["needs", "--package", "none"]) == 2
    assert "no such package is installed" in capsys.readouterr().err


def test_check_passes_over_good_features(root, vmr_data):
    arguments = ("--annotations", "glance.json", "--features", "features.h5", "--dim", "3")
    status, out, err = vmr_data(root, "check", *arguments)
    assert (status, err) == (0, "")
    assert "2 videos, all well" in out


def test_check_lists_every_problem_and_exits_with_two(root, vmr_data):
    with h5py.File(root / "bad.h5", "w") as file:
        file["a"] = np.full((4, 3), np.nan)
    status, out, err = vmr_data(root, "check", "--annotations", "glance.json", "--features", "bad.h5")
    assert status == 2
    assert "bad.h5: video 'a' holds NaN or infinity" in out
    assert "bad.h5: video 'b' is missing" in out
    assert err == f"error: {root / 'bad.h5'}: 2 problems with 2 videos, listed above\n"
    status, out, _ = vmr_data(root, "check", "--features", "features.h5", "--min-rows", "2", "--dim", "4")
    assert status == 2
    assert "video 'c' has 1 row, expected at least 2" in out
    assert out.count("has width 3, expected 4") == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "nothing"], "data set 'nothing' is unknown, expected one of charades-sta"),
        (["info", "tacos"], r"tacos: .*tacos/train\.json, .*: no such file \(TACoS .*microsoft/VideoX"),
        (["info", "tacos/test"], r"tacos/test\.json: no such file"),
        (["check"], "nothing to check"),
        (["check", "--annotations", "glance.json", "--write-videos-with-features", "x"], "needs --features"),
        (["check", "--annotations", "none.json"], r"none\.json: no such file"),
        (["check", "--features", "none.h5"], r"none\.h5: no such file"),
        (["check", "--split", "a", "--annotations", "b"], "give either split"),
        (
            ["check", "--videos", "v.json", "--features", "features.h5"],
            "--videos needs a split or --annotations",
        ),
        (["check", "--colour", "red"], "unrecognized arguments: --colour red"),
        (["convert", "--out", "x"], "nothing to convert"),
        (["convert"], "the following arguments are required: --out"),
        (["paint"], "invalid choice: 'paint'"),
        (
            ["check", "--features", "features.h5", "--dim", "wide"],
            "expected a whole number, at least 1 and at most 1,000,000,000, found 'wide'",
        ),
    ],
)
def test_wrong_input_is_one_line_and_status_two(root, capsys, arguments, message):
    name = arguments[0]
    status = main([*arguments, "--data-root", str(root)] if name != "paint" else arguments)
    captured = capsys.readouterr()
    assert status == 2
    assert re.search(message, captured.err)
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1


def test_annotations_convert_to_the_canonical_form(root, vmr_data):
    out = root / "out.jsonl"
    status, text, _ = vmr_data(root, "convert", "--annotations", "glance.json", "--out", str(out))
    assert status == 0
    assert "3 queries written" in text
    status, _, err = vmr_data(root, "convert", "--annotations", "out.jsonl", "--out", str(out))
    assert (status, err) == (2, f"error: {out}: the conversion would overwrite its own source\n")
    queries = read_objects(out).queries
    assert [(query.id, query.moments.tolist()[0], query.glance) for query in queries] == [
        ("a_0", [1.0, 5.0], 1.5),
        ("b_0", [2.0, 25.0], 3.0),
        ("a_1", [3.0, 4.0], 3.5),
    ]


def test_features_convert_to_one_file_with_a_manifest(root, vmr_data):
    folder = root / "npy"
    folder.mkdir()
    values = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    for video in "ab":
        np.savez(folder / f"{video}.npz", image_embeddings=values)
    out = root / "half.h5"
    options = (
        "--features",
        "npy",
        "--out",
        str(out),
        "--dtype",
        "float16",
        "--extractor",
        "CLIP",
        "--fps",
        "1",
    )
    status, text, _ = vmr_data(root, "convert", *options)
    assert status == 0
    assert "2 videos written as float16" in text
    store = FeatureStore(out)
    assert np.array_equal(store["b"], values.astype(np.float16))
    manifest = store.manifest
    assert (manifest.extractor, manifest.fps, manifest.dim, manifest.dtype) == ("CLIP", 1.0, 4, "float16")
    assert manifest.creator.startswith("vmr-common")
    assert vmr_data(root, "convert", "--features", "half.h5", "--out", str(out))[0] == 2  # its own source
    kept = "--write-videos-with-features"
    status, _, err = vmr_data(root, "check", "--features", "half.h5", kept, str(out))
    assert (status, err) == (2, f"error: {out}: the list of videos would overwrite its own source\n")
    again = vmr_data(root, "convert", "--features", "half.h5", "--out", str(root / "x.h5"), "--fps", "2")[1]
    assert again.endswith("x.h5: fps is 2.0, as given; the source said 1.0\n")


def as_hdf5(path, data):
    with h5py.File(path, "w") as file:
        for video, values in data.items():
            file.create_dataset(video, data=values)


def as_groups(path, data):
    with h5py.File(path, "w") as file:
        for video, values in data.items():
            file.create_dataset(f"{video}/c3d_features", data=values, chunks=True, compression="gzip")


def as_npy(path, data):
    path.mkdir()
    for video, values in data.items():
        np.save(path / f"{video}.npy", values)


def as_npz(path, data):
    path.mkdir()
    for video, values in data.items():
        np.savez_compressed(path / f"{video}.npz", features=values, timestamps=np.arange(len(values)))


@pytest.mark.parametrize(
    ("write", "options", "ids", "dtype"),
    [
        pytest.param(as_hdf5, (), ["AO8RW", "0BZAD"], np.float32, id="charades-hdf5-of-2d-tan-and-cpl"),
        pytest.param(as_hdf5, (), ["s13-d21.avi", "s30-d52.avi"], np.float32, id="tacos-hdf5-of-2d-tan"),
        pytest.param(
            as_groups, ("--key", "c3d_features"), ["v_uqiMw7tQ1Cc"], np.float32, id="activitynet-groups"
        ),
        pytest.param(as_hdf5, (), ["6965_Movie", "10142"], np.float16, id="mad-hdf5"),
        pytest.param(as_npy, (), ["AO8RW"], np.float64, id="npy-folder-of-vslnet"),
        pytest.param(as_npz, (), ["NUsG9BgSes0_210.0_360.0"], np.float32, id="npz-folder-of-moment-detr"),
        pytest.param(as_npz, ("--key", "features"), ["a.b", "ö 1"], np.float32, id="npz-folder-with-a-key"),
    ],
)
def test_every_published_layout_converts(root, vmr_data, write, options, ids, dtype):
    rng = np.random.default_rng(5)
    data = {video: rng.normal(size=(4 + n, 6)).astype(dtype) for n, video in enumerate(ids)}
    write(root / "in", data)
    if (root / "in").is_file():
        (root / "in").rename(root / "in.hdf5")
    name = "in.hdf5" if (root / "in.hdf5").exists() else "in"
    out = root / "converted.h5"
    status, text, err = vmr_data(
        root, "convert", "--features", name, "--out", str(out), *options, "--fps", "5"
    )
    assert (status, err) == (0, "")
    assert f"{len(ids)} video{'s' * (len(ids) > 1)} written as float32" in text
    with h5py.File(out) as file:
        for video, values in data.items():
            assert (file[video].dtype, file[video].compression, file[video].chunks) == (
                np.float32,
                None,
                None,
            )
            assert np.array_equal(file[video][()], values.astype(np.float32))
        manifest = json.loads(file.attrs["manifest"])
    assert (manifest["dim"], manifest["dtype"], manifest["fps"]) == (6, "float32", 5.0)


def many(path, count=200):
    rng = np.random.default_rng(3)
    data = {f"v{index:03d}": rng.normal(size=(3, 4)).astype(np.float32) for index in range(count)}
    write_features(path, data.items(), Manifest(extractor="toy"))
    return data


@pytest.mark.e2e
def test_a_killed_conversion_goes_on_where_it_was(tmp_path):
    data = many(tmp_path / "in.h5")
    out = tmp_path / "out.h5"
    program = (
        "import sys, time\n"
        "from vmr_common.features.conversion import convert_features\n"
        "from vmr_common.features.store import FeatureStore, Manifest\n"
        "done = []\n"
        "def step(n):\n"
        "    done.append(n)\n"
        "    if len(done) == 150:\n"
        "        print('half way', flush=True)\n"
        "        time.sleep(60)\n"
        "convert_features(FeatureStore(sys.argv[1]), sys.argv[2], Manifest(extractor='toy'), step=step)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "in.h5"), str(out)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "half way\n"
        os.kill(process.pid, signal.SIGKILL)
    assert not out.exists()
    parts = tmp_path / ".out.h5.parts"
    assert {path.name for path in parts.glob("[0-9]*.h5")} == {"000000.h5", "000001.h5"}
    kept = {path: path.stat().st_mtime_ns for path in parts.glob("[0-9]*.h5")}
    seen = []
    time.sleep(0.01)

    def step(count):
        seen.append(count)
        assert all(path.stat().st_mtime_ns == kept[path] for path in kept)

    assert (
        convert_features(FeatureStore(tmp_path / "in.h5"), out, Manifest(extractor="toy"), step=step) == 200
    )
    assert seen[:2] == [64, 64]
    assert sum(seen) == 200
    assert not parts.exists()
    store = FeatureStore(out)
    assert all(np.array_equal(store[video], data[video]) for video in data)


def test_parts_of_another_conversion_are_not_used(tmp_path):
    data = many(tmp_path / "in.h5", 130)
    out = tmp_path / "out.h5"
    data_bad = {**data, "v129": np.full((3, 4), 1e6, np.float32)}
    write_features(tmp_path / "in.h5", data_bad.items(), Manifest())
    with pytest.raises(UserError, match="too large for float16"):
        convert_features(FeatureStore(tmp_path / "in.h5"), out, Manifest(), dtype="float16")
    assert (tmp_path / ".out.h5.parts").exists()
    many(tmp_path / "in.h5", 130)
    seen = []
    assert convert_features(
        FeatureStore(tmp_path / "in.h5"), out, Manifest(), dtype="float32", step=seen.append
    )
    assert set(seen) == {1}
    assert np.array_equal(FeatureStore(out)["v129"], data["v129"])


@pytest.mark.slow
def test_the_embedded_data_set_is_made_and_then_found(tmp_path, answer, vmr_data):
    status, out, _ = answer(vmr_shapes, "--data-root", tmp_path)
    assert status == 0
    assert out == f"Shapes is in {tmp_path / 'shapes'}\n"
    status, out, _ = vmr_data(tmp_path, "info", "shapes")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()[1:4]] == [
        "shapes/train",
        "shapes/val",
        "shapes/test",
    ]
    features = ("--features", "shapes/features.h5", "--dim", "128", "--min-rows", "32")
    for split, videos in (((), 890), (("--split", "shapes/test"), 150)):
        status, out, _ = vmr_data(tmp_path, "check", *split, *features)
        assert status == 0
        assert f"{videos} videos, all well" in out


def test_the_real_files_pass_the_check(shared_data, vmr_data):
    videos = "features/charades_clip_b32_1fps_splits.json"
    status, out, err = vmr_data(
        shared_data,
        "check",
        *("--split", "charades-sta-rgn/test", "--videos", videos, "--videos-key", "mini_test"),
        *("--features", "features/charades_clip_b32_1fps.h5", "--dim", "512", "--min-rows", "4"),
    )
    assert (status, err) == (0, "")
    assert "276 queries of the 100 videos of mini_test" in out


@pytest.mark.e2e
def test_a_reader_that_leaves_early_is_no_error():
    command = (
        f"{sys.executable} -c 'from vmr_common.cli.data import main; raise SystemExit(main())' info | head -1"
    )
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
