"""An index deletes and replaces what it can prove to be its own, and its writers can be killed or run out of space."""

import contextlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time

import numpy as np
import pytest

from folders import digests
from processes import own_progress_bars
from search_toy import WordRetriever
from vmr_common.errors import UserError
from vmr_common.io import write_text
from vmr_search.engine.moment_index import VideoWindows
from vmr_search.engine.scan import writer
from vmr_search.engine.scan.scan_index import ScanIndex
from vmr_search.engine.scan.writer import Writer
from vmr_search.folder import create, is_index, open_index

pytestmark = pytest.mark.e2e

FORK = multiprocessing.get_context("fork")
SIZE = 16


def video(number: int) -> VideoWindows:
    """A video whose windows follow from its number alone."""
    rng = np.random.default_rng(number)
    count = 2 + number % 3
    vectors = rng.normal(size=(count, SIZE))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    windows = np.stack([np.arange(count), np.arange(count) + 2.5], axis=1)
    return VideoWindows(f"v{number}", 10.0, windows, vectors.astype(np.float16))


def add(index: ScanIndex, *numbers: int) -> None:
    index.add(map(video, numbers))


def new(folder) -> ScanIndex:
    return ScanIndex.create(folder, size=SIZE)


def assert_whole(index: ScanIndex) -> None:
    index.verify()
    for shard in index._shards:
        for found in shard.all_live():
            written = video(int(found.video[1:]))
            np.testing.assert_array_equal(found.vectors, written.vectors)
            np.testing.assert_array_equal(found.windows, written.windows)


# ---- ownership -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        ".hidden",
        "manifest.json",
        "shards/train-000000.tar",
        f"{'0' * 24}.bin",
        ".upload.partial",
    ],
)
def test_a_folder_that_holds_something_else_is_refused_and_left_as_it_was(tmp_path, name):
    folder = tmp_path / "photos"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("{}")
    before = digests(tmp_path)
    with pytest.raises(UserError, match=r"not an index|not a file of an index"):
        new(folder)
    assert digests(tmp_path) == before


@pytest.mark.parametrize("name", [".lock", "manifest.json"])
@pytest.mark.parametrize("begun", [False, True])
def test_a_link_in_the_folder_is_refused_and_nothing_is_made_where_it_points(tmp_path, name, begun):
    folder, elsewhere = tmp_path / "i", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / f"{'a' * 24}.npy").write_text("precious")
    folder.mkdir()
    if begun:
        add(new(folder), 1)
        (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(elsewhere / "new")
    before = digests(elsewhere)
    with pytest.raises(UserError, match="symbolic link"), Writer(folder):
        pass
    assert digests(elsewhere) == before


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "i").write_text("a file")
    with pytest.raises(UserError, match="cannot hold an index"):
        new(tmp_path / "i")


def test_only_shards_that_nobody_lists_are_swept_and_only_in_the_form_of_their_names(tmp_path):
    folder = tmp_path / "i"
    index = new(folder)
    add(index, 1, 2)
    stray = "0123456789abcdef01234567"
    kept = [
        "notes.txt",
        "0123.bin",
        f"{stray}.bin.bak",
        f"{stray}0.bin",
        f"{stray.upper()}.bin",
        f"{stray}.txt",
        f".{stray}.txt.0badcafe.partial",
        ".upload.0badcafe.partial",
        ".upload.partial",
    ]
    swept = [f"{stray}.bin", f"{stray}.json", f".{stray}.bin.0badcafe.partial"]
    for name in kept + swept:
        (folder / name).write_text("precious")
    (tmp_path / "precious").write_text("precious")
    (folder / f"{'b' * 24}.bin").symlink_to(tmp_path / "precious")
    (folder / f"{'c' * 24}.bin").mkdir()
    add(index, 3)
    index.compact()
    assert not [name for name in swept if (folder / name).exists()]
    assert all((folder / name).read_text() == "precious" for name in kept)
    assert (folder / f"{'b' * 24}.bin").is_symlink()
    assert (tmp_path / "precious").exists()
    assert (folder / f"{'c' * 24}.bin").is_dir()
    assert_whole(index)


def test_a_second_writer_is_told_who_writes(tmp_path):
    index = new(tmp_path / "i")
    with (
        Writer(index.folder),
        pytest.raises(UserError, match=rf"writing to this index, process {os.getpid()} on "),
    ):
        add(index, 1)


class SavingRetriever(WordRetriever):
    """A retriever with a model to copy."""

    def save(self, path) -> bool:
        write_text(path, "a model")
        return True


def begin_for_ever(folder, went) -> None:
    own_progress_bars()
    for number in range(1000):
        os.write(went, b".")
        create(folder / str(number), SavingRetriever())


def test_what_a_killed_writer_began_is_begun_again(tmp_path):
    rng = random.Random(4)
    for attempt in range(5):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        reading, writing = os.pipe()
        child = FORK.Process(target=begin_for_ever, args=(folder, writing))
        child.start()
        os.close(writing)
        with os.fdopen(reading, "rb", buffering=0) as went:
            went.read(1)
            time.sleep(rng.uniform(0, 0.05))
            os.kill(child.pid, signal.SIGKILL)
            child.join()
        for begun in folder.iterdir():
            if not is_index(begun):
                create(begun, SavingRetriever())
            open_index(begun).verify()
            assert not list(begun.rglob(".*.partial"))


# ---- interruptions -------------------------------------------------------------------------------------------------


def change_for_ever(folder, tell) -> None:
    """Adds, removes, merges and compacts; says before each step which videos the index will hold."""
    own_progress_bars()
    index = ScanIndex(folder)
    rng = random.Random(len(index))
    numbers = {int(video[1:]) for video in index.videos()}
    for number in range(max(numbers, default=0) + 1, 10_000):
        step = rng.choice(["add", "add", "add", "remove", "compact"])
        if step == "add" or not numbers:
            numbers.add(number)
            change = lambda number=number: add(index, number)  # noqa: E731
        elif step == "remove":
            gone = rng.choice(sorted(numbers))
            numbers.remove(gone)
            change = lambda gone=gone: index.remove([f"v{gone}"])  # noqa: E731
        else:
            change = lambda: index.compact(5)  # noqa: E731
        os.write(tell, (json.dumps(sorted(numbers)) + "\n").encode())
        change()
        os.write(tell, b"done\n")


def test_killed_in_any_change_an_index_is_what_it_was_or_what_it_becomes(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "MOST_SMALL", 3)
    folder = tmp_path / "i"
    add(new(folder), 0)
    rng = random.Random(2)
    before = after = [0]
    for _ in range(12):
        reading, telling = os.pipe()
        child = FORK.Process(target=change_for_ever, args=(folder, telling))
        child.start()
        os.close(telling)
        with os.fdopen(reading) as lines:
            for _ in range(2 * rng.randrange(1, 8)):
                line = lines.readline()
                before, after = (after, after) if line == "done\n" else (after, json.loads(line))
            time.sleep(rng.uniform(0.0, 0.05))
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            for line in lines:
                before, after = (after, after) if line == "done\n" else (after, json.loads(line))
        index = ScanIndex(folder)
        found = sorted(int(video[1:]) for video in index.videos())
        assert found in (before, after)
        assert_whole(index)
        before = after = found


def compact_on_a_full_disk(folder, results) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    try:
        ScanIndex(folder).compact()
    except UserError as error:
        results.put(str(error))
    else:
        results.put("no error")


def test_a_disk_that_fills_up_in_compaction_leaves_the_index_and_no_more_files(tmp_path):
    index = new(tmp_path / "i")
    for first in range(0, 300, 60):
        add(index, *range(first, first + 60))
    before = digests(index.folder)
    results = FORK.Queue()
    child = FORK.Process(target=compact_on_a_full_disk, args=(index.folder, results))
    child.start()
    message = results.get(timeout=60)
    child.join()
    assert "cannot write" in message
    assert {**digests(index.folder), ".lock": ""} == {**before, ".lock": ""}
    assert_whole(ScanIndex(index.folder))


# ---- many small additions ------------------------------------------------------------------------------------------


def as_left_by_others(folder, count: int) -> ScanIndex:
    """An index with a shard per video, which this program merges as they are added."""
    index = new(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "MOST_SMALL", count)
        patch.setattr(writer, "SHARD_VIDEOS", 1)
        add(index, *range(count))
    assert len(index.manifest.shards) == count
    return index


def with_few_descriptors(work, folder, results) -> None:
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 12, used + 12))
    try:
        results.put(work(folder))
    except Exception as error:
        results.put(error)


def search_and_compact(folder) -> tuple[int, str, int]:
    before = len(os.listdir("/proc/self/fd"))
    index = ScanIndex(folder)
    best = index.search(video(33).vectors[:1], 1)[0][0].video
    opened = len(os.listdir("/proc/self/fd")) - before
    index.verify()
    index.compact()
    return opened, best, len(index.manifest.shards)


def exhaust(folder) -> str:
    held = []
    with contextlib.suppress(OSError):
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    try:
        ScanIndex(folder)
    except UserError as error:
        return str(error)
    finally:
        for handle in held:
            os.close(handle)
    return "opened"


def in_a_child(work, folder):
    results = FORK.Queue()
    child = FORK.Process(target=with_few_descriptors, args=(work, folder, results))
    child.start()
    found = results.get(timeout=120)
    child.join()
    return found


def test_an_open_index_holds_no_descriptors_however_many_shards_it_has(tmp_path):
    index = as_left_by_others(tmp_path / "i", 40)
    assert in_a_child(search_and_compact, index.folder) == (0, "v33", 1)
    assert len(ScanIndex(index.folder)) == 40


def test_too_many_open_files_are_called_that_and_not_damage(tmp_path):
    index = new(tmp_path / "i")
    add(index, 1)
    message = in_a_child(exhaust, index.folder)
    assert "Too many open files" in message
    assert "damaged" not in message


def bytes_moved() -> int:
    with open("/proc/self/io") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith(("rchar", "wchar")))


def test_adding_videos_one_by_one_keeps_shards_few_and_costs_work_in_proportion(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "SHARD_VIDEOS", 16)
    monkeypatch.setattr(writer, "MOST_SMALL", 4)
    index, costs = ScanIndex.create(tmp_path / "i", size=20_000), {}
    window, vector = np.array([[0.0, 4.0]]), np.full((1, 20_000), 0.01, np.float16)
    start = bytes_moved()
    for number in range(64):
        index.add([VideoWindows(f"v{number}", 10.0, window, vector)])
        costs[number + 1] = bytes_moved() - start
        assert sum(entry.live < 8 for entry in index.manifest.shards) <= 4
    assert costs[64] <= 5 * costs[16]
    assert len(index.manifest.shards) <= 4 + 64 // 8
    assert index.videos() == [f"v{n}" for n in range(64)]
    index.verify()


def read_for_ever(folder, stop, results) -> None:
    query, searches = video(0).vectors[:1], 0
    try:
        while not stop.is_set():
            index = ScanIndex(folder)
            for _ in range(3):
                assert index.search(query, 1)[0][0].video == "v0"
                index.refresh()
                searches += 1
    except BaseException as error:
        results.put(repr(error))
        raise
    results.put(searches)


def test_readers_are_not_disturbed_by_merges(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "SHARD_VIDEOS", 8)
    monkeypatch.setattr(writer, "MOST_SMALL", 2)
    index = new(tmp_path / "i")
    add(index, 0)
    stop, results = FORK.Event(), FORK.Queue()
    reader = FORK.Process(target=read_for_ever, args=(index.folder, stop, results))
    reader.start()
    for number in range(1, 40):
        add(index, number)
    stop.set()
    assert results.get(timeout=60) > 0
    reader.join()


def test_an_index_that_was_replaced_by_another_one_is_not_searched_on(tmp_path):
    index = new(tmp_path / "i")
    add(index, 1)
    shutil.rmtree(index.folder)
    ScanIndex.create(index.folder, size=SIZE, identity="another")
    with pytest.raises(UserError, match="replaced by an index of another kind"):
        index.refresh()
    with pytest.raises(UserError, match="vectors of another model"):
        ScanIndex.open(index.folder, size=SIZE, identity="that one")
