"""The exact engine: changeable, and never wrong, whatever happens to its files or its writer."""

import json
import multiprocessing
import os
import random
import resource
import signal
import time

import numpy as np
import pytest
import torch

from processes import own_progress_bars
from search_toy import MemoryIndex
from vmr_common.errors import UserError
from vmr_search.engine.moment_index import Filter, VideoWindows
from vmr_search.engine.scan import scoring
from vmr_search.engine.scan.manifest import write_manifest
from vmr_search.engine.scan.scan_index import ScanIndex
from vmr_search.engine.scan.shards import BLOCK
from vmr_search.engine.scan.writer import Writer

pytestmark = pytest.mark.e2e  # real decoders, engines or processes

FORK = multiprocessing.get_context("fork")
SIZE = 16
MIDDLE = np.array([[3.0, 7.0]])


def drawn(rng, names, most=7, length=1.0, dtype=np.float16) -> list[VideoWindows]:
    """Videos of random windows and vectors in random directions."""
    made = []
    for name in names:
        start = rng.uniform(0, 50, rng.integers(1, most + 1))
        windows = np.stack([start, start + rng.uniform(0, 10, len(start))], axis=1)
        vectors = rng.normal(size=(len(start), SIZE))
        vectors *= length / np.linalg.norm(vectors, axis=1, keepdims=True)
        made.append(VideoWindows(name, 60.0, windows, vectors.astype(dtype)))
    return made


def assert_alike(found, wanted) -> None:
    """The same videos with the same scores; videos whose scores agree to the last digits may change places."""
    for mine, exact in zip(found, wanted, strict=True):
        scale = max([1.0, *(abs(one.best) for one in exact)])
        best = [[one.best for one in each] for each in (mine, exact)]
        np.testing.assert_allclose(*best, rtol=0, atol=1e-6 * scale)
        by_name = {one.video: one for one in exact}
        assert sum(one.video not in by_name for one in mine) <= len(exact) // 50
        for one in mine:
            if one.video in by_name:
                other = by_name[one.video]
                np.testing.assert_array_equal(one.windows, other.windows)
                np.testing.assert_allclose(one.scores, other.scores, rtol=0, atol=1e-6 * scale)
                assert one.duration == other.duration


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("native", [True, False], ids=["float16 product", "converted"])
def test_near_ties_are_told_apart_as_in_float32(tmp_path, monkeypatch, dtype, count, native):
    # torch has a float16 product on every processor, slow where the processor has none
    monkeypatch.setattr(scoring, "multiplies_half", lambda: native)
    monkeypatch.setattr(scoring, "_AT_ONCE", 5 * SIZE)
    rng = np.random.default_rng(3)
    queries = rng.normal(size=(count, SIZE)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    # videos in all directions around a query, at scores that float16 can hardly tell apart: its rounding moves some
    # across any border
    along = queries[rng.integers(count, size=2000)]
    beside = rng.normal(size=along.shape)
    beside -= (beside * along).sum(-1, keepdims=True) * along
    beside /= np.linalg.norm(beside, axis=-1, keepdims=True)
    cosine = rng.uniform(0.7, 0.702, size=(2000, 1))
    near = (cosine * along + np.sqrt(1 - cosine**2) * beside).astype(dtype)
    videos = [VideoWindows(f"v{n}", 10.0, MIDDLE, near[n : n + 1]) for n in range(2000)]
    index, plain = ScanIndex.create(tmp_path / "i", size=SIZE, dtype=dtype), MemoryIndex(SIZE)
    index.add(videos[:1300])
    index.add(videos[1300:])
    plain.add(videos)
    wanted = plain.search(queries, 2000)
    for n in range(20, 620, 40):
        for hits, exact in zip(index.search(queries, n), wanted, strict=True):
            best = [[one.best for one in each] for each in (hits, exact[:n])]
            np.testing.assert_allclose(*best, rtol=0, atol=1e-6)


def test_the_float16_product_is_taken_only_where_the_processor_has_one():
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: False)()
    assert supported or not scoring.multiplies_half()


FILTERS = {
    "all": Filter(),
    "windows": Filter(after=20.0, before=40.0, shortest=1.0, longest=5.0),
    "few videos": Filter(videos=frozenset(["v1", "v7", "v200", "elsewhere"]), after=10.0),
    "many videos": Filter(videos=frozenset(f"v{n}" for n in range(300))),
    "nothing": Filter(shortest=100.0),
}


@pytest.mark.parametrize("where", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize(
    ("dtype", "count", "length", "scale"),
    [
        ("float16", 1, 1.0, 1e-3),
        ("float16", 6, 1.0, 37.0),
        ("float32", 1, 1e6, 1e6),
        ("float16", 1, 3e4, 1e9),
    ],
)
def test_search_finds_exactly_what_scoring_everything_finds(tmp_path, where, dtype, count, length, scale):
    rng = np.random.default_rng(5)
    videos = drawn(rng, [f"v{n}" for n in range(400)], length=length, dtype=dtype)
    videos[50] = drawn(rng, ["long"], 3 * BLOCK, length, dtype)[0]
    index, plain = ScanIndex.create(tmp_path / "i", size=SIZE, dtype=dtype), MemoryIndex(SIZE)
    for part in (videos[:150], videos[150:151], videos[151:]):
        index.add(iter(part))
        plain.add(part)
    removed = [one.video for one in videos[100:200:3]]
    index.remove(removed)
    plain.remove(removed)
    queries = (rng.normal(size=(count, SIZE)) * scale).astype(np.float32)
    queries[-1] *= count != 6  # a sentence of no direction at all: every video is as good
    for n in (1, 10, 300):
        assert_alike(index.search(queries[:5], n, where), plain.search(queries[:5], n, where))
    assert index.durations() == plain.durations()


def test_of_equal_scores_the_video_that_was_added_first_comes_first(tmp_path, monkeypatch):
    monkeypatch.setattr("vmr_search.engine.scan.writer.MOST_SMALL", 3)
    monkeypatch.setattr("vmr_search.engine.scan.writer.SHARD_VIDEOS", 8)
    index, number = ScanIndex.create(tmp_path / "i", size=SIZE), iter(range(999))
    for count in (1, 8, 1, 1, 9, 1, 1, 1, 8, 1, 1):
        index.add(
            [
                VideoWindows(f"v{next(number)}", 10.0, MIDDLE, np.ones((1, SIZE), np.float16))
                for _ in range(count)
            ]
        )
    wanted = [f"v{n}" for n in range(33)]
    assert index.videos() == wanted
    assert [one.video for one in index.search(np.ones((1, SIZE), np.float32), 20)[0]] == wanted[:20]
    index.compact()
    assert index.videos() == wanted


def test_videos_can_be_added_replaced_and_removed_and_their_space_freed(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"v{n:03}" for n in range(90)]
    index, plain = ScanIndex.create(tmp_path / "i", size=SIZE), MemoryIndex(SIZE)
    for part in (names[:30], names[30:60]):
        for one in (index, plain):
            one.add(drawn(np.random.default_rng(len(one)), part))
    assert index.replace(drawn(rng, names[50:70])) == 20
    index.remove([names[3], names[45]])
    assert names[3] not in index
    assert len(index) == 68
    assert index.videos() == [n for n in names[:50] if n not in (names[3], names[45])] + names[50:70]
    size = sum(path.stat().st_size for path in index.folder.iterdir())
    index.compact(shard_videos=20)
    assert sum(path.stat().st_size for path in index.folder.iterdir()) < size
    assert [entry.videos for entry in index.manifest.shards] == [20, 20, 20, 8]
    assert index.add(drawn(rng, [names[3]])) == 1
    index.verify()
    for wrong in ([names[4], "elsewhere"], ["elsewhere"]):
        with pytest.raises(UserError, match="no video 'elsewhere'"):
            index.remove(wrong)
    assert names[4] in index
    for twice in ([names[4]], ["new", "new"]):
        with pytest.raises(UserError, match=f"holds video '{twice[0]}' already, or it is given twice"):
            index.add(drawn(rng, twice))


def test_what_is_added_is_written_as_it_comes_and_stays_where_the_rest_fails(tmp_path, monkeypatch):
    monkeypatch.setattr("vmr_search.engine.scan.writer.SHARD_BYTES", 1000)
    folder = tmp_path / "i"
    index = ScanIndex.create(folder, size=SIZE)

    def given():
        for number, one in enumerate(drawn(np.random.default_rng(0), [f"v{n}" for n in range(90)])):
            if number == 60:
                assert len(ScanIndex(folder)) > 40
                raise KeyboardInterrupt
            yield one

    with pytest.raises(KeyboardInterrupt):
        index.add(given())
    index.refresh()
    assert index.videos() == [f"v{n}" for n in range(len(index))]
    assert len(index.manifest.shards) > 5


# ---- damage ------------------------------------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path) -> ScanIndex:
    made = ScanIndex.create(tmp_path / "i", size=SIZE)
    rng = np.random.default_rng(1)
    for first in (0, 40, 80):
        made.add(drawn(rng, [f"v{n}" for n in range(first, first + 40)]))
    return made


def answers(folder) -> list:
    """What a search says, from all of the data."""
    queries = np.random.default_rng(2).normal(size=(3, SIZE)).astype(np.float32)
    found = ScanIndex(folder).search(queries, 30)
    return [[(one.video, one.windows.tolist(), one.scores.tolist()) for one in each] for each in found]


def test_a_flipped_bit_or_a_cut_in_any_file_is_an_error_and_never_a_wrong_answer(index):
    wanted = answers(index.folder)
    rng = random.Random(0)
    kinds = {
        "manifest": index.folder / "manifest.json",
        "table": next(index.folder.glob("[0-9a-f]*.json")),
        "vectors": next(index.folder.glob("*.bin")),
    }
    detected = dict.fromkeys(kinds, 0)
    for kind, path in kinds.items():
        whole = path.read_bytes()
        places = [0, 5, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(7))]
        damaged = []
        for place in places:
            flipped = bytearray(whole)
            flipped[place] ^= 1 << rng.randrange(8)
            damaged.append(bytes(flipped))
        damaged += [whole[:cut] for cut in (0, 1, len(whole) // 2, len(whole) - 1)]
        damaged.append(whole + b"\0")
        for content in damaged:
            path.unlink()  # the fixture's index keeps its mapping
            path.write_bytes(content)
            try:
                found = answers(index.folder)
            except UserError:
                detected[kind] += 1
            else:
                assert found == wanted, f"{kind}: a wrong answer"
        path.write_bytes(whole)
    assert answers(index.folder) == wanted
    assert all(count >= 12 for count in detected.values()), detected


@pytest.mark.parametrize("where", [Filter(), Filter(videos=frozenset(["v1", "v50", "v90"]))])
def test_a_change_under_an_open_index_is_seen_by_its_next_search(index, where):
    query = np.ones((1, SIZE), np.float32)
    path = next(index.folder.glob("*.bin"))
    index.search(query, 3, where)
    with path.open("r+b") as file:
        file.seek(200)
        byte = file.read(1)
        file.seek(200)
        file.write(bytes([byte[0] ^ 4]))
    for opened in (index, ScanIndex(index.folder)):
        with pytest.raises(UserError, match="damaged"):
            opened.search(query, 3, where)
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match="cut short"):
        index.search(query, 3, where)


def test_a_missing_file_is_an_error(index):
    next(index.folder.glob("*.bin")).unlink()
    with pytest.raises(UserError, match="missing, but the index lists it"):
        ScanIndex(index.folder)


def test_a_manifest_of_another_format_is_refused(index):
    path = index.folder / "manifest.json"
    values = json.loads(path.read_text())
    values["format"] = 99
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="index format 99, expected 2"):
        ScanIndex(index.folder)
    write_manifest(index.folder, index.manifest)
    assert len(ScanIndex(index.folder)) == 120


# ---- processes ---------------------------------------------------------------------------------------------------


def video(name: str) -> VideoWindows:
    """A video whose vectors follow from its name alone."""
    vectors = np.random.default_rng(int(name[1:])).normal(size=(3, SIZE))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return VideoWindows(
        name, 10.0, np.array([(0.0, 4.0), (3.0, 7.0), (6.0, 10.0)]), vectors.astype(np.float16)
    )


def add(index: ScanIndex, names) -> None:
    index.add(map(video, names))


def empty(folder) -> ScanIndex:
    return ScanIndex.create(folder, size=SIZE)


def add_for_ever(folder, reported, first) -> None:
    own_progress_bars()
    index = ScanIndex(folder)
    for number in range(first, first + 10_000, 3):
        videos = [f"v{n}" for n in range(number, number + 3)]
        add(index, videos)
        os.write(reported, f"{number}\n".encode())
        if number % 5 == 0:
            index.compact(shard_videos=64)


def named(line: str) -> set[str]:
    return {f"v{int(line) + n}" for n in range(3)}


@pytest.mark.e2e
def test_killed_at_any_point_a_writer_loses_nothing_that_it_reported(tmp_path):
    folder = tmp_path / "i"
    reader = empty(folder)  # stays open all the time
    rng = random.Random(1)
    reported: set[str] = set()
    for attempt in range(20):
        reading, writing = os.pipe()
        child = FORK.Process(target=add_for_ever, args=(folder, writing, attempt * 100_000))
        child.start()
        os.close(writing)
        with os.fdopen(reading) as lines:
            for _ in range(rng.randrange(1, 6)):
                reported |= named(lines.readline())
                reader.refresh()
                assert reported <= set(reader.videos())
                one = rng.choice(sorted(reported))
                assert reader.search(video(one).vectors[1:2], 1)[0][0].video == one
            time.sleep(rng.uniform(0.0, 0.1))
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            for line in lines:
                reported |= named(line)
        index = ScanIndex(folder)
        index.verify()
        assert reported <= set(index.videos())
        for shard in index._shards:
            for found in shard.all_live():
                np.testing.assert_array_equal(found.vectors, video(found.video).vectors)
    assert len(reported) >= 60
    index.compact()
    listed = {entry.name for entry in index.manifest.shards}
    assert {path.stem for path in folder.glob("*.bin")} == listed
    assert not list(folder.glob(".*.partial"))


def read_for_ever(folder, stop, results) -> None:
    query = video("v0").vectors[1:2]
    count = 0
    try:
        while not stop.is_set():
            index = ScanIndex(folder)
            for _ in range(3):
                best = index.search(query, 1)[0][0]
                assert best.video == "v0", best
                assert best.windows[best.scores.argmax()].tolist() == [3.0, 7.0], best
                count += 1
    except BaseException as error:
        results.put(repr(error))
        raise
    results.put(count)


@pytest.mark.e2e
def test_readers_are_not_disturbed_by_a_writer(tmp_path):
    folder = tmp_path / "i"
    index = empty(folder)
    add(index, ["v0"])
    stop, results = FORK.Event(), FORK.Queue()
    readers = [FORK.Process(target=read_for_ever, args=(folder, stop, results)) for _ in range(2)]
    for reader in readers:
        reader.start()
    end = time.monotonic() + 3
    number = 1
    while time.monotonic() < end:
        videos = [f"v{n}" for n in range(number, number + 5)]
        add(index, videos)
        index.remove(videos[:2])
        if number % 4 == 1:
            index.compact(shard_videos=64)
        number += 5
    stop.set()
    found = [results.get(timeout=60) for _ in readers]
    for reader in readers:
        reader.join()
    assert all(isinstance(count, int) and count > 0 for count in found), found
    assert number > 5


def test_one_writer_at_a_time(tmp_path):
    folder = tmp_path / "i"
    index = empty(folder)
    with Writer(folder), pytest.raises(UserError, match="writing to this index, process"):
        add(index, ["v1"])
    add(index, ["v1"])
    assert index.videos() == ["v1"]


def fill_the_disk(folder, results) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    videos = [f"v{n}" for n in range(1, 1000)]
    try:
        add(ScanIndex(folder), videos)
    except UserError as error:
        results.put(str(error))
    else:
        results.put("no error")


def test_a_full_disk_is_a_clear_error_and_leaves_the_index_as_it_was(tmp_path):
    folder = tmp_path / "i"
    add(empty(folder), ["v0"])
    results = FORK.Queue()
    child = FORK.Process(target=fill_the_disk, args=(folder, results))
    child.start()
    message = results.get(timeout=60)
    child.join()
    assert "cannot write" in message
    index = ScanIndex(folder)
    index.verify()
    assert index.videos() == ["v0"]
    assert not list(folder.glob(".*.partial"))
