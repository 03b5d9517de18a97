"""The sparse map convolution and the batch normalisation: exact against the dense forms."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from factories import flops
from vmr_train.layers.batch_norm import BatchNorm
from vmr_train.layers.sparse_map_conv import SparseMap, convolve_rows, dense_map_conv, kernel_rows
from vmr_train.layers.sparse_map_plan import SparseMapIndex
from vmr_train.layers.tiled_conv import TILE, convolve_tiles

WAYS = ["gather", "tiles"]


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
@pytest.mark.parametrize("mixed", [False, True])
def test_a_layer_without_a_single_output_has_none(way, mixed):
    cells = SparseMapIndex(
        torch.ones(8, 8, dtype=torch.bool), torch.zeros(8, 8, dtype=torch.bool), 3, way=way
    )
    rows, kernels = torch.randn(64, 2, 4, requires_grad=True), torch.randn(2 if mixed else 1, 9, 4, 6)
    found = SparseMap(rows, cells).convolve(kernels, torch.rand(2, 2) if mixed else None)
    assert found.shape == (0, 2, 6)
    found.sum().backward()
    assert not rows.grad.any()


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


@pytest.mark.parametrize("mixed", [False, True])
def test_in_half_precision_rows_are_gathered_and_agree_with_float32(mixed):
    torch.manual_seed(2)
    cells, kernels = random_cells("tiles"), torch.randn(3 if mixed else 1, 9, 4, 6)
    rows, mixture = torch.randn(cells.rows_in, 5, 4), torch.rand(5, 3) if mixed else None
    wanted = convolve_rows(rows, kernels, cells, mixture=mixture)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = convolve_rows(rows, kernels, cells, mixture=mixture)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, rtol=0.05, atol=0.2)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_but_the_rows_is_kept_for_the_backward_pass(way):
    cells = random_cells(way)
    rows = torch.randn(cells.rows_in, 2, 4, requires_grad=True)
    kernels, mixture = torch.randn(3, 9, 4, 6, requires_grad=True), torch.rand(2, 3, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        convolve_rows(rows, kernels, cells, mixture=mixture, scale=torch.ones(4), shift=torch.zeros(4))
    given = {rows.data_ptr(), kernels.data_ptr(), mixture.data_ptr()}
    assert {t.data_ptr() for t in kept if t.numel() > 4} == given


@pytest.mark.parametrize("kernel", [1, 3, 5, 9])
def test_convolving_tiles_by_transforms_loses_no_digits(kernel):
    torch.manual_seed(3)
    size, channels = TILE + kernel - 1, 64
    x = torch.randn(5, channels, size, size, dtype=torch.float64)
    weight = torch.randn(8, channels, kernel, kernel, dtype=torch.float64)
    exact = F.conv2d(x, weight)
    tiles = x.permute(2, 3, 0, 1).flatten(0, 1).float()
    found = convolve_tiles(tiles, kernel_rows(weight)[0].float())
    found = found.unflatten(0, (TILE, TILE)).permute(2, 3, 0, 1)
    assert (found - exact).abs().max() < 2e-6 * exact.abs().max()


@pytest.mark.parametrize(("clips", "kernel", "share"), [(128, 5, 0.35), (64, 9, 0.3)])
def test_large_maps_are_convolved_in_tiles_with_a_fraction_of_the_products(clips, kernel, share):
    lower = torch.ones(clips, clips, dtype=torch.bool).tril(kernel)
    cells, gathering = (SparseMapIndex(lower, lower, kernel, way=way) for way in (None, "gather"))
    rows, kernels = torch.zeros(cells.rows_in, 1, 128), torch.zeros(1, kernel**2, 128, 128)
    assert cells.tiled(rows, kernels, mixed=False)
    assert not cells.tiled(rows.bfloat16(), kernels, mixed=False)
    assert not cells.tiled(rows.to("meta"), kernels, mixed=False)
    work = [flops(lambda p=plan: convolve_rows(rows, kernels, p)) for plan in (cells, gathering)]
    assert work[0] < share * work[1]


def test_small_maps_are_gathered_unless_many_share_a_kernel():
    everywhere = torch.ones(16, 16, dtype=torch.bool)
    cells, kernels = SparseMapIndex(everywhere, everywhere, 5), torch.empty(1, 25, 512, 512, device="meta")
    few, many = (torch.zeros(257, 1, 1).expand(257, maps, 512) for maps in (1, 32))
    assert not cells.tiled(few, kernels, mixed=False)
    assert cells.tiled(many, kernels, mixed=False)
    assert not cells.tiled(many, kernels, mixed=True)


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
