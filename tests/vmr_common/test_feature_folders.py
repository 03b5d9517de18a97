"""Folders with a file per video: kinds of files, endings and side files of extractors, what lies there instead."""

import builtins
import json
import pickle
import zipfile

import h5py
import numpy as np
import pytest

from vmr_common.errors import UserError
from vmr_common.features.conversion import convert_features
from vmr_common.features.manifest import Manifest
from vmr_common.features.nearby import nearby
from vmr_common.features.store import FeatureStore, write_features

ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


def save_h5(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name.replace("__", "/")] = values


def save_pt(path, value):
    torch = pytest.importorskip("torch")
    torch.save(value(torch) if callable(value) else torch.tensor(value), path)


# --- kinds of files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".h5", ".hdf5"])
def test_an_hdf5_file_per_video(tmp_path, ending):
    save_h5(tmp_path / f"one{ending}", one=ROWS)
    save_h5(tmp_path / f"two{ending}", features=ROWS, times=np.ones(4))
    save_h5(tmp_path / f"three{ending}", three__c3d=ROWS)
    save_h5(tmp_path / f"four{ending}", x=ROWS, y=ROWS)
    store = FeatureStore(tmp_path)
    assert store.videos() == ["four", "one", "three", "two"]
    for video in ("one", "two", "three"):
        assert np.array_equal(store[video], ROWS)
        assert store.shape(video) == (4, 3)
    with pytest.raises(
        UserError, match=r"four\.h.*found x, y; say which with the key x .*several videos is given"
    ):
        store["four"]
    assert np.array_equal(FeatureStore(tmp_path, key="y")["four"], ROWS)
    assert np.array_equal(FeatureStore(tmp_path, key="c3d")["three"], ROWS)
    with pytest.raises(UserError, match="expected the one data set of a video, 'y', found one"):
        FeatureStore(tmp_path, key="y")["one"]
    assert (
        convert_features(FeatureStore(tmp_path, key="y"), tmp_path / "o.h5", Manifest(), videos=["four"]) == 1
    )


def test_an_hdf5_file_of_a_folder_leads_nowhere_else(tmp_path):
    save_h5(tmp_path / "secret.h5", secret=ROWS)
    with h5py.File(tmp_path / "v.h5", "w") as file:
        file["v"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "secret")
    (tmp_path / "w.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 90)
    store = FeatureStore(tmp_path)
    with pytest.raises(UserError, match="link out of the file, which is never followed"):
        store["v"]
    with pytest.raises(UserError, match=r"w\.h5: not a readable HDF5 file"):
        store.length("w")


@pytest.mark.parametrize(
    "value",
    [
        ROWS,
        ROWS.astype(np.float64),
        lambda torch: torch.tensor(ROWS).bfloat16(),
        lambda torch: torch.tensor(ROWS).half(),
        lambda torch: torch.tensor(ROWS, requires_grad=True),
        lambda torch: torch.tensor(ROWS.T.copy()).T,
        lambda torch: torch.tensor(ROWS).int(),
        lambda torch: {"features": torch.tensor(ROWS), "epoch": 3},
        lambda torch: {"x": torch.tensor(ROWS)},
    ],
)
def test_a_tensor_per_video(tmp_path, value):
    save_pt(tmp_path / "v.pt", value)
    store = FeatureStore(tmp_path)
    assert (store.videos(), store.shape("v"), store["v"].dtype) == (["v"], (4, 3), np.float32)
    assert np.array_equal(store["v"], ROWS)


def test_tensors_of_old_torch_and_by_name(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.tensor(ROWS), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"x": torch.ones(2, 3), "y": torch.tensor(ROWS)}, tmp_path / "two.pth")
    for video in ("old", "two"):
        assert np.array_equal(FeatureStore(tmp_path, key="y")[video], ROWS)
    with pytest.raises(
        UserError, match=r"two\.pth: no tensor 'features' \(found: x, y\); say which with the key x"
    ):
        FeatureStore(tmp_path)["two"]


class Runs:
    def __reduce__(self):
        return (exec, ("raise SystemExit('unpickled')",))


def compressed(path):
    with (
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(path.with_suffix(".zip"), "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    path.with_suffix(".zip").rename(path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda _: Runs(), "holds pickled objects, which are never loaded; save the tensor alone"),
        (lambda _: [1.0, 2.0], "holds a list, expected a tensor or a dictionary of tensors"),
        (lambda _: {"a": 1}, r"no tensor 'features' \(found: nothing\)"),
        (lambda torch: torch.zeros(4), r"the tensor has shape \(4,\), expected \(T, D\)"),
        (lambda torch: torch.zeros(0, 4), "has no rows"),
        (lambda torch: torch.zeros(4, 3, dtype=torch.bool), "of type bool, expected numbers"),
        (lambda torch: torch.full((4, 3), torch.nan), "holds NaN or infinity"),
        (lambda torch: torch.eye(3).to_sparse(), "the tensor is sparse_coo, expected a plain one"),
        (lambda torch: torch.zeros(4, 3, device="meta"), "the tensor is meta .*, expected a plain one"),
        (lambda torch: torch.zeros(1).expand(1 << 24, 64), "declares 4,294,967,296 bytes"),
    ],
)
def test_what_is_no_plain_tensor_is_one_error_and_never_run(tmp_path, value, message):
    save_pt(tmp_path / "v.pt", value)
    with pytest.raises(UserError, match=rf"v\.pt: .*{message}") as caught:
        FeatureStore(tmp_path)["v"]
    assert "\n" not in str(caught.value)


def test_damaged_files_of_tensors_are_one_error(tmp_path):
    save_pt(tmp_path / "v.pt", np.zeros((400, 30), np.float32))
    whole = (tmp_path / "v.pt").read_bytes()
    compressed(tmp_path / "v.pt")
    with pytest.raises(UserError, match="its parts are compressed, or larger than the file"):
        FeatureStore(tmp_path)["v"]
    for damaged in (
        whole[:-40],
        whole[:300],
        b"",
        pickle.dumps([1]),
        whole[:70] + b"\1" * 99 + whole[169:],
    ):
        (tmp_path / "v.pt").write_bytes(damaged)
        with pytest.raises(UserError, match=r"v\.pt: .*(not a readable file of tensors|pickled)"):
            FeatureStore(tmp_path)["v"]


def test_without_torch_tensors_say_what_they_need(tmp_path, monkeypatch):
    save_pt(tmp_path / "v.pt", ROWS)
    found = builtins.__import__
    missing = lambda name, *rest: found("no_such_module_here" if name == "torch" else name, *rest)  # noqa: E731
    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(
        UserError, match=r"v\.pt: .*torch, which is not installed: pip install 'vmr-common\[pt\]'"
    ):
        FeatureStore(tmp_path)["v"]


def test_the_file_of_one_video_is_told_from_a_store(tmp_path):
    np.save(tmp_path / "v.npy", ROWS)
    with pytest.raises(
        UserError, match=r"found one \.npy file, of which a video has one each: give its folder"
    ):
        FeatureStore(tmp_path / "v.npy")


# --- endings and side files --------------------------------------------------------------------------------


def extracted(folder, endings=("_clip",), videos=("a", "a_b"), fps=25.0, step=200.0):
    for video in videos:
        for ending in endings:
            np.save(folder / f"{video}{ending}.npy", ROWS)
        np.save(folder / f"{video}_fps.npy", fps)
        np.save(folder / f"{video}_timestamps_ms.npy", np.arange(len(ROWS)) * step)


def test_the_ending_of_an_extractor_is_seen_beside_its_side_files(tmp_path):
    extracted(tmp_path)
    store = FeatureStore(tmp_path)
    assert (store.videos(), store.endings, "a" in store, "a_clip" in store) == (
        ["a", "a_b"],
        ["_clip"],
        True,
        False,
    )
    assert np.array_equal(pickle.loads(pickle.dumps(store))["a_b"], ROWS)
    assert (store.manifest.fps, store.manifest.stride_s, store.manifest.extractor) == (25, 0.2, None)
    (tmp_path / "manifest.json").write_text(json.dumps({"extractor": "CLIP", "fps": 5.0, "dim": None}))
    stated = FeatureStore(tmp_path).manifest
    assert (stated.extractor, stated.fps, stated.stride_s) == ("CLIP", 5, 0.2)
    np.save(tmp_path / "a_fps.npy", np.array("fast"))
    with pytest.raises(UserError, match=r"a_fps\.npy: holds values of type <U4, expected numbers"):
        _ = FeatureStore(tmp_path).manifest


def test_several_endings_are_chosen_and_joined(tmp_path):
    extracted(tmp_path, ("_rgb", "_flow"))
    with pytest.raises(UserError, match=r"several endings \(_flow, _rgb\) .* say which with --ending"):
        FeatureStore(tmp_path)
    assert FeatureStore(tmp_path, ending="_rgb").videos() == ["a", "a_b"]
    both = FeatureStore([tmp_path, tmp_path], ending=["_rgb", "_flow"])
    assert (both.videos(), both["a"].shape) == (["a", "a_b"], (4, 6))
    write_features(tmp_path / "f.h5", [("v.mp4", ROWS)], Manifest())
    assert FeatureStore(tmp_path / "f.h5", ending=".mp4").videos() == ["v"]


def test_side_files_beside_arrays_without_ending_are_no_videos(tmp_path):
    extracted(tmp_path, ("",), ("a", "b"))
    assert FeatureStore(tmp_path).videos() == ["a", "b"]


# --- what is there instead ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("video", "files", "message"),
    [
        ("a", ["a_clip.npy", "b_clip.npy"], r"a_clip\.npy is there: --ending _clip"),
        (
            "a",
            ["a_rgb.npy", "a_flow.npy"],
            r"a_flow\.npy, a_rgb\.npy are there: --ending \(data\.features\.ending\) says which: _flow, _rgb",
        ),
        ("a.avi", ["a.npy"], r"a\.npy is there: --strip-extension"),
        ("a", ["a.mp4.npy"], r"a\.mp4\.npy is there: --ending \.mp4"),
        ("a.mkv", ["a_clip.npy"], r"a_clip\.npy is there: --ending _clip .* takes it, and --strip-extension"),
        ("s13-d21", ["S13_D21.npy"], r"S13_D21\.npy is there"),
        ("qzzpcmyu6gQ", ["v_qzzpcmyu6gQ.npy"], r"v_qzzpcmyu6gQ\.npy is there"),
        ("kitchen-1", ["kitchen-2.npy", "kitchem-1.npy"], r"similar: kitchem-1\.npy"),
        ("a", ["a.pkl", "b.npy"], r"a\.pkl is there, of which nothing is read: expected \.npy, \.npz, \.h5"),
        ("a", ["x.mp4", "y.mp4", "notes"], r"the folder holds 2 \.mp4, 1 without an ending, expected \.npy"),
        ("a", ["zz.npy"], r"no a\.npy, nor with another ending that is read; the folder holds 1 other"),
    ],
)
def test_what_lies_there_is_named(tmp_path, video, files, message):
    for name in files:
        np.save(tmp_path / name, ROWS) if name.endswith(".npy") else (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=rf"video '{video}' is missing \({message}"):
        FeatureStore(tmp_path)[video]


def test_hdf5_files_name_what_is_near_too(tmp_path):
    write_features(tmp_path / "f.h5", [("a", ROWS), ("kitchem-1", ROWS)], Manifest())
    for video, message in {
        "a.avi": "'a' is there: --strip-ext",
        "kitchen-1": "similar: 'kitchem-1'",
        "x": "holds 'a', 'kitchem-1'",
    }.items():
        with pytest.raises(UserError, match=message):
            FeatureStore(tmp_path / "f.h5")[video]


def test_nothing_is_near_an_id_that_nothing_is_like():
    assert nearby("x1", ["a", "b_2"]) == ""
    assert (
        nearby("videos/x1", ["x1"])
        == "'x1' is there: --strip-extension (strip_extension of a split) drops the folder"
    )
    assert nearby("a", ["a_2", "b", "c", "d"]) == ""  # another video, and no ending


def test_a_folder_without_arrays_says_what_it_holds(tmp_path):
    for name in ("a.mp4", "b.mp4", "c.json"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "train").mkdir()
    with pytest.raises(
        UserError, match=r"holds no video, .*; \S+ holds 2 \.mp4, 1 \.json and the folder train$"
    ):
        _ = FeatureStore(tmp_path).dim
