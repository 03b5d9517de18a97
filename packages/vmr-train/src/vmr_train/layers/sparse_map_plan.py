"""The cells of a 2D proposal map that a convolution has to read and to compute, and the weights of its output.

A map is kept as rows ``(cells, B, C)`` of the cells whose values vary; all other cells share one value per channel.
Which rows a cell's window reads is a table made once (`SparseMapIndex`), for every layer of a network at once by
`SparseMapLayers`. Shapes: N clips, k kernel size, L input rows, P output rows, B maps, C channels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import pairwise
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vmr_train.layers.tiled_conv import TILE, num_factors

Bools = NDArray[np.bool_]

Way = Literal["gather", "tiles"]
"""Ways to compute a layer's cells: one product per place of the kernel over gathered rows (no cell too many), or tiles
by transforms, for a fraction of the products and more memory traffic."""


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
        way: How to compute; None leaves the choice to `tiled`.

    Attributes:
        weights: ``(P', 1, 1)`` of the `weighted` rows.
        inputs: The cells of the L input rows.
        outputs: The cells of the P output rows.
        output_index: ``(P,)`` int32 flat index of each output row's cell.
        row_of_cell: ``(N * N,)`` int32 input row of each cell, L where it has none.
        reads_shared: ``(k * k, P)`` bool, by place of the window the outputs that read a cell without a row there.
        num_pairs: Outputs with the input rows that they read, over all places.
        num_tiles: Tiles R that hold all outputs; their S * S outputs, and T * T inputs, stand place by place.
        tile_reads: ``(T * T * R,)`` int32, the row that a place of a tile reads: an input row, L for a cell
            without one, L + 1 outside the map.
        tile_of_output: ``(P,)`` int32 place among the ``S * S * R`` of the tiles that holds an output row.
        output_of_tile: ``(S * S * R,)`` int32 the output row there, P where there is none.
    """

    inputs: Tensor
    outputs: Tensor
    output_index: Tensor
    row_of_cell: Tensor
    weights: Tensor
    reads_shared: Tensor
    _sources: Tensor
    _targets: Tensor
    tile_reads: Tensor
    tile_of_output: Tensor
    output_of_tile: Tensor
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
        self.way = way
        row_of_cell = _numbered(here, other=self.rows_in)  # row L: every cell that has no row
        reads = _windows(row_of_cell, there, kernel, self.rows_in + 1)  # (k * k, P), outside the map L + 1
        # at each place the rows and what reads them; the last pair is the shared value and all that read it
        targets = [
            np.append(np.flatnonzero(row < self.rows_in), self.rows_out + n) for n, row in enumerate(reads)
        ]
        sources = [np.append(row[row < self.rows_in], self.rows_in) for row in reads]
        self._counts = [len(rows) for rows in sources]
        self.num_pairs = sum(self._counts)
        corners = tile_corners(there)
        self.num_tiles = len(corners)
        output_of_tile = _tiles(_numbered(there, self.rows_out), corners, TILE, 0, self.rows_out)
        tables = {
            "inputs": here.copy(),
            "outputs": there.copy(),
            "output_index": np.flatnonzero(there),
            "row_of_cell": row_of_cell.ravel(),
            "reads_shared": reads == self.rows_in,
            "_sources": np.concatenate(sources),
            "_targets": np.concatenate(targets),
            "tile_reads": _tiles(row_of_cell, corners, TILE + kernel - 1, kernel // 2, self.rows_in + 1),
            "output_of_tile": output_of_tile,
            "tile_of_output": _places(output_of_tile, self.rows_out),
            "_input_of_output": row_of_cell[there],
        }
        for name, table in tables.items():
            values = table if table.dtype == np.bool_ else table.astype(np.int32)
            self.register_buffer(name, torch.from_numpy(values), persistent=False)
        of_outputs = torch.ones(self.rows_out) if weights is None else weights[outputs]
        live = of_outputs > 0
        self.register_buffer("weights", of_outputs[live][:, None, None], persistent=False)
        self.register_buffer("_weighted", None if live.all() else live.nonzero()[:, 0], persistent=False)

    def tiled(self, given: Tensor, kernels: Tensor, *, mixed: bool) -> bool:
        """True where tiles are convolved by transforms, which float32 alone has the digits for.

        The way with the smaller estimate is taken, in multiplications of a matrix product: of one per place over the
        rows that it gathers, or of the tiles', which are of less use to a processor, and of what it takes to bring
        tiles and kernels to the factors and back, where it waits for memory. It depends on sizes alone, so that a run
        can be repeated bit by bit. The constants are measured on one thread of a processor with AVX2; gathering is
        favoured, because wider vectors speed up products alone.

        Args:
            given: ``(L + 1, B, I)`` input rows.
            kernels: ``(W, k * k, I, O)``.
            mixed: Every map has a kernel of its own.
        """
        if given.dtype != torch.float32 or given.device.type != "cpu" or not self.num_tiles:
            return False
        if self.way is not None:
            return self.way == "tiles"
        batch, (inputs, outputs), n = given.shape[1], kernels.shape[2:], num_factors(self.kernel)
        tiles, size = batch * self.num_tiles, TILE + self.kernel - 1
        products = 1.5 * n**2 * tiles * inputs * outputs
        of_kernels = (40 * n**2 + 12 * n * self.kernel**2) * inputs * outputs * (batch if mixed else 1)
        of_tiles = tiles * ((size**2 + size * n + n**2) * inputs + (TILE**2 + TILE * n + n**2) * outputs)
        gathering = self.num_pairs * batch * (inputs * outputs + 20 * inputs + 40 * outputs)
        return products + of_kernels + 80 * of_tiles < 0.8 * gathering

    def pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """By place the input rows that are read there, ``(n,)`` int32, and the output rows that read them.

        The last pair of each is row L, the value of cells without a row, and row P + place for all that read it.
        """
        return zip(self._sources.split(self._counts), self._targets.split(self._counts), strict=True)

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


def tile_corners(cells: Bools) -> NDArray[np.int64]:
    """Top left cells ``(R, 2)`` of tiles that hold all `cells` ``(N, N)``, in bands of rows, from left to right."""
    found = []
    for row in range(0, len(cells), TILE):
        columns, first = np.flatnonzero(cells[row : row + TILE].any(axis=0)), 0
        while len(columns := columns[columns >= first]):
            found.append((row, columns[0]))
            first = columns[0] + TILE
    return np.array(found, dtype=np.int64).reshape(-1, 2)


def _tiles(
    numbers: NDArray[np.int64], corners: NDArray[np.int64], size: int, before: int, outside: int
) -> NDArray[np.int64]:
    """The numbers in `size` x `size` tiles that begin `before` rows and columns before `corners`, place by place."""
    padded = np.pad(numbers, (before, before + TILE), constant_values=outside)
    rows, columns = (corners[:, axis] + np.arange(size)[:, None] for axis in (0, 1))  # (size, R)
    return padded[rows[:, None], columns[None]].ravel()


def _places(numbers: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The places of the numbers below `count`, ``(count,)``; each stands somewhere once."""
    found = np.flatnonzero(numbers < count)
    return found[np.argsort(numbers[found])]


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
