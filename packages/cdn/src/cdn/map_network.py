"""CDN's map network: residual convolutions over the proposal map, the first ones with kernels mixed per query.

Only cells that matter are computed (`vmr_train.layers.sparse_map_plan`); all others of a layer's input are zero, and
the batch normalisation makes one shared value of them. Shapes as in `cdn.model`; L cells that a layer's input has rows
for, C cells that it computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cdn.config import ModelConfig
from vmr_train.layers.batch_norm import BatchNorm
from vmr_train.layers.recompute import activation_checkpoint
from vmr_train.layers.sparse_map_conv import convolve_rows, init_kernels_
from vmr_train.layers.sparse_map_plan import SparseMapIndex, map_weights, needed_cells


class DynamicConvolution(nn.Module):
    """A convolution whose kernel every query mixes from a bank, looking at the sentence and the whole map.

    Args:
        dim: Channels H.
        text_dim: Sentence feature size.
        kernel: Kernel size k.
        kernels: Kernels W in the bank.
        dropout: Dropout on the mixture, not renormalised.
    """

    def __init__(self, dim: int, text_dim: int, kernel: int, kernels: int, dropout: float) -> None:
        super().__init__()
        # place by place, so that the kernel of one place can be mixed on its own
        self.bank = nn.Parameter(torch.empty(kernels, kernel**2, dim, dim))  # (W, k * k, in, out)
        self.bias_bank = nn.Parameter(torch.empty(kernels, dim))
        self.text = nn.Linear(text_dim, dim)
        self.map = nn.Linear(dim, dim)
        self.mixer = nn.Linear(dim, kernels)
        self.dropout = nn.Dropout(dropout)
        init_kernels_(self.bank, self.bias_bank)

    def mixture(self, sentence: Tensor, pooled: Tensor) -> Tensor:
        """Weights ``(B, W)`` of the kernels from sentences ``(B, H)`` and pooled maps ``(B, H)``."""
        seen = torch.tanh(self.text(sentence) + self.map(pooled))
        return self.dropout(self.mixer(seen).softmax(dim=-1))

    def forward(
        self, rows: Tensor, sentence: Tensor, plan: SparseMapIndex, scale: Tensor, shift: Tensor
    ) -> Tensor:
        """Outputs ``(C, B, H)`` of the map ``rows * scale + shift``, which is `shift` where it has no row."""
        cells = plan.clips**2
        pooled = rows.float().sum(dim=0) / cells * scale + shift  # the mean over all cells, (B, H)
        weights = self.mixture(sentence, pooled)
        found = convolve_rows(rows, self.bank, plan, scale=scale, shift=shift, mixture=weights)
        return found + weights @ self.bias_bank


class StaticConvolution(nn.Module):
    """A convolution with one kernel for all queries.

    Args:
        dim: Channels H.
        kernel: Kernel size k.
    """

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(kernel**2, dim, dim))  # (k * k, in, out)
        self.bias = nn.Parameter(torch.empty(dim))
        init_kernels_(self.weight, self.bias)

    def forward(
        self, rows: Tensor, sentence: Tensor, plan: SparseMapIndex, scale: Tensor, shift: Tensor
    ) -> Tensor:
        """As `DynamicConvolution.forward`; the sentence changes nothing."""
        return convolve_rows(rows, self.weight[None], plan, scale=scale, shift=shift) + self.bias


class MapNetwork(nn.Module):
    """R layers ``ReLU(conv(u) + u) / live cells in the window``, u the batch-normalised input, and a last norm.

    Args:
        config: Sizes.
        cells: ``(N, N)`` bool valid cells.
    """

    weights: Tensor
    cells: Tensor
    _valid_of_live: Tensor

    def __init__(self, config: ModelConfig, cells: Tensor) -> None:
        super().__init__()
        dim, dynamic = config.hidden, set(config.dynamic_layers)
        self.recompute = config.recompute
        self.convolutions = nn.ModuleList(
            DynamicConvolution(dim, dim, config.kernel, config.kernels, config.kernel_dropout)
            if layer in dynamic
            else StaticConvolution(dim, config.kernel)
            for layer in range(config.layers)
        )
        self.norms = nn.ModuleList(BatchNorm(dim) for _ in range(config.layers + 1))
        weights = map_weights(cells, config.kernel, config.layers)
        # a dynamic layer pools over its whole input, so the layer before it has to be complete
        needed = needed_cells(cells, weights, config.kernel, {layer - 1 for layer in dynamic})
        live = [cells, *(weights > 0)]
        # the statistics of training see every live cell, evaluation only what reaches a valid one
        self.training_plans = _plans(live, config.kernel)
        self.evaluation_plans = _plans([cells, *needed], config.kernel)
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("cells", cells.clone(), persistent=False)
        self.register_buffer("_valid_of_live", torch.from_numpy(_rows_of(cells, live[-1])), persistent=False)

    def layer(self, number: int, rows: Tensor, sentence: Tensor, plan: SparseMapIndex) -> Tensor:
        """One layer: rows ``(L, B, H)`` of its input to ``(C, B, H)`` of its output, both without negative values."""
        norm = cast(BatchNorm, self.norms[number])
        scale, shift = norm.affine(rows, plan.num_zero_cells(rows))
        found = self.convolutions[number](rows, sentence, plan, scale, shift)
        found = found + plan.carry(rows * scale + shift, shift)
        weights = self.weights[number].flatten().index_select(0, plan.output_index)
        # the weights are positive, so they may come before the ReLU, whose result alone is then kept
        return F.relu(found * weights[:, None, None])

    def plans(self) -> list[SparseMapIndex]:
        """What each layer reads and computes in the current mode."""
        return cast(
            list[SparseMapIndex], list(self.training_plans if self.training else self.evaluation_plans)
        )

    def forward(self, rows: Tensor, sentence: Tensor) -> Tensor:
        """Valid cells ``(P, B, H)`` in and out, given sentences ``(B, H)``."""
        plans = self.plans()
        step = self.recompute or len(plans)
        for first in range(0, len(plans), step):
            layers = range(first, min(first + step, len(plans)))
            wanted = self.recompute > 0
            rows = activation_checkpoint(self._layers, layers, rows, sentence, plans, wanted=wanted)
        return self.finish(rows, plans[-1])

    def _layers(
        self, layers: range, rows: Tensor, sentence: Tensor, plans: Sequence[SparseMapIndex]
    ) -> Tensor:
        for number in layers:
            rows = self.layer(number, rows, sentence, plans[number])
        return rows

    def finish(self, rows: Tensor, last: SparseMapIndex) -> Tensor:
        """The last normalisation at the valid cells, ``(P, B, H)``, of the last layer's output rows."""
        norm = cast(BatchNorm, self.norms[-1])
        scale, shift = norm.affine(rows, last.num_zero_cells(rows))
        if rows.shape[0] != len(self._valid_of_live):
            rows = rows.index_select(0, self._valid_of_live)
        return rows * scale + shift


def _rows_of(cells: Tensor, among: Tensor) -> NDArray[np.int64]:
    """Which rows some cells ``(N, N)`` have in a map that has rows for a larger set of cells."""
    numbers = np.cumsum(among.cpu().numpy()).reshape(among.shape) - 1
    return np.asarray(numbers[cells.cpu().numpy()], dtype=np.int64)


def _plans(cells: Sequence[Tensor], kernel: int) -> nn.ModuleList:
    return nn.ModuleList(SparseMapIndex(inputs, outputs, kernel) for inputs, outputs in pairwise(cells))
