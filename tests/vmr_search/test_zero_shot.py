"""The retriever without training: windows of frames and sentences in one space."""

import dataclasses

import h5py
import numpy as np
import pytest

import tiny_networks
from vmr_common.errors import UserError
from vmr_common.features.manifest import Manifest
from vmr_common.features.store import FeatureStore, write_features
from vmr_search import zero_shot
from vmr_search.retriever import open_retriever, retrievers


def store_of(tmp_path, rows, **manifest):
    path = tmp_path / "frames.h5"
    facts = {"extractor": "clip-vit-b32", "stride_s": 0.5} | manifest
    write_features(path, rows.items(), Manifest(**facts))
    return FeatureStore(path)


def facts_of(store, **more):
    return zero_shot.facts_of(store.manifest, store.dim, **more)


def rows(count=40, seed=0, width=16):
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def test_a_window_is_the_mean_direction_of_its_rows(tmp_path):
    features = rows()
    made = zero_shot.load(None, facts_of(store_of(tmp_path, {"a": features})))
    [(windows, vectors)] = made.windows([features], [19.8])
    assert windows.shape == (len(vectors), 2)
    assert windows.min() == 0
    assert windows.max() == 19.8
    assert {2.0, 4.0, 8.0, 16.0} <= set(np.diff(windows, axis=1).ravel().round(6))
    place = windows.tolist().index([3.0, 5.0])
    wanted = (features / np.linalg.norm(features, axis=1, keepdims=True))[6:10].mean(0)
    np.testing.assert_allclose(vectors[place], wanted / np.linalg.norm(wanted), atol=1e-6)


@pytest.mark.parametrize(("count", "stride"), [(1, 1.0), (3, 0.5), (77, 2.0), (7_200, 0.5), (50_000, 1.0)])
def test_windows_cover_every_row_and_are_bounded(count, stride):
    found = zero_shot.window_rows(count, stride, zero_shot.LENGTHS, zero_shot.MOST)
    assert len(found) <= zero_shot.MOST
    assert len(np.unique(found, axis=0)) == len(found)
    covered = np.zeros(count + 1)
    np.add.at(covered, found[:, 0], 1)
    np.add.at(covered, found[:, 1], -1)
    assert (np.cumsum(covered)[:-1] > 0).all()


def test_a_row_of_zeros_and_one_row_alone_are_windows(tmp_path):
    made = zero_shot.load(None, facts_of(store_of(tmp_path, {"a": rows()})))
    [(windows, vectors)] = made.windows([np.zeros((1, 16), np.float32)], [0.3])
    assert windows.tolist() == [[0.0, 0.3]]
    assert not vectors.any()


def test_sentences_and_windows_share_a_space(tmp_path):
    folder = str(tiny_networks.clip(tmp_path / "clip"))
    encoder = zero_shot.load(None, facts_of(store_of(tmp_path, {"a": rows()}, network=folder)))
    vectors = encoder.sentences(["a dog", "a cat"])
    assert vectors.shape == (2, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    facts = dict(encoder.facts, manifest={**encoder.facts["manifest"], "weights_hash": "0" * 64})
    with pytest.raises(UserError, match="weights_hash '000"):
        zero_shot.load(None, facts).sentences(["a dog"])


def test_the_place_of_the_weights_changes_no_identity_and_the_windows_do(tmp_path):
    made = facts_of(store_of(tmp_path, {"a": rows()}, weights_hash="1" * 64))
    same = dict(made, weights="/elsewhere")
    other = dict(made, lengths=[4.0])
    assert "zero-shot" in retrievers()
    first, second, third = (open_retriever("zero-shot", None, facts) for facts in (made, same, other))
    assert first.identity() == second.identity() != third.identity()


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"size": 0}, "size 0"),
        ({"most": -1}, "most -1"),
        ({"size": "x"}, "size"),
        ({"lengths": [0.0]}, "lengths"),
        ({"manifest": {"nothing": 1}}, "nothing"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_facts_of_others_are_refused(tmp_path, facts, named):
    made = facts_of(store_of(tmp_path, {"a": rows()}))
    with pytest.raises(UserError, match=named):
        zero_shot.load(None, {**made, **facts})


def test_features_of_another_network_are_refused(tmp_path):
    made = zero_shot.load(None, facts_of(store_of(tmp_path, {"a": rows()})))
    for change, named in (({"extractor": "I3D"}, "I3D"), ({"stride_s": 2.0}, "a row per 2 s")):
        with pytest.raises(UserError, match=named):
            made.require_features(store_of(tmp_path, {"a": rows()}, **change))
    bare = tmp_path / "bare.h5"
    with h5py.File(bare, "w") as file:
        file["a"] = rows()
    with pytest.raises(UserError, match="--extractor"):
        facts_of(FeatureStore(bare))
    assert facts_of(FeatureStore(bare), extractor="clip-vit-b32")["manifest"] == {"extractor": "clip-vit-b32"}
    with pytest.raises(UserError, match="'I3D' reads no sentences, expected one of clip"):
        facts_of(store_of(tmp_path, {"a": rows()}, extractor="I3D"))
    with pytest.raises(UserError, match="--extractor says siglip"):
        facts_of(store_of(tmp_path, {"a": rows()}), extractor="siglip2-b16")
    with pytest.raises(UserError, match="no model of its own"):
        zero_shot.load(bare, made.facts)
    assert dataclasses.asdict(made.manifest)["stride_s"] == 0.5
