"""CDN's predictions and gradients beyond the recorded cases."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from cdn.config import Config, DecodeConfig, LossConfig, ModelConfig
from cdn.data import Dataset, Preprocessor
from cdn.losses import attention_distance
from cdn.method import CDNMethod
from cdn.model import CDN
from factories import WORDS, features_of, shake, timed_queries
from vmr_common.errors import UserError
from vmr_common.metrics import iou
from vmr_common.types import Query
from vmr_train.cli.config import bundled_config
from vmr_train.method import Progress
from vmr_train.word_lookup import WordLookup

FEATURES = features_of(4, rows=32)
PROGRESS = Progress(update=0, epoch=1, epochs=3)
SIZES = ModelConfig(
    hidden=12,
    text_layers=1,
    clips=16,
    scales=[4, 2, 2],
    attention_steps=2,
    attention_hidden=7,
    layers=4,
    dynamic_layers=[0, 1],
    kernels=3,
    kernel_dropout=0.0,
)


def make_dataset(queries: list[Query] | None = None) -> Dataset:
    return Dataset(queries or timed_queries(), FEATURES, WordLookup(WORDS), clips=16)


def make_method(seed: int = 0, loss: LossConfig | None = None, **sizes) -> CDNMethod:
    torch.manual_seed(seed)
    model = CDN(dataclasses.replace(SIZES, **sizes), frame_dim=5, word_dim=6)
    shake(model, 0.1)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.01, 0.3)
    return CDNMethod(model.eval(), loss or LossConfig(beta=0.1), DecodeConfig(), Preprocessor(WORDS))


def scores(method: CDNMethod, dataset: Dataset, indices: list[int]) -> np.ndarray:
    with torch.no_grad():
        return np.stack([p.scores for p in method.predict(dataset.batch(indices, None))])


def logits(method: CDNMethod) -> torch.Tensor:
    batch = make_dataset().batch(list(range(9)), None)
    with torch.no_grad():
        return method.model(batch.features, batch.video_of, batch.words).logits


def gradients(method: CDNMethod, batch) -> dict[str, torch.Tensor]:
    method.model.zero_grad()
    method.loss(batch, PROGRESS)["total"].backward()
    return {name: parameter.grad.clone() for name, parameter in method.model.named_parameters()}


@pytest.mark.parametrize("proposals", ["pool", "conv"])
def test_scores_do_not_depend_on_the_rest_of_the_batch(proposals):
    method, dataset = make_method(proposals=proposals), make_dataset()
    together = scores(method, dataset, list(range(9)))
    alone = np.concatenate([scores(make_method(proposals=proposals), dataset, [n]) for n in range(9)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_cells_that_evaluation_skips_may_hold_anything():
    method = make_method()
    network = method.model.map_network
    wanted, layer = logits(method), network.layer
    skipped = 0

    def spoiled(number, rows, sentence, cells):
        """All live cells as in training, and garbage in those that evaluation would not have computed."""
        nonlocal skipped
        full = network.cells.training_layers[number]
        found = layer(number, rows, sentence, full)
        garbage = full.outputs & ~network.cells.evaluation_layers[number].outputs
        skipped += int(garbage.sum())
        return torch.where(garbage[full.outputs][:, None, None], torch.full_like(found, 1e5), found)

    network.layer = spoiled
    found = logits(method)
    assert skipped > 20
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_each_video_is_encoded_once_in_evaluation_and_once_per_training_batch():
    method, dataset, seen = make_method(), make_dataset(), []
    method.model.frames.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    method.loss(dataset.batch(list(range(9)), 1), PROGRESS)
    assert seen == [4]
    seen.clear()
    for indices in ([0, 1, 4], [2, 5, 8], [3, 6, 7]):
        scores(method, dataset, indices)
    assert sum(seen) == 4
    method.loss(dataset.batch([0], 1), PROGRESS)
    scores(method, dataset, [0])
    assert sum(seen) == 4 + 1 + 1  # the training step made what was encoded before worthless


def test_videos_are_encoded_anew_for_other_weights():
    method, dataset = make_method(), make_dataset()
    scores(method, dataset, [0, 1])
    other = make_method(seed=5)
    method.model.load_state_dict(other.model.state_dict())
    np.testing.assert_allclose(scores(method, dataset, [0, 1]), scores(other, dataset, [0, 1]), atol=1e-6)


def test_predictions_are_suppressed_ranked_moments_inside_the_video():
    for prediction in make_method().predict(make_dataset().batch(list(range(9)), None)):
        assert prediction.moments.shape == (5, 2)
        assert (np.diff(prediction.scores) <= 0).all()
        assert (prediction.scores > 0).all()
        assert (prediction.scores < 1).all()
        assert (prediction.moments >= 0).all()
        assert (prediction.moments <= 20.0).all()
        overlaps = iou(prediction.moments[:, None], prediction.moments[None])
        assert (np.triu(overlaps, 1) <= 0.5 + 1e-6).all()


@pytest.mark.parametrize("proposals", ["pool", "conv"])
def test_every_parameter_takes_part_in_the_loss(proposals):
    found = gradients(make_method(proposals=proposals), make_dataset().batch(list(range(9)), 1))
    assert all(gradient.isfinite().all() for gradient in found.values())
    silent = {name for name, gradient in found.items() if not gradient.any()}
    assert silent <= {"frames.energy.bias"}  # adds the same to all energies of a softmax


@pytest.mark.parametrize("recompute", [1, 2, 3, 4])
def test_recomputing_activations_changes_no_gradient_and_no_statistic(recompute):
    batch = make_dataset().batch(list(range(9)), 1)
    plain, saving = make_method(), make_method(recompute=recompute)
    ours, theirs = (gradients(in_training(method), batch) for method in (saving, plain))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)
    buffers = [dict(method.model.named_buffers()) for method in (saving, plain)]
    torch.testing.assert_close(*buffers)


def in_training(method: CDNMethod) -> CDNMethod:
    method.model.train()
    return method


def test_the_kernel_mixture_drops_out_in_training_alone():
    method = make_method(kernel_dropout=0.5)
    assert torch.equal(logits(method), logits(method))
    method.model.train()
    assert not torch.equal(logits(method), logits(method))


def test_half_precision_ranks_almost_alike_and_trains():
    method, dataset = make_method(), make_dataset()
    exact = logits(method)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = logits(method)
    # a pass of its own, as in training: older torch releases keep the casts of a pass without gradients
    with torch.autocast("cpu", dtype=torch.bfloat16):
        terms = method.loss(dataset.batch(list(range(9)), 1), PROGRESS)
    torch.testing.assert_close(half.float(), exact, rtol=0.1, atol=0.1 * exact.abs().max().item())
    assert all(term.dtype == torch.float32 for term in terms.values())
    terms["total"].backward()
    assert all(p.grad.isfinite().all() for p in method.model.parameters())


@pytest.mark.e2e
def test_the_compiled_model_gives_the_same_loss_and_gradients():
    batch = make_dataset().batch(list(range(9)), 1)
    method = make_method()
    method.model.train()
    compiled = copy.deepcopy(method)
    compiled.model.compile(backend="eager")
    torch.testing.assert_close(gradients(compiled, batch), gradients(method, batch), rtol=1e-4, atol=1e-6)


def test_the_attention_distance_is_that_of_its_definition():
    attention = torch.rand(2, 3, 4, 2).softmax(dim=2)
    for over_steps in (False, True):
        total = 0.0
        for a in attention.flatten(0, 1):
            product = a.T @ a if over_steps else a @ a.T
            total += (product - 0.3 * torch.eye(len(product))).square().sum().item()
        found = attention_distance(attention, 0.3, over_steps=over_steps)
        assert found.item() == pytest.approx(total / 6, rel=1e-5)


@pytest.mark.parametrize("quirks", ["released", "fixed"])
def test_certainty_ends_the_gradient_with_the_released_quirks_alone(quirks):
    config = bundled_config("cdn", Config, "shapes", "--quirks", quirks, "--data.features.dim", "5")
    method = CDNMethod.build(dataclasses.replace(config, model=SIZES), Preprocessor(WORDS))
    batch = make_dataset().batch(list(range(9)), 1)
    scorer = method.model.scorer
    for logit, silent in ((20.0, quirks == "released"), (10.0, False)):
        with torch.no_grad():
            scorer.weight.zero_()
            scorer.bias.fill_(logit)
        gradient = gradients(method, batch)["scorer.bias"]
        assert (gradient == 0).all() == silent


def test_a_query_without_a_moment_can_be_asked_and_one_without_a_known_word_is_answered():
    query = Query(id="x", video="v0", text="qwertz", duration=10.0)
    (prediction,) = make_method().predict(make_dataset([query]).batch([0], None))
    assert len(prediction.moments) == 5


def test_settings_that_do_not_fit_are_refused():
    for wrong in (
        {"scales": [17]},
        {"kernel": 4},
        {"dynamic_layers": [4]},
        {"kernel_dropout": 1.0},
        {"layers": 0},
    ):
        with pytest.raises(UserError):
            dataclasses.replace(SIZES, **wrong)
    with pytest.raises(UserError, match=r"loss\.min_iou"):
        LossConfig(min_iou=0.9, max_iou=0.5)
