"""Objects of Shapes: found in the pixels, followed over time, made on first use beside files that stay as they are."""

import json
import subprocess
import sys

import numpy as np
import pytest

import vmr_shapes as shapes
from folders import digests
from leorn.object_features.checking import check_objects
from leorn.object_features.config import ObjectsConfig, open_objects
from leorn.object_features.prepare import prepare
from leorn.object_features.shapes_components import find_patches
from leorn.object_features.shapes_file import ensure_objects
from leorn.object_features.shapes_objects import COLUMNS, DIM, OBJECTS, follow, object_frames
from leorn.object_features.store import ObjectStore
from vmr_common.errors import UserError
from vmr_common.features.store import FeatureStore
from vmr_shapes import render, scene
from vmr_shapes.spec import SPLITS

pytestmark = pytest.mark.e2e  # the data set is generated

TINY = shapes.ShapesSpec(train=3, val=1, test=2, duration=(16.0, 18.0))
MAKE = """
import sys
from leorn.object_features.shapes_file import ensure_objects
from vmr_shapes import ShapesSpec
ensure_objects(sys.argv[1], ShapesSpec(train=3, val=1, test=2, duration=(16.0, 18.0)))
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return shapes.ensure(tmp_path_factory.mktemp("data") / "shapes", TINY)


@pytest.fixture(scope="module")
def objects(tiny):
    return ensure_objects(tiny, TINY)


def squares(*places, size=40, colour=(200, 40, 40)):
    """A frame with squares of 6 pixels whose upper left corners are at `places` (x, y)."""
    frame = np.full((size, size, 3), 180, np.uint8)
    for x, y in places:
        frame[y : y + 6, x : x + 6] = colour
    return frame


# --- components ---


def flooded(frame):
    """The patches of a frame by flood filling pixel after pixel: sets of (row, column)."""
    high, low = frame.max(axis=-1).astype(int), frame.min(axis=-1).astype(int)
    open_pixels = set(zip(*np.nonzero(high - low > 0.2 * high), strict=True))
    patches = []
    while open_pixels:
        patch, border = set(), [open_pixels.pop()]
        while border:
            row, column = border.pop()
            patch.add((int(row), int(column)))
            for step in ((0, 1), (1, 0), (0, -1), (-1, 0)):
                place = (row + step[0], column + step[1])
                if place in open_pixels:
                    open_pixels.remove(place)
                    border.append(place)
        patches.append(frozenset(patch))
    return {patch for patch in patches if len(patch) >= 6}


def test_patches_are_those_that_flood_filling_finds():
    # drawings in one colour with holes, spirals and pixels that touch at corners only, in three frames at once
    rng = np.random.default_rng(0)
    masks = rng.random((3, 30, 30)) < np.array([0.45, 0.6, 0.7])[:, None, None]
    masks[2, :, 15] = False
    frames = np.full((3, 30, 30, 3), 120, np.uint8)
    frames[masks] = (220, 60, 60)
    found = find_patches(frames)
    for number, frame in enumerate(frames):
        own = {
            frozenset(zip(*(axis[found.owner == patch].tolist() for axis in found.place[1:]), strict=True))
            for patch in range(found.count)
            if found.frame[patch] == number
        }
        assert own == flooded(frame)
    assert (np.diff(found.frame) >= 0).all()


def test_touching_patches_of_another_hue_stay_apart():
    frame = squares((10, 10))
    frame[10:16, 16:22] = (40, 60, 200)
    assert find_patches(frame[None]).count == 2


def test_things_in_view_and_patches_agree_in_rendered_videos():
    differ = total = 0
    for video in shapes.SHORT.videos("test")[:12]:
        made = scene.make_scene(video, shapes.SHORT)
        frames = render.render(made)
        found = np.bincount(find_patches(frames).frame, minlength=len(frames))
        shown = sum(render.track(made, n).visible.astype(int) for n in range(len(made.things)))
        differ += (found != shown).sum()
        total += len(frames)
    assert differ < 0.02 * total  # where one thing hides behind another


# --- slots ---


def test_a_patch_keeps_its_slot_while_others_come_and_go_and_after_a_blink():
    #           a from frame 0, b from 1 to 3, a away in 4 and 5, c of another hue where b was
    frame = np.array([0, 1, 1, 2, 2, 3, 3, 6, 7, 8, 9, 9])
    x = np.array([5.0, 6, 30, 7, 29, 8, 28, 9, 10, 11, 12, 27])
    hue = np.array([0.0, 5.95, 2, 0, 2, 0.05, 2, 0, 0, 0, 0, 4])
    slots = follow(frame, x, np.zeros(12), hue, np.full(12, 50.0))
    assert slots.tolist() == [0, 0, 1, 0, 1, 0, 1, 0, 0, 0, 0, 1]


def test_when_all_slots_are_taken_the_smallest_goes_without():
    count = OBJECTS + 1
    mass = np.arange(count, 0, -1.0)[::-1]
    slots = follow(np.zeros(count, int), 100.0 * np.arange(count), np.zeros(count), np.zeros(count), mass)
    assert slots.tolist() == [-1, *range(OBJECTS - 1, -1, -1)]


# --- features ---


def test_boxes_confidences_and_empty_rows_are_those_of_the_last_frame_that_shows_something():
    frames = np.stack([squares(), squares(), squares((4, 8)), squares((5, 8)), squares((6, 8)), squares()])
    found = object_frames(frames, 2)
    assert found.features.shape == (3, OBJECTS, DIM)
    assert (found.confidence > 0).sum(axis=1).tolist() == [0, 1, 1]
    np.testing.assert_allclose(found.boxes[1, 0] * 40, [5, 8, 11, 14], atol=1e-5)
    np.testing.assert_allclose(found.boxes[2, 0] * 40, [6, 8, 12, 14], atol=1e-5)
    assert not found.features[0].any()
    assert not found.boxes[:, 1:].any()


def test_a_video_that_shows_nothing_has_no_objects():
    found = object_frames(np.full((9, 40, 40, 3), 150, np.uint8), 2)
    assert found.features.shape == (4, OBJECTS, DIM)
    assert not found.confidence.any()
    assert not prepare(found, 0.0).mask.any()


def columns(name):
    start = 0
    for kind, (count, _, _) in COLUMNS.items():
        if kind == name:
            return slice(start, start + count)
        start += count
    raise AssertionError(name)


def test_features_follow_the_pixels_and_not_the_place_of_a_slot():
    still = object_frames(np.stack([squares((4, 8))] * 10), 2).features[2, 0]
    right = object_frames(np.stack([squares((4 + 2 * n, 8)) for n in range(10)]), 2).features[2, 0]
    left = object_frames(np.stack([squares((28 - 2 * n, 8)) for n in range(10)]), 2).features[2, 0]
    blue = object_frames(np.stack([squares((4, 8), colour=(40, 40, 200))] * 10), 2).features[2, 0]
    motion, looks = columns("motion"), columns("outline")
    assert not still[motion].any()
    assert right[motion][1] > 0.5 > left[motion][1]
    assert left[motion][2] > 0.5 > right[motion][2]
    np.testing.assert_allclose(right[looks], still[looks], atol=0.01)
    np.testing.assert_allclose(blue[looks], still[looks], atol=0.01)
    assert np.abs(blue[columns("hues")] - still[columns("hues")]).max() > 0.5


def test_a_colour_is_readable_from_a_single_object_row():
    """A least-squares classifier on prepared rows of unseen videos; chance is about one sixth."""

    def rows(videos):
        features, colours = [], []
        for video in videos:
            made = scene.make_scene(video, shapes.SHORT)
            found = prepare(object_frames(render.render(made), 2), 0.0)
            tracks = [render.track(made, n) for n in range(len(made.things))]
            for t, slot in zip(*np.nonzero(found.mask), strict=True):
                middle = (found.boxes[t, slot, :2] + found.boxes[t, slot, 2:]) * shapes.SHORT.size / 2
                apart = [np.hypot(*(middle - (p.x[2 * t], p.y[2 * t]))) for p in tracks]
                features.append(found.features[t, slot])
                colours.append(made.things[int(np.argmin(apart))].colour)
        return np.array(features), np.array(colours)

    features, colours = rows(shapes.SHORT.videos("train")[:12])
    names = sorted(set(colours))
    targets = (colours[:, None] == names).astype(float)
    weights = np.linalg.lstsq(features, targets, rcond=None)[0]
    features, colours = rows(shapes.SHORT.videos("val")[:6])
    assert np.mean(np.array(names)[(features @ weights).argmax(axis=1)] == colours) > 0.9


# --- the file ---


def test_the_file_is_made_beside_the_others_which_keep_their_bytes(tmp_path):
    folder = shapes.ensure(tmp_path / "shapes", TINY)
    before = digests(folder)
    path = ensure_objects(folder, TINY)
    after = digests(folder)
    assert path == folder / "objects.h5"
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"objects.h5", "objects.json"}
    assert shapes.ensure(folder, TINY, verify=True) == folder  # the data set is still whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shapes"]


def test_it_holds_a_frame_per_feature_row_and_describes_itself(tiny, objects):
    with ObjectStore(objects, dim=DIM) as store, FeatureStore(tiny / "features.h5") as features:
        videos = [video for split in SPLITS for video in TINY.videos(split)]
        assert store.videos() == sorted(videos)
        assert check_objects(store, videos, DIM, OBJECTS) == []
        assert [store.length(video) for video in videos] == [features.length(video) for video in videos]
        assert (store.manifest.box_units, store.manifest.box_order) == ("normalised", "x1 y1 x2 y2")
        found = store["test-0001"]
    expected = object_frames(shapes.frames(tiny, "test-0001")[0], TINY.frames_per_row)
    np.testing.assert_allclose(found.features, expected.features, rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(found.boxes, expected.boxes)


def test_the_same_spec_gives_the_same_bytes_and_another_one_is_refused(objects, tmp_path):
    again = ensure_objects(tmp_path / "shapes", TINY)
    assert again.read_bytes() == objects.read_bytes()
    with pytest.raises(UserError, match="holds Shapes with train 3"):
        ensure_objects(tmp_path / "shapes")


def test_a_damaged_file_is_made_anew_and_a_sound_one_is_left_alone(objects, tmp_path):
    path = ensure_objects(tmp_path / "shapes", TINY)
    when = path.stat().st_mtime_ns
    assert ensure_objects(tmp_path / "shapes", TINY, verify=True).stat().st_mtime_ns == when
    path.write_bytes(path.read_bytes()[:-10])
    assert ensure_objects(tmp_path / "shapes", TINY).read_bytes() == objects.read_bytes()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert ensure_objects(tmp_path / "shapes", TINY, verify=True).read_bytes() == objects.read_bytes()
    (path.parent / "objects.json").unlink()  # as after a kill between the two files
    assert ensure_objects(tmp_path / "shapes", TINY).read_bytes() == objects.read_bytes()
    assert json.loads((path.parent / "objects.json").read_text())["bytes"] == path.stat().st_size


@pytest.mark.usefixtures("objects")
@pytest.mark.e2e
def test_of_several_processes_at_once_one_makes_it_and_all_find_it(tiny, tmp_path):
    command = [sys.executable, "-c", MAKE, str(tmp_path / "shapes")]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(3)]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert digests(tmp_path / "shapes")["objects.h5"] == digests(tiny)["objects.h5"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["shapes"]


@pytest.mark.slow
def test_opening_the_shapes_objects_of_a_configuration_makes_them(tmp_path):
    config = ObjectsConfig(
        path="shapes/objects.h5", dim=DIM, objects=OBJECTS, expected_manifest={"box_units": "normalised"}
    )
    with open_objects(config, tmp_path) as store:
        assert len(store.videos()) == 890
        assert (
            max(int((store[video].confidence > 0).sum(axis=1).max()) for video in store.videos()) <= OBJECTS
        )


def test_the_command_makes_the_objects_in_the_folder_of_the_data_set(tiny, tmp_path, answer, monkeypatch):
    from leorn.object_features import cli

    monkeypatch.setattr(cli, "SHORT", TINY)
    said = answer(cli.main, "shapes", "--data-root", tmp_path)
    assert said == (0, f"the objects of Shapes are in {tmp_path / 'shapes/objects.h5'}\n", "")
    assert (
        digests(tmp_path / "shapes")["objects.h5"] == digests(ensure_objects(tiny, TINY).parent)["objects.h5"]
    )
