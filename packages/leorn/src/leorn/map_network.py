"""LEORN's map network: residual convolutions over the proposal map, batch-normalised after each.

``x_0 = BN_0(f)``, then ``x_l = ReLU(BN_l(conv_l(x_{l-1}) + x_{l-1})) * w_l`` (weights w as in 2D-TAN, section 3.4).
Maps are kept as rows of the cells that matter: `vmr_train.layers.sparse_map_conv` gives the numbers of the full ones.
Shapes: N clips, P valid cells, B queries, H width; L cells with a row in a layer's input, C cells in its output.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmr_train.layers import sparse_map_conv as sparse
from vmr_train.layers.batch_norm import BatchNorm
from vmr_train.layers.recompute import activation_checkpoint


class MapConvolution(nn.Module):
    """The kernel and the bias of a convolution, ordered by place of the window (see `kernel_rows`).

    Args:
        dim: Channels H.
        kernel: Kernel size k.
    """

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, kernel**2, dim, dim))  # (1, k * k, in, out)
        self.bias = nn.Parameter(torch.empty(dim))
        sparse.init_kernels_(self.weight, self.bias)


class MapNetwork(nn.Module):
    """R layers behind a first batch normalisation.

    Args:
        dim: Channels H.
        layers: Layers R.
        kernel: Kernel size k.
        cells: ``(N, N)`` bool valid cells.
        recompute: Whether a training step computes each layer again in the backward pass.
    """

    def __init__(self, dim: int, layers: int, kernel: int, cells: Tensor, *, recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        self.convolutions = nn.ModuleList(MapConvolution(dim, kernel) for _ in range(layers))
        self.norms = nn.ModuleList(BatchNorm(dim) for _ in range(layers + 1))
        # In training every cell of the map counts in the statistics. Beyond the live ones a layer's values are its
        # bias, which needs no work, but in the first layer, whose input is nowhere zero.
        self.cells = sparse.SparseMapLayers(cells, kernel, layers, first_everywhere=True)

    def forward(self, rows: Tensor) -> Tensor:
        """Valid cells ``(P, B, H)`` in and out."""
        return self.cells.valid(self.layers(rows, self.cells.current()))

    def layers(self, rows: Tensor, cells: list[sparse.SparseMapIndex]) -> Tensor:
        """All layers: valid cells ``(P, B, H)`` to the output rows of the last one."""
        for number, here in enumerate(cells):
            rows = activation_checkpoint(self._layer, number, rows, here, wanted=self.recompute)
        return rows

    def _layer(self, number: int, rows: Tensor, cells: sparse.SparseMapIndex) -> Tensor:
        """``ReLU(BN(conv(x) + x)) * w``: rows ``(L, B, H)`` of the input to ``(C, B, H)``."""
        convolution = cast(MapConvolution, self.convolutions[number])
        first, norm = (cast(BatchNorm, self.norms[n]) for n in (0, number + 1))
        x = sparse.SparseMap.normalized(rows, cells, first) if number == 0 else sparse.SparseMap(rows, cells)
        y = x.convolve(convolution.weight) + x.residual()
        # the bias, which cells without a row have too, comes in with the normalisation
        scale, shift = norm.affine(y, cells.num_zero_cells(y), convolution.bias)
        # the weights are not negative, so they may come before the ReLU, whose result alone is then kept
        return F.relu((cells.weighted(y) * scale + shift) * cells.weights)
