"""RGNet's network beyond the recorded cases: shared parts, gradients, masks, training modes."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from rgnet import losses
from rgnet.attention import FrameAttention
from rgnet.config import LossConfig, ModelConfig
from rgnet.encoder import FeedForward
from rgnet.model import Frames, Tokens, released_words
from rgnet_toy import FRAME_DIM, SMALL, TOKEN_DIM, network


def batch(count: int = 4, places: int = 12, words: int = 5, seed: int = 0) -> tuple[Tokens, Frames]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([places, *torch.randint(3, places, (count - 1,), generator=generator)])
    mask = torch.arange(places) < lengths[:, None]
    counts = torch.tensor([words, *torch.randint(1, words, (count - 1,), generator=generator)])
    known = torch.arange(words) < counts[:, None]
    features = torch.randn(count, places, FRAME_DIM, generator=generator) * mask[..., None]
    vectors = torch.randn(count, words, TOKEN_DIM, generator=generator) * known[..., None]
    return Tokens(vectors, known), Frames(features, mask)


def targets(count: int) -> losses.Targets:
    return losses.Targets(
        spans=torch.tensor([[0.5, 0.4]]).repeat(count, 1),
        frames=torch.tensor([[1, 3]]).repeat(count, 1),
        inside=torch.ones(count, dtype=torch.int64),
        outside=torch.zeros(count, dtype=torch.int64),
    )


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_the_lowered_diagonal_is_what_a_full_mask_would_do(training, padded):
    torch.manual_seed(0)
    attention = FrameAttention(16, 2, 0.0).train(training)
    x, positions = torch.randn(3, 9, 16), torch.randn(3, 9, 16)
    lowered = (torch.rand(3, 9) > 0.5).float()
    mask = torch.arange(9) < torch.tensor([[9], [5], [1]]) if padded else None
    placed = (x + positions).requires_grad_(training)
    with torch.set_grad_enabled(training):
        found = attention(x, placed, mask=mask, lowered=lowered)
        query, keys = (attention.split(attention.project(placed, part)) for part in (0, 1))
        values = attention.split(attention.project(x, 2))
        others = 1 - torch.eye(9)  # the released mask adds one to every other logit of an unselected frame
        logits = query * 8**-0.5 @ keys.transpose(-2, -1) + lowered[:, None, :, None] * others
        if mask is not None:
            logits = logits.masked_fill(~mask[:, None, None], float("-inf"))
        wanted = attention.out_proj((logits.softmax(-1) @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    if training:
        weights = [placed, *attention.parameters()]
        sums = [(one * torch.arange(16.0)).sum() for one in (found, wanted)]
        for one, other in zip(*(torch.autograd.grad(s, weights) for s in sums), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_rows_computed_alone_are_those_of_the_whole():
    model, (tokens, frames) = network(), batch()
    encoded = model.encoder.encode(model.read_texts(tokens), model.read_windows(frames, shared=False))
    layer = model.encoder.self_layers[-1]
    whole = layer(encoded)
    torch.testing.assert_close(layer.token(encoded), whole[:, 0], rtol=1e-5, atol=1e-6)
    for first in (1, 4):
        torch.testing.assert_close(layer(encoded, first), whole[:, first:], rtol=1e-5, atol=1e-6)


def test_dropout_after_a_relu_draws_and_learns_as_the_plain_one():
    net = FeedForward(6, 40, 0.3).train()
    x = torch.randn(5, 7, 6)
    found = []
    for run in (net, lambda rows: net.linear2(F.dropout(net.linear1(rows).relu(), 0.3))):
        torch.manual_seed(1)
        out = run(x)
        found.append((out, *torch.autograd.grad((out * out).sum(), list(net.parameters()))))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("released", [True, False])
def test_all_pairs_at_once_are_what_single_pairs_are(released):
    model, (tokens, frames) = network(released=released), batch(3)
    with torch.no_grad():
        output = model(tokens, frames, contrast=True)
        pairs = torch.cartesian_prod(torch.arange(3), torch.arange(3))
        single = model(
            Tokens(tokens.vectors[pairs[:, 0]], tokens.mask[pairs[:, 0]]),
            Frames(frames.features[pairs[:, 1]], frames.mask[pairs[:, 1]]),
        )
    own = [0, 4, 8]
    torch.testing.assert_close(output.retrieval, single.retrieval.view(3, 3), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.spans, single.spans[:, own], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(output.saliency, single.saliency[own], rtol=1e-4, atol=1e-5)
    assert torch.equal(output.selected, single.selected)


def test_padding_changes_nothing():
    model, (tokens, frames) = network(), batch()
    with torch.no_grad():
        together = model(tokens, frames)
        for row in range(4):
            words, length = int(tokens.mask[row].sum()), int(frames.mask[row].sum())
            alone = model(
                Tokens(tokens.vectors[row : row + 1, :words], tokens.mask[row : row + 1, :words]),
                Frames(frames.features[row : row + 1, :length], frames.mask[row : row + 1, :length]),
            )
            torch.testing.assert_close(alone.spans[:, 0], together.spans[:, row], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(alone.retrieval[0], together.retrieval[row], rtol=1e-4, atol=1e-5)


def test_a_batch_of_one_reads_its_own_padding_in_the_released_mask():
    frames, words = torch.tensor([[True, True, False]]), torch.tensor([[True, False]])
    seen = released_words(frames, words, 2)
    assert seen.shape == (1, 3, 2, 2)
    assert seen[..., 0].all()
    assert not seen[..., 1].any()


@pytest.mark.parametrize("negatives", ["contrast", "window"])
def test_every_parameter_takes_part_in_training(negatives):
    model, (tokens, frames) = network().train(), batch()
    config = LossConfig(negatives=negatives)
    output = model(tokens, frames, contrast=negatives == "contrast")
    negative = None
    if negatives == "window":
        other = batch(seed=1)[1]
        negative = losses.Negative(model(tokens, other), other.mask)
    losses.total(output, targets(4), negative, None, config, masked_max=True)["total"].backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_the_retrieval_head_learns_nothing_at_weight_zero():
    model, (tokens, frames) = network().train(), batch()
    output = model(tokens, frames)
    negative = losses.Negative(model(tokens, frames), frames.mask)
    terms = losses.total(
        output, targets(4), negative, None, LossConfig(negatives="window", retrieval=0.0), masked_max=True
    )
    terms["total"].backward()
    assert "retrieval" not in terms
    assert model.retrieval_head.weight.grad is None


def test_the_largest_negative_is_not_sought_in_padding_unless_asked_for():
    scores, mask = torch.tensor([[0.0, 5.0]]), torch.tensor([[True, False]])
    one = losses.Targets(
        torch.tensor([[0.5, 0.5]]), torch.tensor([[0, 1]]), torch.tensor([0]), torch.tensor([1])
    )
    positive = torch.zeros(1, 2)
    fixed, released = (
        losses.saliency_loss(positive, one, (scores, mask), 0.2, masked_max=masked).item()
        for masked in (True, False)
    )
    assert released - fixed == pytest.approx(10.0)


def test_one_layer_of_each_kind_is_enough():
    config = dataclasses.replace(SMALL, cross_layers=1, self_layers=1, decoder_layers=1, queries=1)
    model, (tokens, frames) = network(config).train(), batch()
    output = model(tokens, frames, contrast=True)
    terms = losses.total(output, targets(4), None, None, LossConfig(), masked_max=True)
    assert "earlier_layers" not in terms
    terms["total"].backward()


def test_dropout_draws_differ_and_stay_finite():
    model, (tokens, frames) = (
        network(dataclasses.replace(SMALL, dropout=0.3, input_dropout=0.5)).train(),
        batch(),
    )
    first, second = (model(tokens, frames, contrast=True) for _ in range(2))
    assert not torch.equal(first.retrieval, second.retrieval)
    assert first.spans.isfinite().all()


def test_half_precision_stays_near():
    model, (tokens, frames) = network(), batch()
    with torch.no_grad():
        exact = model(tokens, frames)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = model(tokens, frames)
    same = (half.selected == exact.selected).all(1)
    torch.testing.assert_close(half.spans[:, same].float(), exact.spans[:, same], rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden": 18, "heads": 2}, "model.hidden"),
        ({"queries": 0}, "model.queries"),
        ({"dropout": 1.0}, "model.dropout"),
    ],
)
def test_sizes_that_cannot_be_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        ModelConfig(**values)
