"""LEORN's map network: residual convolutions over the proposal map, batch-normalised after each.

Only cells that matter are computed (`vmr_train.layers.sparse_map_plan`). Shapes: N clips, P valid cells, B queries, H
width; a layer computes some cells and hands on those that the next one reads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmr_train.layers.batch_norm import BatchNorm
from vmr_train.layers.recompute import activation_checkpoint
from vmr_train.layers.sparse_map_conv import convolve_rows, init_kernels_
from vmr_train.layers.sparse_map_plan import SparseMapIndex, map_weights, needed_cells


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
        init_kernels_(self.weight, self.bias)


class Reach(nn.Module):
    """The cells that each layer computes, and what it multiplies them with. Constants.

    Args:
        cells: ``(N, N)`` bool that the input has rows for.
        outputs: Per layer ``(N, N)`` bool, the cells whose values the next layer reads.
        computed: Per layer ``(N, N)`` bool, the cells to compute; a cell that is not in `outputs` is there for the
            statistics alone.
        weights: ``(R, N, N)`` from `map_weights`.
        kernel: Kernel size k.
    """

    def __init__(
        self, cells: Tensor, outputs: list[Tensor], computed: list[Tensor], weights: Tensor, kernel: int
    ) -> None:
        super().__init__()
        inputs = [cells, *outputs[:-1]]
        self.plans = nn.ModuleList(
            SparseMapIndex(given, wanted, kernel) for given, wanted in zip(inputs, computed, strict=True)
        )
        for layer, (kept, found) in enumerate(zip(outputs, computed, strict=True)):
            self.register_buffer(f"weights_{layer}", weights[layer][kept], persistent=False)
            rows = None if torch.equal(kept, found) else kept[found].nonzero()[:, 0]
            self.register_buffer(f"rows_{layer}", rows, persistent=False)

    def finish(self, layer: int, rows: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        """A layer's output rows: normalised by `scale` and `shift`, without negative values, weighted."""
        weights, kept = self.get_buffer(f"weights_{layer}"), getattr(self, f"rows_{layer}")
        if kept is not None:
            rows = rows.index_select(0, kept)
        # the weights are not negative, so they may come before the ReLU, whose result alone is then kept
        return F.relu((rows * scale + shift) * weights[:, None, None])


class MapNetwork(nn.Module):
    """R layers ``ReLU(norm(conv(x) + x)) / live cells in the window`` behind a first normalisation.

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
        weights = map_weights(cells, kernel, layers)
        live = [weight > 0 for weight in weights]
        needed = needed_cells(cells, weights, kernel)
        # In training every cell of the map counts in the statistics. Beyond the live ones a layer's values are its
        # bias, which needs no work, but in the first layer, whose input is nowhere zero.
        everywhere = torch.ones_like(cells)
        self.training_reach = Reach(cells, live, [everywhere, *live[1:]], weights, kernel)
        self.evaluation_reach = Reach(cells, needed, needed, weights, kernel)
        self.register_buffer("cells_of_live", cells[live[-1]].nonzero()[:, 0], persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Valid cells ``(P, B, H)`` in and out."""
        reach = self.training_reach if self.training else self.evaluation_reach
        rows = self.layers(rows, reach)
        return rows.index_select(0, self.get_buffer("cells_of_live")) if self.training else rows

    def layers(self, rows: Tensor, reach: Reach) -> Tensor:
        """All layers: valid cells ``(P, B, H)`` to the output rows of the last one."""
        rows = activation_checkpoint(self._first, rows, reach, wanted=self.recompute)
        for number in range(1, len(self.convolutions)):
            rows = activation_checkpoint(self._layer, number, rows, reach, wanted=self.recompute)
        return rows

    def _first(self, rows: Tensor, reach: Reach) -> Tensor:
        plan = reach.plans[0]
        assert isinstance(plan, SparseMapIndex)
        norm = self.norms[0]
        assert isinstance(norm, BatchNorm)
        scale, shift = norm.affine(rows, plan.num_zero_cells(rows))
        found = convolve_rows(rows, self._weight(0), plan, scale=scale, shift=shift)
        return self._finish(0, found + plan.carry(rows * scale + shift, shift), plan, reach)

    def _layer(self, number: int, rows: Tensor, reach: Reach) -> Tensor:
        plan = reach.plans[number]
        assert isinstance(plan, SparseMapIndex)
        found = convolve_rows(rows, self._weight(number), plan)
        return self._finish(number, found + plan.carry(rows, rows.new_zeros(rows.shape[-1])), plan, reach)

    def _finish(self, number: int, rows: Tensor, plan: SparseMapIndex, reach: Reach) -> Tensor:
        norm, bias = self.norms[number + 1], self.convolutions[number].bias
        assert isinstance(norm, BatchNorm)
        assert isinstance(bias, Tensor)
        return reach.finish(number, rows, *norm.affine(rows, plan.num_zero_cells(rows), bias))

    def _weight(self, number: int) -> Tensor:
        weight = self.convolutions[number].weight
        assert isinstance(weight, Tensor)
        return weight
