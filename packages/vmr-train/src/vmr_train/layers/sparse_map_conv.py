"""Convolution over a 2D proposal map, at the cells that matter alone and with the numbers of the full one.

A network sees a `SparseMap`: a batch of maps that can be convolved, averaged, and added to what was convolved.
`dense_map_conv` is the same convolution over the full map, to read and to test against. A layer costs one product per
place of the kernel over the rows that a `SparseMapIndex` lists; where its rows fill enough tiles, these are convolved
by transforms instead (`tiled_conv`). Shapes: N clips, k kernel size, L input rows, P output rows, B maps, I and O
channels, W mixed kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmr_train.layers.batch_norm import BatchNorm
from vmr_train.layers.sparse_map_plan import SparseMapIndex, SparseMapLayers, with_row
from vmr_train.layers.tiled_conv import convolve_tiles, convolve_tiles_backward

__all__ = [
    "SparseMap",
    "SparseMapIndex",
    "SparseMapLayers",
    "convolve_rows",
    "dense_map_conv",
    "init_kernels_",
    "kernel_rows",
]

_TILES = 512
"""Tiles that are convolved at once: so many make up for the transforms of the kernel, and bound the memory."""


def kernel_rows(weight: Tensor) -> Tensor:
    """A convolution's weight ``(O, I, k, k)`` as `convolve_rows` takes it: one kernel ``(1, k * k, I, O)``."""
    return weight.permute(2, 3, 1, 0).flatten(0, 1).contiguous()[None]


def init_kernels_(weight: Tensor, bias: Tensor) -> None:
    """Draws kernels ``(..., k * k, I, O)`` and biases ``(..., O)`` in place, each kernel as ``nn.Conv2d`` begins."""
    bound = (weight.shape[-3] * weight.shape[-2]) ** -0.5
    nn.init.uniform_(weight, -bound, bound)
    nn.init.uniform_(bias, -bound, bound)


class SparseMap(NamedTuple):
    """The input of a map layer: ``rows * scale + shift`` at its input cells, `shift` at all others.

    Attributes:
        rows: ``(L, B, C)``.
        layer: Its cells.
        scale: ``(C,)``; None: 1.
        shift: ``(C,)``; None: 0.
    """

    rows: Tensor
    layer: SparseMapIndex
    scale: Tensor | None = None
    shift: Tensor | None = None

    @classmethod
    def normalized(cls, rows: Tensor, layer: SparseMapIndex, norm: BatchNorm) -> SparseMap:
        """The batch-normalised map; the cells without a row, zero before it, count in the statistics."""
        return cls(rows, layer, *norm.affine(rows, layer.num_zero_cells(rows)))

    def mean(self) -> Tensor:
        """The mean over all N x N cells, ``(B, C)`` float32."""
        mean = self.rows.float().sum(dim=0) / self.layer.clips**2
        mean = mean if self.scale is None else mean * self.scale
        return mean if self.shift is None else mean + self.shift

    def convolve(self, kernels: Tensor, mixture: Tensor | None = None) -> Tensor:
        """The convolution at the layer's output cells, ``(P, B, O)``, without bias (see `convolve_rows`)."""
        return convolve_rows(
            self.rows, kernels, self.layer, scale=self.scale, shift=self.shift, mixture=mixture
        )

    def residual(self) -> Tensor:
        """The map itself at the layer's output cells, ``(P, B, C)``."""
        if self.scale is None or self.shift is None:
            return self.layer.gather_residual(self.rows, self.rows.new_zeros(self.rows.shape[-1]))
        return self.layer.gather_residual(self.rows * self.scale + self.shift, self.shift)


def dense_map_conv(maps: Tensor, kernels: Tensor, outputs: Tensor, mixture: Tensor | None = None) -> Tensor:
    """The convolution of `SparseMap.convolve` over full maps: slow, plain, the oracle of its tests.

    Args:
        maps: ``(B, I, N, N)``, every cell filled in.
        kernels: ``(W, k * k, I, O)``, see `kernel_rows`.
        outputs: ``(N, N)`` bool, the cells to compute.
        mixture: ``(B, W)`` weights of each map's kernels; None: W is 1.

    Returns:
        ``(B, O, N, N)``, zero where `outputs` is false.
    """
    size = round(kernels.shape[1] ** 0.5)
    mixture = maps.new_ones(len(maps), 1) if mixture is None else mixture
    mixed = torch.einsum("bw,wpio->boip", mixture, kernels).unflatten(-1, (size, size))  # (B, O, I, k, k)
    found = [F.conv2d(one, kernel, padding=size // 2) for one, kernel in zip(maps, mixed, strict=True)]
    return torch.stack(found) * outputs


def convolve_rows(
    rows: Tensor,
    kernels: Tensor,
    index: SparseMapIndex,
    *,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    mixture: Tensor | None = None,
) -> Tensor:
    """The convolution of maps at the index's output cells, without bias; exact, forward and backward.

    The input is ``rows * scale + shift`` at the index's input cells and `shift` at all others, which is what a
    batch normalisation makes of a map that is zero there. Only `rows` are kept for the backward pass: the
    scaled input and the mixed kernels are made again. Under autocast the products run at its precision and are
    summed in float32.

    Args:
        rows: ``(L, B, I)``.
        kernels: ``(W, k * k, I, O)``, see `kernel_rows`.
        index: The rows that each output reads.
        scale: ``(I,)``; None: 1.
        shift: ``(I,)``; None: 0.
        mixture: ``(B, W)`` weights that mix each map's own kernel from the W; None: W is 1.

    Returns:
        ``(P, B, O)``, in the precision of the products.
    """
    arguments = (rows, kernels, scale, shift, mixture, index, _precision(rows.device.type))
    if torch.compiler.is_compiling():
        # a loop over the window's places: nothing to gain. Without torch.compile its compiler, 1.8 s, is not loaded
        from vmr_train.layers.uncompiled import uncompiled

        result: Tensor = uncompiled(_Convolution.apply, *arguments)
    else:
        result = _Convolution.apply(*arguments)
    return result


def _precision(device: str) -> torch.dtype:
    """The type of products under the current autocast."""
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
        index: SparseMapIndex,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.index, ctx.dtype = index, dtype
        ctx.save_for_backward(rows, kernels, scale, shift, mixture)
        given = _given(rows, scale, shift, dtype)
        mixture = None if mixture is None else mixture.to(dtype)
        convolve = _tiled if index.tiled(given, kernels, mixed=mixture is not None) else _gathered
        return convolve(given, kernels.to(dtype), mixture, index).to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, kernels, scale, shift, mixture = ctx.saved_tensors
        index, dtype = ctx.index, ctx.dtype
        given = _given(rows, scale, shift, dtype)
        tiled = index.tiled(given, kernels, mixed=mixture is not None)
        backward = _tiled_backward if tiled else _gathered_backward
        grad_given, grad_kernels, grad_mixture = backward(
            grads[0].to(dtype),
            given,
            kernels.to(dtype),
            None if mixture is None else mixture.to(dtype),
            index,
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
    """The input rows, and in row L the value of all cells without one."""
    values = rows if scale is None else rows * scale
    values = values if shift is None else values + shift
    return with_row(values.to(dtype), shift)


def _kernel(kernels: Tensor, mixture: Tensor | None, place: int) -> Tensor:
    """The kernel at one place of the window, ``(I, O)``, or each map's own, ``(B, I, O)``."""
    if mixture is None:
        return kernels[0, place]
    return (mixture @ kernels[:, place].flatten(1)).unflatten(1, kernels.shape[2:])


def _by_kernel(rows: Tensor, *, mixed: bool) -> Tensor:
    """Rows ``(P, B, C)`` as a matrix of all maps' rows, or as a batch of matrices, one for each map; a view."""
    return rows.transpose(0, 1) if mixed else rows.flatten(0, 1)


def _add_product(total: Tensor, at: Tensor, rows: Tensor, kernel: Tensor) -> None:
    """Adds `rows` ``(n, B, I)`` times a kernel, or each map's own, to rows `at` ``(n,)`` of `total` ``(P, B, O)``."""
    product = _by_kernel(rows, mixed=kernel.ndim == 3) @ kernel
    product = product.transpose(0, 1) if kernel.ndim == 3 else product.unflatten(0, rows.shape[:2])
    total.index_add_(0, at, product.to(total.dtype))


def _gathered(given: Tensor, kernels: Tensor, mixture: Tensor | None, index: SparseMapIndex) -> Tensor:
    # behind the outputs, by place: what an output gets that reads the value of cells without a row there
    shape = (index.rows_out + len(index.reads_shared), given.shape[1], kernels.shape[-1])
    found = given.new_zeros(shape, dtype=torch.float32)
    for place, (sources, targets) in enumerate(index.pairs()):
        _add_product(found, targets, given.index_select(0, sources), _kernel(kernels, mixture, place))
    outputs, shared = found.split([index.rows_out, len(index.reads_shared)])
    outputs.flatten(1).addmm_(index.reads_shared.T.float(), shared.flatten(1))
    return outputs


def _gathered_backward(
    grad: Tensor, given: Tensor, kernels: Tensor, mixture: Tensor | None, index: SparseMapIndex
) -> tuple[Tensor, Tensor, Tensor | None]:
    # all outputs that read the shared value at a place send their gradient to it: one sum per place and map
    shared = index.reads_shared.to(grad.dtype) @ grad.flatten(1)
    grad = torch.cat([grad, shared.unflatten(1, grad.shape[1:])])
    grad_given = torch.zeros_like(given, dtype=torch.float32)
    grad_kernels = torch.empty_like(kernels, dtype=torch.float32)
    grad_mixture = None if mixture is None else mixture.new_zeros(mixture.shape, dtype=torch.float32)
    for place, (sources, targets) in enumerate(index.pairs()):
        reading, window = grad.index_select(0, targets), given.index_select(0, sources)
        _add_product(grad_given, sources, reading, _kernel(kernels, mixture, place).mT)
        mixed = mixture is not None
        own = _by_kernel(window, mixed=mixed).mT @ _by_kernel(reading, mixed=mixed)  # (I, O) or (B, I, O)
        if mixture is None or grad_mixture is None:
            grad_kernels[0, place] = own
        else:
            _spread(own, mixture, kernels[:, place], grad_kernels[:, place], grad_mixture)
    return grad_given, grad_kernels, grad_mixture


def _spread(
    own: Tensor, mixture: Tensor, kernels: Tensor, grad_kernels: Tensor, grad_mixture: Tensor
) -> None:
    """Sets the gradient of kernels ``(W, ...)`` and adds to that of their mixture, given those of the mixed ones.

    Args:
        own: ``(B, ...)``.
        mixture: ``(B, W)``.
        kernels: ``(W, ...)``.
        grad_kernels: Likewise, float32.
        grad_mixture: ``(B, W)`` float32.
    """
    flat = own.flatten(1)
    if flat.dtype == torch.float32 and flat.device.type == "cpu":
        torch.mm(mixture.T, flat, out=grad_kernels.flatten(1))  # strided, and not copied
    else:
        grad_kernels.flatten(1).copy_(mixture.T @ flat)
    grad_mixture += flat @ kernels.flatten(1).T


def _pieces(
    kernels: Tensor, mixture: Tensor | None, index: SparseMapIndex, batch: int
) -> Iterator[tuple[slice, Tensor]]:
    """Maps of the batch to convolve at once, and their kernel ``(k * k, I, O)``: a map by itself, or some of them."""
    if mixture is None:
        step = max(1, _TILES // index.num_tiles)
        for first in range(0, batch, step):
            yield slice(first, min(first + step, batch)), kernels[0]
    else:
        for row in range(batch):
            mixed = mixture[row : row + 1] @ kernels.flatten(1)
            yield slice(row, row + 1), mixed.view(kernels.shape[1:])


def _tiled(given: Tensor, kernels: Tensor, mixture: Tensor | None, index: SparseMapIndex) -> Tensor:
    given = with_row(given, None)
    found = given.new_empty((index.rows_out, given.shape[1], kernels.shape[-1]))
    for maps, kernel in _pieces(kernels, mixture, index, given.shape[1]):
        tiles = given[:, maps].index_select(0, index.tile_reads)  # (T * T * tiles, maps, I)
        outputs = convolve_tiles(tiles.view(-1, tiles.shape[1] * index.num_tiles, tiles.shape[2]), kernel)
        outputs = outputs.view(-1, tiles.shape[1], kernels.shape[-1])
        found[:, maps] = outputs.index_select(0, index.tile_of_output)
    return found


def _tiled_backward(
    grad: Tensor, given: Tensor, kernels: Tensor, mixture: Tensor | None, index: SparseMapIndex
) -> tuple[Tensor, Tensor, Tensor | None]:
    given, readers = with_row(given, None), with_row(grad, None)
    grad_given, grad_kernels = torch.zeros_like(given), torch.zeros_like(kernels)
    grad_mixture = None if mixture is None else torch.zeros_like(mixture)
    # of as many maps' own kernels at a time as the bank has: for all maps they could take more memory than all else
    batch, some = given.shape[1], len(kernels)
    pending = None if mixture is None else kernels.new_zeros((min(batch, some), *kernels.shape[1:]))
    for maps, kernel in _pieces(kernels, mixture, index, batch):
        count = (maps.stop - maps.start) * index.num_tiles
        tiles = given[:, maps].index_select(0, index.tile_reads).view(-1, count, given.shape[2])
        outputs = readers[:, maps].index_select(0, index.output_of_tile).view(-1, count, grad.shape[2])
        own = grad_kernels[0] if pending is None else pending[maps.start % some]
        found = convolve_tiles_backward(outputs, tiles, kernel, own)
        found = found.view(len(index.tile_reads), -1, given.shape[2])
        grad_given[:, maps].index_add_(0, index.tile_reads, found)
        if mixture is None or pending is None or grad_mixture is None:
            continue
        if maps.stop % some == 0 or maps.stop == batch:
            part = slice(maps.start // some * some, maps.stop)
            flat = pending[: part.stop - part.start].flatten(1)
            grad_kernels.flatten(1).addmm_(mixture[part].T, flat)
            grad_mixture[part] = flat @ kernels.flatten(1).T
            pending.zero_()
    return grad_given[:-1], grad_kernels, grad_mixture
