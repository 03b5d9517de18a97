"""Batches of CDN: words, distinct videos, overlap maps."""

import numpy as np
import pytest

from cdn.data import Dataset, Preprocessor
from vmr_common.errors import UserError
from vmr_common.features.pooling import pool
from vmr_common.features.store import FeatureStore, Manifest, write_features
from vmr_common.metrics import iou
from vmr_common.text.vectors import WordVectors
from vmr_common.types import Query
from vmr_train.cli.checks import require_moments
from vmr_train.map_proposals import map_overlaps
from vmr_train.prepared import pooled_features, unit_rows
from vmr_train.word_lookup import WordLookup, plain_words

WORDS = WordVectors(("she", "cuts", "board"), np.arange(6, dtype=np.float32).reshape(3, 2) + 1)


def query(number: int, video: str, text: str, moment=(2.0, 5.0)) -> Query:
    return Query(id=str(number), video=video, text=text, duration=10.0, moments=[moment])


@pytest.fixture
def glove(tmp_path):
    path = tmp_path / "glove.txt"
    path.write_text("she 9 9\nknife 0.5 -0.5\ncuts 8 8\n")
    return path


def test_words_not_met_in_training_are_read_from_the_file_and_those_met_are_not(glove):
    lookup = WordLookup(WORDS, glove)
    assert lookup.prepare(["she", "knife", "qwertz"]) == 0
    np.testing.assert_array_equal(lookup[["she", "knife", "qwertz"]], [[1, 2], [0.5, -0.5], [0, 0]])


def test_without_the_file_further_words_are_unknown_and_counted(tmp_path, caplog):
    queries = [query(0, "a", "she cuts knife board.")]
    dataset = Dataset(
        queries, {"a": np.zeros((4, 3), np.float32)}, WordLookup(WORDS, tmp_path / "no"), clips=4
    )
    assert f"no {tmp_path / 'no'}: only words that training met are known (2 are not)" in caplog.text
    assert dataset.batch([0], None).words.vectors[0].tolist() == [[1, 2], [3, 4], [0, 0], [0, 0]]


def test_words_without_a_vector_are_known_by_name(glove):
    dataset = Dataset([query(0, "a", "she cuts knife board.")], {}, WordLookup(WORDS, glove), clips=4)
    assert dataset.unknown.text() == "unknown to the model: 'board.'"


def test_vectors_of_another_width_are_refused(tmp_path):
    (tmp_path / "wide.txt").write_text("knife 1 2 3\n")
    with pytest.raises(UserError, match="width 3"):
        WordLookup(WORDS, tmp_path / "wide.txt").prepare(["knife"])


def test_a_batch_holds_every_video_once_and_pads_words_with_zeros():
    queries = [query(0, "b", "she cuts"), query(1, "a", "board"), query(2, "b", "she")]
    features = {name: np.full((4, 3), value, np.float32) for name, value in (("a", 1), ("b", 2))}
    batch = Dataset(queries, features, WordLookup(WORDS), clips=4).batch([0, 1, 2], 1)
    assert batch.videos == ("b", "a")
    assert batch.video_of.tolist() == [0, 1, 0]
    assert batch.features[:, 0, 0].tolist() == [2, 1]
    assert batch.words.lengths.tolist() == [2, 1, 1]
    assert batch.words.vectors[1:, 1].abs().max() == 0
    assert batch.overlaps.shape == (3, 4, 4)


def test_the_overlap_map_is_that_of_every_window_and_of_several_moments_the_best():
    moments, duration, size = np.array([[1.3, 4.2], [6.0, 9.5]]), 11.0, 8
    found = map_overlaps(moments, duration, size)
    for start in range(size):
        for end in range(size):
            window = np.array([start, end + 1]) * duration / size
            wanted = max(iou(window, moment).item() for moment in moments) if end >= start else 0.0
            assert found[start, end] == pytest.approx(wanted, abs=1e-6)
    assert not map_overlaps(np.zeros((0, 2)), duration, size).any()


def test_training_queries_need_moments_and_known_words(glove):
    without = Query(id="x", video="a", text="she", duration=10.0)
    with pytest.raises(UserError, match="learns from moments"):
        require_moments("CDN", [query(0, "a", "she"), without])
    require_moments("CDN", [query(0, "a", "she")])
    with pytest.raises(UserError, match="found no"):
        Preprocessor.learn([query(0, "a", "qwertz")], glove, plain_words, None)
    learned = Preprocessor.learn([query(0, "a", "She cuts it")], glove, plain_words, None)
    assert learned.words.words == ("she", "cuts")


def test_unit_rows_are_pooled_after_they_were_divided(tmp_path):
    rows = np.random.default_rng(0).normal(size=(11, 3)).astype(np.float32) * 7
    write_features(tmp_path / "f.h5", [("a", rows)], Manifest())
    store = FeatureStore(tmp_path / "f.h5")
    found = pooled_features(store, 4, unit=True)["a"]
    np.testing.assert_allclose(found, pool(rows / np.linalg.norm(rows, axis=1, keepdims=True), 4), rtol=1e-5)
    assert (unit_rows(np.zeros((2, 3))) == 0).all()
