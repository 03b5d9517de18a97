"""CDN's map network against the paper's formula, written out over the full map."""

import pytest
import torch
from torch.nn import functional as F

from cdn.config import ModelConfig
from cdn.map_network import DynamicConvolution, MapNetwork
from cdn.proposal_map import valid_cells
from factories import shake
from vmr_train.layers.sparse_map_conv import dense_map_conv
from vmr_train.layers.sparse_map_plan import map_weights, scatter_rows

SIZES = ModelConfig(
    hidden=6,
    clips=16,
    scales=[4, 2, 2],
    layers=4,
    kernel=5,
    dynamic_layers=[0, 2],
    kernels=3,
    kernel_dropout=0.0,
)
CELLS = valid_cells(SIZES.clips, SIZES.scales)


def dense(network: MapNetwork, x: torch.Tensor, sentence: torch.Tensor) -> torch.Tensor:
    """``x_{r+1} = ReLU(conv_r(u) + u) * m_r`` with ``u = BN_r(x_r)``, and a last BN, of full maps ``(B, H, N, N)``."""

    def normalized(x, norm):
        statistics = (None, None) if norm.training else (norm.running_mean, norm.running_var)
        return F.batch_norm(x, *statistics, norm.weight, norm.bias, norm.training)

    everywhere = torch.ones_like(CELLS)
    for norm, layer, m in zip(
        network.norms, network.convolutions, map_weights(CELLS, SIZES.kernel, SIZES.layers), strict=False
    ):
        u = normalized(x, norm)
        if isinstance(layer, DynamicConvolution):
            a = layer.mixture(sentence, u.mean(dim=(2, 3)))
            y = dense_map_conv(u, layer.bank, everywhere, a) + (a @ layer.bias_bank)[:, :, None, None]
        else:
            y = dense_map_conv(u, layer.weight[None], everywhere) + layer.bias[:, None, None]
        x = F.relu(y + u) * m
    return normalized(x, network.norms[-1])


@pytest.mark.parametrize("training", [True, False])
def test_the_network_at_valid_cells_equals_the_formula_over_the_full_map(training):
    torch.manual_seed(0)
    network = MapNetwork(SIZES, CELLS)
    shake(network, 0.1)
    network.train(training)
    rows, sentence = torch.rand(int(CELLS.sum()), 3, SIZES.hidden), torch.randn(3, SIZES.hidden)
    full = scatter_rows(rows, CELLS.flatten().nonzero()[:, 0], SIZES.clips)
    found = network(rows.requires_grad_(), sentence)
    wanted = dense(network, full.requires_grad_(), sentence)[..., CELLS].permute(2, 0, 1)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    given = torch.randn_like(found)
    parameters = list(network.parameters())
    ours = torch.autograd.grad((found * given).sum(), [rows, *parameters])
    theirs = torch.autograd.grad((wanted * given).sum(), [full, *parameters])
    torch.testing.assert_close(ours[0], theirs[0][..., CELLS].permute(2, 0, 1), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(ours[1:], theirs[1:], rtol=1e-3, atol=1e-3)
