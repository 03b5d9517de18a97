"""What is known about features is held against what a model was trained on; videos without features are counted."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from factories import make_queries
from vmr_common.errors import UserError
from vmr_common.features.manifest import Manifest
from vmr_common.features.sameness import require_same_features
from vmr_train.feature_files import with_features
from vmr_train.known_features import require_expected, require_known

KNOWN = {"extractor": "CLIP ViT-B/32", "fps": 2.0, "stride_s": 0.5}


def store(manifest=None, videos=("v0", "v1"), paths=(Path("f.h5"),)):
    class Store(SimpleNamespace):
        def __contains__(self, video):
            return video in videos

    return Store(name="f.h5", manifest=manifest, paths=list(paths))


def config_of(path="f.h5", missing="error", **expected):
    features = SimpleNamespace(path=path, missing=missing, expected_manifest=expected)
    return SimpleNamespace(data=SimpleNamespace(features=features))


@pytest.mark.parametrize(
    ("manifest", "line"),
    [
        (Manifest(**{**KNOWN, "extractor": "clip vit b32", "fps": 2.0001}), None),  # the same
        (Manifest(**{**KNOWN, "source": "elsewhere", "decoder": "another"}), None),  # not what decides
        (
            Manifest(extractor="CLIP ViT-B/32", window_s=1.0),
            "fps (was 2.0), stride_s (was 0.5), window_s (is 1.0)",
        ),
        (
            None,
            "no manifest says what made these features; the model was trained on extractor 'CLIP ViT-B/32', fps",
        ),
    ],
)
def test_a_fact_that_one_side_lacks_is_one_line(manifest, line):
    said = []
    require_same_features(KNOWN, store(manifest), allow=False, warn=said.append)
    assert len(said) == (line is not None)
    assert line is None or line in said[0]


def test_facts_that_differ_are_refused_with_both_values_or_said():
    other = store(Manifest(extractor="CLIP ViT-B/16", fps=4.0, stride_s=0.5))
    both = r"f\.h5: other features than the model was trained on: extractor is 'CLIP ViT-B/16', was 'CLIP ViT-B/32'; "
    with pytest.raises(UserError, match=both + r"fps is 4\.0, was 2\.0 \(--allow-other-features"):
        require_same_features(KNOWN, other, allow=False)
    said = []
    require_same_features(KNOWN, other, allow=True, warn=said.append)
    assert len(said) == 1
    assert "fps is 4.0, was 2.0" in said[0]
    with pytest.raises(
        UserError, match=r"dim is 256, was 512 \(a model reads features of its own width alone\)$"
    ):
        require_same_features({"dim": 512}, store(Manifest(dim=256)), allow=True)
    with pytest.raises(
        UserError, match=r"manifest says extractor 'CLIP ViT-B/16', the configuration expects 'I3D'"
    ):
        require_expected({"extractor": "I3D", "fps": 4}, other, allow=False)


@pytest.mark.parametrize(
    ("trained", "config", "inputs", "lines"),
    [
        (None, config_of(), store(), 0),  # a training with files that say nothing
        (None, config_of(fps=1), store(), 1),  # and the configuration would know
        ({"features": {}, "config": {"data": {"features": {"path": "f.h5"}}}}, config_of(fps=1), store(), 0),
        ({"features": {}, "config": {"data": {"features": {"path": "other"}}}}, config_of(), store(), 1),
        (
            {"features": {}, "config": {"data": {"features": {"path": "other"}}}},
            config_of(),
            store(paths=()),
            0,
        ),
        ({"features": {}}, config_of(), store(Manifest(fps=1.0)), 1),  # an imported or an old checkpoint
        ({"manifests": {"features": KNOWN}}, config_of(), store(Manifest(**KNOWN)), 0),
        (
            {"manifests": {"features": KNOWN}},
            config_of(fps=9),
            store(Manifest(**KNOWN)),
            0,
        ),  # trained so all the same
        ({"manifests": {"features": KNOWN}}, config_of(), store(), 1),
    ],
)
def test_what_nobody_knows_is_said_where_it_is_news(trained, config, inputs, lines):
    said = []
    require_known(config, inputs, trained, allow=False, warn=said.append)
    assert len(said) == lines, said


def test_queries_of_videos_without_features_are_refused_or_left_out():
    queries = make_queries(lambda rng: {}, 8)  # of v0 to v3
    with pytest.raises(
        UserError, match=r"2 videos of mine, for example 'v2' .*; data\.features\.missing: drop"
    ):
        with_features(config_of(), store(), "mine", queries)
    kept = with_features(config_of(missing="drop"), store(), "mine", queries)
    assert [query.video for query in kept] == ["v0", "v1", "v0", "v1"]
    with pytest.raises(UserError, match="no features for any video of mine, for example 'v0'"):
        with_features(config_of(missing="drop"), store(videos=()), "mine", queries)
