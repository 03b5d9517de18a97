"""CDN's dynamic map network: residual convolutions over the proposal map, the first ones with kernels mixed per query.

A layer is ``x' = ReLU(conv(u) + u) * m`` with ``u = BN(x)`` (CDN, map network; weights m as in 2D-TAN, section 3.4).
Maps are kept as rows of the cells that matter: `vmr_train.layers.sparse_map_conv` gives the numbers of the full ones.
Shapes as in `cdn.model`; L cells with a row in a layer's input, C cells in its output, W kernels of a bank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cdn.config import ModelConfig
from vmr_train.layers import sparse_map_conv as sparse
from vmr_train.layers.batch_norm import BatchNorm
from vmr_train.layers.recompute import activation_checkpoint


class DynamicConvolution(nn.Module):
    """A convolution whose kernel every query mixes from a bank, by its sentence and the whole map."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, kernels = config.hidden, config.kernels
        # place by place, so that the kernel of one place can be mixed on its own
        self.bank = nn.Parameter(torch.empty(kernels, config.kernel**2, dim, dim))  # (W, k * k, in, out)
        self.bias_bank = nn.Parameter(torch.empty(kernels, dim))
        self.text = nn.Linear(dim, dim)
        self.map = nn.Linear(dim, dim)
        self.mixer = nn.Linear(dim, kernels)
        self.dropout = nn.Dropout(config.kernel_dropout)  # on the mixture, not renormalised
        sparse.init_kernels_(self.bank, self.bias_bank)

    def mixture(self, sentence: Tensor, pooled: Tensor) -> Tensor:
        """Kernel attention ``a = softmax(A3 tanh(A1 q + A2 z))``, ``(B, W)``, of q and z ``(B, H)``."""
        hidden = torch.tanh(self.text(sentence) + self.map(pooled))
        return self.dropout(self.mixer(hidden).softmax(dim=-1))

    def forward(self, u: sparse.SparseMap, sentence: Tensor) -> Tensor:
        """Outputs ``(C, B, H)``: each map convolved with its own ``K = sum_w a_w Bank_w``, and its own bias."""
        a = self.mixture(sentence, u.mean())  # (B, W)
        return u.convolve(self.bank, a) + a @ self.bias_bank


class StaticConvolution(nn.Module):
    """A convolution with one kernel for all queries."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.hidden
        self.weight = nn.Parameter(torch.empty(config.kernel**2, dim, dim))  # (k * k, in, out)
        self.bias = nn.Parameter(torch.empty(dim))
        sparse.init_kernels_(self.weight, self.bias)

    def forward(self, u: sparse.SparseMap, sentence: Tensor) -> Tensor:
        """Outputs ``(C, B, H)``; the sentence changes nothing."""
        return u.convolve(self.weight[None]) + self.bias


class MapNetwork(nn.Module):
    """R layers, the dynamic ones first as a rule, and a last batch normalisation.

    Args:
        config: Sizes.
        cells: ``(N, N)`` bool valid cells.
    """

    def __init__(self, config: ModelConfig, cells: Tensor) -> None:
        super().__init__()
        dynamic = set(config.dynamic_layers)
        self.recompute = config.recompute
        self.convolutions = nn.ModuleList(
            DynamicConvolution(config) if layer in dynamic else StaticConvolution(config)
            for layer in range(config.layers)
        )
        self.norms = nn.ModuleList(BatchNorm(config.hidden) for _ in range(config.layers + 1))
        # a dynamic layer pools over its whole input, so the layer before it has to be complete
        complete = {layer - 1 for layer in dynamic}
        self.cells = sparse.SparseMapLayers(cells, config.kernel, config.layers, complete=complete)

    def layer(self, number: int, x: Tensor, sentence: Tensor, cells: sparse.SparseMapIndex) -> Tensor:
        """``ReLU(conv(u) + u) * m`` with ``u = BN(x)``: rows ``(L, B, H)`` of the input to ``(C, B, H)``."""
        u = sparse.SparseMap.normalized(x, cells, cast(BatchNorm, self.norms[number]))
        y = self.convolutions[number](u, sentence) + u.residual()
        # the weights are positive, so they may come before the ReLU, whose result alone is then kept
        return F.relu(y * cells.weights)

    def forward(self, x: Tensor, sentence: Tensor) -> Tensor:
        """Valid cells ``(P, B, H)`` in and out, given sentences ``(B, H)``."""
        cells = self.cells.current()
        step = self.recompute or len(cells)
        for first in range(0, len(cells), step):
            layers = range(first, min(first + step, len(cells)))
            if self.recompute:
                x = activation_checkpoint(self._layers, layers, x, sentence, cells)
            else:
                x = self._layers(layers, x, sentence, cells)
        scale, shift = cast(BatchNorm, self.norms[-1]).affine(x, cells[-1].num_zero_cells(x))
        return self.cells.valid(x) * scale + shift

    def _layers(
        self, layers: range, x: Tensor, sentence: Tensor, cells: Sequence[sparse.SparseMapIndex]
    ) -> Tensor:
        for number in layers:
            x = self.layer(number, x, sentence, cells[number])
        return x
