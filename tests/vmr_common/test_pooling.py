"""What models make of features: pooling to a fixed length."""

from itertools import pairwise

import numpy as np
import pytest

from vmr_common.features.pooling import pool

RNG = np.random.default_rng(7)


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
