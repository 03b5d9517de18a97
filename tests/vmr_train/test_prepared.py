"""What of the features stays in memory as models take them."""

import pickle

import numpy as np
import pytest

from vmr_common.features.pooling import pool
from vmr_common.features.store import FeatureStore, Manifest, write_features
from vmr_train.prepared import PreparedFeatures, pooled_features, unit_rows

RNG = np.random.default_rng(7)


@pytest.fixture
def file(tmp_path):
    data = {f"v{n}": RNG.normal(size=(rows, 4)).astype(np.float32) for n, rows in enumerate((3, 5, 9))}
    path = tmp_path / "features.h5"
    write_features(path, data.items(), Manifest())
    return path, data


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
