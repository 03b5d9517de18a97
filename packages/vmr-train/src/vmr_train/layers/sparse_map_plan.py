"""The cells of a 2D proposal map that a convolution has to read and to compute, and the weights of its output.

A map is kept as rows ``(cells, B, C)`` of the cells whose values vary; all other cells share one value per channel.
Which rows a cell's window reads is a table made once (`SparseMapIndex`), for every layer of a network at once by
`SparseMapLayers`. Shapes: N clips, k kernel size, L input rows, P output rows, B maps, C channels.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Bools = NDArray[np.bool_]

Way = Literal["gather", "bands", "full"]
"""Ways to compute a layer's cells: one product per place of the kernel over gathered rows (no cell too many), library
convolutions of bands of map rows, or one of the full map."""
FULL_SHARE = 0.8
"""From this share of needed cells on, the full map is convolved: one library call is then faster."""
BAND_ROWS = 4
BAND_WASTE = 0.05
"""On the CPU, bands of so many rows are convolved as long as they hold at most this share of cells too many: the
library's convolution runs there about twice as fast as its products (benchmarks/cdn_speed.py)."""


def window_counts(cells: Tensor, kernel: int) -> Tensor:
    """Numbers of `cells` ``(N, N)`` bool in each cell's k x k window, ``(N, N)`` int64."""
    padded = np.pad(cells.cpu().numpy().astype(np.int64), kernel // 2)
    sums = np.pad(padded.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    k = kernel
    return torch.from_numpy(sums[k:, k:] - sums[:-k, k:] - sums[k:, :-k] + sums[:-k, :-k])


def map_weights(cells: Tensor, kernel: int, layers: int) -> Tensor:
    """Weights of each layer's output: 1 / live cells in the window, 0 where there are none.

    The live set starts as the valid cells and grows by half a kernel per layer: it is where the weight is
    positive (2D-TAN, section 3.4; CDN and LEORN weight alike).

    Args:
        cells: ``(N, N)`` bool valid cells.
        kernel: Kernel size k, odd.
        layers: Number of layers R.

    Returns:
        ``(R, N, N)`` float32.
    """
    weights, live = [], cells
    for _ in range(layers):
        counts = window_counts(live, kernel)
        live = counts > 0
        weights.append(torch.where(live, 1.0 / counts.clamp(min=1).float(), 0.0))
    return torch.stack(weights)


def needed_cells(cells: Tensor, weights: Tensor, kernel: int, complete: Collection[int] = ()) -> list[Tensor]:
    """The outputs of each layer that a prediction at the valid cells depends on, ``R`` maps ``(N, N)`` bool.

    Of the last layer these are the valid cells, of a layer before it all live cells in reach of a later one.

    Args:
        cells: ``(N, N)`` bool valid cells.
        weights: ``(R, N, N)`` from `map_weights`.
        kernel: Kernel size k.
        complete: Layers whose whole output is read (by a pooling over the map, say), from 0.
    """
    needed = [cells]
    for layer in reversed(range(len(weights) - 1)):
        live = weights[layer] > 0
        reached = window_counts(needed[0], kernel) > 0
        needed.insert(0, live if layer in complete else live & reached)
    return needed


class SparseMapIndex(nn.Module):
    """The rows that each output row of a map convolution reads. Constants: nothing to learn or to store.

    Args:
        inputs: ``(N, N)`` bool, the cells that the input has rows for, in row-major order.
        outputs: ``(N, N)`` bool, the cells to compute.
        kernel: Kernel size k, odd; stride 1, zero padding k // 2.
        weights: ``(N, N)`` what the layer's output is multiplied with (see `map_weights`), by default 1; outputs of
            weight 0 are computed for the statistics alone.
        way: How to compute; None decides by the share of outputs, and between bands and gathering also by device.

    Attributes:
        weights: ``(P', 1, 1)`` of the `weighted` rows.
        inputs: The cells of the L input rows.
        outputs: The cells of the P output rows.
        output_index: ``(P,)`` int32 flat index of each output row's cell.
        row_of_cell: ``(N * N,)`` int32 input row of each cell, L where it has none.
        reads: ``(k * k, P)`` int32, by place of the window the row that an output reads: an input row, L for a cell
            without one, L + 1 outside the map. Not there where the full map is convolved.
        read_by: ``(k * k, L)`` int32, by place the output row that reads an input row, P where there is none.
        bands: ``(first row, rows, first column, columns)`` of each band that the library convolves.
    """

    inputs: Tensor
    outputs: Tensor
    output_index: Tensor
    row_of_cell: Tensor
    weights: Tensor
    reads: Tensor
    read_by: Tensor
    _input_of_output: Tensor
    _weighted: Tensor | None

    def __init__(
        self,
        inputs: Tensor,
        outputs: Tensor,
        kernel: int,
        weights: Tensor | None = None,
        *,
        way: Way | None = None,
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"the kernel size must be odd, found {kernel}")
        here, there = inputs.cpu().numpy(), outputs.cpu().numpy()
        self.clips, self.kernel = len(here), kernel
        self.rows_in, self.rows_out = int(here.sum()), int(there.sum())
        self.way: Way | None = "full" if way is None and there.mean() >= FULL_SHARE else way
        self.bands = [(0, self.clips, 0, self.clips)] if self.way == "full" else bands(there, BAND_ROWS)
        row_of_cell = _numbered(here, other=self.rows_in)  # row L: every cell that has no row
        tables = {
            "inputs": here.copy(),
            "outputs": there.copy(),
            "output_index": np.flatnonzero(there),
            "row_of_cell": row_of_cell.ravel(),
            "_input_of_output": row_of_cell[there],
        }
        if self.way != "full":
            # outside the map stands row L + 1, zeros; as a reader it is row P, zeros
            tables["reads"] = _windows(row_of_cell, there, kernel, self.rows_in + 1)
            readers = _numbered(there, other=self.rows_out)
            tables["read_by"] = _windows(readers, here, kernel, self.rows_out)[::-1].copy()
        for name, table in tables.items():
            values = table if table.dtype == np.bool_ else table.astype(np.int32)
            self.register_buffer(name, torch.from_numpy(values), persistent=False)
        of_outputs = torch.ones(self.rows_out) if weights is None else weights[outputs]
        live = of_outputs > 0
        self.register_buffer("weights", of_outputs[live][:, None, None], persistent=False)
        self.register_buffer("_weighted", None if live.all() else live.nonzero()[:, 0], persistent=False)

    def gathers(self, device: str) -> bool:
        """True where rows are gathered on this kind of device; elsewhere the library convolves bands."""
        if self.way is not None:
            return self.way == "gather"
        computed = sum(rows * columns for _, rows, _, columns in self.bands)
        return device != "cpu" or computed > (1 + BAND_WASTE) * self.rows_out

    def gather_residual(self, rows: Tensor, elsewhere: Tensor) -> Tensor:
        """The input at the output cells: rows ``(L, B, C)`` and the other cells' value ``(C,)`` to ``(P, B, C)``."""
        return with_row(rows, elsewhere).index_select(0, self._input_of_output)

    def weighted(self, rows: Tensor) -> Tensor:
        """The output rows ``(P, B, C)`` that have a weight, ``(P', B, C)``."""
        return rows if self._weighted is None else rows.index_select(0, self._weighted)

    def full(self, rows: Tensor, elsewhere: Tensor | None = None) -> Tensor:
        """Input rows ``(L, B, C)`` as full maps ``(B, C, N, N)``; other cells hold `elsewhere` ``(C,)``, or 0."""
        filled = with_row(rows, elsewhere).index_select(0, self.row_of_cell)  # (N * N, B, C)
        return filled.unflatten(0, (self.clips, self.clips)).permute(2, 3, 0, 1)

    def full_outputs(self, rows: Tensor) -> Tensor:
        """Output rows ``(P, B, C)`` as full maps ``(B, C, N, N)``, zero elsewhere."""
        return scatter_rows(rows, self.output_index.long(), self.clips)

    def num_zero_cells(self, rows: Tensor) -> int:
        """The number of cells, over all B maps, that have no row in `rows` ``(cells, B, C)``."""
        return (self.clips**2 - rows.shape[0]) * rows.shape[1]


class SparseMapLayers(nn.Module):
    """The cells that each layer of a map network reads and computes, by mode; the last ones hold the valid cells.

    In training a layer computes all live cells, because statistics see them; in evaluation only those that reach a
    valid cell. Constants.

    Args:
        cells: ``(N, N)`` bool valid cells, the first layer's input.
        kernel: Kernel size k.
        layers: Number of layers R.
        complete: Layers whose whole output is read in evaluation too, from 0.
        first_everywhere: In training, the first layer computes every cell of the map: its output is nowhere zero.
    """

    _valid_rows: Tensor

    def __init__(
        self,
        cells: Tensor,
        kernel: int,
        layers: int,
        *,
        complete: Collection[int] = (),
        first_everywhere: bool = False,
    ) -> None:
        super().__init__()
        weights = map_weights(cells, kernel, layers)
        live = [cells, *(weights > 0)]
        needed = [cells, *needed_cells(cells, weights, kernel, complete)]
        self.training_layers = nn.ModuleList(
            SparseMapIndex(
                inputs,
                torch.ones_like(cells) if first_everywhere and layer == 0 else outputs,
                kernel,
                weights[layer],
            )
            for layer, (inputs, outputs) in enumerate(pairwise(live))
        )
        self.evaluation_layers = nn.ModuleList(
            SparseMapIndex(inputs, outputs, kernel, weights[layer])
            for layer, (inputs, outputs) in enumerate(pairwise(needed))
        )
        self.register_buffer("_valid_rows", cells[live[-1]].nonzero()[:, 0], persistent=False)

    def current(self) -> list[SparseMapIndex]:
        """The layers of the current mode."""
        return cast(
            list[SparseMapIndex], list(self.training_layers if self.training else self.evaluation_layers)
        )

    def valid(self, rows: Tensor) -> Tensor:
        """The valid cells ``(P, B, C)`` of the last layer's output rows."""
        return rows if len(rows) == len(self._valid_rows) else rows.index_select(0, self._valid_rows)


def scatter_rows(rows: Tensor, index: Tensor, size: int) -> Tensor:
    """Rows ``(P, B, ...)`` of the cells with flat `index` ``(P,)`` int64 as full maps ``(B, ..., size, size)``."""
    full = rows.new_zeros((size * size, *rows.shape[1:]))
    full = full.index_copy(0, index, rows)  # (N * N, B, ...)
    return full.unflatten(0, (size, size)).movedim((0, 1), (-2, -1))


def bands(cells: Bools, height: int) -> list[tuple[int, int, int, int]]:
    """Bands of `height` rows, each as wide as its cells ``(N, N)`` need: first row, rows, first column, columns."""
    found = []
    for row in range(0, len(cells), height):
        part = cells[row : row + height]
        columns = np.flatnonzero(part.any(axis=0))
        if len(columns):
            found.append((row, len(part), int(columns[0]), int(columns[-1] - columns[0] + 1)))
    return found


def _numbered(cells: Bools, other: int) -> NDArray[np.int64]:
    """Row numbers of the cells in row-major order, ``(N, N)``; `other` where there is none."""
    numbers = np.full(cells.shape, other, dtype=np.int64)
    numbers[cells] = np.arange(int(cells.sum()))
    return numbers


def _windows(numbers: NDArray[np.int64], cells: Bools, kernel: int, outside: int) -> NDArray[np.int64]:
    """The numbers in the k x k window of each of `cells`, ``(k * k, count)``."""
    padded = np.pad(numbers, kernel // 2, constant_values=outside)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel))  # (N, N, k, k)
    return np.ascontiguousarray(windows[cells].reshape(-1, kernel * kernel).T)


def with_row(rows: Tensor, value: Tensor | None) -> Tensor:
    """Rows ``(L, B, C)`` and behind them one more that holds `value` ``(C,)``, or zeros."""
    shape = (1, *rows.shape[1:])
    last = rows.new_zeros(shape) if value is None else value.to(rows.dtype).expand(shape)
    return torch.cat([rows, last])
