"""Convolution over a 2D proposal map, at the cells that matter alone and with the numbers of the full one.

A network sees a `SparseMap`: a batch of maps that can be convolved, averaged, and added to what was convolved.
`dense_map_conv` is the same convolution over the full map, to read and to test against. A layer costs one product per
place of the kernel over the rows that a `SparseMapIndex` lists. Shapes: N clips, k kernel size, L input rows, P output
rows, B maps, I and O channels, W mixed kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vmr_train.layers.batch_norm import BatchNorm
from vmr_train.layers.sparse_map_plan import SparseMapIndex, SparseMapLayers, with_row

__all__ = [
    "SparseMap",
    "SparseMapIndex",
    "SparseMapLayers",
    "convolve_rows",
    "dense_map_conv",
    "init_kernels_",
    "kernel_rows",
]

_CHUNK = 8  # maps whose mixed kernels exist at the same time where the library convolves


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


@torch.compiler.disable  # type: ignore[untyped-decorator]  # a loop over the window's places: nothing to gain
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
    result: Tensor = _Convolution.apply(
        rows, kernels, scale, shift, mixture, index, _precision(rows.device.type)
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
        index: SparseMapIndex,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.index, ctx.dtype = index, dtype
        ctx.save_for_backward(rows, kernels, scale, shift, mixture)
        given = _given(rows, scale, shift, dtype)
        kernels = kernels.to(dtype)
        mixture = None if mixture is None else mixture.to(dtype)
        convolve = _gathered if index.gathers(rows.device.type) else _banded
        found = convolve(given, kernels, mixture, index)
        return found.to(dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, kernels, scale, shift, mixture = ctx.saved_tensors
        index, dtype = ctx.index, ctx.dtype
        given = _given(rows, scale, shift, dtype)
        backward = _gathered_backward if index.gathers(rows.device.type) else _banded_backward
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


def _gathered(given: Tensor, kernels: Tensor, mixture: Tensor | None, index: SparseMapIndex) -> Tensor:
    batch, channels = given.shape[1], kernels.shape[-1]
    given = with_row(given, None)  # row L + 1: outside the map
    found = given.new_zeros((index.rows_out, batch, channels), dtype=torch.float32)
    for place, reads in enumerate(index.reads):
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
    grad: Tensor, given: Tensor, kernels: Tensor, mixture: Tensor | None, index: SparseMapIndex
) -> tuple[Tensor, Tensor, Tensor | None]:
    batch = given.shape[1]
    given, readers = with_row(given, None), with_row(grad, None)
    grad_given = given.new_zeros((index.rows_in + 1, batch, given.shape[2]), dtype=torch.float32)
    grad_kernels = torch.empty_like(kernels, dtype=torch.float32)
    grad_mixture = None if mixture is None else mixture.new_zeros(mixture.shape, dtype=torch.float32)
    tables = enumerate(zip(index.reads, index.read_by, strict=True))
    for place, (reads, read_by) in tables:
        kernel = _kernel(kernels, mixture, place).transpose(-2, -1)  # (O, I) or (B, O, I)
        window = given.index_select(0, reads)  # (P, B, I)
        reading = readers.index_select(0, read_by)  # (L, B, O)
        # all outputs that read the shared value send their gradient to it: one sum per map
        shared = ((reads == index.rows_in).to(grad.dtype)[None] @ grad.flatten(1)).view(batch, -1)  # (B, O)
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


def _padded(given: Tensor, index: SparseMapIndex) -> Tensor:
    """The input as full maps with the convolution's padding, ``(B, I, N + k - 1, N + k - 1)``."""
    return F.pad(index.full(given[:-1], given[-1, 0]), [index.kernel // 2] * 4)


def _banded(given: Tensor, kernels: Tensor, mixture: Tensor | None, index: SparseMapIndex) -> Tensor:
    padded, more = _padded(given, index), index.kernel - 1
    found = padded.new_zeros((padded.shape[0], kernels.shape[-1], index.clips, index.clips))
    for maps, weight in _pieces(kernels, mixture, padded.shape[0]):
        for top, rows, left, columns in index.bands:
            window = padded[maps, :, top : top + rows + more, left : left + columns + more]
            found[maps, :, top : top + rows, left : left + columns] = F.conv2d(window, weight)
    return found.flatten(2).permute(2, 0, 1).index_select(0, index.output_index)  # (P, B, O)


def _banded_backward(
    grad: Tensor, given: Tensor, kernels: Tensor, mixture: Tensor | None, index: SparseMapIndex
) -> tuple[Tensor, Tensor, Tensor | None]:
    padded, more, half = _padded(given, index), index.kernel - 1, index.kernel // 2
    grad_found = index.full_outputs(grad)  # (B, O, N, N)
    grad_padded = torch.zeros_like(padded, dtype=torch.float32)
    grad_kernels = torch.zeros_like(kernels, dtype=torch.float32)
    grad_mixture = None if mixture is None else mixture.new_zeros(mixture.shape, dtype=torch.float32)
    for maps, weight in _pieces(kernels, mixture, padded.shape[0]):
        grad_weight = torch.zeros_like(weight, dtype=torch.float32)
        for top, rows, left, columns in index.bands:
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
    inner = grad_padded[:, :, half : half + index.clips, half : half + index.clips]
    cells = inner.flatten(2).permute(2, 0, 1)  # (N * N, B, I)
    grad_given = cells.new_zeros((index.rows_in + 1, *cells.shape[1:]))
    return grad_given.index_add_(0, index.row_of_cell, cells), grad_kernels, grad_mixture


def _conv2d_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of ``conv2d(x, weight)`` by its input and its weight."""
    found = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1, [True, True, False]
    )
    return found[0], found[1]
