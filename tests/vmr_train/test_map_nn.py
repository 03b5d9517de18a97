"""Layers of the 2D-map family: exact against the plain full-map forms, and no dearer than they must be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from factories import flops
from vmr_common.errors import UserError
from vmr_train.layers.batch_norm import BatchNorm
from vmr_train.layers.fusion import MapFusion
from vmr_train.layers.map_loss import scaled_iou, scaled_iou_loss
from vmr_train.layers.proposal_map import ProposalConvolutions, ProposalMap, proposal_lengths, valid_cells
from vmr_train.layers.sparse_map_conv import SparseMap, convolve_rows, dense_map_conv, kernel_rows
from vmr_train.layers.sparse_map_plan import (
    SparseMapIndex,
    SparseMapLayers,
    map_weights,
    needed_cells,
    scatter_rows,
)

MASKS = Path(__file__).parents[1] / "parity/golden/cdn/masks.npz"
GRIDS = {16: [16], 64: [16, 8, 8], 128: [16, 8, 8, 8]}


@pytest.fixture(scope="module")
def recorded():
    with np.load(MASKS, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


@pytest.mark.parametrize("clips", GRIDS)
def test_valid_cells_and_weights_are_those_of_the_released_code(recorded, clips):
    cells = valid_cells(clips, GRIDS[clips])
    np.testing.assert_array_equal(cells, recorded[f"mask/{clips}"])
    counts = recorded[f"counts/{clips}"].astype(np.float32)
    with np.errstate(divide="ignore"):
        wanted = np.where(counts > 0, 1 / counts, 0)
    np.testing.assert_allclose(map_weights(cells, 5, len(counts)), wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("clips", "scales"),
    [(16, []), (16, [0]), (16, [17]), (16, [3, 2]), (8, [4, 2, 2]), (0, [1]), (16, [4, -1])],
)
def test_scales_that_do_not_fit_are_refused(clips, scales):
    with pytest.raises(UserError, match="do not fit"):
        valid_cells(clips, scales)


def max_pool_map(clips, cells):
    """The maximum over each proposal's clips as a full map ``(B, C, N, N)``, from clips ``(B, C, N)``."""
    proposals = ProposalMap(cells)
    return scatter_rows(proposals.max_pool(clips.permute(2, 0, 1)), proposals.index, proposals.clips)


@pytest.mark.parametrize(("clips", "scales"), [(7, [7]), (16, [4, 2, 2]), (33, [5, 3]), (64, [16, 8, 8])])
def test_pooling_takes_the_maximum_over_exactly_the_clips_of_a_proposal(clips, scales):
    cells = valid_cells(clips, scales)
    x = torch.randn(2, 3, clips)
    found = max_pool_map(x, cells)
    wanted = torch.zeros(2, 3, clips, clips)
    for start, end in cells.nonzero().tolist():
        wanted[..., start, end] = x[..., start : end + 1].amax(-1)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_the_gradient_of_pooling_goes_to_the_largest_clip():
    cells = valid_cells(16, [4, 2, 2])
    x = torch.randn(1, 2, 16, requires_grad=True)
    given = torch.randn(1, 2, 16, 16)
    (max_pool_map(x, cells) * given).sum().backward()
    wanted = torch.zeros(1, 2, 16)
    for start, end in cells.nonzero().tolist():
        largest = x[0, :, start : end + 1].argmax(-1) + start
        wanted[0, [0, 1], largest] += given[0, :, start, end]
    torch.testing.assert_close(x.grad, wanted)


def test_learned_proposals_land_in_their_cells():
    clips, scales = 16, [4, 2, 2]
    module = ProposalConvolutions(clips, scales, 1)
    with torch.no_grad():  # sums over windows: every clip counts as often as paths lead to it
        for convolution in (one for scale in module.scales for one in scale):
            convolution.weight.fill_(1.0)
            convolution.bias.zero_()
    cells = valid_cells(clips, scales)
    position = torch.arange(clips).float()
    ones, times = module(torch.ones(clips, 1, 1)).flatten(), module(position.view(-1, 1, 1)).flatten()
    centres = torch.tensor([(start + end) / 2 for start, end in cells.nonzero().tolist()])
    torch.testing.assert_close(times / ones, centres)  # all windows are symmetric
    assert sum(map(len, module.scales)) == len(proposal_lengths(clips, scales))


WAYS = ["gather", "bands", "full"]


def random_cells(way, seed=0):
    rng = np.random.default_rng(seed)
    inputs, outputs = (torch.from_numpy(rng.random((9, 9)) < share) for share in (0.5, 0.6))
    return SparseMapIndex(inputs, outputs, 3, way=way)


@pytest.mark.parametrize("way", WAYS)
def test_a_convolution_at_some_cells_equals_the_dense_one_forward_and_backward(way):
    torch.manual_seed(0)
    cells, layer = random_cells(way), nn.Conv2d(4, 6, 3, padding=1, bias=False)
    x = (torch.randn(2, 4, 9, 9) * cells.inputs).requires_grad_()
    kernels = kernel_rows(layer.weight)
    given = torch.randn(2, 6, 9, 9)
    found = cells.full_outputs(SparseMap(x.permute(2, 3, 0, 1)[cells.inputs], cells).convolve(kernels))
    dense = dense_map_conv(x, kernels, cells.outputs)
    torch.testing.assert_close(dense, layer(x) * cells.outputs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, dense, rtol=1e-5, atol=1e-5)
    ours = torch.autograd.grad((found * given).sum(), [x, layer.weight], retain_graph=True)
    wanted = torch.autograd.grad((dense * given).sum(), [x, layer.weight])
    torch.testing.assert_close(ours[0], wanted[0] * cells.inputs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours[1], wanted[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_every_map_gets_its_own_mixture_of_kernels_and_cells_without_a_row_share_a_value(way):
    torch.manual_seed(1)
    cells, batch, mixed = random_cells(way, seed=1), 11, 3
    rows = torch.randn(cells.rows_in, batch, 4, requires_grad=True)
    scale, shift = torch.randn(4, requires_grad=True), torch.randn(4, requires_grad=True)
    kernels = torch.randn(mixed, 9, 4, 6, requires_grad=True)
    mixture = torch.rand(batch, mixed, requires_grad=True)
    wrt = [rows, kernels, mixture, scale, shift]

    u = SparseMap(rows, cells, scale, shift)
    found = cells.full_outputs(u.convolve(kernels, mixture))
    full = cells.full(rows * scale + shift, shift)  # (B, I, 9, 9)
    wanted = dense_map_conv(full, kernels, cells.outputs, mixture)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    given = torch.randn_like(found)
    ours = torch.autograd.grad((found * given).sum(), wrt)
    theirs = torch.autograd.grad((wanted * given).sum(), wrt, retain_graph=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(u.mean(), full.mean(dim=(2, 3)))
    torch.testing.assert_close(cells.full_outputs(u.residual()), full * cells.outputs)


def test_all_ways_to_convolve_agree_in_half_precision():
    torch.manual_seed(2)
    rows, weight = torch.randn(random_cells("gather").rows_in, 3, 4), torch.randn(6, 4, 3, 3)
    results = []
    for way in WAYS:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            results.append(convolve_rows(rows, kernel_rows(weight), random_cells(way)))
    assert {result.dtype for result in results} == {torch.bfloat16}
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=0.05, atol=0.2)


def test_nothing_but_the_rows_is_kept_for_the_backward_pass():
    cells, rows = (
        random_cells("gather"),
        torch.randn(random_cells("gather").rows_in, 2, 4, requires_grad=True),
    )
    kernels, mixture = torch.randn(3, 9, 4, 6, requires_grad=True), torch.rand(2, 3, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        convolve_rows(rows, kernels, cells, mixture=mixture, scale=torch.ones(4), shift=torch.zeros(4))
    given = {rows.data_ptr(), kernels.data_ptr(), mixture.data_ptr()}
    assert {t.data_ptr() for t in kept if t.numel() > 4} == given


def test_what_evaluation_skips_cannot_reach_a_valid_cell():
    torch.manual_seed(3)
    clips, kernel, layers = 16, 5, 4
    cells = valid_cells(clips, [4, 2, 2])
    weights = map_weights(cells, kernel, layers)
    needed = needed_cells(cells, weights, kernel)
    convolutions = [nn.Conv2d(3, 3, kernel, padding=2) for _ in range(layers)]
    x = torch.randn(1, 3, clips, clips) * cells

    def run(garbage):
        y = x
        for layer, convolution in enumerate(convolutions):
            y = convolution(y).relu() * weights[layer]
            skipped = (weights[layer] > 0) & ~needed[layer]
            y = torch.where(skipped, torch.full_like(y, garbage), y)
        return y[..., cells]

    assert any(int((weights[n] > 0).sum()) > int(needed[n].sum()) for n in range(layers))
    with torch.no_grad():
        torch.testing.assert_close(run(0.0), run(1e6), rtol=0, atol=0)


BARS = [  # share of the full maps' products that may run: bars of the whole forward pass, less what is not a map
    ("cdn-tacos", 128, 5, 8, {0, 1, 2}, "evaluation", (0.90e12 - 4.5e9) / 1717.99e9),
    ("cdn-tacos", 128, 5, 8, {0, 1, 2}, "training", (1.15e12 - 4.5e9) / 1717.99e9),
    ("leorn-tacos", 128, 5, 8, (), "evaluation", (0.62 * 956.3 - 97.3) / 859.0),
    ("leorn-charades", 64, 9, 4, (), "evaluation", (0.66 * 396.8 - 48.9) / 347.9),
]


@pytest.mark.parametrize(
    ("name", "clips", "kernel", "layers", "complete", "mode", "bar"),
    BARS,
    ids=[f"{bar[0]}-{bar[5]}" for bar in BARS],
)
def test_the_products_of_all_layers_stay_under_the_bar(name, clips, kernel, layers, complete, mode, bar):
    dim, work = 8, 0.0
    cells = SparseMapLayers(valid_cells(clips, GRIDS[clips]), kernel, layers, complete=complete)
    for layer in cells.train(mode == "training").current():
        rows, weight = torch.zeros(layer.rows_in, 1, dim), torch.zeros(dim, dim, kernel, kernel)
        work += flops(lambda r=rows, w=weight, p=layer: convolve_rows(r, kernel_rows(w), p))
    share = work / (2 * layers * clips**2 * kernel**2 * dim**2)
    assert 0.5 * bar < share <= bar


@pytest.mark.parametrize("zeros", [0, 7])
def test_batch_norm_equals_torch_with_the_zero_rows_written_out(zeros):
    torch.manual_seed(4)
    ours, theirs = BatchNorm(5), nn.BatchNorm1d(5)
    theirs.load_state_dict(ours.state_dict())
    x = (torch.randn(11, 5) + 3).requires_grad_()
    given = torch.randn(11 + zeros, 5)
    for _ in range(2):
        wanted = theirs(torch.cat([x, torch.zeros(zeros, 5)]))
        scale, shift = ours.affine(x, zeros)
        found = torch.cat([x * scale + shift, shift.expand(zeros, 5)])
        torch.testing.assert_close(found, wanted)
    parameters = [x, ours.weight, ours.bias]
    ours_grads = torch.autograd.grad((found * given).sum(), parameters)
    grads = torch.autograd.grad((wanted * given).sum(), [x, theirs.weight, theirs.bias])
    torch.testing.assert_close(ours_grads, grads, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dict(ours.state_dict()), dict(theirs.state_dict()))
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_the_fused_map_has_unit_vectors_and_a_zero_stays_zero():
    fusion = MapFusion(3, 4, 5)
    rows = fusion(fusion.project(torch.randn(6, 2, 4)), torch.randn(2, 3))
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(6, 2))
    assert fusion(torch.zeros(1, 2, 5), torch.randn(2, 3)).abs().max() == 0


def test_the_scaled_overlap_loss_equals_its_definition():
    torch.manual_seed(5)
    logits, iou = torch.randn(40, 3), torch.rand(40, 3)
    target = scaled_iou(iou, 0.3, 0.7)
    assert target.min() == 0
    assert target.max() == 1
    p = logits.double().sigmoid()
    terms = -(target * p.log() + (1 - target) * (1 - p).log())
    for of_probabilities in (False, True):
        loss = scaled_iou_loss(logits, target, of_probabilities=of_probabilities)
        assert loss.item() == pytest.approx(terms.mean().item(), rel=1e-6)


def loss_and_gradient(logits, target, **kind):
    logits = logits.clone().requires_grad_()
    loss = scaled_iou_loss(logits, target, **kind)
    loss.backward()
    return loss.detach(), logits.grad


def test_a_loss_of_probabilities_is_that_of_float32_and_has_no_gradient_where_they_are_one():
    logits = torch.tensor([20.0, 17.0, 16.0, -20.0, -40.0, -120.0, 3.0])
    target = torch.tensor([0.0, 0.5, 0.25, 0.75, 0.5, 1.0, 0.5])
    loss, gradient = loss_and_gradient(logits, target, of_probabilities=True)
    given = logits.clone().requires_grad_()
    wanted = torch.nn.functional.binary_cross_entropy(given.sigmoid(), target)
    wanted.backward()
    assert loss == wanted.detach()
    assert torch.equal(gradient, given.grad)
    assert gradient[0] == gradient[1] == 0
    assert gradient[2] > 0
    _, stable = loss_and_gradient(logits, target, of_probabilities=False)
    torch.testing.assert_close(stable, (logits.double().sigmoid() - target).float() / len(logits))


def test_both_forms_of_the_loss_agree_where_probabilities_are_far_from_one():
    logits, target = torch.linspace(-8, 8, 65), torch.linspace(0, 1, 65)
    found = [loss_and_gradient(logits, target, of_probabilities=form) for form in (True, False)]
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("of_probabilities", [False, True])
def test_a_loss_of_logits_that_are_no_numbers_is_no_number(of_probabilities):
    logits = torch.tensor([1.0, float("nan")])
    assert scaled_iou_loss(logits, torch.zeros(2), of_probabilities=of_probabilities).isnan()


@pytest.mark.parametrize("of_probabilities", [False, True])
def test_the_loss_is_taken_in_float32_where_products_are_not(of_probabilities):
    logits, target = torch.tensor([12.0, -3.0]), torch.tensor([0.0, 1.0])
    wanted = scaled_iou_loss(logits, target, of_probabilities=of_probabilities)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert scaled_iou_loss(logits, target, of_probabilities=of_probabilities) == wanted


def test_rows_and_full_maps_are_two_views_of_the_same():
    proposals = ProposalMap(valid_cells(16, [4, 2, 2]))
    rows = torch.randn(proposals.size, 2, 3)
    full = scatter_rows(rows, proposals.index, proposals.clips)
    torch.testing.assert_close(proposals.gather(full), rows)
    assert (full[0, 0] != 0).equal(proposals.cells)
