"""CFMR's batches, predictions and gradients beyond the recorded cases."""

import dataclasses
import functools
import pickle
from functools import partial

import numpy as np
import pytest
import torch

from cfmr import losses
from cfmr.config import Config, LossConfig, ModelConfig
from cfmr.data import Dataset, build_dataset, keep, kept_clips
from cfmr.gaussians import negative_progress
from cfmr.layers import Draws, key_bias
from cfmr.method import CFMRMethod
from cfmr.model import Clips, Passes
from cfmr_passes import compared, every_pass
from cfmr_toy import make_method
from factories import CLASS_VECTORS, VOCABULARY, features_of, glanced_queries
from vmr_common.errors import UserError
from vmr_common.features.pooling import pool
from vmr_common.features.store import FeatureStore, Manifest, write_features
from vmr_common.types import Query
from vmr_train.caches import VideoCache
from vmr_train.cli.config import bundled_config
from vmr_train.device import autocast
from vmr_train.method import Progress
from vmr_train.prepared import PreparedFeatures
from vmr_train.preprocessing import Preprocessor

FEATURES = features_of(4, rows=18)
PROGRESS = Progress(update=0, epoch=1, epochs=3)


def make_dataset(queries: list[Query], max_words: int = 20, *, end_token: bool = True) -> Dataset:
    return Dataset(
        queries,
        FEATURES,
        Preprocessor(VOCABULARY, CLASS_VECTORS),
        max_words=max_words,
        end_token=end_token,
        seed=0,
    )


def scores(method: CFMRMethod, dataset: Dataset, indices: list[int]) -> np.ndarray:
    with torch.no_grad():
        return np.stack([prediction.scores for prediction in method.predict(dataset.batch(indices, None))])


@pytest.mark.parametrize("learned_summary", [False, True])
def test_scores_do_not_depend_on_the_rest_of_the_batch(learned_summary):
    dataset, method = make_dataset(glanced_queries()), make_method(learned_summary=learned_summary)
    together = scores(method, dataset, list(range(9)))
    fresh = make_method(learned_summary=learned_summary)
    alone = np.concatenate([scores(fresh, dataset, [n]) for n in range(9)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_loss_of_a_batch_is_the_mean_of_its_queries():
    dataset, method = make_dataset(glanced_queries()), make_method()
    with torch.no_grad():
        together = method.loss(dataset.batch(list(range(9)), 1), PROGRESS)
        alone = [method.loss(dataset.batch([n], 1), PROGRESS) for n in range(9)]
    for name, value in together.items():
        assert value.item() == pytest.approx(np.mean([one[name].item() for one in alone]), abs=1e-4), name


def test_each_video_is_encoded_once(monkeypatch):
    dataset, method = make_dataset(glanced_queries()), make_method()
    encoded: list[int] = []
    original = method.model.encode_video
    monkeypatch.setattr(method.model, "encode_video", lambda f: encoded.append(len(f.mask)) or original(f))
    for start in range(0, 9, 2):
        scores(method, dataset, list(range(start, min(start + 2, 9))))
    assert sum(encoded) == 4


def test_a_batch_of_more_videos_than_are_kept_is_complete(monkeypatch):
    dataset = make_dataset(glanced_queries())
    together = scores(make_method(), dataset, list(range(9)))
    monkeypatch.setattr("cfmr.method.VideoCache", partial(VideoCache, limit=1))
    method = make_method()
    for _ in range(2):
        np.testing.assert_allclose(scores(method, dataset, list(range(9))), together, atol=1e-5)


@pytest.mark.parametrize("change", ["train", "load"])
def test_new_weights_encode_videos_anew(change):
    dataset, method = make_dataset(glanced_queries()), make_method()
    before = scores(method, dataset, [0, 1])
    weights = {name: value + 0.2 for name, value in method.model.state_dict().items()}
    if change == "load":
        method.model.load_state_dict(weights)
    else:
        method.loss(dataset.batch([0, 1], 1), PROGRESS)["total"].backward()
        with torch.no_grad():
            for name, parameter in method.model.named_parameters():
                parameter.copy_(weights[name])
    after = scores(method, dataset, [0, 1])
    fresh = make_method()
    fresh.model.load_state_dict(weights)
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, scores(fresh, dataset, [0, 1]), atol=1e-5)


def test_predictions_are_ranked_moments_inside_the_video():
    method = make_method()
    for prediction in method.predict(make_dataset(glanced_queries()).batch(list(range(9)), None)):
        assert prediction.moments.shape == (24, 2)
        assert (np.diff(prediction.scores) <= 0).all()
        assert np.abs(prediction.scores).max() <= 3 + 1e-5
        assert (prediction.moments >= 0).all()
        assert (prediction.moments <= 20.0).all()


@pytest.mark.parametrize("learned_summary", [False, True])
def test_every_parameter_takes_part_in_the_loss(learned_summary):
    method = make_method(learned_summary=learned_summary)
    method.loss(make_dataset(glanced_queries()).batch(list(range(9)), 1), PROGRESS)["total"].backward()
    assert [name for name, p in method.model.named_parameters() if p.grad is None] == []


def test_alignment_trains_the_text_branch_alone():
    method = make_method()
    terms = method.loss(make_dataset(glanced_queries()).batch(list(range(9)), 1), PROGRESS)
    (terms["alignment_distance"] + terms["alignment_left"] + terms["alignment_right"]).backward()
    moved = {
        name.split(".")[0]
        for name, p in method.model.named_parameters()
        if p.grad is not None and p.grad.any()
    }
    assert moved <= {"text_encoder", "word_projection", "start_token", "text_summary_token"}


def test_classifying_in_chunks_gives_the_same_loss_and_gradients():
    batch = make_dataset(glanced_queries()).batch(list(range(9)), 1)
    found = []
    for chunk in (0, 2):
        method = make_method(chunk=chunk)
        loss = method.loss(batch, PROGRESS)["total"]
        loss.backward()
        found.append((loss.item(), method.model.classifier.weight.grad.clone()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-5, atol=1e-6)


def loss_and_gradients(terms, model) -> list[torch.Tensor]:
    model.zero_grad()
    terms["total"].backward()
    return [terms["total"].detach(), *(parameter.grad.clone() for parameter in model.parameters())]


EVERY_TERM = LossConfig(reference_contrast=True, reference_alignment=True)


def test_the_best_proposal_alone_teaches_what_all_passes_together_do():
    batch, method = make_dataset(glanced_queries()).batch(list(range(9)), 1), make_method(loss=EVERY_TERM)
    model = method.model
    found = loss_and_gradients(method.loss(batch, PROGRESS), model)
    run = every_pass(
        model,
        Clips(batch.clips.features[batch.video_of], batch.clips.mask[batch.video_of]),
        batch.words,
        batch.targets,
        masked=batch.masked,
        glance=batch.glance,
        progress=torch.tensor(negative_progress(PROGRESS.epoch, PROGRESS.epochs, model.config.gamma)),
    )
    numbers = run.nll["positive"].argmin(dim=1)
    concepts, nll = compared(run.concepts, numbers), compared(run.nll, numbers)
    terms = losses.total(concepts, run.concepts["positive"], nll, EVERY_TERM)
    torch.testing.assert_close(found, loss_and_gradients(terms, model), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_best_proposal_is_reconstructed_from_again_with_the_dropout_of_the_first_time(precision):
    batch, method = make_dataset(glanced_queries()).batch(list(range(9)), 1), make_method(loss=EVERY_TERM)
    model = method.model.train()
    with autocast(torch.device("cpu"), precision):
        torch.manual_seed(1)
        found = loss_and_gradients(method.loss(batch, PROGRESS), model)
        # the same draws in the same order, but with a graph for all proposals, of which the losses read the best
        torch.manual_seed(1)
        clips = Clips(batch.clips.features[batch.video_of], batch.clips.mask[batch.video_of])
        video, points = model.embed_clips(clips)[:, None], clips.features.shape[1]
        embedded, mask = model.embed_words(batch.words), batch.words.mask()
        text = model.text_encoder(embedded[:, None], key_bias(mask))
        proposals = model.train_proposals(batch.glance)
        bias = model.video_bias(clips, model.windows(proposals, points))
        concepts, draws = model.video_encoder(video, bias), Draws(model.config.dropout)
        reconstruct = functools.partial(
            model.nll, model.masked_words(embedded, batch.masked), mask, batch.targets
        )
        best, numbers = reconstruct(concepts, draws).min(dim=1)
        progress = torch.tensor(negative_progress(PROGRESS.epoch, PROGRESS.epochs, model.config.gamma))
        windows = model.negatives(proposals.chosen(numbers), points, progress)
        windows = torch.cat([windows, torch.ones_like(windows[:, :1])], dim=1)
        others = model.video_encoder(video, model.video_bias(clips, windows))
        chosen = concepts[torch.arange(9), numbers][:, None]
        passes = torch.cat([chosen, text, others], dim=1)
        again, query, *rest = reconstruct(passes, draws.again(numbers)).unbind(dim=1)
        terms = losses.total(
            Passes(text[:, 0], chosen[:, 0], *others.unbind(dim=1)),
            concepts,
            Passes(query, best, *rest),
            EVERY_TERM,
        )
        wanted = loss_and_gradients(terms, model)
    near = 1e-5 if precision == "fp32" else 0.1
    assert (again - best).norm() <= near * best.norm()
    assert all((ours - full).norm() <= near * full.norm() for ours, full in zip(found, wanted, strict=True))


def test_a_glance_past_the_end_trains():
    queries = [dataclasses.replace(query, glance=21.4) for query in glanced_queries()]
    method = make_method(loss=EVERY_TERM)
    terms = method.loss(make_dataset(queries).batch(list(range(9)), 1), PROGRESS)
    assert all(term.isfinite() for term in terms.values())
    terms["total"].backward()
    assert all(p.grad.isfinite().all() for p in method.model.parameters())


def test_the_longest_allowed_query_has_no_end_token():
    queries = [dataclasses.replace(query, text="word1 word2 word3") for query in glanced_queries(2)]
    assert make_dataset(queries).batch([0, 1], 1).targets.shape == (2, 4)
    assert make_dataset(queries, max_words=3).batch([0, 1], 1).targets.shape == (2, 3)


def test_the_longest_query_of_a_batch_of_the_torch_branch_has_no_end_token():
    texts = ("word1 word2 word3", "word1 word2")
    queries = [
        dataclasses.replace(query, text=text) for query, text in zip(glanced_queries(2), texts, strict=True)
    ]
    method = make_method(learned_summary=False)
    places, told = {}, {}
    for end_token in (True, False):
        dataset = make_dataset(queries, end_token=end_token)
        batches = {"together": dataset.batch([0, 1], 1), "alone": dataset.batch([1], 1)}
        for name, batch in batches.items():
            places[end_token, name] = batch.words.mask()[:, :-2]
            given = {name: getattr(batch, name) for name in ("video_of", "masked", "glance")}
            inputs = (batch.clips, batch.words, batch.targets)
            with torch.no_grad():
                output = method.model(*inputs, **given, progress=torch.tensor(0.3), reference=False)
                told[end_token, name] = output.nll.text[-1]
                vectors = method.model.encode_text(batch.words)[-1]
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
    preprocessor = Preprocessor(VOCABULARY, CLASS_VECTORS)
    dataset = build_dataset(config, preprocessor, FEATURES, glanced_queries(2))
    batch = dataset.batch([0, 1], 1)
    assert batch.targets.shape[1] == batch.words.lengths.max() + end_token
    summary = CFMRMethod.build(config, preprocessor).model.video_summary_token
    assert (summary is not None) == learned_summary


def test_queries_without_a_known_word_are_left_out_with_a_warning(caplog):
    queries = glanced_queries(3)
    dataset = make_dataset([dataclasses.replace(queries[0], text="qwertz"), *queries[1:]])
    assert dataset.queries == queries[1:]
    assert "no word that the model knows in 1 of 3 queries, which are left out: " in caplog.text


def test_word_masks_change_with_the_epoch_and_not_with_the_rest_of_the_batch():
    dataset = make_dataset(glanced_queries())
    together = dataset.batch(list(range(9)), 3).masked
    for row in range(9):
        alone = dataset.batch([row], 3).masked[0]
        assert together[row, : len(alone)].tolist() == alone.tolist()
    later = dataset.batch(list(range(9)), 4).masked
    assert together.sum(dim=1).tolist() == later.sum(dim=1).tolist()
    assert together.tolist() != later.tolist()
    beyond = torch.arange(together.shape[1]) > dataset.batch(list(range(9)), 3).words.lengths[:, None]
    assert not together[:, 0].any()
    assert not (together & beyond).any()


def test_a_batch_holds_every_video_once():
    batch = make_dataset(glanced_queries()).batch([0, 4, 8, 1], None)
    assert batch.videos == ("v0", "v1")
    assert batch.video_of.tolist() == [0, 0, 0, 1]


def test_kept_clips_are_those_of_the_pooled_video_and_travel_without_the_cache(tmp_path):
    path = tmp_path / "features.h5"
    rows = np.random.default_rng(1).normal(size=(37, 3)).astype(np.float32)
    write_features(path, [("v", rows)], Manifest())
    kept = PreparedFeatures(FeatureStore(path), functools.partial(keep, clips=40))
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
