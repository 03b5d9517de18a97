"""What models make of features: pooling to a fixed length, and what of it stays in memory."""

import pickle
from itertools import pairwise

import numpy as np
import pytest

from vmr_common.features.pooling import PreparedFeatures, pool, pooled_features, unit_rows
from vmr_common.features.store import FeatureStore, Manifest, write_features

RNG = np.random.default_rng(7)


@pytest.fixture
def file(tmp_path):
    data = {f"v{n}": RNG.normal(size=(rows, 4)).astype(np.float32) for n, rows in enumerate((3, 5, 9))}
    path = tmp_path / "features.h5"
    write_features(path, data.items(), Manifest())
    return path, data


def plain_pool(features, length):
    bounds = [min(round(j / length * len(features)), len(features) - 1) for j in range(length + 1)]
    return np.stack([features[a] if a == b else features[a:b].mean(axis=0) for a, b in pairwise(bounds)])


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 8, 9, 13, 50, 64, 201, 1000])
@pytest.mark.parametrize("length", [1, 8, 64, 200])
def test_pooling_equals_the_plain_rule(rows, length):
    features = RNG.normal(size=(rows, 5)).astype(np.float32)
    assert np.abs(pool(features, length) - plain_pool(features, length)).max() < 1e-6
    assert pool(features, length).dtype == np.float32


@pytest.mark.parametrize("length", [1, 40, 300, 1500])
def test_pooling_of_wide_features_equals_the_plain_rule(length):
    features = RNG.normal(size=(600, 2048)).astype(np.float32)  # beyond what is pooled row by row
    assert np.abs(pool(features, length) - plain_pool(features, length)).max() < 1e-6


def test_pooling_equals_the_recorded_numbers(shared):
    case = np.load(shared / "golden/rgn/case_a.npz", allow_pickle=False)
    names = [name.removeprefix("data/pool/in_") for name in case.files if name.startswith("data/pool/in_")]
    assert len(names) == 4
    for name in names:
        pooled = pool(case[f"data/pool/in_{name}"], len(case[f"data/pool/out_{name}"]))
        assert np.abs(pooled - case[f"data/pool/out_{name}"]).max() < 1e-6


def test_pooling_refuses_what_it_cannot_pool():
    for features, length in ((np.zeros(3), 2), (np.zeros((0, 3)), 2), (np.zeros((2, 3)), 0)):
        with pytest.raises(ValueError, match=r"pool|expected features"):
            pool(features, length)


def test_pooled_features_read_each_video_once(file):
    path, data = file
    store = FeatureStore(path)
    pooled = pooled_features(store, 4)
    first = pooled["v2"]
    assert pooled["v2"] is first
    assert np.array_equal(first, pool(data["v2"], 4))
    path.unlink()
    store.close()
    assert pooled["v2"] is first
    with pytest.raises(ValueError, match="positive, found 0"):
        pooled_features(store, 0)


def test_a_pickled_copy_starts_with_an_empty_memory_and_reads_again(file):
    path, data = file
    pooled = pooled_features(FeatureStore(path), 400)
    pooled["v0"]
    assert len(pickle.dumps(pooled)) < 2000
    assert np.array_equal(pickle.loads(pickle.dumps(pooled))["v1"], pool(data["v1"], 400))


def test_prepared_features_stay_under_their_limit(file):
    path, data = file
    prepared = PreparedFeatures(FeatureStore(path), unit_rows, limit=data["v2"].nbytes)
    longest, shorter = prepared["v2"], prepared["v1"]
    assert prepared["v1"] is shorter
    assert prepared["v2"] is not longest  # it was evicted
    np.testing.assert_array_equal(prepared["v2"], unit_rows(data["v2"]))
    np.testing.assert_array_equal(PreparedFeatures(FeatureStore(path))["v2"], data["v2"])
