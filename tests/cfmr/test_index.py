"""The index of a collection: exact, changeable, and never wrong, whatever happens to its files or its writer."""

import dataclasses
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cfmr.index import scan
from cfmr.index.commands import _example, _with_features
from cfmr.index.corpus import measure
from cfmr.index.encoder import Encoder
from cfmr.index.manifest import read_manifest, write_manifest
from cfmr.index.shards import BLOCK
from cfmr.index.video_index import VideoIndex
from processes import own_progress_bars, ranks
from vmr_common.errors import UserError
from vmr_common.metrics import iou, nms
from vmr_common.types import Query
from vmr_train import distributed
from vmr_train.splits import SplitConfig

FORK = multiprocessing.get_context("fork")
QUERIES = ["word1 word2", "word3", "word4 word5 word6 word7", "word8 word9", "word10 word2 word3", "word20"]
MOMENTS = [(0.0, 0.4), (0.3, 0.7), (0.6, 1.0)]
CONCEPTS, WIDTH = 2, 8


@pytest.fixture
def index(tmp_path, encoder, store, durations) -> VideoIndex:
    return VideoIndex.build(tmp_path / "index", encoder, store, durations, shard_videos=40)


def by_hand(index, queries: torch.Tensor, k: int, threshold: float) -> list[list[tuple[str, int, float]]]:
    """The same answers from nothing but the definition: all scores, suppression per video, one sort."""
    answers = []
    for query in queries:
        found = []
        for shard in index._shards:
            scores = shard.vectors.astype(np.float32) @ query.numpy()
            windows = np.broadcast_to(index.moments, (*scores.shape, 2))
            kept = nms(windows, threshold, scores=scores)
            for video, row in shard.rows.items():
                found += [(video, int(p), float(scores[row, p])) for p in kept[row] if p >= 0]
        answers.append(sorted(found, key=lambda hit: -hit[2])[:k])
    return answers


def unit_vectors(rng, *shape: int) -> np.ndarray:
    """Flattened unit concepts ``(..., CONCEPTS * WIDTH)`` in random directions."""
    values = rng.normal(size=(*shape, CONCEPTS, WIDTH))
    values /= np.linalg.norm(values, axis=-1, keepdims=True)
    return values.reshape(*shape, -1).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("native", [True, False], ids=["float16 product", "converted"])
def test_near_ties_are_told_apart_as_in_float32(tmp_path, monkeypatch, dtype, count, native):
    # torch has a float16 product on every processor, slow where the processor has none
    monkeypatch.setattr(scan, "multiplies_half", lambda: native)
    monkeypatch.setattr(scan, "_AT_ONCE", 5 * CONCEPTS * WIDTH)
    rng = np.random.default_rng(3)
    queries = unit_vectors(rng, count)
    # videos in all directions around a query, at scores that float16 can hardly tell apart: its rounding moves some
    # across any border
    along = queries[rng.integers(count, size=2000)].reshape(-1, CONCEPTS, WIDTH)
    beside = rng.normal(size=along.shape)
    beside -= (beside * along).sum(-1, keepdims=True) * along
    beside /= np.linalg.norm(beside, axis=-1, keepdims=True)
    cosine = rng.uniform(0.7, 0.702, size=(2000, 1, 1))
    near = (cosine * along + np.sqrt(1 - cosine**2) * beside).reshape(2000, 1, -1)
    index = VideoIndex.create(
        tmp_path / "i", model="synthetic", moments=MOMENTS[:1], size=CONCEPTS * WIDTH, dtype=dtype
    )
    names = [f"v{n}" for n in range(2000)]
    for part in (slice(0, 1300), slice(1300, 2000)):
        index.add_vectors(names[part], dict.fromkeys(names, 10.0), near[part].astype(dtype))
    for k in range(20, 620, 40):
        wanted = by_hand(index, torch.from_numpy(queries), k, 0.5)
        for hits, exact in zip(index.search_vectors(torch.from_numpy(queries), k), wanted, strict=True):
            np.testing.assert_allclose(
                [hit.score for hit in hits], [score for *_, score in exact], rtol=0, atol=1e-6
            )


def test_the_float16_product_is_taken_only_where_the_processor_has_one():
    supported = getattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: False)()
    assert supported or not scan.multiplies_half()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("count", [1, 6])
def test_search_finds_exactly_what_scoring_everything_finds(tmp_path, dtype, count):
    rng = np.random.default_rng(5)
    moments = [(start / 10, end / 10) for start in range(10) for end in range(start + 1, 11, 3)]
    index = VideoIndex.create(
        tmp_path / "i", model="synthetic", moments=moments, size=CONCEPTS * WIDTH, dtype=dtype
    )
    durations = {f"v{n}": 10.0 + n for n in range(400)}
    names = list(durations)
    for part in (names[:150], names[150:151], names[151:]):
        index.add_vectors(part, durations, unit_vectors(rng, len(part), len(moments)))
    index.remove(names[100:200:3])
    queries = torch.from_numpy(unit_vectors(rng, count))
    for k, threshold in ((1, 0.5), (10, 0.5), (300, 0.2)):
        found = index.search_vectors(queries, k, nms=threshold)
        for hits, wanted in zip(found, by_hand(index, queries, k, threshold), strict=True):
            # scores that agree to the last digits may change places
            np.testing.assert_allclose(
                [hit.score for hit in hits], [score for *_, score in wanted], atol=1e-6
            )
            swapped = [n for n, hit in enumerate(hits) if hit.video != wanted[n][0]]
            assert len(swapped) <= len(hits) // 50
            for hit, (video, proposal, _) in zip(hits, wanted, strict=True):
                if hit.video == video:
                    moment = index.moments[proposal] * durations[video]
                    np.testing.assert_allclose([hit.start, hit.end], moment, atol=1e-9)


def test_search_by_sentence_needs_nothing_but_the_index(tmp_path, index):
    moved = tmp_path / "elsewhere"
    shutil.copytree(index.folder, moved)
    assert VideoIndex.open(moved).search(QUERIES, 5) == index.search(QUERIES, 5)


def test_search_in_one_video_is_the_models_own_ranking(index, encoder, store):
    vectors = encoder.encode_videos([store["v007"]])[0]
    query = encoder.encode_queries(QUERIES[:1])[0]
    scores = (vectors @ query).numpy()
    hit = index.search(QUERIES[:1], 1, videos=["v007"])[0][0]
    assert hit.video == "v007"
    assert hit.score == pytest.approx(scores.max(), abs=2e-3)
    proposal = np.abs(index.moments * store.length("v007") - [hit.start, hit.end]).sum(axis=1).argmin()
    assert scores[proposal] == pytest.approx(hit.score, abs=2e-3)


def test_moments_of_one_video_overlap_at_most_as_much_as_asked_for(index):
    for hits in index.search(QUERIES, 200, nms=0.3):
        for video in {hit.video for hit in hits}:
            windows = np.array([[hit.start, hit.end] for hit in hits if hit.video == video])
            overlap = iou(windows[:, None], windows[None], union="true") - np.eye(len(windows))
            assert overlap.max(initial=0) <= 0.3 + 1e-9


def test_videos_are_encoded_alike_alone_and_together(encoder, store):
    together = encoder.encode_videos([store[video] for video in store.videos()[:8]])
    alone = torch.cat([encoder.encode_videos([store[video]]) for video in store.videos()[:8]])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_videos_can_be_added_and_removed_and_their_space_freed(tmp_path, encoder, store, durations):
    names = store.videos()
    index = VideoIndex.build(tmp_path / "i", encoder, store, durations, videos=names[:30], shard_videos=12)
    assert index.videos() == names[:30]
    assert index.add(store, durations, videos=names[20:60]) == 30
    assert index.remove([names[3], names[45]]) == 2
    assert names[3] not in index
    assert len(index) == 58
    before = index.search(QUERIES, 50)
    assert not {names[3], names[45]} & {hit.video for hits in before for hit in hits}
    size = sum(path.stat().st_size for path in (tmp_path / "i" / "shards").iterdir())
    index.compact(shard_videos=20)
    assert sum(path.stat().st_size for path in (tmp_path / "i" / "shards").iterdir()) < size
    for hits, earlier in zip(index.search(QUERIES, 50), before, strict=True):
        np.testing.assert_allclose([h.score for h in hits], [h.score for h in earlier], atol=1e-6)
    assert len(index.manifest.shards) == 3
    assert index.add(store, durations, videos=[names[3]]) == 1
    index.verify()
    with pytest.raises(UserError, match="no video 'v099'"):
        index.remove(["v000", "v099"])
    assert "v000" in index


def test_videos_that_are_there_are_kept_or_replaced_one_state_after_the_other(
    tmp_path, encoder, store, durations
):
    names, folder = store.videos()[:9], tmp_path / "i"
    index = VideoIndex.build(folder, encoder, store, durations, videos=names[:6], shard_videos=4)
    others = dict(zip(names, store.videos()[9:18], strict=True))

    class Changed:
        manifest, name = None, "changed"

        def __getitem__(self, video):
            return store[others[video]]

    def best(video):
        return index.search(QUERIES[:1], 1, videos=[video])[0][0].score

    def whole(count):
        assert sorted(VideoIndex.open(folder).videos()) == sorted({*names[:6], *names[3 : 3 + count]})
        if count == 4:
            raise KeyboardInterrupt

    before = {video: best(video) for video in names[:6]}
    assert index.add(Changed(), durations, videos=names[3:6]) == 0
    assert {video: best(video) for video in names[:6]} == before
    with pytest.raises(KeyboardInterrupt):
        index.add(Changed(), durations, videos=names[3:9], replace=True, shard_videos=2, report=whole)
    index.reopen()
    assert [video for video in names[:6] if best(video) != before[video]] == names[3:6]
    assert index.add(Changed(), durations, videos=names[3:9], replace=True, shard_videos=2) == 6
    assert sorted(index.videos()) == names
    index.verify()


def test_building_again_does_nothing_and_another_model_is_refused(
    index, encoder, other_encoder, store, durations
):
    state = read_manifest(index.folder)
    VideoIndex.build(index.folder, encoder, store, durations)
    assert read_manifest(index.folder) == state
    with pytest.raises(UserError, match="built by model"):
        VideoIndex.open(index.folder, other_encoder)
    with pytest.raises(UserError, match="built by model"):
        VideoIndex.build(index.folder, other_encoder, store, durations)
    with pytest.raises(UserError, match="holds float16 vectors, asked for float32"):
        VideoIndex.build(index.folder, encoder, store, durations, dtype="float32")


def test_recall_counts_what_the_annotations_can_tell(index, durations, caplog):
    texts = {"v001": QUERIES[0], "v002": QUERIES[1], "v003": "qwertz"}

    def asked(glance, moments=()):
        facts = {"moments": moments, "glance": glance}
        return [
            Query(id=video, video=video, text=text, duration=durations[video], **facts)
            for video, text in texts.items()
        ]

    found = measure(index, asked(1.0))
    assert (found.queries, found.located, found.right) == (3, 3, "holds the glance")
    holding = np.mean(
        [start * durations["v001"] <= 1 <= end * durations["v001"] for start, end in index.moments]
    )
    assert found.moment_chance[1] == pytest.approx(holding / len(index), rel=0.2)
    assert "no word that the model knows in 1 of 3 queries, which are misses: v003 ('qwertz')" in caplog.text
    hidden = measure(index, asked(None))
    assert (hidden.video, hidden.moment, hidden.located) == (found.video, {}, 0)
    assert hidden.text().endswith("no row of moments: the annotations hold neither moments nor glances")
    mixed = measure(index, [*asked(1.0, [[0.0, 1.0]])[:1], *asked(1.0)[1:]])
    assert (mixed.located, mixed.right) == (1, "IoU >= 0.5")
    assert mixed.text().endswith("rows of moments: 1 of the sentences, those with a target")


def test_wrong_use_is_told_in_one_line(tmp_path, index, store, durations):
    with pytest.raises(UserError, match="not an index"):
        VideoIndex.open(tmp_path)
    with pytest.raises(UserError, match="no word of the query 'qwertz'"):
        index.search(["qwertz"])
    with pytest.raises(UserError, match=r"holds no video 'nowhere' \(.*'v0"):
        index.search(QUERIES[:1], videos=["nowhere"])
    with pytest.raises(UserError, match="k must be at least 1"):
        index.search(QUERIES[:1], 0)
    index.remove(["v005"])
    without = {video: seconds for video, seconds in durations.items() if video != "v005"}
    with pytest.raises(UserError, match="duration of 1 video is not known, for example 'v005'"):
        index.add(store, without)
    with pytest.raises(UserError, match="expected \\(1, 15, 48\\)"):
        index.add_vectors(["new"], {"new": 1.0}, np.zeros((1, 2, 3), np.float16))
    with pytest.raises(UserError, match="'v001' already"):
        index.add_vectors(["v001"], {"v001": 1.0}, np.zeros((1, 15, 48), np.float16))


def test_features_of_another_kind_are_refused(tmp_path, index):
    from vmr_common.features.store import FeatureStore, Manifest, write_features

    path = tmp_path / "other.h5"
    write_features(path, [("new", np.ones((9, 5), np.float32))], Manifest(extractor="another", stride_s=1.0))
    with pytest.raises(UserError, match="other features than the index is made of: extractor is 'another'"):
        index.add(FeatureStore(path), {"new": 9.0})
    assert index.add(FeatureStore(path), {"new": 9.0}, allow_other_features=True) == 1


# ---- damage ------------------------------------------------------------------------------------------------------


def answers(folder, queries) -> list:
    """What a user gets: by the index's own model, from all of its data."""
    index = VideoIndex.open(folder)
    return index.search(queries, 30)


def test_a_flipped_bit_or_a_cut_in_any_file_is_an_error_and_never_a_wrong_answer(index):
    wanted = answers(index.folder, QUERIES)
    rng = random.Random(0)
    kinds = {
        "manifest": index.folder / "manifest.json",
        "table": next(index.folder.glob("shards/*.json")),
        "vectors": next(index.folder.glob("shards/*.npy")),
        "model": index.folder / "model.safetensors",
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
                found = answers(index.folder, QUERIES)
            except UserError:
                detected[kind] += 1
            else:
                assert found == wanted, f"{kind}: a wrong answer"
        path.write_bytes(whole)
    assert answers(index.folder, QUERIES) == wanted
    assert all(count >= 12 for count in detected.values()), detected


def test_a_change_under_an_open_index_is_seen_by_its_next_search(index):
    path = next(index.folder.glob("shards/*.npy"))
    index.search(QUERIES[:1])
    with path.open("r+b") as file:
        file.seek(200)
        byte = file.read(1)
        file.seek(200)
        file.write(bytes([byte[0] ^ 4]))
    with pytest.raises(UserError, match="damaged"):
        index.search(QUERIES[:1])
    with pytest.raises(UserError, match="damaged"):
        VideoIndex.open(index.folder).search(QUERIES[:1])
    with path.open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(UserError, match="cut short"):
        index.search(QUERIES[:1])


def test_a_missing_file_is_an_error(index):
    next(index.folder.glob("shards/*.npy")).unlink()
    with pytest.raises(UserError, match="missing, but the index lists it"):
        VideoIndex.open(index.folder)


def test_an_index_of_another_type_of_numbers_is_never_begun(tmp_path):
    with pytest.raises(UserError, match="float16 or float32, not 'int8'"):
        VideoIndex.create(tmp_path / "i", model="synthetic", moments=MOMENTS, size=WIDTH, dtype="int8")
    assert not (tmp_path / "i").exists()


def test_an_example_for_the_next_command_generates_no_data(tmp_path):
    splits = SimpleNamespace(test=SplitConfig(split="shapes/test"))
    encoder = SimpleNamespace(config=SimpleNamespace(data=SimpleNamespace(splits=splits)))
    assert _example(encoder, tmp_path) == '"..."'
    assert not list(tmp_path.iterdir())


# ---- processes ---------------------------------------------------------------------------------------------------


def vectors_of(videos) -> np.ndarray:
    """Unit concepts that follow from the video's name alone."""
    found = []
    for video in videos:
        values = np.random.default_rng(int(video[1:])).normal(size=(len(MOMENTS), CONCEPTS, WIDTH))
        found.append((values / np.linalg.norm(values, axis=-1, keepdims=True)).reshape(len(MOMENTS), -1))
    return np.array(found).astype(np.float16)


def empty(folder) -> VideoIndex:
    return VideoIndex.create(folder, model="synthetic", moments=MOMENTS, size=CONCEPTS * WIDTH)


def add_for_ever(folder, reported, first) -> None:
    own_progress_bars()
    index = VideoIndex.open(folder)
    for number in range(first, first + 10_000, 3):
        videos = [f"v{n}" for n in range(number, number + 3)]
        index.add_vectors(videos, dict.fromkeys(videos, 10.0), vectors_of(videos))
        os.write(reported, f"{number}\n".encode())
        if number % 5 == 0:
            index.compact(shard_videos=64)


def named(line: str) -> set[str]:
    return {f"v{int(line) + n}" for n in range(3)}


@pytest.mark.e2e
def test_killed_at_any_point_a_writer_loses_nothing_that_it_reported(tmp_path):
    folder = tmp_path / "i"
    empty(folder)
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
            time.sleep(rng.uniform(0.0, 0.1))
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            for line in lines:
                reported |= named(line)
        index = VideoIndex.open(folder)
        index.verify()
        assert reported <= set(index.videos())
        for shard in index._shards:
            np.testing.assert_array_equal(shard.vectors[shard.live], vectors_of(shard.rows))
    assert len(reported) >= 60
    index.compact()
    listed = {entry.name for entry in index.manifest.shards}
    assert {path.name.split(".")[0] for path in (folder / "shards").iterdir()} == listed
    assert not list(folder.glob(".*.partial"))


def read_for_ever(folder, stop, results) -> None:
    query = torch.from_numpy(vectors_of(["v0"])[0, 1:2].astype(np.float32))
    count = 0
    try:
        while not stop.is_set():
            index = VideoIndex.open(folder)
            for _ in range(3):
                best = index.search_vectors(query, 1)[0][0]
                assert best.video == "v0", best
                assert (best.start, best.end) == (3.0, 7.0), best
                count += 1
    except BaseException as error:
        results.put(repr(error))
        raise
    results.put(count)


@pytest.mark.e2e
def test_readers_are_not_disturbed_by_a_writer(tmp_path):
    folder = tmp_path / "i"
    index = empty(folder)
    index.add_vectors(["v0"], {"v0": 10.0}, vectors_of(["v0"]))
    stop, results = FORK.Event(), FORK.Queue()
    readers = [FORK.Process(target=read_for_ever, args=(folder, stop, results)) for _ in range(2)]
    for reader in readers:
        reader.start()
    end = time.monotonic() + 3
    number = 1
    while time.monotonic() < end:
        videos = [f"v{n}" for n in range(number, number + 5)]
        index.add_vectors(videos, dict.fromkeys(videos, 10.0), vectors_of(videos))
        index.remove(videos[:2])
        if number % 4 == 1:
            index.compact(shard_videos=BLOCK)
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
    from cfmr.index.writer import Writer

    with Writer(folder), pytest.raises(UserError, match="writing to this index, process"):
        index.add_vectors(["v1"], {"v1": 10.0}, vectors_of(["v1"]))
    index.add_vectors(["v1"], {"v1": 10.0}, vectors_of(["v1"]))
    assert index.videos() == ["v1"]


def fill_the_disk(folder, results) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    videos = [f"v{n}" for n in range(1, 1000)]
    try:
        VideoIndex.open(folder).add_vectors(videos, dict.fromkeys(videos, 10.0), vectors_of(videos))
    except UserError as error:
        results.put(str(error))
    else:
        results.put("no error")


def test_a_full_disk_is_a_clear_error_and_leaves_the_index_as_it_was(tmp_path):
    folder = tmp_path / "i"
    empty(folder).add_vectors(["v0"], {"v0": 10.0}, vectors_of(["v0"]))
    results = FORK.Queue()
    child = FORK.Process(target=fill_the_disk, args=(folder, results))
    child.start()
    message = results.get(timeout=60)
    child.join()
    assert "cannot write" in message
    index = VideoIndex.open(folder)
    index.verify()
    assert index.videos() == ["v0"]
    assert not list((folder / "shards").glob("*.partial"))


def build_as(place, folder, checkpoint, store, durations, results) -> None:
    os.environ |= place
    torch.set_num_threads(1)
    with distributed.session("cpu"):
        encoder = Encoder.load(checkpoint, "cpu")
        index = VideoIndex.build(folder, encoder, store, durations, shard_videos=20)
        found = index.search(QUERIES, 10, shared=True)
        results.put((place["RANK"], [[dataclasses.asdict(hit) for hit in hits] for hits in found]))


@pytest.mark.e2e
def test_two_processes_build_and_search_as_one(tmp_path, checkpoint, encoder, store, durations):
    alone = VideoIndex.build(tmp_path / "alone", encoder, store, durations, shard_videos=20)
    wanted = [[dataclasses.asdict(hit) for hit in hits] for hits in alone.search(QUERIES, 10)]
    store.close()
    results = FORK.Queue()
    arguments = (tmp_path / "both", checkpoint, store, durations, results)
    children = [FORK.Process(target=build_as, args=(place, *arguments)) for place in ranks(2)]
    for child in children:
        child.start()
    found = dict(results.get(timeout=120) for _ in children)
    for child in children:
        child.join()
    assert sorted(VideoIndex.open(tmp_path / "both").videos()) == sorted(alone.videos())
    for answer in found.values():
        for hits, expected in zip(answer, wanted, strict=True):
            assert [hit["video"] for hit in hits] == [hit["video"] for hit in expected]
            np.testing.assert_allclose([h["score"] for h in hits], [h["score"] for h in expected], atol=1e-5)


def test_a_manifest_of_another_format_is_refused(index):
    path = index.folder / "manifest.json"
    values = json.loads(path.read_text())
    values["format"] = 99
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match="index format 99, expected 1"):
        VideoIndex.open(index.folder)
    write_manifest(index.folder, index.manifest)
    assert len(VideoIndex.open(index.folder)) == 90


def test_videos_without_features_are_left_out_and_named(caplog):
    assert _with_features(["a", "b"], {"a"}) == ["a"]
    assert "1 of 2 videos are left out, without features: 'b'" in caplog.text
