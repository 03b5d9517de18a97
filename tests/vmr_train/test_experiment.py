"""Splits and features of a run, as its configuration names them."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from vmr_common.errors import UserError
from vmr_common.features.store import FeatureStore, Manifest, write_features
from vmr_common.types import Query
from vmr_train.cli import commands
from vmr_train.feature_files import FeaturesConfig, open_features, require_videos
from vmr_train.splits import SplitConfig, SplitsConfig, hold_out, load_splits


def make_queries(count, videos):
    return [Query(id=f"q{n}", video=f"v{n % videos}", text="a", duration=10.0) for n in range(count)]


def write_annotations(path, videos):
    rows = (
        {
            "query_id": f"{v}_0",
            "video_id": v,
            "duration": 10.0,
            "query": "a door",
            "windows": [[1, 3]],
            "point": 2,
        }
        for v in videos
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def root(tmp_path):
    write_annotations(tmp_path / "train.jsonl", [f"v{n}" for n in range(40)])
    write_annotations(tmp_path / "test.jsonl", ["t0", "t1"])
    write_annotations(tmp_path / "val.jsonl", ["w0"])
    return tmp_path


def make_config(**more) -> SplitsConfig:
    return SplitsConfig(
        train=SplitConfig(annotations="train.jsonl"), test=SplitConfig(annotations="test.jsonl"), **more
    )


def test_held_out_videos_are_whole_and_about_the_share():
    kept, held = hold_out(make_queries(2000, 500), 0.1)
    assert not {query.video for query in kept} & {query.video for query in held}
    assert len(kept) + len(held) == 2000
    assert 30 <= len({query.video for query in held}) <= 70


def test_a_video_stays_on_its_side_whatever_else_is_there():
    _, many = hold_out(make_queries(2000, 500), 0.1)
    _, few = hold_out(make_queries(100, 100), 0.1)
    assert {query.video for query in few} == {q.video for q in many} & {f"v{n}" for n in range(100)}


def test_a_larger_share_holds_out_the_same_videos_and_more():
    _, small = hold_out(make_queries(500, 500), 0.1)
    _, large = hold_out(make_queries(500, 500), 0.3)
    assert {query.id for query in small} < {query.id for query in large}


def test_validation_is_held_out_of_training_where_none_is_given(root):
    splits = load_splits(make_config(held_out=0.2), root)
    assert splits.validation.name == "held out of train.jsonl"
    assert len(splits.train.queries) + len(splits.validation.queries) == 40
    assert splits.train.hash != load_splits(make_config(held_out=0), root).train.hash


def test_a_given_validation_split_leaves_training_whole(root):
    splits = load_splits(make_config(validation=SplitConfig(annotations="val.jsonl")), root)
    assert (len(splits.train.queries), len(splits.validation.queries)) == (40, 1)


def test_no_validation_at_all(root):
    splits = load_splits(make_config(held_out=0), root)
    assert splits.validation is None
    assert len(splits.train.queries) == 40


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_out_of_range_is_refused(share):
    with pytest.raises(UserError, match="held_out"):
        make_config(held_out=share)


def test_too_few_videos_to_hold_some_out(root):
    write_annotations(root / "train.jsonl", ["v0"])
    with pytest.raises(UserError, match="too few videos"):
        load_splits(make_config(), root)


def test_a_training_whose_moments_lie_outside_their_videos_is_refused(root):
    config = SimpleNamespace(data=SimpleNamespace(splits=make_config()))
    assert commands.load_splits(config, root).train.queries
    rows = [json.loads(line) for line in (root / "train.jsonl").read_text().splitlines()]
    for row in rows:
        row["windows"] = [[1000 * start, 1000 * end] for start, end in row["windows"]]
    (root / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(
        UserError, match=r"of train\.jsonl lie outside their videos \(are the times milliseconds"
    ):
        commands.load_splits(config, root)


@pytest.fixture
def features(tmp_path):
    rng = np.random.default_rng(0)
    items = [(f"v{n}", rng.normal(size=(5, 4)).astype(np.float32)) for n in range(3)]
    write_features(tmp_path / "features.h5", items, Manifest(extractor="toy", fps=1.0))
    return tmp_path / "features.h5"


def test_several_feature_files_are_joined(features):
    config = FeaturesConfig(path=["features.h5", "features.h5"], dim=8)
    assert open_features(config, features.parent)["v1"].shape == (5, 8)
    write_features(features.parent / "2.h5", [("v1", np.ones((3, 4), np.float32))], Manifest(stride_s=2.0))
    write_features(features.parent / "1.h5", [("v1", np.ones((6, 4), np.float32))], Manifest(stride_s=1.0))
    config = FeaturesConfig(path=["2.h5", "1.h5"], dim=8)
    with pytest.raises(UserError, match="stride"):
        open_features(config, features.parent)["v1"]
    resampled = open_features(dataclasses.replace(config, resample=True), features.parent)
    assert (resampled["v1"].shape, resampled.manifest.stride_s) == ((3, 8), 2.0)


def test_features_are_opened_from_a_folder(tmp_path):
    np.save(tmp_path / "v0_clip.npy", np.ones((3, 4), dtype=np.float32))
    config = FeaturesConfig(path=".", dim=4, ending="_clip")
    assert open_features(config, tmp_path)["v0"].shape == (3, 4)


def test_missing_videos_are_counted_and_one_is_named(features):
    store = FeatureStore(features)
    require_videos(store, {"train": make_queries(6, 3)})
    with pytest.raises(UserError, match=r"features.h5: no features for 2 videos of test, for example 'v3'"):
        require_videos(store, {"train": make_queries(6, 3), "test": make_queries(10, 5)})
