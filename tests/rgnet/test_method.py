"""RGNet's data and method: draws, batches, predictions, and inputs that are not as they should be."""

import dataclasses

import numpy as np
import pytest
import torch

from rgnet.config import Config, DataConfig, LossConfig, SearchConfig
from rgnet.data import Dataset, WindowingConfig
from rgnet.method import RGNetMethod
from rgnet.query_features.config import QueryFeaturesConfig
from rgnet.query_features.store import QueryFeatureStore, QueryVectors, WordVectorQueries
from rgnet.query_features.writing import write_query_features
from rgnet.zero_shot import zero_shot
from rgnet_toy import FRAME_DIM, SECONDS, SMALL, TOKEN_DIM, WINDOW, network
from vmr_common.errors import UserError
from vmr_common.evaluation.zero_shot import zero_shot_moments
from vmr_common.features.store import FeatureStore, Manifest, write_features
from vmr_common.text.vectors import WordVectors
from vmr_common.types import Query
from vmr_train.feature_files import FeaturesConfig
from vmr_train.method import Progress
from vmr_train.prepared import FeatureNormalizer, PreparedFeatures
from vmr_train.splits import SplitConfig, SplitsConfig

WORDS = ("the", "red", "star", "spins", "grows")
VECTORS = WordVectors(WORDS, np.random.default_rng(0).normal(size=(5, TOKEN_DIM)).astype(np.float32))
ROWS = {"a": 83, "b": 47, "short": 6, "one": 1}
NOW = Progress(update=0, epoch=1, epochs=2)


@pytest.fixture(scope="module")
def features(tmp_path_factory) -> PreparedFeatures:
    path = tmp_path_factory.mktemp("features") / "features.h5"
    rng = np.random.default_rng(1)
    write_features(
        path, [(v, rng.normal(size=(n, FRAME_DIM)).astype(np.float32)) for v, n in ROWS.items()], Manifest()
    )
    return PreparedFeatures(FeatureStore(path))


def query(name: str, video: str = "a", text: str = "the red star spins", moment=(8.0, 11.0)) -> Query:
    return Query(id=name, video=video, text=text, duration=ROWS[video] * SECONDS, moments=[moment])


QUERIES = [
    query("0"), query("1", "b", "a star grows", (3.0, 4.5)), query("2", "a", "red"), query("3", "b", "the star"),
    query("4", "a", "qwertz"), query("5", "a", "star spins the red star", (30.0, 33.0)),
]  # fmt: skip


def make_config(*, sentences: bool = False, **changes) -> Config:
    split = SplitConfig(annotations="x.jsonl")
    queries = QueryFeaturesConfig(path="q.h5", token_dim=TOKEN_DIM, sentence_dim=FRAME_DIM)
    if not sentences:
        queries = QueryFeaturesConfig(word_vectors="w.txt", token_dim=TOKEN_DIM)
    data = DataConfig(
        splits=SplitsConfig(train=split, test=split),
        features=FeaturesConfig(path="f.h5", dim=FRAME_DIM),
        feature_stride=SECONDS,
        window=WINDOW,
        queries=queries,
    )
    values = {"model": SMALL, "search": SearchConfig(windows=4, window_batch_size=8), **changes}
    return Config(data=data, **values)


def make(
    features,
    queries=QUERIES,
    vectors=None,
    *,
    scale=None,
    by_video=True,
    negative=False,
    adapter=False,
    seed=0,
):
    windowing = WindowingConfig(
        window=WINDOW, feature_stride=SECONDS, max_tokens=4, negative_windows=negative, adapter=adapter
    )
    vectors = WordVectorQueries(VECTORS) if vectors is None else vectors
    return Dataset(queries, features, vectors, windowing, scale=scale, by_video=by_video, seed=seed)


def method_of(config: Config | None = None, **changes) -> RGNetMethod:
    return RGNetMethod(network(SMALL, **changes), make_config() if config is None else config, None)


def predictions(one: RGNetMethod, dataset: Dataset, indices=None) -> dict:
    with torch.no_grad():
        found = one.predict(dataset.batch(range(len(dataset)) if indices is None else indices, None))
    return {prediction.query: prediction for prediction in found}


@pytest.fixture(scope="module")
def stored(tmp_path_factory) -> QueryFeatureStore:
    path = tmp_path_factory.mktemp("queries") / "queries.h5"
    rng = np.random.default_rng(5)
    items = [
        (
            one.id,
            QueryVectors(
                rng.normal(size=(1 + n, TOKEN_DIM)).astype(np.float32),
                rng.normal(size=FRAME_DIM).astype(np.float32),
            ),
        )
        for n, one in enumerate(QUERIES)
    ]
    write_query_features(path, items, Manifest())
    return QueryFeatureStore(path, token_dim=TOKEN_DIM, sentence_dim=FRAME_DIM)


def test_queries_without_a_known_word_are_left_out_and_said(features, caplog):
    dataset = make(features)
    assert len(dataset) == 5
    assert "no word that has a vector in 1 of 6 queries, which are left out:" in caplog.text


def test_queries_of_one_video_stand_together_unless_their_order_matters(features):
    assert [one.video for one in make(features).queries] == ["a", "a", "a", "b", "b"]
    assert [one.id for one in make(features, by_video=False).queries] == ["0", "1", "2", "3", "5"]


def test_zero_shot_answers_the_queries_where_sentences_lie_in_the_space_of_the_frames(
    features, stored, caplog
):
    assert make(features).baselines() == {}  # words have no common space with frames
    dataset = make(features, vectors=stored)
    (found,) = dataset.baselines().values()
    assert {one.query for one in found} == {one.id for one in QUERIES}
    for one in found:
        asked = next(query for query in QUERIES if query.id == one.query)
        moments, _ = zero_shot_moments(
            features[asked.video], stored[asked.id].sentence, SECONDS, asked.duration, 5
        )
        assert np.array_equal(one.moments, moments)
    with caplog.at_level("INFO"):
        assert zero_shot(QUERIES, features, stored, 1e-8) is None
        narrow = {video: features[video][:, :3] for video in ("a", "b")}
        assert zero_shot(QUERIES, narrow, stored, SECONDS) is None
    assert "would take long" in caplog.text
    assert "width 3, sentences of 6" in caplog.text


def test_training_windows_hold_their_moment_and_negatives_come_from_the_same_video(features):
    dataset = make(features, negative=True)
    for epoch in range(1, 6):
        train = dataset.batch([0, 1, 2, 3, 4], epoch).train
        for row in range(5):
            rows = features[dataset.queries[row].video]
            for window in (train.windows, train.negatives):
                length = int(window.mask[row].sum())
                assert 0 < length <= WINDOW
                one = window.features[row, :length].numpy()
                assert any(np.array_equal(rows[n : n + length], one) for n in range(len(rows)))


def test_draws_do_not_depend_on_the_rest_of_the_batch_and_change_with_epoch_and_seed(features):
    dataset = make(features)
    together = dataset.batch([0, 1, 2, 3, 4], 3).train
    for row in range(5):
        alone = dataset.batch([row], 3).train
        torch.testing.assert_close(alone.targets.spans[0], together.targets.spans[row], rtol=0, atol=0)
    spans = [
        make(features, seed=seed).batch([0, 1, 2, 3, 4], epoch).train.targets.spans
        for seed, epoch in ((0, 3), (0, 4), (1, 3))
    ]
    assert not torch.equal(spans[0], spans[1])
    assert not torch.equal(spans[0], spans[2])


def test_a_batch_brings_each_video_once(features):
    batch = make(features).batch([0, 1, 3, 4], None)
    assert [video.id for video in batch.videos] == ["a", "b"]
    assert batch.video_of == (0, 0, 1, 1)


@pytest.mark.parametrize("sentences", [False, True])
def test_fixed_predictions_do_not_depend_on_batch_size_or_the_rest_of_the_batch(features, stored, sentences):
    one = method_of(make_config(sentences=sentences))
    dataset = make(features, vectors=stored if sentences else None)
    together = predictions(one, dataset)
    for index, asked in enumerate(dataset.queries):
        alone = predictions(one, dataset, [index])[asked.id]
        np.testing.assert_allclose(alone.scores, together[asked.id].scores, atol=3e-4)
        # scores may be as good as equal
        np.testing.assert_allclose(
            np.sort(alone.moments, axis=0), np.sort(together[asked.id].moments, axis=0), atol=3e-3
        )


def test_fixed_moments_lie_in_the_video_and_released_ones_are_as_found(features):
    dataset = make(features)
    for found in predictions(method_of(), dataset).values():
        end = next(one.duration for one in QUERIES if one.id == found.query)
        assert (found.moments >= 0).all()
        assert (found.moments <= end).all()
        assert (np.diff(found.scores) <= 0).all()
    one = method_of(dataclasses.replace(make_config(), quirks="released"))
    predictions(one, dataset)
    rows = one.windows["0"].moments
    np.testing.assert_array_equal(predictions(one, dataset)["0"].moments, rows[:, :2])


@pytest.mark.parametrize("negatives", ["contrast", "window"])
def test_the_loss_is_the_sum_of_its_terms_and_its_names_stay(features, negatives):
    config = make_config(loss=LossConfig(negatives=negatives))
    one, dataset = method_of(config), make(features, negative=negatives == "window")
    one.model.train()
    names = set()
    for epoch in (1, 2):
        terms = one.loss(dataset.batch([0, 1, 2, 3, 4], epoch), NOW)
        names.add(tuple(terms))
        rest = [term for name, term in terms.items() if name != "total"]
        assert terms["total"].item() == pytest.approx(torch.stack(rest).sum().item())
    assert len(names) == 1


def test_the_adapter_learns_from_sentences(features, stored):
    model = dataclasses.replace(SMALL, adapter=True)
    config = make_config(sentences=True, model=model, loss=LossConfig(negatives="window"))
    one = RGNetMethod(network(model).train(), config, None)
    batch = make(features, vectors=stored, negative=True, adapter=True).batch([0, 1, 2], 1)
    terms = one.loss(batch, NOW)
    terms["total"].backward()
    assert "adapter" in terms
    assert one.model.adapter.layers[0].weight.grad.abs().sum() > 0


def test_predictions_follow_new_weights(features):
    one, dataset = method_of(), make(features)
    before = predictions(one, dataset)["0"].scores
    one.model.load_state_dict(network(SMALL, seed=9).state_dict())
    after = predictions(one, dataset)["0"].scores
    assert not np.array_equal(before[:3], after[:3])
    with torch.no_grad():
        one.loss(dataset.batch([0, 1], 1), NOW)
    assert not one.windows


def test_standardised_features_reach_the_network_and_raw_ones_the_matching(features, stored):
    scale = FeatureNormalizer.measure(features, ["a", "b"])
    batch = make(features, vectors=stored, scale=scale).batch([0], None)
    np.testing.assert_allclose(batch.videos[0].features.numpy(), scale(features["a"]), rtol=1e-6)
    np.testing.assert_array_equal(batch.videos[0].frames.numpy(), features["a"])


@pytest.mark.parametrize("video", ["short", "one"])
def test_a_video_shorter_than_a_window_is_searched(features, video):
    dataset = make(features, [query("x", video, moment=(0.0, 0.5))])
    found = predictions(method_of(), dataset)["x"]
    assert len(found.moments)
    assert np.isfinite(found.moments).all()
    assert found.moments.max() <= ROWS[video] * SECONDS
    assert dataset.batch([0], 1).train.targets.frames.tolist() == [[0, 1]]


def test_a_moment_without_a_window_beside_it_is_named_where_one_is_needed(features):
    dataset = make(features, [query("x", "short", moment=(0.0, 3.0))], negative=True)
    with pytest.raises(UserError, match=r"query 'x': every window of video 'short' holds part of its moment"):
        dataset.batch([0], 1)


def test_a_missing_query_and_values_that_are_no_numbers_are_named(features, stored, tmp_path):
    dataset = make(features, [query("0")], vectors=stored)
    dataset.queries = [query("nobody")]
    with pytest.raises(UserError, match="'nobody'"):
        dataset.batch([0], None)
    path = tmp_path / "bad.npz"
    bad = np.full((3, TOKEN_DIM), np.nan, np.float32)
    np.savez(path, **{"0/token_features": bad, "0/cls_features": np.ones(FRAME_DIM, np.float32)})
    with pytest.raises(UserError, match=r"query '0'.*(NaN|infinity)"):
        make(features, [query("0")], vectors=QueryFeatureStore(path)).batch([0], None)


def test_options_that_need_sentence_vectors_are_refused_without():
    with pytest.raises(
        UserError, match=r"search.coarse_windows: found 5, expected off: it needs sentence vectors"
    ):
        make_config(search=SearchConfig(coarse_windows=5))
    with pytest.raises(UserError, match=r"model.adapter"):
        make_config(model=dataclasses.replace(SMALL, adapter=True))
