"""Feature stores: what is read, from what, in which process, and every way in which it can be wrong."""

import json
import multiprocessing
import pickle

import h5py
import numpy as np
import pytest

from vmr_common.errors import UserError
from vmr_common.features.checking import check_features
from vmr_common.features.manifest import merge_manifests
from vmr_common.features.store import FeatureStore, Manifest, write_features

RNG = np.random.default_rng(7)


def arrays(*lengths, dim=4):
    return {
        f"v{index}": RNG.normal(size=(length, dim)).astype(np.float32) for index, length in enumerate(lengths)
    }


@pytest.fixture
def file(tmp_path):
    data = arrays(3, 5, 9)
    path = tmp_path / "features.h5"
    write_features(path, data.items(), Manifest(extractor="toy", fps=1.0))
    return path, data


# --- reading -----------------------------------------------------------------------------------------------


def test_what_is_written_comes_back(file):
    path, data = file
    with FeatureStore(path, dim=4) as store:
        assert store.videos() == ["v0", "v1", "v2"]
        assert store.dim == 4
        assert "v1" in store
        assert "v9" not in store
        for video, features in data.items():
            assert store[video].dtype == np.float32
            assert np.array_equal(store[video], features)
            assert store.length(video) == len(features)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int32"])
def test_other_number_types_become_float32(tmp_path, dtype):
    path = tmp_path / "x.h5"
    values = (RNG.normal(size=(6, 3)) * 10).astype(dtype)
    with h5py.File(path, "w") as handle:
        handle["v"] = values
    assert np.array_equal(FeatureStore(path)["v"], values.astype(np.float32))
    assert FeatureStore(path)["v"].dtype == np.float32


def test_a_group_per_video_is_read_by_its_key(tmp_path):
    path = tmp_path / "activitynet.hdf5"
    values = RNG.normal(size=(6, 3)).astype(np.float32)
    with h5py.File(path, "w") as handle:
        handle.create_dataset("v_1/c3d_features", data=values, compression="gzip")
    assert np.array_equal(FeatureStore(path, key="c3d_features")["v_1"], values)
    assert np.array_equal(FeatureStore(path)["v_1"], values)  # the only one
    with pytest.raises(UserError, match=r"no data set 'c4d' \(found: c3d_features\)"):
        FeatureStore(path, key="c4d")["v_1"]
    with h5py.File(path, "a") as handle:
        handle["v_1/times"] = np.ones(6)
    with pytest.raises(
        UserError, match=r"video 'v_1' is a group \(of c3d_features, times\).*key c3d_features"
    ):
        FeatureStore(path)["v_1"]
    with h5py.File(path, "a") as handle:
        handle["v_1/features"] = values + 1
    assert np.array_equal(FeatureStore(path)["v_1"], values + 1)


def test_folders_of_npy_and_npz_are_read(tmp_path):
    values = RNG.normal(size=(6, 3)).astype(np.float32)
    np.save(tmp_path / "a.npy", values)
    np.savez(tmp_path / "b.npz", features=values, other=np.zeros(2))
    np.savez(tmp_path / "c.npz", image_embeddings=values, frame_timestamps=np.zeros(6))
    np.savez_compressed(tmp_path / "d.npz", whatever=values)
    np.savez(tmp_path / "e.npz", x=values, y=values)
    (tmp_path / "manifest.json").write_text(json.dumps({"extractor": "CLIP", "dim": 3}))
    store = FeatureStore(tmp_path)
    for video in "abcd":
        assert np.array_equal(store[video], values)
        assert store.length(video) == 6
    assert store.videos() == ["a", "b", "c", "d", "e"]
    assert store.manifest == Manifest(extractor="CLIP", dim=3)
    with pytest.raises(
        UserError,
        match=r"e\.npz: no array 'features' \(found: x, y\); say which with the key x \(data\.features\.key .*\)$",
    ):
        store["e"]
    assert np.array_equal(FeatureStore(tmp_path, key="y")["e"], values)


def test_a_video_id_is_never_a_way_out_of_the_folder(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    np.save(tmp_path / "secret.npy", np.ones((2, 2)))
    store = FeatureStore(inside)
    assert "../secret" not in store
    with pytest.raises(UserError, match="is missing"):
        store["../secret"]


def test_sources_are_joined_and_cut_to_the_shortest(tmp_path):
    first, second = tmp_path / "a.h5", tmp_path / "b"
    second.mkdir()
    left, right = np.ones((10, 2), np.float32), np.full((9, 3), 2, np.float32)
    write_features(first, [("v", left), ("only-here", left)], Manifest(extractor="a", fps=2.0, creator="x"))
    np.save(second / "v.npy", right)
    (second / "manifest.json").write_text(json.dumps({"extractor": "b", "fps": 2.0, "dim": 3}))
    store = FeatureStore([first, second], dim=5)
    assert store["v"].shape == (9, 5)
    assert store.length("v") == 9
    assert store.videos() == ["v"]
    assert "only-here" not in store
    manifest = store.manifest
    assert (manifest.extractor, manifest.dim, manifest.fps, manifest.creator) == ("a + b", 5, 2.0, None)
    merged = merge_manifests([Manifest(extractor="a"), Manifest(fps=2.0)], 1.0)
    assert (merged.extractor, merged.stride_s) == (None, 1.0)  # of one is not known what it is
    with pytest.raises(UserError, match=r"has 10, 9 rows, expected at most 0 rows of difference"):
        FeatureStore([first, second], tolerance=0)["v"]


def test_keys_must_fit_the_number_of_sources(file):
    with pytest.raises(UserError, match="2 feature sources but 1 keys"):
        FeatureStore([file[0], file[0]], key=["x"])


# --- processes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
@pytest.mark.e2e
def test_workers_of_every_start_method_read_what_the_parent_reads(file, method):
    path, data = file
    store = FeatureStore(path)
    assert np.array_equal(store["v0"], data["v0"])  # the parent's handle is open when the workers start
    with multiprocessing.get_context(method).Pool(2) as workers:
        results = workers.map(store.__getitem__, sorted(data) * 3)
    for video, features in zip(sorted(data) * 3, results, strict=True):
        assert np.array_equal(features, data[video])
    assert np.array_equal(store["v2"], data["v2"])


def test_an_open_store_pickles_small_and_reads_again(file):
    path, data = file
    store = FeatureStore(path)
    store["v0"]
    copy = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(store)) < 2000
    assert np.array_equal(copy["v1"], data["v1"])


def test_a_closed_store_opens_again(file):
    path, data = file
    store = FeatureStore(path)
    store["v0"]
    store.close()
    assert np.array_equal(store["v0"], data["v0"])


def test_others_may_hold_the_same_file_open(file):
    path, data = file
    with h5py.File(path, "r") as theirs:
        assert np.array_equal(FeatureStore(path)["v0"], data["v0"])
        assert np.array_equal(theirs["v1"][()], data["v1"])
    with FeatureStore(path) as store:
        store["v0"]
        with h5py.File(path, "r") as theirs:
            assert np.array_equal(theirs["v1"][()], data["v1"])


# --- what can be wrong -------------------------------------------------------------------------------------


def broken(path, values, name="v"):
    with h5py.File(path, "w") as handle:
        handle[name] = values
    return FeatureStore(path, dim=3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((4, 2)), "has width 2, expected 3"),
        (np.array([[1, 2, 3], [1, np.nan, 3]]), r"holds NaN or infinity \(first in row 1\)"),
        (np.array([[1, 2, np.inf]]), r"holds NaN or infinity \(first in row 0\)"),
        (np.array([[1e300, 2, 3]]), "holds NaN or infinity"),
        (np.zeros((0, 3)), "has no rows"),
        (np.zeros(3), r"has shape \(3,\), expected \(T, D\)"),
        (np.zeros((2, 3, 1)), r"has shape \(2, 3, 1\), expected \(T, D\)"),
        (np.float32(3), r"has shape \(\), expected \(T, D\)"),
        (np.array([[b"a", b"b", b"c"]]), "holds values of type .*, expected numbers"),
        (np.array([[True, False, True]]), "holds values of type bool, expected numbers"),
    ],
)
def test_a_broken_array_is_one_error_that_names_file_and_video(tmp_path, values, message):
    store = broken(tmp_path / "broken.h5", values)
    with pytest.raises(UserError, match=rf"broken\.h5: video 'v' {message}"):
        store["v"]


def test_large_finite_values_are_no_error(tmp_path):
    values = np.full((1000, 3), 3e38, np.float32)
    assert np.array_equal(broken(tmp_path / "large.h5", values)["v"], values)


@pytest.mark.parametrize("video", ["v9", "", ".", "a//b", "v0/", "null\0byte"])
def test_a_missing_video_is_named(file, video):
    store = FeatureStore(file[0])
    assert video not in store
    with pytest.raises(UserError, match="is missing"):
        store[video]


def test_files_that_are_no_features_are_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.h5: no such feature file or folder"):
        FeatureStore(tmp_path / "nothing.h5")
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(UserError, match="expected an HDF5 file, an LMDB, or a folder"):
        FeatureStore(tmp_path / "text.txt")
    (tmp_path / "features.pkl").write_bytes(pickle.dumps({"v": [1.0]}))
    with pytest.raises(UserError, match="a pickle, which is never loaded"):
        FeatureStore(tmp_path / "features.pkl")


@pytest.mark.parametrize("keep", [0, 100, 0.5, 0.999])
def test_a_truncated_hdf5_file_is_one_error(tmp_path, keep):
    path = tmp_path / "cut.h5"
    write_features(path, arrays(50, 50, dim=20).items(), Manifest())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if keep < 1 else keep])
    with pytest.raises(UserError, match=r"cut\.h5: not a readable HDF5 file \(.*\)$"):
        FeatureStore(path)["v0"]


def test_damage_inside_compressed_data_is_one_error(tmp_path):
    path = tmp_path / "damaged.h5"
    with h5py.File(path, "w") as handle:
        node = handle.create_dataset("v", data=RNG.normal(size=(50, 20)), chunks=(50, 20), compression="gzip")
        where = node.id.get_chunk_info(0).byte_offset
    with path.open("r+b") as handle:
        handle.seek(where + 20)
        handle.write(b"\0" * 200)
    with pytest.raises(UserError, match=r"damaged\.h5: video 'v' cannot be read"):
        FeatureStore(path)["v"]


def test_pickled_arrays_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], dtype=object))
    np.savez(tmp_path / "b.npz", features=np.array([[None]], dtype=object))
    (tmp_path / "c.npy").write_bytes(pickle.dumps([1.0]))
    store = FeatureStore(tmp_path)
    for video in "abc":
        with pytest.raises(UserError, match=rf"{video}\.np[yz]: .*pickled objects, which are never loaded"):
            store[video]


def test_broken_npy_and_npz_files_are_named(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((5, 3)))
    np.savez_compressed(tmp_path / "b.npz", features=np.ones((50, 3)))
    for name in ("a.npy", "b.npz"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) - 40])
    (tmp_path / "c.npy").write_bytes(b"")
    np.savez(tmp_path / "d.npz", features=np.ones((5, 3)))
    (tmp_path / "d.npz").rename(tmp_path / "d.npy")
    store = FeatureStore(tmp_path)
    for video in "abcd":
        with pytest.raises(UserError, match=rf"{video}\.np[yz]: not a readable npy or npz file"):
            store[video]


def test_check_lists_every_problem(tmp_path):
    path = tmp_path / "mixed.h5"
    with h5py.File(path, "w") as handle:
        handle["good"] = np.ones((4, 3))
        handle["short"] = np.ones((1, 3))
        handle["wide"] = np.ones((4, 5))
        handle["nan"] = np.full((4, 3), np.nan)
    problems = list(
        check_features(
            FeatureStore(path),
            ["good", "short", "wide", "nan", "absent", "good", "absent"],
            dim=3,
            min_rows=2,
        ).lines()
    )
    assert len(problems) == 4
    assert all("mixed.h5" in line and "\n" not in line for line in problems)
    assert list(check_features(FeatureStore(path), ["good"], dim=3).lines()) == []


# --- writing and the manifest ------------------------------------------------------------------------------


def test_writing_is_checked_and_leaves_no_half_file(tmp_path):
    path = tmp_path / "out.h5"
    for items, message in (
        ([("v", np.ones((2, 3))), ("v", np.ones((2, 3)))], "given twice"),
        ([("v", np.ones((2, 3))), ("w", np.ones((2, 4)))], "has width 4, the others have 3"),
        ([("v", np.ones(3))], "expected \\(T, D\\)"),
        ([("v", np.full((2, 3), np.nan))], "holds NaN"),
        ([("a/b", np.ones((2, 3)))], "cannot name an entry"),
    ):
        with pytest.raises(UserError, match=message):
            write_features(path, items, Manifest())
    with pytest.raises(UserError, match="too large for float16"):
        write_features(path, [("v", np.full((2, 3), 1e6))], Manifest(), dtype="float16")
    with pytest.raises(UserError, match="not 'int8'"):
        write_features(path, [], Manifest(), dtype="int8")
    assert list(tmp_path.iterdir()) == []


def test_float16_files_say_so_in_their_manifest(tmp_path):
    path = tmp_path / "half.h5"
    values = RNG.normal(size=(6, 3)).astype(np.float32)
    assert write_features(path, [("v", values)], Manifest(extractor="toy"), dtype="float16") == 1
    store = FeatureStore(path)
    assert store.manifest == Manifest(extractor="toy", dim=3, dtype="float16")
    assert np.array_equal(store["v"], values.astype(np.float16).astype(np.float32))


def test_a_manifest_has_no_other_fields():
    with pytest.raises(UserError, match="unknown field 'frames'"):
        Manifest.from_mapping({"frames": 2.0})


@pytest.mark.parametrize("text", ["{", "[]", '{"colour": 1}'])
def test_an_unusable_manifest_is_one_error(tmp_path, text):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as handle:
        handle.attrs["manifest"] = text
    with pytest.raises(UserError, match=r"x\.h5.*manifest"):
        _ = FeatureStore(path).manifest
    with h5py.File(path, "w"):
        pass
    assert FeatureStore(path).manifest is None


# --- real files --------------------------------------------------------------------------------------------


def test_real_clip_features_are_read_from_both_forms(shared_data):
    folder = shared_data / "features"
    with FeatureStore(folder / "charades_clip_b32_1fps.h5", dim=512) as store:
        videos = store.videos()
        assert len(videos) == 1214
        assert list(check_features(store, videos[:50], dim=512).lines()) == []
        original = FeatureStore(folder / "clip_npz")
        for name in original.videos():
            video = name.split("__", 1)[0]
            if video in store:
                assert original[name].shape == store[video].shape
                assert np.abs(original[name] - store[video]).max() < 1e-3


def test_real_features_of_other_kinds_are_read(shared_data):
    folder = shared_data / "features"
    store = FeatureStore(folder, key="features")
    assert store["univtg_demo_vid"].shape == (15, 512)
    assert store["univtg_demo_txt"].shape == (12, 512)
    assert store["bmt_women_long_jump_rgb"].shape == (14, 1024)
    with pytest.raises(UserError, match=r"v_GGSY1Qvo990_features\.npz: no array 'features'"):
        store["v_GGSY1Qvo990_features"]
