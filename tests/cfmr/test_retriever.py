"""CFMR finds moments for `vmr-search` as its own index does."""

import dataclasses

import numpy as np
import pytest

from cfmr.retriever import CFMRRetriever, load
from vmr_common.errors import UserError
from vmr_common.features.store import FeatureStore, Manifest, write_features
from vmr_search.retriever import Retriever


@pytest.fixture
def retriever(checkpoint) -> Retriever:
    return load(checkpoint, {}, "cpu")


def test_vectors_and_windows_are_those_of_the_model(retriever, encoder, store, durations):
    videos = store.videos()[:5]
    features, seconds = [store[video] for video in videos], [durations[video] for video in videos]
    made = retriever.windows(features, seconds)
    assert len(made) == 5
    assert retriever.windows([], []) == []
    for (windows, vectors), expected, length in zip(
        made, encoder.encode_videos(features), seconds, strict=True
    ):
        assert vectors.shape == (len(windows), retriever.size)
        assert vectors.dtype == np.float32
        np.testing.assert_array_equal(vectors, expected.numpy())
        np.testing.assert_array_equal(windows, encoder.moments * length)
    known = encoder.preprocessor.vocabulary.words[:2]
    np.testing.assert_array_equal(retriever.sentences(known), encoder.encode_queries(known).numpy())


def test_a_sentence_of_unknown_words_cannot_be_searched_for(retriever, encoder):
    known = encoder.preprocessor.vocabulary.words[0]
    why = retriever.unsearchable([known, "zzz", f"zzz {known}"])
    assert [reason is None for reason in why] == [True, False, True]
    with pytest.raises(UserError, match="zzz"):
        retriever.sentences([known, "zzz"])
    assert retriever.sentences([]).shape == (0, retriever.size)


def test_the_saved_model_gives_the_same_vectors(retriever, tmp_path, encoder):
    path = tmp_path / "model.safetensors"
    assert retriever.save(path)
    again = load(path, retriever.facts, "cpu")
    assert again.identity() == retriever.identity() == encoder.hash()
    with pytest.raises(UserError, match="needs a model"):
        load(None, {})


def test_other_features_are_refused_or_said(encoder, store, tmp_path, caplog):
    path = tmp_path / "features.h5"
    write_features(path, [("a", np.zeros((9, 5), np.float32))], Manifest(extractor="another", stride_s=1.0))
    checkpoint = encoder.checkpoint
    describe = {**checkpoint.meta["describe"], "manifests": {"features": dataclasses.asdict(store.manifest)}}
    changed = dataclasses.replace(checkpoint, meta={**checkpoint.meta, "describe": describe})
    model = CFMRRetriever(type(encoder)(changed, "cpu"))
    with pytest.raises(UserError, match="extractor"):
        model.require_features(FeatureStore(path))
    model.require_features(FeatureStore(path), allow_other=True)
    assert "extractor" in caplog.text
    model.require_features(store)
    with pytest.raises(UserError, match=r"features of shape \(9, 6\), expected \(T, "):
        model.windows([np.zeros((9, 6), np.float32)], [9.0])
