"""CFMR's examples, predictions and gradients beyond the recorded cases."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from cfmr import cli, data
from cfmr.config import Config, LossConfig, ModelConfig
from cfmr.data import InputFeatures, QueryExamples, kept_clip_features, kept_clips
from cfmr.method import CFMRMethod
from cfmr.model import Supervision
from cfmr_toy import make_task
from factories import CLASS_VECTORS, VOCABULARY, features_of, glanced_queries
from vmr_common.errors import UserError
from vmr_common.features.pooling import pool
from vmr_common.features.store import FeatureStore, Manifest, write_features
from vmr_common.types import Query
from vmr_train.cli.config import bundled_config
from vmr_train.layers.reconstruction import end_token_mask
from vmr_train.method import Progress
from vmr_train.preprocessing import Preprocessor

FEATURES = features_of(4, rows=18)
PROGRESS = Progress(update=0, epoch=1, epochs=3)


def make_examples(queries: list[Query], max_words: int = 20, *, end_token: bool = True) -> QueryExamples:
    return QueryExamples(
        queries,
        FEATURES,
        VOCABULARY,
        CLASS_VECTORS,
        max_words=max_words,
        end_token=end_token,
        seed=0,
    )


def scores(task: CFMRMethod, examples: QueryExamples, indices: list[int]) -> np.ndarray:
    with torch.no_grad():
        return np.stack([prediction.scores for prediction in task.predict(examples.batch(indices, None))])


@pytest.mark.parametrize("learned_summary", [False, True])
def test_scores_do_not_depend_on_batch_mates(learned_summary):
    examples, task = make_examples(glanced_queries()), make_task(learned_summary=learned_summary)
    together = scores(task, examples, list(range(9)))
    fresh = make_task(learned_summary=learned_summary)
    alone = np.concatenate([scores(fresh, examples, [n]) for n in range(9)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_loss_of_a_batch_is_the_mean_of_its_queries():
    examples, task = make_examples(glanced_queries()), make_task()
    with torch.no_grad():
        together = task.loss(examples.batch(list(range(9)), 1), PROGRESS)
        alone = [task.loss(examples.batch([n], 1), PROGRESS) for n in range(9)]
    for name, value in together.items():
        assert value.item() == pytest.approx(np.mean([one[name].item() for one in alone]), abs=1e-4), name


def test_each_video_is_encoded_once(monkeypatch):
    examples, task = make_examples(glanced_queries()), make_task()
    encoded: list[int] = []
    original = task.model.encode_video
    monkeypatch.setattr(task.model, "encode_video", lambda f: encoded.append(len(f.mask)) or original(f))
    for start in range(0, 9, 2):
        scores(task, examples, list(range(start, min(start + 2, 9))))
    assert sum(encoded) == 4


@pytest.mark.parametrize("change", ["train", "load"])
def test_new_weights_encode_videos_anew(change):
    examples, task = make_examples(glanced_queries()), make_task()
    before = scores(task, examples, [0, 1])
    weights = {name: value + 0.2 for name, value in task.model.state_dict().items()}
    if change == "load":
        task.model.load_state_dict(weights)
    else:
        task.loss(examples.batch([0, 1], 1), PROGRESS)["total"].backward()
        with torch.no_grad():
            for name, parameter in task.model.named_parameters():
                parameter.copy_(weights[name])
    after = scores(task, examples, [0, 1])
    fresh = make_task()
    fresh.model.load_state_dict(weights)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, scores(fresh, examples, [0, 1]), atol=1e-5)


def test_predictions_are_ranked_moments_inside_the_video():
    task = make_task()
    for prediction in task.predict(make_examples(glanced_queries()).batch(list(range(9)), None)):
        assert prediction.moments.shape == (24, 2)
        assert (np.diff(prediction.scores) <= 0).all()
        assert np.abs(prediction.scores).max() <= 3 + 1e-5
        assert (prediction.moments >= 0).all()
        assert (prediction.moments <= 20.0).all()


@pytest.mark.parametrize("learned_summary", [False, True])
def test_every_parameter_takes_part_in_the_loss(learned_summary):
    task = make_task(learned_summary=learned_summary)
    task.loss(make_examples(glanced_queries()).batch(list(range(9)), 1), PROGRESS)["total"].backward()
    assert [name for name, p in task.model.named_parameters() if p.grad is None] == []


def test_alignment_trains_the_text_branch_alone():
    task = make_task()
    terms = task.loss(make_examples(glanced_queries()).batch(list(range(9)), 1), PROGRESS)
    (terms["alignment_distance"] + terms["alignment_left"] + terms["alignment_right"]).backward()
    moved = {
        name.split(".")[0] for name, p in task.model.named_parameters() if p.grad is not None and p.grad.any()
    }
    assert moved <= {"text_encoder", "word_projection", "start_token", "text_summary_token"}


def test_classifying_in_chunks_gives_the_same_loss_and_gradients():
    batch = make_examples(glanced_queries()).batch(list(range(9)), 1)
    found = []
    for chunk in (0, 2):
        task = make_task(chunk=chunk)
        loss = task.loss(batch, PROGRESS)["total"]
        loss.backward()
        found.append((loss.item(), task.model.classifier.weight.grad.clone()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-5, atol=1e-6)


def test_a_glance_past_the_end_trains():
    queries = [dataclasses.replace(query, glance=21.4) for query in glanced_queries()]
    task = make_task(loss=LossConfig(reference_contrast=True, reference_alignment=True))
    terms = task.loss(make_examples(queries).batch(list(range(9)), 1), PROGRESS)
    assert all(term.isfinite() for term in terms.values())
    terms["total"].backward()
    assert all(p.grad.isfinite().all() for p in task.model.parameters())


def test_the_longest_allowed_query_has_no_end_token():
    queries = [dataclasses.replace(query, text="word1 word2 word3") for query in glanced_queries(2)]
    assert make_examples(queries).batch([0, 1], 1).targets.shape == (2, 4)
    assert make_examples(queries, max_words=3).batch([0, 1], 1).targets.shape == (2, 3)


def test_the_longest_query_of_a_batch_of_the_torch_branch_has_no_end_token():
    texts = ("word1 word2 word3", "word1 word2")
    queries = [
        dataclasses.replace(query, text=text) for query, text in zip(glanced_queries(2), texts, strict=True)
    ]
    task = make_task(learned_summary=False)
    places, told = {}, {}
    for end_token in (True, False):
        examples = make_examples(queries, end_token=end_token)
        batches = {"together": examples.batch([0, 1], 1), "alone": examples.batch([1], 1)}
        for name, batch in batches.items():
            places[end_token, name] = end_token_mask(batch.words.lengths, batch.targets.shape[1])
            supervision = Supervision(
                batch.video_of, batch.glance, batch.masked, batch.glance.new_tensor(0.3), reference=False
            )
            with torch.no_grad():
                states = task.model(batch.frames, batch.words, supervision).states
                told[end_token, name] = task.nll(states, batch).text[-1]
                vectors = task.model.encode_text(batch.words)[-1]
            # what a query is searched with depends on no batch in either form
            torch.testing.assert_close(vectors, told.setdefault("vectors", vectors), rtol=1e-5, atol=1e-5)
    assert places[True, "together"].sum(dim=1).tolist() == [4, 3]
    assert places[False, "together"].sum(dim=1).tolist() == [3, 3]
    assert places[True, "alone"].sum(dim=1).tolist() == [3]
    assert places[False, "alone"].sum(dim=1).tolist() == [2]
    torch.testing.assert_close(told[True, "together"], told[True, "alone"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(told[False, "together"], told[True, "together"], rtol=1e-5, atol=1e-5)
    assert abs(told[False, "together"] - told[False, "alone"]) > 1e-3


@pytest.mark.parametrize(
    ("quirks", "end_token", "learned_summary"),
    [("released", True, False), ("released-torch", False, False), ("fixed", True, True)],
)
def test_quirks_decide_on_end_token_and_summary(quirks, end_token, learned_summary):
    config = bundled_config("cfmr", Config, "shapes", "--quirks", quirks)
    learned = Preprocessor(VOCABULARY, CLASS_VECTORS)
    sources = InputFeatures(FEATURES, Path("none.txt"))
    examples = data.make_examples(config, learned, sources, glanced_queries(2))
    batch = examples.batch([0, 1], 1)
    assert batch.targets.shape[1] == batch.words.lengths.max() + end_token
    assert (cli._task(config, learned).model.video_summary_token is not None) == learned_summary


def test_a_batch_holds_every_video_once():
    batch = make_examples(glanced_queries()).batch([0, 4, 8, 1], None)
    assert batch.videos == ("v0", "v1")
    assert batch.video_of.tolist() == [0, 0, 0, 1]


def test_kept_clips_are_those_of_the_pooled_video_and_travel_without_the_cache(tmp_path):
    path = tmp_path / "features.h5"
    rows = np.random.default_rng(1).normal(size=(37, 3)).astype(np.float32)
    write_features(path, [("v", rows)], Manifest())
    kept = kept_clip_features(FeatureStore(path), 40)
    np.testing.assert_array_equal(kept["v"], pool(rows, 40)[kept_clips(40)])
    assert kept["v"] is kept["v"]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(kept))["v"], kept["v"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden": 30, "heads": 4}, "model.hidden"),
        ({"concepts": 0}, "model.concepts"),
        ({"widest": 1.5}, "model.widest"),
        ({"dropout": 1.0}, "model.dropout"),
    ],
)
def test_sizes_that_cannot_work_are_refused_by_name(values, message):
    with pytest.raises(UserError, match=message):
        ModelConfig(**values)
