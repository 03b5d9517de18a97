"""Seconds from one feature row to the next, stated or told by rows and durations."""

import numpy as np
import pytest

from vmr_common.errors import UserError
from vmr_common.features.manifest import Manifest
from vmr_common.features.store import FeatureStore, write_features
from vmr_common.features.stride import stride_of

DURATIONS = {"v1": 91.3, "v2": 40.2, "v3": 133.0, "v4": 61.7, "v5": 24.8}


def store_of(path, rows, **manifest):
    items = [(video, np.ones((count, 2))) for video, count in rows.items()]
    write_features(path / "f.h5", items, Manifest(**manifest))
    return FeatureStore(path / "f.h5")


@pytest.mark.parametrize("rounded", [np.floor, np.ceil, np.round])
@pytest.mark.parametrize("seconds", [1, 2, 0.5, 0.2, 1 / 3, 16 / 30, 16 / 25, 1.875, 32 / 30])
def test_rows_against_durations_tell_the_stride(tmp_path, seconds, rounded):
    rows = {video: int(rounded(duration / seconds)) for video, duration in DURATIONS.items()}
    found = stride_of(store_of(tmp_path, rows), {**DURATIONS, "absent": 9.0})
    assert (found.known_by, found.videos, found.misfits, found.disagreement()) == ("rows", 5, (), None)
    assert found.seconds == (pytest.approx(seconds) if seconds != 1.875 else pytest.approx(seconds, rel=0.03))


def test_videos_that_disagree_are_named(tmp_path):
    rows = {video: int(duration) for video, duration in DURATIONS.items()} | {"v3": 665}
    found = stride_of(store_of(tmp_path, rows), DURATIONS)
    assert (found.seconds, [misfit.video for misfit in found.misfits]) == (1, ["v3"])
    assert found.disagreement() == (
        "1 of 5 videos disagree: video 'v3' has 665 rows for its 133 s: 0.2 s a row, not 1 s a row "
        "(told by rows and durations of 5 videos)"
    )


def test_what_is_stated_is_held_against_the_rows(tmp_path):
    rows = {video: int(duration / 0.2) for video, duration in DURATIONS.items()}
    for found in (
        stride_of(store_of(tmp_path, rows, stride_s=1.0), DURATIONS),
        stride_of(store_of(tmp_path, rows), DURATIONS, given=1.0),
    ):
        assert (found.seconds, found.fitting, len(found.misfits)) == (1, 0.2, 5)
        assert found.disagreement().endswith("(0.2 s a row would fit)")
    assert stride_of(store_of(tmp_path, rows, stride_s=1.0), {}).seconds == 1
    with pytest.raises(UserError, match=r"says 1 s from row to row \(stride_s\), asked for 0.5 s"):
        stride_of(store_of(tmp_path, rows, stride_s=1.0), DURATIONS, given=0.5)


@pytest.mark.parametrize("rows", [[48] * 5, [9, 400, 33, 801, 250], []])
def test_rows_that_do_not_follow_durations_tell_nothing(tmp_path, rows):
    found = stride_of(store_of(tmp_path, dict(zip(DURATIONS, rows, strict=False)) or {"w": 1}), DURATIONS)
    assert (found.seconds, found.known_by) == (None, "nothing")
    assert str(found).startswith("seconds a row are not known")
    assert ("48 rows each (pooled?), 0.517 to 2.77 s a row" in str(found)) == (rows == [48] * 5)
