"""Layers that the papers share, each against its plain form."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from rgn.config import LossConfig
from rgn.gaussians import (
    ATTENTION_FLOOR,
    attention_log_weight,
    gaussian_window,
    negative_progress,
    negative_windows,
    positive_window,
    preferred_norm,
    unit_grid,
)
from rgn.layers import Decoder, DecoderLayer, MultiHeadAttention, causal_bias, key_bias, sinusoidal_positions
from rgn.losses import diversity
from rgn.model import Proposals
from rgn.reconstruction import reconstruction_nll, smoothed_nll

DIM, HEADS = 16, 4


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomised(module: nn.Module) -> nn.Module:
    """Biases and norms start at 0 and 1, which hides mistakes."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def plain_attention(layer: MultiHeadAttention, query, memory, bias):
    """Torch's own attention, for S = 1 and a bias on the keys."""
    x, m = (t[:, 0].transpose(0, 1) for t in (query, memory))  # (L, B, D)
    mask = bias[:, 0].expand(-1, HEADS, len(x), -1).flatten(0, 1)  # (B * H, L, M)
    weights = (layer.in_proj_weight, layer.in_proj_bias, None, None, False, 0.0)
    mixed, _ = F.multi_head_attention_forward(
        x, m, m, DIM, HEADS, *weights, layer.out_proj.weight, layer.out_proj.bias, attn_mask=mask
    )
    return mixed.transpose(0, 1)[:, None]


def gradients(output, *inputs):
    return torch.autograd.grad((output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum(), inputs)


@pytest.mark.parametrize("keys", [2, 40])
def test_attention_equals_torchs_own_in_values_and_gradients(keys):
    layer = randomised(MultiHeadAttention(DIM, HEADS))
    query, memory = (
        torch.randn(2, 1, 30, DIM, requires_grad=True),
        torch.randn(2, 1, keys, DIM, requires_grad=True),
    )
    bias = torch.randn(2, 1, 1, 1, keys)
    inputs = (query, memory, *layer.parameters())
    found, wanted = layer(query, memory, bias), plain_attention(layer, query, memory, bias)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(gradients(found, *inputs), gradients(wanted, *inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("keys", [2, 40])
def test_a_side_shared_by_all_passes_equals_as_many_copies(keys):
    layer = randomised(MultiHeadAttention(DIM, HEADS))
    query, memory = torch.randn(2, 1, 30, DIM), torch.randn(2, 5, keys, DIM)
    copies = query.expand(-1, 5, -1, -1).contiguous()
    torch.testing.assert_close(layer(query, memory, None), layer(copies, memory, None), rtol=1e-5, atol=1e-6)
    bias = torch.randn(2, 5, 1, 1, keys)
    shared = memory[:, :1]
    copies = shared.expand(-1, 5, -1, -1).contiguous()
    torch.testing.assert_close(layer(query, shared, bias), layer(query, copies, bias), rtol=1e-5, atol=1e-6)


def test_attention_weights_sum_to_one_and_leave_hidden_keys_out():
    layer = randomised(MultiHeadAttention(DIM, HEADS))
    mask = torch.tensor([[True, True, False], [True, False, False]])
    weights = layer.weights(torch.randn(2, 1, 7, DIM), torch.randn(2, 1, 3, DIM), key_bias(mask))
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 1, HEADS, 7))
    assert (weights.movedim(-1, 1)[~mask] == 0).all()


def test_a_log_window_multiplies_attention_and_renormalises():
    layer = randomised(MultiHeadAttention(DIM, HEADS))
    query, memory, window = torch.randn(1, 1, 4, DIM), torch.randn(1, 1, 6, DIM), torch.rand(1, 6)
    plain = layer.weights(query, memory, None) * (window + ATTENTION_FLOOR)
    biased = layer.weights(query, memory, attention_log_weight(window)[:, None, None, None])
    torch.testing.assert_close(biased, plain / plain.sum(-1, keepdim=True))


def test_a_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(ValueError, match=r"width 10 .* heads 4"):
        MultiHeadAttention(10, 4)


def make_decoder(layers: int = 2, **options) -> Decoder:
    return randomised(Decoder(DIM, HEADS, layers, 0.0, **options))


def test_the_last_row_alone_equals_the_last_row_of_all():
    decoder = make_decoder()
    x, memory = torch.randn(2, 1, 9, DIM), torch.randn(2, 1, 3, DIM)
    bias = key_bias(torch.tensor([[True] * 9, [True] * 5 + [False] * 4]))
    every = decoder(x, bias, memory)
    last = decoder(x, bias, memory, last_row_only=True)
    assert last.shape == (2, 1, 1, DIM)
    torch.testing.assert_close(last, every[..., -1:, :], rtol=1e-5, atol=1e-5)


def test_a_decoder_sees_no_later_position():
    decoder = make_decoder()
    x, bias = torch.randn(1, 1, 8, DIM), torch.zeros(1, 1, 1, 1, 8)
    changed = x.clone()
    changed[..., 5:, :] += 1
    before, after = decoder(x, bias), decoder(changed, bias)
    torch.testing.assert_close(before[..., :5, :], after[..., :5, :])
    assert not torch.allclose(before[..., 5:, :], after[..., 5:, :])


def test_one_call_over_all_passes_equals_a_call_for_each():
    decoder = make_decoder()
    words, frames = torch.randn(2, 1, 6, DIM), torch.randn(2, 1, 10, DIM)
    window = torch.randn(2, 4, 1, 1, 10)
    memory = decoder(frames, window)
    together = decoder(words, torch.zeros(2, 1, 1, 1, 6), memory, window)
    for number in range(4):
        one = window[:, number : number + 1]
        alone = decoder(words, torch.zeros(2, 1, 1, 1, 6), decoder(frames, one), one)
        torch.testing.assert_close(together[:, number : number + 1], alone, rtol=1e-4, atol=1e-5)


def test_a_layer_is_three_normalised_sums():
    layer = randomised(DecoderLayer(DIM, HEADS, 0.0, cross_attention=True))
    x, memory, bias = torch.randn(1, 1, 5, DIM), torch.randn(1, 1, 4, DIM), causal_bias(5)
    y = layer.self_norm(x + layer.self_attention(x, x, bias))
    y = layer.cross_norm(y + layer.cross_attention(y, memory, None))
    y = layer.final_norm(y + layer.fc2(layer.fc1(y).relu()))
    torch.testing.assert_close(layer(x, bias, memory), y)


def test_a_decoder_without_cross_attention_refuses_a_memory():
    decoder = make_decoder(cross_attention=False)
    assert decoder(torch.randn(1, 1, 3, DIM), torch.zeros(1, 1, 1, 1, 3)).shape == (1, 1, 3, DIM)
    with pytest.raises(ValueError, match="without cross-attention"):
        decoder(torch.randn(1, 1, 3, DIM), torch.zeros(1, 1, 1, 1, 3), torch.randn(1, 1, 2, DIM))


def test_a_window_is_one_at_its_centre_and_falls_by_its_deviation():
    grid = unit_grid(101)
    window = gaussian_window(grid, torch.tensor([0.5]), torch.tensor([0.1]))[0]
    assert window.argmax() == 50
    assert window.max() == 1
    assert window[60].item() == pytest.approx(math.exp(-0.5), rel=1e-4)


@pytest.mark.parametrize("centre", [-0.3, 0.0, 0.503, 1.0, 1.4])
def test_a_narrow_window_between_or_beyond_the_grid_points_is_finite_and_scaled(centre):
    window = positive_window(unit_grid(50), torch.tensor([centre]), torch.tensor([0.0]), 9.0)
    assert window.isfinite().all()
    assert window.max() == 1


def test_negatives_start_at_the_borders_and_come_in_to_the_middle_of_the_free_room():
    grid, centre, width = unit_grid(101), torch.tensor([0.6]), torch.tensor([0.2])

    def centres(progress: float) -> list[float]:
        windows = negative_windows(grid, centre, width, 9.0, torch.tensor(progress))
        return [grid[window.argmax()].item() for window in windows]

    assert centres(0.0) == pytest.approx([0, 1])
    assert centres(0.5) == pytest.approx([0.25, 0.85])


def test_a_negative_is_as_wide_as_its_way_from_the_border():
    grid, progress = unit_grid(1001), torch.tensor(0.5)
    left, right = negative_windows(grid, torch.tensor([0.6]), torch.tensor([0.2]), 8.0, progress)
    torch.testing.assert_close(left, gaussian_window(grid, torch.tensor([0.25]), torch.tensor([0.25 / 4])))
    torch.testing.assert_close(right, gaussian_window(grid, torch.tensor([0.85]), torch.tensor([0.15 / 4])))


def test_a_moment_past_the_border_leaves_its_negative_at_the_border():
    grid = unit_grid(11)
    left, right = negative_windows(grid, torch.tensor([0.5]), torch.tensor([1.4]), 9.0, torch.tensor(0.5))
    assert left[0].argmax() == 0
    assert right[0].argmax() == 10


def test_progress_grows_over_the_epochs_and_stays_at_a_half():
    found = [negative_progress(epoch, 4, 0.5) for epoch in (1, 2, 4, 9)]
    assert found == pytest.approx([0.25, 0.5 * math.sqrt(0.5), 0.5, 0.5])
    assert negative_progress(1, 30, 0.0) == 0.5


def test_diversity_is_nothing_for_disjoint_windows_of_the_preferred_width():
    windows = torch.zeros(1, 2, 8)
    windows[0, 0, :4] = windows[0, 1, 4:] = 1  # scaled to 1/4 each: squared norm 1/4
    same = windows[:, :1].expand(1, 2, 8)
    centre = width = torch.zeros(1, 2)  # only the windows count
    found = [diversity(Proposals(centre, width, each), LossConfig(lambda_=0.25)) for each in (windows, same)]
    assert [one.item() for one in found] == pytest.approx([0, 2 / 16], abs=1e-7)


@pytest.mark.parametrize("dim", [8, 7])
def test_positions_are_sines_then_cosines_and_row_zero_is_empty(dim):
    table, half = sinusoidal_positions(5, dim), dim // 2
    assert table.shape == (5, dim)
    assert (table[0] == 0).all()
    for row in range(1, 5):
        for column in range(half):
            angle = row * 10000 ** (-column / (half - 1))
            assert table[row, column].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[row, half + column].item() == pytest.approx(math.cos(angle), abs=1e-5)
    assert (table[:, 2 * half :] == 0).all()


def test_smoothed_nll_equals_torchs_cross_entropy_with_smoothing():
    logits, targets = 3 * torch.randn(4, 3, 6, 11, requires_grad=True), torch.randint(11, (4, 1, 6))
    found = smoothed_nll(logits, targets)
    wanted = F.cross_entropy(
        logits.flatten(0, 2), targets.expand(4, 3, 6).flatten(), label_smoothing=0.1, reduction="none"
    ).view(4, 3, 6)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(gradients(found, logits), gradients(wanted, logits))


@pytest.mark.parametrize("chunk", [0, 1, 2, 5])
def test_reconstruction_is_the_mean_over_valid_positions_whatever_the_chunks(chunk):
    classifier = nn.Linear(DIM, 11)
    hidden, targets = torch.randn(2, 5, 6, DIM, requires_grad=True), torch.randint(11, (2, 6))
    mask = torch.arange(6) < torch.tensor([[6], [3]])
    found = reconstruction_nll(hidden, classifier, targets, mask, chunk)
    nll = smoothed_nll(classifier(hidden), targets[:, None])
    wanted = torch.stack([nll[0].mean(-1), nll[1, :, :3].mean(-1)])
    torch.testing.assert_close(found, wanted)
    inputs = (hidden, *classifier.parameters())
    torch.testing.assert_close(gradients(found, *inputs), gradients(wanted, *inputs))
    with torch.no_grad():
        torch.testing.assert_close(reconstruction_nll(hidden, classifier, targets, mask, chunk), wanted)


@pytest.mark.parametrize("width", [0.2, 0.4])
def test_a_window_of_the_preferred_width_has_the_preferred_norm(width):
    window = positive_window(unit_grid(400), torch.tensor([0.5]), torch.tensor([width]), sigma=9.0)
    norm = (window / window.sum(-1, keepdim=True)).square().sum().item()
    assert preferred_norm(width, 9.0, 400) == pytest.approx(norm, rel=1e-3)
