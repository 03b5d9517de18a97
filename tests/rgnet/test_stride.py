"""Seconds from one feature row to the next, as a run of RGNet learns them."""

import dataclasses
from types import SimpleNamespace

import pytest

from rgnet.config import DEFAULT, Config
from rgnet.stride import with_stride
from vmr_common.errors import UserError
from vmr_common.features.manifest import Manifest
from vmr_common.types import Query
from vmr_train.cli.config import bundled_config


class Store(SimpleNamespace):
    """Videos of 50 rows, and what a manifest says of them."""

    name = "f.h5"

    def __contains__(self, video):
        return True

    def length(self, video):
        return 50 + int(video)


def resolved(configured, stated, duration, *, allow=False):
    config = bundled_config("rgnet", Config, DEFAULT)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, feature_stride=configured))
    queries = [Query(id=str(n), video=str(n), text="", duration=(50 + n) * duration) for n in range(6)]
    store = Store(manifest=None if stated is None else Manifest(stride_s=stated))
    said = []
    return with_stride(config, store, queries, allow=allow, warn=said.append).data.stride, said


@pytest.mark.parametrize(
    ("configured", "stated", "told", "stride", "line"),
    [
        (None, 0.5, 0.5, 0.5, None),
        (2.0, None, 2.0, 2.0, None),
        (2.0, 2.0, 2.0, 2.0, None),
        (0.535, 0.5333, 0.5333, 0.535, "data.feature_stride 0.535 is taken"),  # as released for Ego4D
        (None, None, 0.5, 0.5, "0.5 s a row (told by rows and durations of 6 videos)"),
        (2.0, None, 0.5, 2.0, "6 of 6 videos disagree: video '0' has 50 rows for its 25 s"),
    ],
)
def test_a_stride_is_stated_configured_or_told_by_rows_and_durations(configured, stated, told, stride, line):
    found, said = resolved(configured, stated, told)
    assert found == stride
    assert len(said) == (line is not None)
    assert line is None or line in said[0]


def test_a_configured_stride_that_contradicts_the_manifest_is_refused():
    with pytest.raises(UserError, match=r"f\.h5: the manifest says 0\.5 s .*data\.feature_stride is 2 "):
        resolved(2.0, 0.5, 0.5)
    assert resolved(2.0, 0.5, 0.5, allow=True) == (0.5, [])


def test_a_stride_that_nothing_tells_is_asked_for():
    config = bundled_config("rgnet", Config, DEFAULT, "--data.feature_stride", "null")
    with pytest.raises(
        UserError, match=r"f\.h5: nothing tells how many seconds .* say it with data\.feature_stride"
    ):
        with_stride(config, Store(manifest=None), [])
