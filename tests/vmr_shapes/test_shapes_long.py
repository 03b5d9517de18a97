"""The long videos of Shapes: lengths, what makes retrieval necessary, and the same bytes everywhere."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

import vmr_shapes as shapes
from vmr_common import metrics
from vmr_common.evaluation.baselines import ConstantWindowBaseline
from vmr_common.features.checking import check_features
from vmr_common.features.store import FeatureStore
from vmr_common.splits.load import ENTRIES, load_split
from vmr_common.splits.objects import read_objects
from vmr_shapes import render, scene
from vmr_shapes.features import BLOCK, Projection, statistics
from vmr_shapes.spec import SPLITS

pytestmark = pytest.mark.e2e  # the data set is generated

TINY = dataclasses.replace(shapes.LONG, train=2, val=1, test=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return shapes.ensure(tmp_path_factory.mktemp("data") / "shapes-long", TINY)


@pytest.fixture(scope="module")
def queries():
    return {split: shapes.queries(split, shapes.LONG) for split in SPLITS}


@pytest.fixture(scope="module")
def scenes():
    return [scene.make_scene(video, shapes.LONG) for video in shapes.LONG.videos("train")[:40]]


def test_pixels_statistics_and_sentences_are_the_ones_of_this_generator_version():
    # whoever changes them on purpose raises GENERATOR and these digests
    frames = render.render(scene.make_scene("train-0007", shapes.LONG))
    told = [(q.id, q.text, q.moments.tolist(), q.glance) for q in shapes.queries("val", shapes.LONG)]
    digests = [
        hashlib.sha256(part).hexdigest()[:16]
        for part in (
            frames.tobytes(),
            statistics(frames, shapes.LONG.frames_per_row).astype("<i4").tobytes(),
            json.dumps(told).encode(),
        )
    ]
    assert digests == ["d6f171abdeac17e0", "9d59834ad85cef73", "0ccca60f12c78cac"]


def test_statistics_do_not_depend_on_how_many_frames_are_worked_on_at_once(monkeypatch):
    frames = render.render(scene.make_scene("val-0000", shapes.LONG))[: 2 * BLOCK + 10]
    whole = statistics(frames, 2)
    for block in (1, 7, len(frames)):
        monkeypatch.setattr("vmr_shapes.features.BLOCK", block)
        assert np.array_equal(statistics(frames, 2), whole)


def test_videos_last_ten_to_twenty_minutes_and_moments_some_seconds(queries):
    for split in SPLITS:
        by_video = {}
        for query in queries[split]:
            by_video.setdefault(query.video, []).append(query)
            ((start_s, end_s),) = query.moments.tolist()
            assert 0 <= start_s <= query.glance <= end_s <= query.duration
            assert 600 <= query.duration <= 1200
            assert 8 <= end_s - start_s <= 40
        assert set(by_video) == set(shapes.LONG.videos(split))
        assert {len(asked) for asked in by_video.values()} <= set(range(18, 25))


def test_things_do_many_things_and_actions_are_done_by_many_things(scenes):
    for made in scenes:
        assert 26 <= len(made.events) <= 34
        by_thing, by_action = {}, {}
        for event in made.events:
            by_thing.setdefault(event.thing, set()).add(event.action)
            by_action.setdefault(event.action, set()).add(event.thing)
        # neither the looks nor the action alone finds the moment
        assert min(map(len, by_thing.values())) >= 2
        assert np.mean([len(actions) for actions in by_thing.values()]) > 3
        assert np.mean([len(things) for things in by_action.values()]) > 2


def test_a_thing_is_there_around_its_own_actions_only(scenes):
    made = scenes[0]
    for index in range(len(made.things)):
        near = np.zeros(made.frames, bool)
        for event in made.events:
            if event.thing == index:
                near[max(0, event.first - render.PRESENCE) : event.last + render.PRESENCE] = True
        shown = render.track(made, index).visible
        assert shown.any()
        assert not (shown & ~near).any()


def test_a_second_event_that_places_the_first_is_near(queries, scenes):
    moments = {made.video: [made.moment(event) for event in made.events] for made in scenes}
    for query in queries["train"]:
        if query.video not in moments or not {"after", "before"} & set(query.text.split()):
            continue
        start_s, end_s = query.moments[0]
        gaps = [max(start_s - end, start - end_s) for start, end in moments[query.video]]
        assert min(gap for gap in gaps if gap >= 0) <= 40


def test_neither_chance_nor_a_constant_window_finds_more_than_a_few(queries):
    bias = ConstantWindowBaseline.fit(queries["train"])
    answers = bias.windows_of([query.duration for query in queries["test"]])
    overlaps = np.array(
        [
            metrics.iou(answer[:1], query.moments, union="true").item()
            for answer, query in zip(answers, queries["test"], strict=True)
        ]
    )
    assert np.mean(overlaps >= 0.3) < 0.05
    assert np.mean(overlaps >= 0.5) < 0.02


def test_held_out_combinations_occur_in_test_videos_only(scenes):
    held_out = scene.held_out_combinations(shapes.LONG)
    assert not held_out & {made.combination(event) for made in scenes for event in made.events}
    tests = [scene.make_scene(video, shapes.LONG) for video in shapes.LONG.videos("test")[:10]]
    share = np.mean([made.combination(event) in held_out for made in tests for event in made.events])
    assert 0.1 < share < 0.4


def test_features_follow_from_the_pixels_one_row_per_second(tiny):
    meta = json.loads((tiny / "meta.json").read_text())
    projection = Projection.drawn(**meta["standardisation"], dim=TINY.feature_dim, seed=TINY.seed)
    with FeatureStore(tiny / "features.h5") as store:
        assert (store.manifest.stride_s, store.manifest.fps) == (1.0, 2.0)
        for split in SPLITS:
            for query in read_objects(tiny / f"{split}.jsonl").queries:
                assert store.length(query.video) == query.duration
        pictures, times = shapes.frames(tiny, "test-0000")
        assert np.array_equal(store["test-0000"], projection(statistics(pictures, TINY.frames_per_row)))
        assert np.allclose(np.diff(times), 0.5)


def test_the_same_spec_gives_the_same_bytes_in_every_file(tiny, tmp_path):
    again = shapes.ensure(tmp_path / "again", TINY)
    for path in tiny.iterdir():
        assert path.read_bytes() == (again / path.name).read_bytes(), path.name


def test_both_kinds_are_registered():
    names = {name for name in ENTRIES if name.startswith("shapes")}
    assert names == {f"{kind}/{split}" for kind in ("shapes", "shapes-long") for split in SPLITS}


@pytest.mark.slow
def test_a_registered_split_is_generated_on_first_use(tmp_path, queries):
    split = load_split("shapes-long/test", tmp_path)
    assert [(q.id, q.text) for q in split.queries] == [(q.id, q.text) for q in queries["test"]]
    assert [path.name for path in tmp_path.iterdir()] == ["shapes-long"]
    with FeatureStore(tmp_path / "shapes-long/features.h5") as store:
        videos = [video for part in SPLITS for video in shapes.LONG.videos(part)]
        assert store.videos() == sorted(videos)
        assert list(check_features(store, videos[:20], dim=128, min_rows=600).lines()) == []
