"""Conversions that stop: what is left is proven before it is used, is nobody else's, and ends in the same bytes."""

import os
import signal
import sys

import h5py
import numpy as np
import pytest

from folders import digests
from leorn.object_features import convert as object_convert
from leorn.object_features.convert import convert_objects
from leorn.object_features.layouts import ObjectFrames, ObjectManifest
from leorn.object_features.store import ObjectStore
from leorn.object_features.writing import write_objects
from processes import launched, run_to_end
from vmr_common.errors import UserError
from vmr_common.features import conversion as convert
from vmr_common.features.store import FeatureStore, Manifest, write_features
from vmr_common.folder_lock import FolderLock

COUNT, PART = 10, 4
NOTE = "conversion.json"


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch):
    monkeypatch.setattr(convert, "PART_SIZE", PART)
    monkeypatch.setattr(object_convert, "PART_SIZE", PART)


def rows(number, seed=0):
    return np.random.default_rng([seed, number]).normal(size=(3, 4)).astype(np.float32)


def write_source(path, seed=0):
    write_features(path, ((f"v{n}", rows(n, seed)) for n in range(COUNT)), Manifest(extractor="toy"))
    return path


@pytest.fixture
def source(tmp_path):
    """A folder of features; every video a file."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(COUNT):
        np.save(folder / f"v{number}.npy", rows(number))
    return folder


def to_file(source, out, **options):
    with FeatureStore(source) as store:
        return convert.convert_features(store, out, Manifest(extractor="toy"), **options)


def stopped(source, out, after=PART * 2 + 1, **options):
    """A conversion that was interrupted; the parts that it leaves, and when they were written."""
    done = []

    def step(count):
        done.append(count)
        if len(done) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        to_file(source, out, step=step, **options)
    parts = sorted(out.with_name(f".{out.name}.parts").glob("*.h5"))
    for path in parts:
        os.utime(path, ns=(1, 1))
    return parts


def made_again(source, out, parts, **options):
    """Which of the parts a conversion makes again."""
    changed = []

    def step(count):
        changed.append([path.name for path in parts if path.stat().st_mtime_ns != 1])

    to_file(source, out, step=step, **options)
    assert not out.with_name(f".{out.name}.parts").exists()
    return changed[-1]


# --- kills ---

KILLED = """
import os, signal, sys
from vmr_common.features import conversion as convert
from vmr_common.features.store import FeatureStore, Manifest
convert.PART_SIZE = 4
left = int(sys.argv[3])
def count(event, arguments):
    global left
    step = event in ("os.rename", "os.remove", "os.rmdir")
    left -= step
    if step and not left:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
convert.convert_features(FeatureStore(sys.argv[1]), sys.argv[2], Manifest(extractor="toy"))
print("done")
"""


@pytest.mark.e2e
def test_a_conversion_killed_at_any_step_goes_on_to_the_same_bytes(tmp_path, source):
    whole = tmp_path / "whole.h5"
    to_file(source, whole)
    for moment in range(1, 99, 3):  # renames and deletions are the steps that anybody can see
        out = tmp_path / f"{moment}.h5"
        done = run_to_end([sys.executable, "-c", KILLED, source, out, str(moment)])
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert not out.exists() or out.read_bytes() == whole.read_bytes()
        to_file(source, out)
        assert out.read_bytes() == whole.read_bytes()
    assert moment > 12
    assert {path.suffix for path in tmp_path.iterdir()} == {"", ".h5"}  # no part and no partial file is left


def test_two_conversions_to_one_file_do_not_meet(tmp_path, source):
    program = (
        "import sys\nfrom vmr_common.features import conversion as convert\n"
        "from vmr_common.features.store import FeatureStore, Manifest\n"
        "convert.PART_SIZE = 4\n"
        "def step(n):\n    print(n, flush=True)\n    sys.stdin.readline()\n"
        "convert.convert_features(FeatureStore(sys.argv[1]), sys.argv[2], Manifest(), step=step)\n"
    )
    out = tmp_path / "out.h5"
    with launched([sys.executable, "-c", program, source, out]) as process:
        assert process.stdout.readline() == "1\n"
        with pytest.raises(UserError, match=rf"converting to out.h5, process {process.pid} on "):
            to_file(source, out)
        process.kill()
        process.communicate()
    assert to_file(source, out) == COUNT


# --- sources that change ---


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_source_that_changed_is_converted_as_it_is_now(tmp_path, source, dtype):
    out = tmp_path / "out.h5"
    parts = stopped(source, out, dtype=dtype)
    assert [path.name for path in parts] == ["000000.h5", "000001.h5"]
    changed = source / "v5.npy"  # of the second part; not to be seen by its size and time
    before = changed.stat()
    np.save(changed, rows(5, seed=1))
    os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert changed.stat().st_size == before.st_size
    assert made_again(source, out, parts, dtype=dtype) == ["000001.h5"]
    to_file(source, tmp_path / "fresh.h5", dtype=dtype)
    assert out.read_bytes() == (tmp_path / "fresh.h5").read_bytes()


def test_a_source_that_was_only_touched_or_renamed_costs_nothing(tmp_path, source):
    parts = stopped(source, tmp_path / "out.h5")
    for path in source.iterdir():
        os.utime(path)
    source.rename(tmp_path / "moved")
    assert made_again(tmp_path / "moved", tmp_path / "out.h5", parts) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: path.write_bytes(b"something else"),
        lambda path: write_features(path, [("v0", rows(7))], Manifest()),
        lambda path: h5py.File(path, "r+")["v1"].write_direct(rows(7)),
    ],
    ids=["cut", "no part", "of others", "changed"],
)
def test_a_part_that_is_not_what_its_sources_say_is_made_again(tmp_path, source, damage):
    parts = stopped(source, tmp_path / "out.h5")
    damage(parts[0])
    assert made_again(source, tmp_path / "out.h5", parts) == ["000000.h5"]
    with FeatureStore(tmp_path / "out.h5") as store:
        assert all(np.array_equal(store[f"v{n}"], rows(n)) for n in range(COUNT))


def test_parts_are_used_whatever_else_is_asked_for_as_far_as_they_hold_it(tmp_path, source):
    out = tmp_path / "out.h5"
    parts = stopped(source, out)
    assert made_again(source, out, parts, videos=[f"v{n}" for n in (*range(4), 9, 8, 7, 6, 5)]) == [
        "000001.h5"
    ]
    parts = stopped(source, out, dtype="float16")
    assert made_again(source, out, parts, dtype="float32") == ["000000.h5", "000001.h5"]
    stopped(source, out)
    assert to_file(source, out, videos=["v3"]) == 1  # too few for parts
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.h5"]


def test_objects_are_proven_too(tmp_path):
    rng = np.random.default_rng(0)

    def objects(seed):
        values = np.random.default_rng(seed).random((2, 3, 4), np.float32)
        return ObjectFrames(values, values[..., 0], np.sort(values, axis=-1))

    videos = {f"v{n}": objects(n) for n in range(COUNT)}
    write_objects(tmp_path / "in.h5", videos.items(), ObjectManifest(), "float32")

    def to_objects(step=None):
        with ObjectStore(tmp_path / "in.h5") as store:
            return convert_objects(store, tmp_path / "out.h5", ObjectManifest(), step=step)

    done = []

    def stop(count):
        done.append(count)
        if len(done) == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        to_objects(stop)
    videos["v5"] = ObjectFrames(
        videos["v5"].features, videos["v5"].confidence, rng.random((2, 3, 4), np.float32)
    )
    write_objects(tmp_path / "in.h5", videos.items(), ObjectManifest(), "float32")
    done.clear()
    assert to_objects(done.append) == COUNT
    assert done == [4, *[1] * 6]  # the first part is as it was
    with ObjectStore(tmp_path / "out.h5") as store:
        assert np.array_equal(store["v5"].boxes, videos["v5"].boxes)


@pytest.mark.parametrize("count", [3, COUNT])
def test_a_source_that_changes_meanwhile_ends_the_conversion(tmp_path, source, count):
    out = tmp_path / "out.h5"
    chosen = [f"v{n}" for n in range(count)]

    def change(done):
        np.save(source / "later.npy", rows(0))  # this one is nobody's concern
        np.save(source / "v1.npy", rows(1, seed=1)[:2])

    with pytest.raises(UserError, match=r"v1\.npy: changed while it was converted"):
        to_file(source, out, videos=chosen, step=change)
    assert not out.exists()
    assert to_file(source, out, videos=chosen) == count
    write_source(tmp_path / "in.h5")
    with pytest.raises(UserError, match=r"in\.h5: changed while it was converted"):
        to_file(tmp_path / "in.h5", out, step=lambda done: write_source(tmp_path / "in.h5", seed=1))
    assert to_file(tmp_path / "in.h5", out) == COUNT
    # what is written into a folder inside the source is no change of it
    assert to_file(source, source / "made/out.h5", videos=chosen) == count


# --- whose folder it is ---


def test_a_folder_that_no_conversion_made_is_left_alone(tmp_path, source):
    out, folder = tmp_path / "out.h5", tmp_path / ".out.h5.parts"
    (folder / "mine").mkdir(parents=True)
    (folder / "000000.h5").write_bytes(b"mine")
    before = digests(tmp_path)
    for note in (None, "{}", '["features"]', '{"what": "else"}'):
        if note is not None:
            (folder / NOTE).write_text(note)
            before = digests(tmp_path)
        with pytest.raises(UserError, match=r"\.out\.h5\.parts"):
            to_file(source, out)
        assert digests(tmp_path) == before


def test_files_of_others_in_the_folder_of_the_parts_stay(tmp_path, source):
    out = tmp_path / "out.h5"
    folder = stopped(source, out)[0].parent
    for name in ("notes.txt", "1.h5", ".000000.h5.backup"):
        (folder / name).write_text("mine")
    (folder / "sub").mkdir()
    (folder / "sub/000000.h5").write_text("mine")
    assert to_file(source, out) == COUNT
    assert set(digests(folder)) == {"notes.txt", "1.h5", ".000000.h5.backup", "sub/000000.h5"}


def test_links_are_never_followed(tmp_path, source):
    out, folder, elsewhere = tmp_path / "out.h5", tmp_path / ".out.h5.parts", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "000000.h5").write_text("mine")
    folder.symlink_to(elsewhere)
    with pytest.raises(UserError, match=r"expected a folder for the parts of a conversion"):
        to_file(source, out)
    folder.unlink()
    parts = stopped(source, out)
    parts[0].unlink()
    parts[0].symlink_to(elsewhere / "000000.h5")
    with pytest.raises(UserError, match=r"000000\.h5: is a symbolic link"):
        to_file(source, out)
    assert digests(elsewhere) == {"000000.h5": digests(elsewhere)["000000.h5"]}
    assert (elsewhere / "000000.h5").read_text() == "mine"
    assert not out.exists()


def test_a_lock_that_its_holder_has_deleted_is_no_lock(tmp_path):
    code = (
        "import os, sys\nfrom vmr_common.folder_lock import FolderLock\n"
        "real = os.open\n"
        "def late(path, *arguments):\n"
        "    handle = real(path, *arguments)\n"
        "    if str(path).endswith('.lock'):\n        os.unlink(path)\n"
        "    return handle\n"
        "os.open = late\nFolderLock(sys.argv[1], 'testing')\n"
    )
    done = run_to_end([sys.executable, "-c", code, tmp_path])
    assert "was at work there and has just ended" in done.stderr
    FolderLock(tmp_path, "testing").close()


def test_a_pipe_is_written_to_and_gets_no_folder_beside_it(tmp_path, source):
    os.mkfifo(tmp_path / "out")
    handle = os.open(tmp_path / "out", os.O_RDWR)
    try:
        assert to_file(source, tmp_path / "out") == COUNT
        (tmp_path / "out.h5").write_bytes(os.read(handle, 1 << 16))
    finally:
        os.close(handle)
    with FeatureStore(tmp_path / "out.h5") as store:
        assert np.array_equal(store["v3"], rows(3))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out", "out.h5"]
