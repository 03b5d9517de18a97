"""Convolution over a 2D proposal map, at the cells that matter alone and with the numbers of the full one.

A map is kept as rows ``(cells, B, C)`` of the cells whose values vary; all other cells share one value per channel.
Which rows a cell's window reads is a table made once (`CellPlan`), so a layer costs one product per place of the
kernel. Shapes: N clips, k kernel size, L input rows, P output rows, B maps, I and O channels, W mixed kernels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vmr_common.nn.proposal_map import scatter_rows

Bools = NDArray[np.bool_]

Way = Literal["gather", "bands", "full"]
"""How a plan's cells are computed: one product per place of the kernel over gathered rows (no cell too many), library
convolutions of bands of map rows, or one of the full map."""
FULL_SHARE = 0.8
"""From this share of needed cells on, the full map is convolved: one library call is then faster."""
BAND_ROWS = 4
BAND_WASTE = 0.05
"""On the CPU, bands of so many rows are convolved as long as they hold at most this share of cells too many: the
library's convolution runs there about twice as fast as its products (benchmarks/cdn_speed.py)."""
_CHUNK = 8  # maps whose mixed kernels exist at the same time where the library convolves


def window_counts(cells: Tensor, kernel: int) -> Tensor:
    """How many of `cells` ``(N, N)`` bool lie in each cell's k x k window, ``(N, N)`` int64."""
    padded = np.pad(cells.cpu().numpy().astype(np.int64), kernel // 2)
    sums = np.pad(padded.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    k = kernel
    return torch.from_numpy(sums[k:, k:] - sums[:-k, k:] - sums[k:, :-k] + sums[:-k, :-k])


def map_weights(cells: Tensor, kernel: int, layers: int) -> Tensor:
    """What each layer's output is multiplied with: 1 / live cells in the window, 0 where there are none.

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


class CellPlan(nn.Module):
    """Which input rows each output row of a map convolution reads. Constants: nothing to learn or to store.

    Args:
        inputs: ``(N, N)`` bool, the cells that the input has rows for, in row-major order.
        outputs: ``(N, N)`` bool, the cells to compute.
        kernel: Kernel size k, odd; stride 1, zero padding k // 2.
        way: How to compute; None decides by the share of outputs, and between bands and gathering also by device.

    Attributes:
        inputs: The cells of the L input rows.
        outputs: The cells of the P output rows.
        bands: ``(first row, rows, first column, columns)`` of each band that the library convolves.
    """

    inputs: Tensor
    outputs: Tensor
    output_index: Tensor
    _row_of_cell: Tensor
    _carried: Tensor
    _reads: Tensor
    _read_by: Tensor

    def __init__(self, inputs: Tensor, outputs: Tensor, kernel: int, *, way: Way | None = None) -> None:
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
            "_row_of_cell": row_of_cell.ravel(),
            "_carried": row_of_cell[there],
        }
        if self.way != "full":
            # outside the map stands row L + 1, zeros; as a reader it is row P, zeros
            tables["_reads"] = _windows(row_of_cell, there, kernel, self.rows_in + 1)
            readers = _numbered(there, other=self.rows_out)
            tables["_read_by"] = _windows(readers, here, kernel, self.rows_out)[::-1].copy()
        for name, table in tables.items():
            values = table if table.dtype == np.bool_ else table.astype(np.int32)
            self.register_buffer(name, torch.from_numpy(values), persistent=False)

    def gathers(self, device: str) -> bool:
        """Whether rows are gathered on this kind of device; otherwise the library convolves bands."""
        if self.way is not None:
            return self.way == "gather"
        computed = sum(rows * columns for _, rows, _, columns in self.bands)
        return device != "cpu" or computed > (1 + BAND_WASTE) * self.rows_out

    def carry(self, rows: Tensor, elsewhere: Tensor) -> Tensor:
        """The input at the output cells: rows ``(L, B, C)`` and the other cells' value ``(C,)`` to ``(P, B, C)``."""
        return _with_row(rows, elsewhere).index_select(0, self._carried)

    def full(self, rows: Tensor, elsewhere: Tensor | None = None) -> Tensor:
        """The input as full maps ``(B, C, N, N)``; other cells hold `elsewhere` ``(C,)``, by default 0."""
        filled = _with_row(rows, elsewhere).index_select(0, self._row_of_cell)  # (N * N, B, C)
        return filled.unflatten(0, (self.clips, self.clips)).permute(2, 3, 0, 1)

    def full_outputs(self, rows: Tensor) -> Tensor:
        """Output rows ``(P, B, C)`` as full maps ``(B, C, N, N)``, zero elsewhere."""
        return scatter_rows(rows, self.output_index.long(), self.clips)

    def rows_elsewhere(self, rows: Tensor) -> int:
        """How many rows ``(C,)`` the cells would have, over all maps, that have none in `rows` ``(..., B, C)``."""
        return (self.clips**2 - rows.shape[0]) * rows.shape[1]


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


def _with_row(rows: Tensor, value: Tensor | None) -> Tensor:
    """Rows ``(L, B, C)`` and behind them one more that holds `value` ``(C,)``, or zeros."""
    shape = (1, *rows.shape[1:])
    last = rows.new_zeros(shape) if value is None else value.to(rows.dtype).expand(shape)
    return torch.cat([rows, last])


def kernel_rows(weight: Tensor) -> Tensor:
    """A convolution's weight ``(O, I, k, k)`` as `convolve_rows` takes it: one kernel ``(1, k * k, I, O)``."""
    return weight.permute(2, 3, 1, 0).flatten(0, 1).contiguous()[None]


def init_kernels_(weight: Tensor, bias: Tensor) -> None:
    """Draws kernels ``(..., k * k, I, O)`` and biases ``(..., O)`` in place, each kernel as ``nn.Conv2d`` begins."""
    bound = (weight.shape[-3] * weight.shape[-2]) ** -0.5
    nn.init.uniform_(weight, -bound, bound)
    nn.init.uniform_(bias, -bound, bound)


@torch.compiler.disable  # type: ignore[untyped-decorator]  # a loop over the window's places: nothing to gain
def convolve_rows(
    rows: Tensor,
    kernels: Tensor,
    plan: CellPlan,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    mixture: Tensor | None = None,
) -> Tensor:
    """The convolution of maps at the plan's output cells, without bias; exact, forward and backward.

    The input is ``rows * scale + shift`` at the plan's input cells and `shift` at all others, which is what a
    batch normalisation makes of a map that is zero there. Only `rows` are kept for the backward pass: the
    scaled input and the mixed kernels are made again. Under autocast the products run at its precision and are
    summed in float32.

    Args:
        rows: ``(L, B, I)``.
        kernels: ``(W, k * k, I, O)``, see `kernel_rows`.
        plan: Which rows are read.
        scale: ``(I,)``; None: 1.
        shift: ``(I,)``; None: 0.
        mixture: ``(B, W)`` weights that mix each map's own kernel from the W; None: W is 1.

    Returns:
        ``(P, B, O)``, in the precision of the products.
    """
    result: Tensor = _Convolution.apply(
        rows, kernels, scale, shift, mixture, plan, _precision(rows.device.type)
    )
    return result


def _precision(device: str) -> torch.dtype:
    """That of products under the current autocast."""
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return torch.float32


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        kernels: Tensor,
        scale: Tensor | None,
        shift: Tensor | None,
        mixture: Tensor | None,
        plan: CellPlan,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.plan, ctx.dtype = plan, dtype
        ctx.save_for_backward(rows, kernels, scale, shift, mixture)
        given = _given(rows, scale, shift, dtype)
        kernels = kernels.to(dtype)
        mixture = None if mixture is None else mixture.to(dtype)
        convolve = _gathered if plan.gathers(rows.device.type) else _banded
        found = convolve(given, kernels, mixture, plan)
        return found.to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, kernels, scale, shift, mixture = ctx.saved_tensors
        plan, dtype = ctx.plan, ctx.dtype
        given = _given(rows, scale, shift, dtype)
        backward = _gathered_backward if plan.gathers(rows.device.type) else _banded_backward
        grad_given, grad_kernels, grad_mixture = backward(
            grads[0].to(dtype),
            given,
            kernels.to(dtype),
            None if mixture is None else mixture.to(dtype),
            plan,
        )
        grad_rows, grad_elsewhere = grad_given[:-1], grad_given[-1].sum(0)  # (L, B, I), (I,)
        grad_scale = None if scale is None else (grad_rows * rows).sum((0, 1))
        grad_shift = None if shift is None else grad_rows.sum((0, 1)) + grad_elsewhere
        if scale is not None:
            grad_rows = grad_rows * scale
        return (
            grad_rows.to(rows.dtype),
            grad_kernels.to(kernels.dtype),
            grad_scale,
            grad_shift,
            None if mixture is None or grad_mixture is None else grad_mixture.to(mixture.dtype),
            None,
            None,
        )


def _given(rows: Tensor, scale: Tensor | None, shift: Tensor | None, dtype: torch.dtype) -> Tensor:
    """What the convolution reads: the input rows, and in row L the value of all cells without one."""
    values = rows if scale is None else rows * scale
    values = values if shift is None else values + shift
    return _with_row(values.to(dtype), shift)


def _kernel(kernels: Tensor, mixture: Tensor | None, place: int) -> Tensor:
    """The kernel at one place of the window, ``(I, O)``, or each map's own, ``(B, I, O)``."""
    if mixture is None:
        return kernels[0, place]
    return (mixture @ kernels[:, place].flatten(1)).unflatten(1, kernels.shape[2:])


def _gathered(given: Tensor, kernels: Tensor, mixture: Tensor | None, plan: CellPlan) -> Tensor:
    batch, channels = given.shape[1], kernels.shape[-1]
    given = _with_row(given, None)  # row L + 1: outside the map
    found = given.new_zeros((plan.rows_out, batch, channels), dtype=torch.float32)
    for place, reads in enumerate(plan._reads):
        kernel = _kernel(kernels, mixture, place)
        window = given.index_select(0, reads)  # (P, B, I)
        if mixture is not None:
            found += torch.bmm(window.transpose(0, 1), kernel).transpose(0, 1)
        elif given.dtype == torch.float32:
            flat = found.flatten(0, 1)  # (P * B, O), no copy
            torch.addmm(flat, window.flatten(0, 1), kernel, out=flat)
        else:
            found += window @ kernel
    return found


def _gathered_backward(
    grad: Tensor, given: Tensor, kernels: Tensor, mixture: Tensor | None, plan: CellPlan
) -> tuple[Tensor, Tensor, Tensor | None]:
    batch = given.shape[1]
    given, readers = _with_row(given, None), _with_row(grad, None)
    grad_given = given.new_zeros((plan.rows_in + 1, batch, given.shape[2]), dtype=torch.float32)
    grad_kernels = torch.empty_like(kernels, dtype=torch.float32)
    grad_mixture = None if mixture is None else mixture.new_zeros(mixture.shape, dtype=torch.float32)
    tables = enumerate(zip(plan._reads, plan._read_by, strict=True))
    for place, (reads, read_by) in tables:
        kernel = _kernel(kernels, mixture, place).transpose(-2, -1)  # (O, I) or (B, O, I)
        window = given.index_select(0, reads)  # (P, B, I)
        reading = readers.index_select(0, read_by)  # (L, B, O)
        # all outputs that read the shared value send their gradient to it: one sum per map
        shared = ((reads == plan.rows_in).to(grad.dtype)[None] @ grad.flatten(1)).view(batch, -1)  # (B, O)
        if mixture is None or grad_mixture is None:
            grad_given[:-1].flatten(0, 1).add_(reading.flatten(0, 1) @ kernel)
            grad_given[-1] += shared @ kernel
            grad_kernels[0, place] = window.flatten(0, 1).T @ grad.flatten(0, 1)
        else:
            grad_given[:-1] += torch.bmm(reading.transpose(0, 1), kernel).transpose(0, 1)
            grad_given[-1] += torch.bmm(shared[:, None], kernel)[:, 0]
            mixed = torch.bmm(window.permute(1, 2, 0), grad.transpose(0, 1)).flatten(1)  # (B, I * O)
            grad_kernels[:, place] = (mixture.T @ mixed).unflatten(1, kernels.shape[2:])
            grad_mixture += mixed @ kernels[:, place].flatten(1).T
    return grad_given, grad_kernels, grad_mixture


def _library_weights(kernels: Tensor, mixture: Tensor | None, part: slice) -> Tensor:
    """Weights ``(maps, O, I, k, k)`` of a part of the batch, or ``(1, O, I, k, k)`` shared by all."""
    size = round(kernels.shape[1] ** 0.5)
    flat = (
        kernels if mixture is None else (mixture[part] @ kernels.flatten(1)).unflatten(1, kernels.shape[1:])
    )
    return flat.unflatten(1, (size, size)).permute(0, 4, 3, 1, 2).contiguous()


def _parts(batch: int, mixture: Tensor | None) -> list[slice]:
    """Maps that share a convolution's weights or have them mixed together."""
    step = batch if mixture is None else _CHUNK
    return [slice(start, min(start + step, batch)) for start in range(0, batch, step)]


def _pieces(kernels: Tensor, mixture: Tensor | None, batch: int) -> Iterator[tuple[slice, Tensor]]:
    """Maps of the batch that have one weight ``(O, I, k, k)``, and that weight: all of them, or one by one.

    One call per map is faster than one call with a group per map.
    """
    for part in _parts(batch, mixture):
        weights = _library_weights(kernels, mixture, part)
        if mixture is None:
            yield part, weights[0]
        else:
            for row, weight in zip(range(part.start, part.stop), weights, strict=True):
                yield slice(row, row + 1), weight


def _padded(given: Tensor, plan: CellPlan) -> Tensor:
    """The input as full maps with the convolution's padding, ``(B, I, N + k - 1, N + k - 1)``."""
    return F.pad(plan.full(given[:-1], given[-1, 0]), [plan.kernel // 2] * 4)


def _banded(given: Tensor, kernels: Tensor, mixture: Tensor | None, plan: CellPlan) -> Tensor:
    padded, more = _padded(given, plan), plan.kernel - 1
    found = padded.new_zeros((padded.shape[0], kernels.shape[-1], plan.clips, plan.clips))
    for maps, weight in _pieces(kernels, mixture, padded.shape[0]):
        for top, rows, left, columns in plan.bands:
            window = padded[maps, :, top : top + rows + more, left : left + columns + more]
            found[maps, :, top : top + rows, left : left + columns] = F.conv2d(window, weight)
    return found.flatten(2).permute(2, 0, 1).index_select(0, plan.output_index)  # (P, B, O)


def _banded_backward(
    grad: Tensor, given: Tensor, kernels: Tensor, mixture: Tensor | None, plan: CellPlan
) -> tuple[Tensor, Tensor, Tensor | None]:
    padded, more, half = _padded(given, plan), plan.kernel - 1, plan.kernel // 2
    grad_found = plan.full_outputs(grad)  # (B, O, N, N)
    grad_padded = torch.zeros_like(padded, dtype=torch.float32)
    grad_kernels = torch.zeros_like(kernels, dtype=torch.float32)
    grad_mixture = None if mixture is None else mixture.new_zeros(mixture.shape, dtype=torch.float32)
    for maps, weight in _pieces(kernels, mixture, padded.shape[0]):
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        for top, rows, left, columns in plan.bands:
            window = (maps, slice(None), slice(top, top + rows + more), slice(left, left + columns + more))
            band = grad_found[maps, :, top : top + rows, left : left + columns]
            for_input, for_weight = _conv2d_backward(band, padded[window], weight)
            grad_padded[window] += for_input
            grad_weight += for_weight
        by_place = grad_weight.permute(2, 3, 1, 0).flatten(0, 1)  # (k * k, I, O)
        if mixture is None or grad_mixture is None:
            grad_kernels[0] = by_place
        else:
            row = maps.start
            for number, share in enumerate(mixture[row].tolist()):
                grad_kernels[number].add_(by_place, alpha=share)
            grad_mixture[row] = kernels.flatten(1).float() @ by_place.flatten()
    inner = grad_padded[:, :, half : half + plan.clips, half : half + plan.clips]
    cells = inner.flatten(2).permute(2, 0, 1)  # (N * N, B, I)
    grad_given = cells.new_zeros((plan.rows_in + 1, *cells.shape[1:]))
    return grad_given.index_add_(0, plan._row_of_cell, cells), grad_kernels, grad_mixture


def _conv2d_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of ``conv2d(x, weight)`` by its input and its weight."""
    found = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False]
    )
    return found[0], found[1]
