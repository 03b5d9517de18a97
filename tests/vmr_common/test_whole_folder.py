"""Folders that are replaced as a whole: by whom they were written, and what a kill leaves of them."""

import json
import os
import signal
import sys

import numpy as np
import pytest

import vmr_shapes as shapes
from folders import digests
from leorn.object_features.layouts import ObjectFrames, ObjectManifest
from leorn.object_features.shapes_file import ensure_objects
from leorn.object_features.writing import write_objects
from processes import run_to_end
from rgnet.streams import write_concat
from vmr_common.errors import UserError
from vmr_common.features.store import FeatureStore, Manifest, write_features
from vmr_common.types import Query
from vmr_common.whole_folder import held, whole_folder
from vmr_shapes import ShapesSpec

pytestmark = pytest.mark.e2e

TINY = ShapesSpec(train=2, val=1, test=1, duration=(6.0, 8.0), size=40, feature_dim=8, word_dim=6)


def own(name):
    return name in ("a", "b")


def write(folder, text):
    with held(folder, own), whole_folder(folder, own) as fresh:
        (fresh / "a").write_text(text)
        (fresh / "b").write_text(text)


KILLED = """
import os, signal, sys
from pathlib import Path
from vmr_common.whole_folder import held, whole_folder
own = lambda name: name in ("a", "b")
folder, left = Path(sys.argv[1]), int(sys.argv[2])
def count(event, arguments):
    global left
    step = event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir")
    left -= step
    if step and not left:
        os.kill(os.getpid(), signal.SIGKILL)
with held(folder, own):
    sys.addaudithook(count)
    with whole_folder(folder, own) as fresh:
        (fresh / "a").write_text("new")
        (fresh / "b").write_text("new")
"""


def test_killed_at_any_step_the_old_folder_or_the_new_one_is_there(tmp_path):
    folder, seen = tmp_path / "out", []
    for moment in range(1, 99):
        write(folder, "old")
        done = run_to_end([sys.executable, "-c", KILLED, folder, str(moment)])
        with held(folder, own):  # whoever comes next clears what was left
            pass
        found = {path.name: path.read_text() for path in folder.iterdir()}
        assert found in ({"a": "old", "b": "old"}, {"a": "new", "b": "new"}), done.stderr
        assert os.listdir(tmp_path) == ["out"]
        seen.append(found["a"])
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert seen == sorted(seen, reverse=True)
    assert seen.count("old") >= 4
    assert seen.count("new") >= 3


def test_a_failure_leaves_the_old_folder(tmp_path):
    write(tmp_path / "out", "old")

    def fail():
        with held(tmp_path / "out", own), whole_folder(tmp_path / "out", own) as fresh:
            (fresh / "a").write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tmp_path / "out/a").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_what_others_call_alike_is_not_cleared(tmp_path):
    for name in (".out.backup_1.partial", ".out.backup12.partial"):
        for inner in ("", "new", "old", "new/deep"):
            (tmp_path / name / inner).mkdir(exist_ok=True, parents=True)
            (tmp_path / name / inner / "thesis.tex").write_text("all of it")
    (tmp_path / "far").mkdir()
    (tmp_path / "far/a").write_text("mine")
    (tmp_path / ".out.abcdefgh.partial").symlink_to(tmp_path / "far")
    (tmp_path / ".out.backup12.partial/new/a").symlink_to(tmp_path / "far/a")
    (tmp_path / ".out.ab.partial").mkdir()
    (tmp_path / ".out.ab.partial/a").write_text("mine")
    (tmp_path / "out").mkdir()
    before = digests(tmp_path)
    write(tmp_path / "out", "new")
    after = digests(tmp_path)
    assert {name: after[name] for name in before} == before
    assert (tmp_path / ".out.backup12.partial/new/a").is_symlink()


# --- streams ---


def join(folder, names=("train",)):
    store = folder.parent / "f.h5"
    write_features(store, [("v", np.ones((5, 3))), ("w", np.ones((5, 3)))], Manifest(stride_s=1.0))
    queries = {
        name: [Query(id="q", video=video, text="red", duration=5.0)]
        for name, video in zip(names, "vw", strict=False)
    }
    with FeatureStore(store) as features:
        return write_concat(folder, queries, features)


def test_streams_replace_streams_and_nothing_else(tmp_path):
    folder = tmp_path / "long"
    join(folder, ("train", "test"))
    join(folder)
    assert sorted(os.listdir(folder)) == ["features.h5", "streams.json", "train.jsonl"]
    before = digests(folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"long: holds notes\.txt, which is not of joined streams"):
        join(folder)
    (folder / "notes.txt").rename(folder / "test.jsonl")  # a name that concat has, but did not write here
    with pytest.raises(UserError, match=r"holds test\.jsonl"):
        join(folder)
    (folder / "test.jsonl").unlink()
    (folder / "train.jsonl").rename(tmp_path / "far.jsonl")
    (folder / "train.jsonl").symlink_to(tmp_path / "far.jsonl")
    with pytest.raises(UserError, match=r"train\.jsonl: is a symbolic link"):
        join(folder)
    assert digests(folder) == before


@pytest.mark.parametrize("about", [None, "{}", '{"what": "mine"}', "["])
def test_features_of_ones_own_are_not_taken_for_streams(tmp_path, about):
    folder = tmp_path / "mine"
    folder.mkdir()
    write_features(folder / "features.h5", [("v", np.ones((5, 3)))], Manifest())
    (folder / "train.jsonl").write_text("{}")
    if about is not None:
        (folder / "streams.json").write_text(about)
    before = digests(folder)
    with pytest.raises(UserError, match="which is not of joined streams; name another folder"):
        join(folder)
    assert digests(folder) == before
    assert sorted(os.listdir(tmp_path)) == ["f.h5", "mine"]


# --- Shapes ---


def test_a_data_set_of_ones_own_is_not_taken_for_a_damaged_shapes_folder(tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in ("train.jsonl", "test.jsonl", "features.h5", "words.txt"):
        (folder / name).write_text("mine")
    before = digests(folder)
    for more in ({}, {"meta.json": '{"made": "by me"}'}, {"meta.json": "[", "checksums.json": '{"a": 1}'}):
        for name, text in more.items():
            (folder / name).write_text(text)
            before = digests(folder)
        with pytest.raises(
            UserError, match=r"neither meta\.json nor checksums\.json says that this is Shapes data"
        ):
            shapes.ensure(folder, TINY)
        assert digests(folder) == before


def test_links_in_a_damaged_shapes_folder_are_left_alone(tmp_path):
    folder = shapes.ensure(tmp_path / "shapes", TINY)
    whole = digests(folder)
    (folder / "words.txt").rename(tmp_path / "far.txt")
    (folder / "words.txt").symlink_to(tmp_path / "far.txt")
    assert shapes.ensure(folder, TINY) == folder  # nothing is to be done
    (tmp_path / "far.txt").write_text("mine")
    with pytest.raises(UserError, match=r"words\.txt: is a symbolic link"):
        shapes.ensure(folder, TINY)
    assert (tmp_path / "far.txt").read_text() == "mine"
    (folder / "words.txt").unlink()
    shapes.ensure(folder, TINY)
    assert digests(folder) == whole


def test_objects_that_are_not_of_shapes_stay(tmp_path):
    folder = shapes.ensure(tmp_path / "shapes", TINY)
    path = folder / "objects.h5"
    values = np.ones((2, 3, 4), np.float32)
    write_objects(
        path, [("v", ObjectFrames(values, values[..., 0], values))], ObjectManifest(detector="mine")
    )
    for content in (path.read_bytes(), b"something else"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="not the object features of Shapes"):
            ensure_objects(folder, TINY)
        assert path.read_bytes() == content
    (folder / "objects.json").write_text(json.dumps({"generator": "mine"}))
    with pytest.raises(UserError, match="not the object features of Shapes"):
        ensure_objects(folder, TINY)
    path.unlink()
    ensure_objects(folder, TINY)


@pytest.mark.parametrize(
    "change",
    [
        {"spec": None},
        {"spec": {"train": 10**12}},
        {"spec": {"size": "big"}},
        {"spec": {"duration": [1, 2, 3]}},
        {"spec": {"colour": 1}},
        {"held_out": 5},
        {"generator": [[]]},
    ],
)
def test_a_description_of_other_types_is_one_line(tmp_path, change):
    folder = shapes.ensure(tmp_path / "shapes", TINY)
    meta = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**meta, **change}))
    with pytest.raises(UserError, match=r"meta\.json") as caught:
        shapes.read_spec(folder)
    assert "\n" not in str(caught.value)
