"""What is LanceDB's own: several writers, killed ones, small additions, the inverted file, foreign folders."""

import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest

from search_toy import MemoryIndex
from vmr_common.errors import UserError
from vmr_search.engine import lance_table
from vmr_search.engine.lance import LanceIndex
from vmr_search.engine.moment_index import Filter, VideoWindows

pytestmark = pytest.mark.e2e  # real decoders, engines or processes

lancedb = pytest.importorskip("lancedb")
SIZE = 16


def some(names, *, seed=0, windows=3):
    rng = np.random.default_rng(seed)
    starts = np.arange(windows, dtype=np.float64)
    moments = np.stack([starts, starts + 1], 1)
    return [
        VideoWindows(name, float(windows), moments, rng.normal(size=(windows, SIZE)).astype(np.float32))
        for name in names
    ]


@pytest.fixture
def index(tmp_path):
    return LanceIndex.create(tmp_path / "index", size=SIZE, dtype="float32")


@pytest.mark.parametrize("metric", ["dot", "cosine"])
def test_the_inverted_file_finds_videos_with_exact_scores(index, monkeypatch, metric):
    """Trained when the table has grown, and anew when it has grown further; new windows are found before that."""
    monkeypatch.setattr(lance_table, "INDEXED_FROM", 300)
    plain = MemoryIndex(SIZE)
    for start in (0, 120, 600):
        videos = some([f"v{start + number}" for number in range(120 if not start else 480)], seed=start)
        if metric == "cosine":  # vectors of one length
            for video in videos:
                video.vectors[:] /= np.linalg.norm(video.vectors, axis=1, keepdims=True)
        index.add(videos)
        plain.add(videos)
    assert index._state.inverted == (round(np.sqrt(3 * 600) / 2), metric)
    late = some(["late"], seed=5)
    index.add(late)
    plain.add(late)
    queries = np.concatenate(
        [3 * late[0].vectors[:1], np.random.default_rng(0).normal(size=(5, SIZE))]
    ).astype("f4")
    for where in (Filter(), Filter(after=1.5), Filter(videos=frozenset(plain.videos()[:1070]))):
        for mine, theirs in zip(
            index.search(queries, 5, where), plain.search(queries, 5, where), strict=True
        ):
            assert len(mine) == 5
            true = {video.video: video for video in theirs}
            assert len({video.video for video in mine} & true.keys()) >= 4
            for video in mine:
                if video.video in true:
                    np.testing.assert_allclose(video.scores, true[video.video].scores, rtol=1e-5, atol=1e-5)
    assert index.search(queries, 5)[0][0].video == "late"
    assert len(index.search(queries, 1081)[1]) == 1081  # asks on until there are so many
    index.remove(["late"])
    index.compact()
    assert index.search(queries, 1)[0][0].video != "late"


def test_writers_at_the_same_time_lose_nothing(index):
    """Of two that add the same video, at most one says that it did; what was said to be there is there, once."""
    added, errors = set(), []

    def write(number):
        mine = LanceIndex.open(index.place, size=SIZE)
        for turn in range(5):
            for name in (f"own-{number}-{turn}", f"shared-{turn}"):
                try:
                    mine.add(some([name]))
                    added.add(name)
                except UserError as error:
                    errors.append(str(error))

    writers = [threading.Thread(target=write, args=(number,)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    index.refresh()
    assert added <= set(index.videos())
    assert {f"own-{number}-{turn}" for number in range(3) for turn in range(5)} <= added
    assert all("shared" in error for error in errors)
    found = index.search(np.ones((1, SIZE), np.float32), 100)[0]
    assert sorted(video.video for video in found) == sorted(index.videos())
    assert {len(video.scores) for video in found} == {3}


def test_a_reader_of_a_dropped_version_goes_on_with_the_newest(index):
    index.add(some(["a", "b"]))
    reader = LanceIndex.open(index.place, size=SIZE)
    index.replace(some(["a"], seed=1))
    index.compact()
    query = np.ones((1, SIZE), np.float32)
    for mine, theirs in zip(reader.search(query, 2)[0], index.search(query, 2)[0], strict=True):
        np.testing.assert_array_equal(mine.scores, theirs.scores)


@pytest.mark.parametrize("count", [70, pytest.param(1100, marks=pytest.mark.slow)])
def test_small_additions_exhaust_nothing(index, count):
    for number in range(count):
        index.add(some([f"v{number}"], seed=number))
    assert len(index) == count
    assert len(os.listdir("/proc/self/fd")) < 100
    assert index._state.table.stats()["fragment_stats"]["num_fragments"] <= lance_table.MOST_SMALL + 2
    assert len(index.search(np.ones((1, SIZE), np.float32), count)[0]) == count


def test_foreign_and_damaged_folders_are_named(index, tmp_path):
    index.add(some(["a", "b"]))
    for file in (index.place / "windows.lance" / "data").iterdir():
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    foreign = tmp_path / "foreign"
    lancedb.connect(foreign).create_table("windows", [{"video": "a", "vector": [0.0] * SIZE}])
    empty = tmp_path / "empty"
    empty.mkdir()
    cases = [
        (lambda: LanceIndex.open(index.place, size=SIZE).verify(), "cannot read"),
        (lambda: LanceIndex.open(foreign, size=SIZE), "not one of windows"),
        (lambda: LanceIndex.create(foreign, size=SIZE), "already"),
        (lambda: LanceIndex.open(empty, size=SIZE), "not an index"),
        (lambda: LanceIndex.open("nothing://bucket/x", size=SIZE), "nothing://bucket/x"),
    ]
    for do, named in cases:
        with pytest.raises(UserError, match=named) as error:
            do()
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("where", "column", "value", "said"),
    [
        ("nth = 1", "start_s", "-5.0", r"damaged, holds the window \[-5\.0, 2\.0\]"),
        ("nth = 1", "nth", "NULL", "rows without nth"),
        ("nth = 1", "number", "NULL", "rows without number"),
        ("nth = 0", "number", "NULL", "rows without number"),
        ("nth = 0", "video", "NULL", "rows without video"),
        ("nth = 0", "duration", "1e300", "damaged, video 'a' has number .*, duration 1e.300"),
    ],
)
def test_rows_that_were_never_written_are_one_line(index, where, column, value, said):
    index.add(some(["a"]))
    lancedb.connect(index.place).open_table("windows").update(where=where, values_sql={column: value})
    with pytest.raises(UserError, match=said):
        LanceIndex.open(index.place, size=SIZE).verify()
    if column == "start_s":
        with pytest.raises(UserError, match=said):
            LanceIndex.open(index.place, size=SIZE).search(np.ones((1, SIZE), np.float32), 1, exact=True)


def test_a_panic_of_the_library_is_one_line_and_a_fault_of_ours_stays_one():
    panic = type("RustPanic", (Exception,), {"__module__": "library"})
    with pytest.raises(UserError, match=r"table \(out of range\)"), lance_table.asking("table"):
        raise panic("out of range")
    with pytest.raises(TypeError), lance_table.asking("table"):
        raise TypeError


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lancedb", None)
    with pytest.raises(UserError, match=r"pip install 'vmr-search\[lance\]'"):
        LanceIndex.create(tmp_path / "index", size=SIZE)


WRITER = """
import os, sys
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import numpy as np
from vmr_search.engine import lance_table
from vmr_search.engine.lance import LanceIndex
from vmr_search.engine.moment_index import VideoWindows
place, number, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
index = LanceIndex.open(place, size=16)
lance_table.INDEXED_FROM = count
moments = np.tile([0.0, 1.0], (count, 1))
index.replace([VideoWindows("long", 1.0, moments, np.random.default_rng(0).normal(size=(count, 16)).astype("f4"))])
print("+ long", flush=True)
for turn in range(10**6):
    name = f"{number}-{turn}"
    index.add([VideoWindows(name, 1.0, moments[:3], np.full((3, 16), turn, np.float32))])
    index.replace([VideoWindows("always", 1.0, moments[:3], np.full((3, 16), turn, np.float32))])
    if turn % 7 == 6:
        index.remove([name])
    print("-" if turn % 7 == 6 else "+", name, flush=True)
"""


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_writers_lose_nothing_that_was_acknowledged(index, kills):
    """They run on one core with one thread, where LanceDB itself waits for ever when it makes an index."""
    index.add(some(["always"]))
    there, rng = {"always"}, np.random.default_rng(0)
    one_thread = os.environ | {"LANCE_CPU_THREADS": "1", "LANCE_IO_THREADS": "1"}
    for number in range(kills):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(index.place), str(number), "400"],
            stdout=subprocess.PIPE,
            text=True,
            env=one_thread,
        )
        hung = threading.Timer(120, process.kill)
        hung.start()
        told = [process.stdout.readline() for _ in range(int(rng.integers(4, 12)))]
        killer = threading.Timer(float(rng.uniform(0, 0.1)), process.send_signal, [signal.SIGKILL])
        killer.start()
        told += process.stdout.read().splitlines()
        process.wait()
        hung.cancel()
        index.refresh()
        assert index._state.inverted.partitions == 10
        for sign, video in map(str.split, told):
            (there.add if sign == "+" else there.discard)(video)
        found = {video.video: len(video.scores) for video in index.search(np.ones((1, SIZE), "f4"), 10**4)[0]}
        assert there <= found.keys() == set(index.videos())
        assert len(found) <= len(there) + 1 + number  # the one that was being written
        assert found.pop("long") == 400
        assert set(found.values()) == {3}
    index.verify()
