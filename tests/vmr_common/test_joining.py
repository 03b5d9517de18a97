"""Features of several sources side by side: what they state of their strides is kept, used, or refused."""

import logging
import pickle

import numpy as np
import pytest

from vmr_common.errors import UserError
from vmr_common.features.manifest import Manifest
from vmr_common.features.store import FeatureStore, write_features


def source(path, rows, stride_s, value=None, **more):
    """A file with the video v of so many rows, the first column of which is the time of each row's middle."""
    times = (np.arange(rows) + 0.5) * (stride_s or 1)
    columns = np.stack([times, np.full(rows, value or 0.0)], axis=1)
    write_features(path, [("v", columns), ("w", columns)], Manifest(stride_s=stride_s, **more))
    return path


@pytest.mark.parametrize(
    ("first", "second", "rows"),
    [
        ((60, 1.0), (120, 0.5), 60),
        ((120, 0.5), (60, 1.0), 120),
        ((61, 1.0), (30, 2.0), 60),
        ((60, 1.0), (113, 16 / 30), 60),
    ],
)
def test_strides_that_differ_are_brought_to_the_first(tmp_path, caplog, first, second, rows):
    paths = [source(tmp_path / "a.h5", *first, fps=2.0), source(tmp_path / "b.h5", *second, fps=2.0)]
    with pytest.raises(UserError, match=rf"say {first[1]:g} s and {second[1]:g} s .*--resample"):
        FeatureStore(paths)["v"]
    with pytest.raises(UserError, match=r"--resample"):
        _ = FeatureStore(paths).manifest
    store = FeatureStore(paths, resample=True)
    with caplog.at_level(logging.INFO):
        joined = store["v"]
        assert np.array_equal(store["w"], joined)
        assert store.shape("v") == (rows, 4)
        assert np.array_equal(pickle.loads(pickle.dumps(store))["v"], joined)
    assert caplog.messages == [
        f"{store.name}: the sources have different numbers of rows of 2 of 2 videos, "
        f"which are resampled to {first[1]:g} s a row, that of the first source"
    ]
    middles = joined[:, 0]
    assert np.allclose(middles, (np.arange(rows) + 0.5) * first[1])
    # the row of the second source whose span holds that middle
    assert (np.abs(joined[:, 2] - middles) <= second[1] / 2 + 1e-6).all()
    assert (store.manifest.stride_s, store.manifest.fps, store.manifest.dim) == (first[1], 2, 4)


def test_lengths_that_differ_by_seconds_are_refused_at_any_stride(tmp_path):
    paths = [source(tmp_path / "a.h5", 60, 1.0), source(tmp_path / "b.h5", 100, 0.5)]
    with pytest.raises(
        UserError, match=r"video 'v' has 60 of 1 s, 100 of 0.5 s rows, expected at most 2 rows"
    ):
        FeatureStore(paths, resample=True)["v"]


def test_resampling_needs_every_stride(tmp_path):
    paths = [source(tmp_path / "a.h5", 60, 1.0), source(tmp_path / "b.h5", 60, None)]
    with pytest.raises(UserError, match="1 of 2 have a manifest that says it"):
        FeatureStore(paths, resample=True)["v"]


def test_a_cut_is_said_once_and_the_stride_is_kept(tmp_path, caplog):
    paths = [source(tmp_path / "a.h5", 60, 0.5), source(tmp_path / "b.h5", 59, None)]
    store = FeatureStore(paths)
    with caplog.at_level(logging.INFO):
        assert [len(store[video]) for video in "vw"] == [59, 59]
    (said,) = caplog.messages
    assert said.endswith("numbers of rows of 2 of 2 videos, which are cut to the shorter one at the end")
    assert store.manifest.stride_s == 0.5
    np.save(tmp_path / "v.npy", np.ones((60, 1)))
    assert FeatureStore([paths[0], tmp_path]).manifest == Manifest(
        stride_s=0.5
    )  # nothing else is known of the whole
    assert FeatureStore([paths[1], tmp_path]).manifest is None
