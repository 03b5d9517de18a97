"""RGN's predictions and gradients beyond the recorded cases."""

import dataclasses

import numpy as np
import pytest
import torch

from factories import CLASS_VECTORS, VOCABULARY, features_of, glanced_queries, shake
from rgn import losses
from rgn.config import LossConfig, ModelConfig
from rgn.data import Dataset
from rgn.gaussians import negative_progress
from rgn.layers import Draws
from rgn.method import RGNMethod
from rgn.model import RGN, Compared
from rgn_passes import compared, every_pass
from vmr_common.types import Query
from vmr_train.device import autocast
from vmr_train.method import Progress
from vmr_train.preprocessing import Preprocessor

FEATURES = features_of(4, rows=16)


def make_dataset(queries: list[Query], *, end_token: bool = True) -> Dataset:
    return Dataset(
        queries, FEATURES, Preprocessor(VOCABULARY, CLASS_VECTORS), max_words=20, end_token=end_token, seed=0
    )


@pytest.fixture
def method() -> RGNMethod:
    torch.manual_seed(0)
    config = ModelConfig(hidden=16, heads=2, video_layers=2, text_layers=2, candidates=3)
    model = RGN(config, clip_dim=5, word_dim=6, classes=31)
    shake(model, 0.3)
    return RGNMethod(model.eval(), LossConfig(), Preprocessor(VOCABULARY, CLASS_VECTORS))


def nll(method: RGNMethod, dataset: Dataset, indices: list[int]) -> np.ndarray:
    with torch.no_grad():
        return np.stack([prediction.scores for prediction in method.predict(dataset.batch(indices, None))])


def test_fixed_scores_do_not_depend_on_the_rest_of_the_batch(method):
    dataset = make_dataset(glanced_queries())
    together = nll(method, dataset, list(range(9)))
    alone = np.concatenate([nll(method, dataset, [n]) for n in range(9)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_released_scores_do_depend_on_the_rest_of_the_batch(method):
    dataset = make_dataset(glanced_queries(), end_token=False)
    together = nll(method, dataset, list(range(9)))
    alone = np.concatenate([nll(method, dataset, [n]) for n in range(9)])
    assert np.abs(together - alone).max() > 1e-2


def built(**sizes) -> RGN:
    torch.manual_seed(0)
    config = ModelConfig(hidden=16, heads=2, video_layers=1, text_layers=1, candidates=4, **sizes)
    return RGN(config, clip_dim=5, word_dim=6, classes=31).eval()


def test_even_candidates_begin_evenly_over_every_video_and_change_no_other_weight():
    model, other = built(even_candidates=True), built()
    batch = make_dataset(glanced_queries()).batch(list(range(9)), None)
    with torch.no_grad():
        proposals = model.propose(model.embed(batch.inputs))
    expected = torch.tensor([0.125, 0.375, 0.625, 0.875]).expand(9, 4)
    torch.testing.assert_close(proposals.centre, expected)
    torch.testing.assert_close(proposals.width, torch.full((9, 4), 0.5))
    theirs = other.state_dict()
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, theirs[name])]
    assert changed == ["proposal_head.weight", "proposal_head.bias"]


def test_predictions_are_ranked_moments_inside_the_video(method):
    dataset = make_dataset(glanced_queries())
    for prediction in method.predict(dataset.batch(list(range(9)), None)):
        assert prediction.moments.shape == (3, 2)
        assert (np.diff(prediction.scores) <= 0).all()
        assert (prediction.moments[:, 0] >= 0).all()
        assert (prediction.moments[:, 1] <= 20.0).all()
        assert (prediction.moments[:, 0] <= prediction.moments[:, 1]).all()


def test_every_parameter_takes_part_in_the_loss(method):
    batch = make_dataset(glanced_queries()).batch(list(range(9)), 1)
    method.loss(batch, Progress(update=0, epoch=1, epochs=3))["total"].backward()
    assert [name for name, p in method.model.named_parameters() if p.grad is None] == []


def loss_and_gradients(terms, model) -> list[torch.Tensor]:
    model.zero_grad()
    terms["total"].backward()
    return [terms["total"].detach(), *(parameter.grad.clone() for parameter in model.parameters())]


def test_classifying_in_chunks_gives_the_same_loss_and_gradients(method):
    batch = make_dataset(glanced_queries()).batch(list(range(9)), 1)
    found = []
    for method.model.passes_per_chunk in (0, 2):
        terms = method.loss(batch, Progress(update=0, epoch=2, epochs=3))
        found.append(loss_and_gradients(terms, method.model))
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-7)


def test_the_best_candidate_alone_teaches_what_all_passes_together_do(method):
    batch = make_dataset(glanced_queries()).batch(list(range(9)), 1)
    model = method.model
    found = loss_and_gradients(method.loss(batch, Progress(update=0, epoch=1, epochs=4)), model)
    progress = torch.tensor(negative_progress(1, 4, model.config.gamma))
    run = every_pass(model, batch.inputs, batch.targets, batch.glance, progress)
    terms = losses.total(run.proposals, compared(run), batch.glance, LossConfig())
    torch.testing.assert_close(found, loss_and_gradients(terms, model), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_best_candidate_is_computed_again_with_the_dropout_of_its_first_pass(method, precision):
    batch = make_dataset(glanced_queries()).batch(list(range(9)), 1)
    model = method.model.train()
    with autocast(torch.device("cpu"), precision):
        torch.manual_seed(1)
        found = loss_and_gradients(method.loss(batch, Progress(update=0, epoch=1, epochs=4)), model)
        # the same draws in the same order, but with a graph for all candidates, of which the losses read the best
        torch.manual_seed(1)
        embedded = model.embed(batch.inputs)
        proposals = model.propose(embedded)
        caption = (embedded, batch.inputs.masked, batch.targets)
        draws = Draws(model.config.dropout)
        best, numbers = model.nll(*caption, proposals.window, draws).min(dim=1)
        chosen = proposals.chosen(numbers)
        left, right = model.negatives(chosen, torch.tensor(negative_progress(1, 4, model.config.gamma)))
        reglance = model.window(batch.glance, model.reglance_width(embedded), embedded)
        last = torch.stack([reglance, torch.ones_like(reglance)], dim=1)
        windows = torch.cat([chosen.window, left, right, last], dim=1)
        again, *others = model.nll(*caption, windows, draws.again(numbers)).unbind(dim=1)
        terms = losses.total(proposals, Compared(reglance, best, *others), batch.glance, LossConfig())
        wanted = loss_and_gradients(terms, model)
    near = 1e-5 if precision == "fp32" else 0.1
    assert (again - best).norm() <= near * best.norm()
    assert all((ours - full).norm() <= near * full.norm() for ours, full in zip(found, wanted, strict=True))


def test_a_glance_past_the_end_trains(method):
    queries = [dataclasses.replace(query, glance=21.4) for query in glanced_queries()]
    batch = make_dataset(queries).batch(list(range(9)), 1)
    terms = method.loss(batch, Progress(update=0, epoch=1, epochs=3))
    assert all(term.isfinite() for term in terms.values())
    terms["total"].backward()
    assert all(p.grad.isfinite().all() for p in method.model.parameters())


def test_the_half_precision_forward_pass_ranks_almost_alike(method):
    dataset = make_dataset(glanced_queries())
    exact = nll(method, dataset, list(range(9)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = nll(method, dataset, list(range(9)))
    np.testing.assert_allclose(half, exact, atol=0.1)


def test_the_reglance_curve_peaks_at_the_glance(method):
    queries = glanced_queries()
    batch = make_dataset(queries).batch(list(range(9)), None)
    for query, curve in zip(queries, method.reglances(batch), strict=True):
        assert curve.times[-1] == pytest.approx(query.duration)
        half_a_step = query.duration / (len(curve.times) - 1) / 2
        assert abs(curve.times[curve.values.argmax()] - query.glance) <= half_a_step + 1e-6
