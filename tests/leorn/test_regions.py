"""Region features of the usual layouts become one object file, boxes and order included."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from folders import ROOT
from leorn.object_features.box_form import BoxForm
from leorn.object_features.cli import main
from leorn.object_features.convert import convert_objects
from leorn.object_features.layouts import ObjectFrames, ObjectManifest
from leorn.object_features.regions import RegionFolder
from leorn.object_features.store import ObjectStore
from leorn.object_features.writing import write_objects
from vmr_common.errors import UserError
from vmr_common.features.conversion import PART_SIZE

D = 6


def detections(count, seed):
    """Features, boxes (x1 y1 x2 y2 in fractions) and confidences of one frame, in no order."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((count, 2, 2)), axis=1).reshape(count, 4)
    return rng.normal(size=(count, D)).astype("f4"), corners.astype("f4"), rng.random(count).astype("f4")


def write_frames(folder, counts, save):
    """A file per frame; frame 10 comes after frame 9, as in time."""
    folder.mkdir(parents=True)
    for frame, count in enumerate(counts):
        save(folder / f"frame_{frame + 8}", *detections(count, frame))


def expect_sorted(found, counts):
    for frame, count in enumerate(counts):
        features, boxes, confidence = detections(count, frame)
        order = np.argsort(-confidence)[: found.objects]
        kept = len(order)
        np.testing.assert_array_equal(found.features[frame, :kept], features[order])
        np.testing.assert_allclose(found.boxes[frame, :kept], boxes[order], atol=1e-6)
        np.testing.assert_array_equal(found.confidence[frame, :kept], confidence[order])
        assert not found.confidence[frame, kept:].any()
        assert not found.features[frame, kept:].any()


COUNTS = [3, 0, 5, 1]


def plain(path, features, boxes, confidence):
    np.savez(path, features=features, boxes=boxes, conf=confidence)


def bottom_up(path, features, boxes, confidence):
    pixels = boxes * np.array([640, 480, 640, 480], "f4")
    np.savez(
        path,
        x=features.T,
        bbox=pixels,
        scores=confidence[:, None],
        image_w=640,
        image_h=480,
        num_bbox=len(boxes),
    )


def corner_and_size(path, features, boxes, confidence):
    size = boxes[:, 2:] - boxes[:, :2]
    np.savez(path, feats=features, bboxes=np.concatenate([boxes[:, :2], size], 1), confidence=confidence)


def packed(path, features, boxes, confidence):
    np.save(f"{path}.npy", np.concatenate([features, confidence[:, None], boxes], axis=1))


@pytest.mark.parametrize(
    ("save", "options"),
    [
        (plain, {}),
        (bottom_up, {}),
        (corner_and_size, {"boxes": BoxForm(order="x y w h")}),
        (packed, {"dim": D}),
    ],
)
def test_a_file_per_frame_is_read_whatever_its_names_order_and_units(tmp_path, save, options):
    write_frames(tmp_path / "v", COUNTS, save)
    folder = RegionFolder(tmp_path, objects=4, **options)
    assert folder.videos() == ["v"]
    assert folder.length("v") == len(COUNTS)
    expect_sorted(folder.read("v"), COUNTS)
    some = folder.read("v", np.array([2, 2, 0]))
    np.testing.assert_array_equal(some.features, folder.read("v").features[[2, 2, 0]])


@pytest.mark.parametrize(
    ("order", "columns"),
    [("y1 x1 y2 x2", [1, 0, 3, 2]), ("x1 y1 x2 y2", [0, 1, 2, 3])],
)
def test_a_file_per_video_is_read_with_the_size_given(tmp_path, order, columns):
    frames = [detections(5, seed) for seed in range(3)]
    features, boxes, confidence = (np.stack(part) for part in zip(*frames, strict=True))
    np.savez(
        tmp_path / "v", x=features, boxes=(boxes * [200, 100, 200, 100])[..., columns], scores=confidence
    )
    folder = RegionFolder(tmp_path, objects=4, boxes=BoxForm(order=order, size=(200, 100)))
    assert folder.length("v") == 3
    expect_sorted(folder.read("v"), [5, 5, 5])


def test_a_middle_and_a_size_become_corners():
    boxes = np.array([[[0.5, 0.5, 0.2, 0.4]]], np.float32)
    found = BoxForm(order="cx cy w h").standard(boxes, np.ones((1, 1), bool), None, "here")
    np.testing.assert_allclose(found, [[[0.4, 0.3, 0.6, 0.7]]], atol=1e-6)


def test_a_video_without_any_object_needs_only_a_width(tmp_path):
    write_frames(tmp_path / "v", [0, 0], lambda path, *arrays: plain(path, *(np.empty(0) for _ in arrays)))
    with pytest.raises(
        UserError, match="'v' has no object in any frame; say how wide features are with --dim"
    ):
        RegionFolder(tmp_path).read("v")
    found = RegionFolder(tmp_path, objects=3, dim=D).read("v")
    assert found.features.shape == (2, 3, D)
    assert not found.confidence.any()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"features": np.ones((3, D))},
            r"v\.npz: no array of conf \(looked for conf, confidence, .*--missing fill",
        ),
        (
            {"x": np.ones((3, D)), "bbox": np.zeros((3, 4)), "info": np.array({"objects_conf": [1]})},
            "array 'info' holds pickled objects, which are never loaded",
        ),
        ({"boxes": np.ones((3, 4))}, r"no array of features \(looked for features, x, .*; found: boxes"),
        (
            {"features": np.ones((3, D)), "conf": np.ones(2), "boxes": np.ones((3, 4))},
            r"array of conf has shape \(2,\), expected \(3,\)",
        ),
        (
            {"features": np.ones((3, D)), "conf": np.ones(3), "boxes": np.full((3, 4), 99.0)},
            "boxes reach from 99 to 99 of the picture, expected 0 to 1",
        ),
        ({"features": np.array([None, 1])}, "no array of features"),
    ],
)
def test_what_is_missing_or_wrong_is_one_clear_line(tmp_path, arrays, message):
    np.savez(tmp_path / "v.npz", **arrays)
    with pytest.raises(UserError, match=message) as caught:
        RegionFolder(tmp_path).read("v")
    assert "\n" not in str(caught.value)


def test_a_pickled_npy_file_is_never_loaded(tmp_path):
    np.save(tmp_path / "v.npy", np.array({"features": 1}), allow_pickle=True)
    with pytest.raises(UserError, match="holds pickled objects, which are never loaded"):
        RegionFolder(tmp_path).read("v")


@pytest.mark.parametrize("data", [b"\xff\xfe", b"[]"])
def test_a_manifest_that_is_none_is_named(tmp_path, data):
    (tmp_path / "manifest.json").write_bytes(data)
    with pytest.raises(UserError, match=r"manifest\.json"):
        _ = RegionFolder(tmp_path).manifest


# --- the commands ---


def test_convert_check_and_info_go_from_detections_to_a_described_file(tmp_path, answer):
    for video, counts in (("v1", [3, 0, 5, 1, 2]), ("v2", [0, 2])):
        write_frames(tmp_path / "raw" / video, counts, bottom_up)
    out = tmp_path / "objects.h5"
    detector = ("--detector", "toy detector", "--frame-sampling", "every second")
    options = ("--slots", 4, "--frames", 4, "--dtype", "float32", *detector)
    status, text, _ = answer(main, "convert", "--objects", tmp_path / "raw", "--out", out, *options)
    assert (status, text) == (0, f"{out}: 2 videos of 4 objects per frame written\n")
    with ObjectStore(out) as store:
        # of five frames the released resampler takes these four
        np.testing.assert_array_equal(
            store["v1"].features, RegionFolder(tmp_path / "raw", objects=4).read("v1").features[[0, 1, 3, 4]]
        )
        assert store.manifest.box_units == "normalised"
    status, text, _ = answer(main, "check", "--objects", out, "--dim", D, "--slots", 4)
    assert (status, text) == (0, f"{out}: 2 videos, all well\n")
    status, text, err = answer(main, "check", "--objects", out, "--dim", D + 1)
    assert status == 2
    assert text.count("expected 7") == 2
    assert "2 problems with 2 videos" in err
    status, text, _ = answer(main, "info", "--objects", out)
    assert status == 0
    assert text.startswith(f"{out}: 2 videos, 4 frames of 4 objects, {D} columns\n")
    for fact in ("detector: toy detector", "box_order: x1 y1 x2 y2", "object_order: falling confidence"):
        assert f"  {fact}\n" in text


def test_a_file_with_pixels_is_restated_and_cut_to_fewer_objects(tmp_path, answer):
    features, boxes, confidence = detections(5, 0)
    item = ObjectFrames(features[None], confidence[None], boxes[None] * np.array([320, 240, 320, 240], "f4"))
    manifest = ObjectManifest(detector="toy", box_order="x1 y1 x2 y2", box_units="pixels")
    write_objects(tmp_path / "pixels.h5", [("v", item)], manifest)
    arguments = ("convert", "--objects", tmp_path / "pixels.h5", "--out", tmp_path / "out.h5", "--slots", 3)
    status, _, err = answer(main, *arguments)
    assert status == 2
    assert "need the size of the picture" in err
    status, _, err = answer(main, *arguments, "--image-size", 320, 240)
    assert (status, err) == (0, "")
    with ObjectStore(tmp_path / "out.h5") as store:
        np.testing.assert_allclose(store["v"].boxes[0], boxes[:3], atol=1e-6)
        assert (store.manifest.box_units, store.manifest.detector) == ("normalised", "toy")


def test_a_file_in_the_released_layout_becomes_ours_with_the_documented_assumption(tmp_path, answer):
    import h5py

    features, boxes, confidence = detections(5, 0)
    with h5py.File(tmp_path / "released.h5", "w") as file:
        file["v"] = np.concatenate([features, confidence[:, None], boxes], axis=1)[None]
    status, text, _ = answer(main, "info", "--objects", tmp_path / "released.h5")
    assert "assumed: boxes x1 y1 x2 y2, normalised, objects by falling confidence" in text
    out = tmp_path / "out.h5"
    assert answer(main, "convert", "--objects", tmp_path / "released.h5", "--out", out)[0] == status == 0
    with ObjectStore(out) as store:
        np.testing.assert_array_equal(store["v"].confidence[0], confidence)
        assert (store.manifest.dtype, store.manifest.box_order) == ("float16", "x1 y1 x2 y2")


def test_features_alone_need_a_word_before_they_are_filled_in(tmp_path, answer):
    (tmp_path / "raw").mkdir()
    np.save(tmp_path / "raw/v.npy", detections(3, 0)[0])
    (tmp_path / "raw/manifest.json").write_text(json.dumps({"detector": "toy"}))
    arguments = ("convert", "--objects", tmp_path / "raw", "--out", tmp_path / "o.h5")
    status, _, err = answer(main, *arguments)
    assert status == 2
    assert err.startswith(f"error: {tmp_path / 'raw/v.npy'}: no array of conf")
    assert answer(main, *arguments, "--missing", "fill")[0] == 0
    with ObjectStore(tmp_path / "o.h5") as store:
        assert store["v"].confidence[0, :4].tolist() == [1, 1, 1, 0]
        assert store["v"].boxes[0, 0].tolist() == [0, 0, 1, 1]
        assert (store.manifest.detector, store.manifest.object_order) == ("toy", None)


def test_a_real_file_of_region_features_converts(tmp_path, answer, shared_data):
    source = shared_data / "features/regions_COCO_test2015_000000000001.npy"
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/v.npy").write_bytes(source.read_bytes())
    arguments = (
        "--objects",
        tmp_path / "raw",
        "--out",
        tmp_path / "o.h5",
        "--missing",
        "fill",
        "--dim",
        2048,
    )
    assert answer(main, "convert", *arguments)[0] == 0
    with ObjectStore(tmp_path / "o.h5", dim=2048) as store:
        found = store["v"]
    assert (found.confidence > 0).sum() == 34
    np.testing.assert_allclose(found.features[0, :34], np.load(source), rtol=1e-3, atol=1e-6)


@pytest.mark.e2e
def test_a_conversion_that_was_stopped_goes_on_where_it_was(tmp_path):
    count = PART_SIZE + 6
    (tmp_path / "raw").mkdir()
    for number in range(count):
        plain(tmp_path / f"raw/v{number:03d}", *detections(3, number))
    source, out = RegionFolder(tmp_path / "raw", objects=3), tmp_path / "o.h5"
    steps = []

    def stop(done):
        steps.append(done)
        if len(steps) == PART_SIZE + 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_objects(source, out, ObjectManifest(), step=stop)
    assert not out.exists()
    steps.clear()
    assert convert_objects(source, out, ObjectManifest(), step=steps.append) == count
    assert steps == [PART_SIZE, *[1] * 6]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.h5", "raw"]
    with ObjectStore(out) as store:
        assert len(store.videos()) == count
        np.testing.assert_allclose(store["v065"].features, source.read("v065").features, rtol=1e-3, atol=1e-6)


# --- the documentation ---


@pytest.mark.e2e
def test_the_documented_way_to_objects_of_ones_own_works_as_written(tmp_path):
    page = (ROOT / "docs/object-features.md").read_text(encoding="utf-8")
    section = page.split("## Objects of your own videos\n", 1)[1].split("\n## ", 1)[0]
    (program, commands) = re.findall(r"^```\w*\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    (tmp_path / "detect_mine.py").write_text(program)
    shown = ""
    for line in commands.strip().splitlines():
        name, *arguments = shlex.split(line)
        name = sys.executable if name == "python" else str(Path(sys.executable).with_name(name))
        done = subprocess.run([name, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        shown += done.stdout
    assert "2 videos, all well" in shown
    assert "2 videos, 8 frames of 4 objects, 16 columns" in shown
    assert "  frame_sampling: 8, evenly" in shown
