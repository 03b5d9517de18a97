"""The proposal map, its fusion, and the cells that a map network computes: exact, and no dearer than they must be."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from cdn.config import proposal_lengths
from cdn.proposal_map import MapFusion, ProposalConvolutions, ProposalMap, valid_cells
from factories import flops
from vmr_common.errors import UserError
from vmr_train.layers.sparse_map_conv import convolve_rows, kernel_rows
from vmr_train.layers.sparse_map_plan import (
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
    ("cdn-tacos", 128, 5, 8, {0, 1, 2}, "evaluation", (0.76e12 - 4.5e9) / 1717.99e9),
    ("cdn-tacos", 128, 5, 8, {0, 1, 2}, "training", (0.94e12 - 4.5e9) / 1717.99e9),
    ("leorn-tacos", 128, 5, 8, (), "evaluation", (0.5 * 956.3 - 97.3) / 859.0),
    ("leorn-charades", 64, 9, 4, (), "evaluation", (0.49 * 396.8 - 48.9) / 347.9),
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


def test_the_fused_map_has_unit_vectors_and_a_zero_stays_zero():
    fusion = MapFusion(5)
    rows = fusion(fusion.project(torch.randn(6, 2, 5)), torch.randn(2, 5))
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(6, 2))
    assert fusion(torch.zeros(1, 2, 5), torch.randn(2, 5)).abs().max() == 0


def test_rows_and_full_maps_are_two_views_of_the_same():
    proposals = ProposalMap(valid_cells(16, [4, 2, 2]))
    rows = torch.randn(proposals.size, 2, 3)
    full = scatter_rows(rows, proposals.index, proposals.clips)
    torch.testing.assert_close(proposals.gather(full), rows)
    assert (full[0, 0] != 0).equal(proposals.cells)
