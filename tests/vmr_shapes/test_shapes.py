"""Shapes: exact, reproducible, honest (features know nothing but pixels), and safe to generate."""

import collections
import dataclasses
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import vmr_shapes as shapes
from folders import digests
from vmr_common import metrics
from vmr_common.errors import UserError
from vmr_common.evaluation.baselines import ConstantWindowBaseline
from vmr_common.features.checking import check_features
from vmr_common.features.store import FeatureStore
from vmr_common.splits.objects import read_objects
from vmr_common.text.tokens import tokenize
from vmr_common.text.vectors import WordVectors
from vmr_shapes import generate, language, render, scene
from vmr_shapes.features import Projection, statistics
from vmr_shapes.spec import ACTIONS, SPLITS

pytestmark = pytest.mark.e2e  # the data set is generated

TINY = shapes.ShapesSpec(train=3, val=1, test=2, duration=(16.0, 18.0))
FILES = {"train.jsonl", "val.jsonl", "test.jsonl", "features.h5", "words.txt", "meta.json", "checksums.json"}
ENSURE = """
import sys
from vmr_shapes import SHORT, ShapesSpec, ensure
small = ShapesSpec(train=3, val=1, test=2, duration=(16.0, 18.0))
ensure(sys.argv[1], SHORT if sys.argv[2] == "full" else small)
"""


def start(folder, size):
    return subprocess.Popen([sys.executable, "-c", ENSURE, str(folder), size], stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return shapes.ensure(tmp_path_factory.mktemp("data") / "shapes", TINY)


@pytest.fixture(scope="module")
def scenes():
    """The scenes of the full data set (no pixels), by split."""
    return {
        split: [scene.make_scene(v, shapes.SHORT) for v in shapes.SHORT.videos(split)] for split in SPLITS
    }


@pytest.fixture(scope="module")
def queries():
    return {split: shapes.queries(split) for split in SPLITS}


# --- the same everywhere ---


def test_the_same_spec_gives_the_same_bytes_in_every_file(tiny, tmp_path):
    assert digests(shapes.ensure(tmp_path / "again", TINY)) == digests(tiny)
    assert set(digests(tiny)) == FILES


def test_another_seed_gives_other_videos(tiny, tmp_path):
    other = shapes.ensure(tmp_path / "other", dataclasses.replace(TINY, seed=1))
    first, second = (shapes.frames(folder, "train-0000")[0] for folder in (tiny, other))
    assert first.shape != second.shape or not np.array_equal(first, second)


def test_pixels_statistics_and_sentences_are_the_ones_of_this_generator_version():
    # on another machine or numpy too; whoever changes them on purpose raises GENERATOR and these digests
    spec = shapes.SHORT
    videos = ["train-0000", "train-0639", "val-0042", "test-0000", "test-0149"]
    frames = [render.render(scene.make_scene(video, spec)) for video in videos]
    rows = [statistics(f, spec.frames_per_row) for f in frames]
    told = [(q.id, q.text, q.moments.tolist(), q.glance) for q in shapes.queries("val")]
    digests = [
        hashlib.sha256(b"".join(part)).hexdigest()[:16]
        for part in (
            [f.tobytes() for f in frames],
            [r.astype("<i4").tobytes() for r in rows],
            [json.dumps(told).encode()],
        )
    ]
    assert digests == ["66c07016555894f8", "71bdcc829c0582e1", "d552bc0cd6f40e9b"]


# --- honest ---


def test_features_follow_from_the_frames_and_the_stored_constants_alone(tiny):
    meta = json.loads((tiny / "meta.json").read_text())
    projection = Projection.drawn(**meta["standardisation"], dim=TINY.feature_dim, seed=TINY.seed)
    with FeatureStore(tiny / "features.h5") as store:
        assert store.manifest.weights_hash == projection.digest()
        for split in SPLITS:
            for video in TINY.videos(split):
                pictures, _ = shapes.frames(tiny, video)
                assert np.array_equal(store[video], projection(statistics(pictures, TINY.frames_per_row)))


def test_constants_of_the_features_come_from_training_videos_only(tiny, tmp_path):
    fewer = shapes.ensure(tmp_path / "fewer", dataclasses.replace(TINY, test=1))
    with FeatureStore(tiny / "features.h5") as one, FeatureStore(fewer / "features.h5") as two:
        assert all(np.array_equal(one[v], two[v]) for v in two.videos())


def test_other_sentences_leave_the_features_untouched(tiny, tmp_path):
    other = shapes.ensure(tmp_path / "other", dataclasses.replace(TINY, sentence_seed=1))
    assert digests(other)["features.h5"] == digests(tiny)["features.h5"]
    assert digests(other)["train.jsonl"] != digests(tiny)["train.jsonl"]


def test_features_are_finite_and_of_the_order_of_one(tiny):
    with FeatureStore(tiny / "features.h5") as store:
        assert (
            list(
                check_features(
                    store, [v for s in SPLITS for v in TINY.videos(s)], dim=128, min_rows=32
                ).lines()
            )
            == []
        )
        values = np.concatenate([store[v] for v in store.videos()])
    assert values.dtype == np.float32
    assert 0.1 < np.abs(values).mean() < 2


def test_a_feature_row_stands_for_half_a_second(tiny):
    with FeatureStore(tiny / "features.h5") as store:
        for query in read_objects(tiny / "train.jsonl").queries:
            assert store.length(query.video) == query.duration / 0.5
        assert (store.manifest.stride_s, store.manifest.fps) == (0.5, 4.0)


# --- exact ---


def test_nothing_moves_outside_the_actions_but_things_that_come_and_go(scenes):
    moving = collections.defaultdict(list)
    for made in [*scenes["train"][:30], *scenes["test"][:10]]:
        frames = render.render(dataclasses.replace(made, background=(200, 200)))
        changed = (frames[1:] != frames[:-1]).any(axis=(1, 2, 3))
        active = np.zeros(made.frames, bool)
        for event in made.events:
            active[event.first : event.last] = True
            moving[event.action].append(changed[max(event.first - 1, 0) : event.last - 1].mean())
        # the frame after blinking or shaking brings the thing back
        after = {e.last for e in made.events if e.action in ("blink", "shake")}
        after |= {max(0, e.first - render.PRESENCE) for e in made.events}
        after |= {e.last + render.PRESENCE for e in made.events}
        still = [t for t in range(1, made.frames) if not active[t] and t not in after]
        assert not changed[np.array(still) - 1].any()
    assert set(moving) == set(ACTIONS)
    assert {a: v for a, v in moving.items() if np.mean(v) < (0.45 if a == "blink" else 0.9)} == {}


def test_a_sentence_fits_exactly_one_action_of_its_video(scenes):
    spec = shapes.SHORT
    for split in SPLITS:
        for made in scenes[split]:
            for sentence in language.sentences(made, spec):
                assert matching_events(made, sentence.text) == [sentence.event], (made.video, sentence.text)


def test_a_sentence_of_a_long_video_fits_exactly_one_of_its_many_actions():
    spec = shapes.LONG
    for video in (*spec.videos("train")[:12], *spec.videos("test")[:12]):
        made = scene.make_scene(video, spec)
        for sentence in language.sentences(made, spec):
            assert matching_events(made, sentence.text) == [sentence.event], (video, sentence.text)


def matching_events(made, text):
    """Reads a sentence independently of the grammar's code paths: which events of the scene does it fit?"""
    found = re.fullmatch(r"(after|before) (.+), (.+)", text) or re.fullmatch(
        r"()(.+) (after|before) (.+)", text
    )
    if not found:
        return [e for e in made.events if fits(made, e, text)]
    order, side, main = (found[1], found[2], found[3]) if found[1] else (found[3], found[4], found[2])
    (anchor,) = [e for e in made.events if fits(made, e, side)]
    on_side = (lambda e: e.first >= anchor.last) if order == "after" else (lambda e: e.last <= anchor.first)
    return [e for e in made.events if fits(made, e, main) and on_side(e)]


STEMS = {
    "spin": "spin|rotat",
    "grow": "grow|bigger",
    "shrink": "shrink|smaller",
    "blink": "blink|flash",
    "shake": "shak|wobbl",
    "left": "left",
    "right": "right",
    "up": "up",
    "down": "down",
}
LOOKS = {"disc": "circle", "box": "square", "little": "small", "large": "big"}


def fits(made, event, clause):
    thing = made.things[event.thing]
    words = [LOOKS.get(word, word) for word in clause.split()]
    known = {"circle", "square", "triangle", "star", "small", "big", *scene.COLOURS}
    named = [word for word in words if word in known]
    looks = all(word in (thing.shape, thing.colour, thing.size) for word in named)
    return looks and re.search(rf"\b({STEMS[event.action]})", clause) is not None


def test_glances_lie_in_the_moment_and_moments_in_the_video(queries):
    for split in SPLITS:
        for query in queries[split]:
            ((start_s, end_s),) = query.moments.tolist()
            assert 0 <= start_s <= query.glance <= end_s <= query.duration
            assert 16 <= query.duration <= 32
            assert 0.08 < (end_s - start_s) / query.duration < 0.4


def test_glances_are_spread_evenly_over_the_moment(queries):
    places = [(q.glance - q.moments[0, 0]) / np.ptp(q.moments[0]) for q in queries["train"]]
    counts = np.histogram(places, bins=5, range=(0, 1))[0] / len(places)
    assert np.abs(counts - 0.2).max() < 0.04


def test_every_video_has_three_to_six_queries_about_different_moments(queries):
    for split in SPLITS:
        by_video = collections.Counter(query.video for query in queries[split])
        assert set(by_video) == set(shapes.SHORT.videos(split))
        assert set(by_video.values()) <= {3, 4, 5, 6}
        moments = [(q.video, *q.moments[0]) for q in queries[split]]
        assert len({q.id for q in queries[split]}) == len(moments)


def test_no_video_is_in_two_splits(queries):
    videos = [{query.video for query in queries[split]} for split in SPLITS]
    assert sum(map(len, videos)) == len(set.union(*videos)) == 890


def test_held_out_combinations_occur_in_test_videos_only(scenes):
    held_out = scene.held_out_combinations(shapes.SHORT)
    shown = {split: [s.combination(e) for s in scenes[split] for e in s.events] for split in SPLITS}
    assert len(held_out) == 24
    assert not held_out & set(shown["train"] + shown["val"])
    # every colour, shape and action alone is learnt, most of their combinations too
    for parts in zip(*shown["train"], strict=True):
        assert len(set(parts)) in (6, 4, 9)
    assert len(set(shown["train"])) > 0.98 * (6 * 4 * 9 - 24)
    share = np.mean([combination in held_out for combination in shown["test"]])
    assert 0.12 < share < 0.35


def test_the_list_of_held_out_queries_is_kept_with_the_data(tiny):
    meta = json.loads((tiny / "meta.json").read_text())
    assert {query.rpartition("_")[0].split("-")[0] for query in meta["held_out_queries"]} <= {"test"}


def test_a_constant_window_answers_less_than_a_fifth(queries):
    bias = ConstantWindowBaseline.fit(queries["train"])
    answers = bias.windows_of([query.duration for query in queries["test"]])
    overlaps = [
        metrics.iou(answer[:1], query.moments, union="true").item()
        for answer, query in zip(answers, queries["test"], strict=True)
    ]
    assert np.mean(np.array(overlaps) >= 0.5) < 0.2


def test_most_sentences_are_needed_because_other_things_happen(scenes):
    """Most actions share their video with the same action of another thing, or another action of the same."""
    distracted = []
    for made in scenes["train"]:
        for event in made.events:
            others = [e for e in made.events if e != event]
            distracted.append(any((e.action == event.action) != (e.thing == event.thing) for e in others))
    assert np.mean(distracted) > 0.6


def test_composed_sentences_are_a_minority_but_there(queries):
    composed = [("after" in q.text.split()) or ("before" in q.text.split()) for q in queries["train"]]
    assert 0.1 < np.mean(composed) < 0.3


def test_every_word_has_a_vector_and_synonyms_lie_together(tiny, queries):
    vectors = WordVectors.read(tiny / "words.txt")
    used = {word for split in SPLITS for query in queries[split] for word in tokenize(query.text)}
    assert used <= set(vectors.words) == set(language.vocabulary())
    assert len(vectors.words) < 120

    def alike(one, two):
        a, b = vectors[one], vectors[two]
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    pairs = [("circle", "disc"), ("spins", "rotating"), ("small", "little"), ("grow", "growing")]
    strangers = [("circle", "spins"), ("small", "up"), ("red", "blink"), ("the", "star")]
    assert min(alike(*p) for p in pairs) > max(alike(*s) for s in strangers) + 0.2


# --- whole or absent ---


def test_files_read_back_as_the_queries_they_were_made_from(tiny):
    for split in SPLITS:
        back = read_objects(tiny / f"{split}.jsonl").queries
        for one, two in zip(back, shapes.queries(split, TINY), strict=True):
            assert (one.id, one.video, one.text, one.glance) == (two.id, two.video, two.text, two.glance)
            assert np.array_equal(one.moments, two.moments)


def test_two_processes_at_once_both_find_the_whole_data_set(tmp_path, tiny):
    callers = [start(tmp_path / "shapes", "tiny") for _ in range(2)]
    assert [caller.wait(timeout=60) for caller in callers] == [0, 0], [c.stderr.read() for c in callers]
    assert digests(tmp_path / "shapes") == digests(tiny)
    assert os.listdir(tmp_path) == ["shapes"]


def test_who_waits_for_another_process_says_so_and_who_does_not_says_nothing(tmp_path, caplog):
    caplog.set_level("INFO")
    hold = (
        "import fcntl, os, sys, time; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); "
        "print(flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", hold, str(tmp_path)], **pipes) as holder:
        holder.stdout.readline()
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(shapes.ensure, tmp_path / "shapes", TINY)
            deadline = time.monotonic() + 60
            while "waiting" not in caplog.text and time.monotonic() < deadline:
                time.sleep(0.02)
            assert not (tmp_path / "shapes").exists()
            holder.stdin.close()  # it ends, which frees the lock
            asked.result(timeout=60)
    waiting = f"{tmp_path / 'shapes'}: waiting for another process that renders Shapes"
    assert caplog.messages.count(waiting) == 1
    shapes.ensure(tmp_path / "other", TINY)
    assert caplog.text.count("waiting") == 1


def test_rendering_says_how_far_it_is_where_there_is_no_terminal(tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr(generate, "SAY_EVERY_S", 0.0)
    shapes.ensure(tmp_path / "shapes", TINY)
    said = [message for message in caplog.messages if message.startswith("Shapes: ")]
    assert said == [f"Shapes: {done} of 6 videos" for done in range(1, 6)]


def test_a_killed_generation_leaves_nothing_that_looks_complete(tmp_path, tiny):
    caller = start(tmp_path / "shapes", "full")
    # killed while it draws: the annotations are there, the features are not
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".shapes.*.partial/new/words.txt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    caller.send_signal(signal.SIGKILL)
    assert caller.wait(timeout=60) == -signal.SIGKILL
    left = os.listdir(tmp_path)
    assert len(left) == 1
    assert left[0].endswith(".partial")
    shapes.ensure(tmp_path / "shapes", TINY)
    assert digests(tmp_path / "shapes") == digests(tiny)
    assert os.listdir(tmp_path) == ["shapes"]


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_truncated_or_missing_file_is_made_anew(name, tmp_path, tiny):
    folder = shapes.ensure(tmp_path / "shapes", TINY)
    with (folder / name).open("rb+") as file:
        file.truncate(10)
    shapes.ensure(folder, TINY)
    assert digests(folder) == digests(tiny)
    (folder / name).unlink()
    shapes.ensure(folder, TINY)
    assert digests(folder) == digests(tiny)


def test_a_flipped_bit_is_found_on_request(tmp_path, tiny):
    folder = shapes.ensure(tmp_path / "shapes", TINY)
    data = bytearray((folder / "features.h5").read_bytes())
    data[-100] ^= 1
    (folder / "features.h5").write_bytes(data)
    shapes.ensure(folder, TINY, verify=True)
    assert digests(folder) == digests(tiny)


def test_a_folder_with_other_things_in_it_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(UserError, match=r"not a folder of Shapes data \(it holds thesis.tex\)"):
        shapes.ensure(tmp_path, TINY)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_data_set_of_another_spec_is_refused(tiny):
    with pytest.raises(UserError, match=r"holds Shapes with seed 0, asked for 7"):
        shapes.ensure(tiny, dataclasses.replace(TINY, seed=7))


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "shapes").write_text("")
    with pytest.raises(UserError, match="a file stands where the Shapes folder belongs"):
        shapes.ensure(tmp_path / "shapes", TINY)


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*/shapes: (Not a directory|File exists)"):
        shapes.ensure(tmp_path / "file" / "shapes", TINY)


# --- frames ---


def test_frames_come_back_with_their_times(tiny):
    query = read_objects(tiny / "test.jsonl").queries[0]
    pictures, times = shapes.frames(tiny, query.video)
    assert pictures.shape == (query.duration * 4, 56, 56, 3)
    assert pictures.dtype == np.uint8
    assert np.allclose(np.diff(times), 0.25)
    assert times[0] == 0


@pytest.mark.parametrize(
    "video", ["train-0003", "train-3", "other-0000", "", "test-0000/../x", "test-\u0660\u0660\u0660\u0660"]
)
def test_an_unknown_video_is_a_user_error(tiny, video):
    with pytest.raises(UserError, match="no video"):
        shapes.frames(tiny, video)


def test_frames_need_a_shapes_folder(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        shapes.frames(tmp_path, "train-0000")
    (tmp_path / "meta.json").write_text("[]")
    with pytest.raises(UserError, match="not the description of a Shapes data set"):
        shapes.frames(tmp_path, "train-0000")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": 0}, "train must be at least 1"),
        ({"seed": -1}, "seeds must not be negative"),
        ({"duration": (20.0, 10.0)}, "duration must be two rising"),
        ({"moment": (0.2, 0.9)}, "moment must end at 0.5"),
        ({"size": 57}, "size must be a multiple of 4"),
        ({"queries": (6, 6), "events": (4, 8)}, "6 sentences of 4 events"),
    ],
)
def test_impossible_specs_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(TINY, **change)
