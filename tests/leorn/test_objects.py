"""Object features: every layout reads alike, preparation follows the released loaders, broken files say so."""

import multiprocessing
import pickle

import h5py
import numpy as np
import pytest

from leorn.object_features.checking import check_objects
from leorn.object_features.config import ObjectsConfig, open_objects
from leorn.object_features.layouts import ObjectFrames, ObjectManifest
from leorn.object_features.prepare import PreparedObjects, prepare, sampled_frames
from leorn.object_features.store import ObjectStore
from leorn.object_features.writing import write_objects
from vmr_common.errors import UserError
from vmr_common.types import Query
from vmr_train.feature_files import require_videos
from vmr_train.known_features import require_expected

D = 7


def made(frames=6, objects=4, seed=0):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((frames, objects, 2, 2)), axis=2).reshape(frames, objects, 4)
    confidence = np.sort(rng.random((frames, objects)), axis=1)[:, ::-1].copy()
    features = rng.normal(size=(frames, objects, D)) * 5
    return ObjectFrames(*(part.astype(np.float32) for part in (features, confidence, corners)))


def same(first, second):
    for name in ("features", "confidence", "boxes"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def write_released(path, videos):
    with h5py.File(path, "w") as file:
        for video, item in videos.items():
            file[video] = np.concatenate([item.features, item.confidence[..., None], item.boxes], axis=-1)


def write_by_kind(path, videos):
    with h5py.File(path, "w") as file:
        for video, item in videos.items():
            for kind, values in zip(
                ("feats", "confidence", "bbox"), (item.features, item.confidence, item.boxes), strict=True
            ):
                file[f"{kind}/{video}"] = values


def write_ours(path, videos):
    write_objects(path, videos.items(), ObjectManifest(detector="toy"), "float32")


VIDEOS = {"a": made(), "b.avi": made(9, seed=1)}


@pytest.fixture(params=[write_released, write_by_kind, write_ours], ids=["released", "by kind", "ours"])
def path(request, tmp_path):
    request.param(tmp_path / "objects.h5", VIDEOS)
    return tmp_path / "objects.h5"


# --- reading ---


def test_every_layout_gives_the_same_objects(path):
    with ObjectStore(path, dim=D) as store:
        assert (store.videos(), store.dim, store.objects) == (["a", "b.avi"], D, 4)
        assert [video in store for video in ("a", "b.avi", "c", "", "feats")] == [
            True,
            True,
            False,
            False,
            False,
        ]
        for video, item in VIDEOS.items():
            assert store.length(video) == len(item)
            same(store[video], item)


def test_only_the_first_slots_of_the_wanted_frames_are_given_in_the_order_asked_for(path):
    with ObjectStore(path, objects=2) as store:
        assert store.objects == 2
        for frames in ([5, 0, 0, 3], [4], [0, 8, 8], list(range(9))):
            found = store.read("b.avi", np.array(frames))
            item = VIDEOS["b.avi"]
            same(
                found,
                ObjectFrames(item.features[frames, :2], item.confidence[frames, :2], item.boxes[frames, :2]),
            )


def test_only_the_wanted_part_of_a_file_is_touched(tmp_path):
    item = made(64, 8)
    wide = ObjectFrames(np.repeat(item.features, 300, axis=2), item.confidence, item.boxes)
    write_objects(tmp_path / "o.h5", [("v", wide)], ObjectManifest(), "float32")
    whole = (tmp_path / "o.h5").stat().st_size
    with h5py.File(tmp_path / "o.h5") as file:
        chunk = file["v/features"].id.get_chunk_info(20)
        assert file["v/features"].chunks == (1, 8, D * 300)
    with (tmp_path / "o.h5").open("r+b") as file:  # what the other frames hold does not matter then
        file.truncate(whole)
        file.seek(chunk.byte_offset)
        file.write(np.full(8 * D * 300, np.nan, np.float32).tobytes())
    with ObjectStore(tmp_path / "o.h5") as store:
        same(store.read("v", np.array([3, 40])), ObjectFrames(*(p[[3, 40]] for p in vars(wide).values())))
        with pytest.raises(
            UserError, match=r"'v', features holds NaN or infinity \(first in frame 20, object 0"
        ):
            store["v"]


@pytest.mark.e2e
def test_a_store_travels_to_workers_of_any_start_method(path):
    store = ObjectStore(path, objects=3)
    expected = store["a"]  # the parent's handle is open when the workers start
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            same(pool.map(store.__getitem__, ["a"])[0], expected)
    store.close()
    same(store["a"], expected)  # opens again


def test_half_precision_keeps_confidence_and_boxes_exact(tmp_path):
    write_objects(tmp_path / "o.h5", VIDEOS.items(), ObjectManifest(box_units="normalised"))
    with ObjectStore(tmp_path / "o.h5") as store:
        found = store["a"]
        np.testing.assert_array_equal(found.confidence, VIDEOS["a"].confidence)
        np.testing.assert_array_equal(found.boxes, VIDEOS["a"].boxes)
        np.testing.assert_allclose(found.features, VIDEOS["a"].features, rtol=1e-3)
        assert found.features.dtype == np.float32
        manifest = store.manifest
    assert (manifest.dtype, manifest.dim, manifest.objects, manifest.frames) == ("float16", D, 4, None)


# --- what is wrong with a file ---


def test_errors_name_the_file_the_video_and_what_was_expected(path, tmp_path):
    for options, message in (
        ({"dim": 9}, f"{path}: video 'a' has features of width {D}, expected 9"),
        ({"objects": 5}, f"{path}: video 'a' has 4 objects per frame, expected at least 5"),
    ):
        with ObjectStore(path, **options) as store, pytest.raises(UserError) as caught:
            store["a"]
        assert str(caught.value) == message
    with (
        ObjectStore(path) as store,
        pytest.raises(UserError, match=r"'c' is missing \(the file holds 2 videos\)"),
    ):
        store["c"]
    with pytest.raises(UserError, match="no such file"):
        ObjectStore(tmp_path / "absent.h5")
    (tmp_path / "text.h5").write_text("not this")
    with pytest.raises(UserError, match="expected an HDF5 file of object features, found something else"):
        ObjectStore(tmp_path / "text.h5")


def test_a_truncated_file_is_one_clear_error(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with ObjectStore(path) as store, pytest.raises(UserError, match="not a readable HDF5 file"):
        store["a"]


def test_damaged_files_end_in_a_result_or_in_one_line(path, tmp_path):
    rng = np.random.default_rng(0)
    data, damaged = path.read_bytes(), tmp_path / "damaged.h5"
    refused = []
    for _ in range(60):
        changed = bytearray(data)
        for place in rng.integers(0, min(len(data), 6000), rng.choice([1, 3, 20])):
            changed[place] = rng.integers(256)
        damaged.write_bytes(changed)
        try:
            with ObjectStore(damaged) as store:
                found = [store.manifest, store.dim, "a" in store]
                found += [store[video] for video in store.videos()]
        except UserError as error:
            refused.append(str(error))
    assert 0 < len(refused) < 60
    assert all(line.startswith(str(damaged)) and "\n" not in line for line in refused)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": np.ones((4, 9))}, r"an array of shape \(4, 9\), expected object features"),
        ({"a": np.ones((4, 2, 5))}, r"an array of shape \(4, 2, 5\), expected object features"),
        ({"a": np.ones((0, 2, 9))}, "expected at least one frame, object and feature"),
        ({"a": np.full((4, 2, 9), b"x")}, "expected numbers"),
        ({"a/features": np.ones((4, 2, 9))}, "has no data set 'confidence'"),
        (
            {
                "a/features": np.ones((4, 2, 9)),
                "a/confidence": np.ones((4, 3)),
                "a/boxes": np.ones((4, 2, 4)),
            },
            r"confidence \(4, 3\) and boxes \(4, 2, 4\), expected",
        ),
        ({"a": np.full((4, 2, 9), np.nan)}, "NaN or infinity"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, content, message):
    with h5py.File(tmp_path / "o.h5", "w") as file:
        for name, values in content.items():
            file[name] = values
    with ObjectStore(tmp_path / "o.h5") as store, pytest.raises(UserError, match=message):
        store["a"]


def test_a_check_lists_everything_that_contradicts_the_manifest(tmp_path):
    item = made()
    pixels = ObjectFrames(item.features, item.confidence, item.boxes * 640)
    swapped = ObjectFrames(item.features, item.confidence, item.boxes[..., [2, 3, 0, 1]])
    unseen = ObjectFrames(item.features, np.zeros_like(item.confidence), item.boxes * 640)
    manifest = ObjectManifest(box_order="x1 y1 x2 y2", box_units="normalised")
    videos = {"a": pixels, "b": swapped, "c": item, "d": unseen}
    write_objects(tmp_path / "o.h5", videos.items(), manifest)
    with ObjectStore(tmp_path / "o.h5") as store:
        found = check_objects(store, [*store.videos(), "e"], dim=D + 1, objects=9)
    about = {name: [line for line in found if f"video {name!r}" in line] for name in "abcde"}
    assert [len(lines) for lines in about.values()] == [3, 3, 2, 2, 1]
    assert any("boxes from" in line for line in about["a"])
    assert any("end before they start" in line for line in about["b"])
    assert "missing" in about["e"][0]


def test_writing_refuses_what_no_reader_could_use(tmp_path):
    item = made()
    huge = ObjectFrames(item.features * 1e6, item.confidence, item.boxes)
    short = ObjectFrames(item.features, item.confidence[:, :3], item.boxes)
    for items, message in (
        ([("a", item), ("a", item)], "given twice"),
        ([("a", item), ("b", made(objects=5))], r"\(5, 7\), the others have \(4, 7\)"),
        ([("a", huge)], "too large for float16"),
        ([("a", short)], "confidence"),
        ([("a/b", item)], "cannot name an entry"),
    ):
        with pytest.raises(UserError, match=message):
            write_objects(tmp_path / "o.h5", items, ObjectManifest())
        assert list(tmp_path.iterdir()) == []


# --- frames and preparation ---


def test_frames_are_sampled_by_the_rule_of_the_released_resampler():
    for stored, wanted in ((1, 256), (2, 8), (255, 256), (256, 256), (257, 256), (1000, 256), (3000, 256)):
        expected = []
        for k in range(wanted):
            start, end = (min(round(j * stored / wanted), stored - 1) for j in (k, k + 1))
            expected.append(start + (end - start) // 2)
        assert sampled_frames(stored, wanted).tolist() == expected
    assert sampled_frames(256, 256).tolist() == list(range(256))


def test_preparation_masks_strictly_normalises_and_zeroes():
    item = made(2, 3)
    item.confidence[:] = [[0.5, 0.1, 0.0], [0.0, 0.0, 0.0]]  # a frame without any object
    item.features[0, 0] = 0  # a feature of length 0 stays 0
    features, mask, boxes = prepare(item, 0.1)
    assert mask.tolist() == [[True, False, False], [False] * 3]
    assert prepare(item, 0.0).mask.tolist() == [[True, True, False], [False] * 3]
    assert not features[~mask].any()
    assert not boxes[~mask].any()
    assert not features[0, 0].any()
    np.testing.assert_array_equal(boxes[0, 0], item.boxes[0, 0])
    item.features[0, 0] = 3
    np.testing.assert_allclose(np.linalg.norm(prepare(item, 0.1).features[0, 0]), 1, rtol=1e-6)
    assert item.features[0, 1].any()  # the input is left alone


def test_prepared_objects_are_those_of_the_store_resampled(path):
    prepared = PreparedObjects(ObjectStore(path, objects=3), frames=4, threshold=0.3)
    rows = sampled_frames(9, 4)
    item = VIDEOS["b.avi"]
    expected = prepare(
        ObjectFrames(item.features[rows, :3], item.confidence[rows, :3], item.boxes[rows, :3]), 0.3
    )
    for found in (prepared["b.avi"], prepared["b.avi"]):
        for part, wanted in zip(found, expected, strict=True):
            np.testing.assert_array_equal(part, wanted)
    assert ("b.avi" in prepared, "c" in prepared) == (True, False)


def test_the_memory_stays_within_its_budget_and_forgets_what_was_used_longest_ago(tmp_path):
    write_ours(tmp_path / "o.h5", {name: made(seed=n) for n, name in enumerate("abc")})
    store = ObjectStore(tmp_path / "o.h5")
    one = sum(part.nbytes for part in PreparedObjects(store, frames=None, threshold=0.0)["a"])
    prepared = PreparedObjects(store, frames=None, threshold=0.0, budget=2 * one)
    first = {name: prepared[name].features for name in "ab"}
    assert prepared["a"].features is first["a"]
    third = prepared["c"].features  # b goes, for a was used since
    assert prepared.held == 2 * one
    assert prepared["a"].features is first["a"]
    assert prepared["c"].features is third
    assert prepared["b"].features is not first["b"]
    np.testing.assert_array_equal(prepared["b"].features, first["b"])
    assert prepared.held == 2 * one
    none = PreparedObjects(store, frames=None, threshold=0.0, budget=one - 1)
    assert none["a"].features is not none["a"].features
    assert none.held == 0
    copy = pickle.loads(pickle.dumps(prepared))
    assert copy.held == 0
    np.testing.assert_array_equal(copy["b"].features, first["b"])


def test_half_precision_in_memory_gives_the_same_values_at_every_access(path):
    prepared = PreparedObjects(ObjectStore(path), frames=4, threshold=0.0, memory="float16")
    exact = PreparedObjects(ObjectStore(path), frames=4, threshold=0.0)["a"].features
    first, second = prepared["a"].features, prepared["a"].features
    assert first.dtype == np.float32
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, exact.astype(np.float16).astype(np.float32))


# --- configuration ---


def test_a_configuration_refuses_objects_that_it_was_not_made_for(tmp_path):
    write_objects(tmp_path / "o.h5", VIDEOS.items(), ObjectManifest(box_units="pixels"))
    fits = {"path": "o.h5", "dim": D, "objects": 3}
    store = open_objects(ObjectsConfig(**fits), tmp_path)
    assert store["a"].objects == 3
    require_expected({"box_units": "pixels"}, store, allow=False)
    with pytest.raises(UserError, match="box_units 'pixels', the configuration expects 'normalised'"):
        require_expected({"box_units": "normalised"}, store, allow=False)
    with pytest.raises(UserError, match="unknown field 'speed', a manifest has detector"):
        require_expected({"speed": 1}, store, allow=False)
    with pytest.raises(
        UserError, match=r"data\.objects\.objects: found 0, expected a whole number, at least 1"
    ):
        ObjectsConfig(path="o.h5", dim=D, objects=0)
    queries = [Query(id=v, video=v, text="", duration=1.0) for v in ("a", "b.avi", "x", "y")]
    with pytest.raises(UserError, match="no features for 2 videos of test, for example 'x'"):
        require_videos(store, {"test": queries})
