"""Batches of RGN: what is drawn, padded and left out."""

import numpy as np
import pytest
import torch

from rgn.data import Dataset
from vmr_common.features.store import FeatureStore, Manifest, write_features
from vmr_common.text.vectors import Vocabulary
from vmr_common.types import Query
from vmr_train.prepared import PreparedFeatures, pooled_features
from vmr_train.preprocessing import Preprocessor

WORDS = Vocabulary(("the", "door", "opens", "person", "a", "slowly"))
VECTORS = np.concatenate([np.zeros((1, 5)), np.random.default_rng(0).normal(size=(6, 5))]).astype(np.float32)
TEXTS = ("the door opens", "a person slowly opens the door", "the door", "qwertz")


def make_queries() -> list[Query]:
    return [
        Query(id=str(n), video=f"v{n % 2}", text=text, duration=10.0, moments=[[1, 4]], glance=2.0)
        for n, text in enumerate(TEXTS)
    ]


@pytest.fixture(scope="module")
def pooled(tmp_path_factory) -> PreparedFeatures:
    path = tmp_path_factory.mktemp("features") / "features.h5"
    rng = np.random.default_rng(1)
    write_features(
        path, [(f"v{n}", rng.normal(size=(9, 7)).astype(np.float32)) for n in range(2)], Manifest()
    )
    return pooled_features(FeatureStore(path), 8)


def make(pooled, *, end_token=True, seed=0) -> Dataset:
    return Dataset(
        make_queries(), pooled, Preprocessor(WORDS, VECTORS), max_words=20, end_token=end_token, seed=seed
    )


def test_queries_without_a_known_word_are_left_out_with_a_warning(pooled, caplog):
    dataset = make(pooled)
    assert [query.text for query in dataset.queries] == list(TEXTS[:3])
    left_out = dataset.unknown.without
    named = f"{make_queries()[left_out[0]].id} ('qwertz')"
    assert f"no word that the model knows in 1 of 4 queries, which are left out: {named}" in caplog.text


def test_word_masks_do_not_depend_on_the_rest_of_the_batch(pooled):
    dataset = make(pooled)
    together = dataset.batch([0, 1, 2], epoch=3).inputs.masked
    for row in range(3):
        alone = dataset.batch([row], epoch=3).inputs.masked[0]
        assert together[row, : len(alone)].tolist() == alone.tolist()


def test_word_masks_change_with_seed_and_epoch_and_stay_in_evaluation(pooled):
    def masks(seed: int, epochs: list[int | None]) -> list[list[bool]]:
        dataset = make(pooled, seed=seed)
        return [dataset.batch([1], epoch).inputs.masked[0].tolist() for epoch in epochs]

    over_epochs = masks(0, list(range(1, 20)))
    assert len({tuple(mask) for mask in over_epochs}) > 1
    assert over_epochs != masks(1, list(range(1, 20)))
    assert masks(0, [None]) == masks(1, [None])


def test_a_third_of_the_words_is_masked_and_never_the_start_token(pooled):
    inputs = make(pooled).batch([0, 1, 2], epoch=1).inputs
    assert inputs.masked.sum(dim=1).tolist() == [1, 2, 1]
    assert not inputs.masked[:, 0].any()
    beyond = torch.arange(inputs.masked.shape[1]) > inputs.words_len[:, None]
    assert not (inputs.masked & beyond).any()


def test_every_query_gets_an_end_token_only_when_asked_for(pooled):
    assert make(pooled, end_token=True).batch([0, 1], None).targets.shape == (2, 7)
    assert make(pooled, end_token=False).batch([0, 1], None).targets.shape == (2, 6)


def test_the_glance_is_a_fraction_of_the_duration_and_missing_ones_are_not_a_number(pooled):
    assert make(pooled).batch([0], None).glance.item() == pytest.approx(0.2)
    query = Query(id="x", video="v0", text="the door", duration=10.0)
    dataset = Dataset([query], pooled, Preprocessor(WORDS, VECTORS), max_words=20, end_token=True, seed=0)
    assert dataset.batch([0], None).glance.isnan().all()
