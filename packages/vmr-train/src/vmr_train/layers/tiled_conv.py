"""Convolution of square tiles with about an eighth of the products: by Fourier transforms, written as real products.

In one dimension, outputs of a tile ``y = C ((A x) * (G w))`` are those of the convolution of its inputs x with a kernel
w; in two, each matrix acts on rows and on columns, and the products over channels are one matrix product per pair of
factors (Winograd, Arithmetic complexity of computations, 1980; the factors are those of the discrete Fourier transform,
which, unlike fewer ones, lose no digits). Rounding is about 1e-7 of the largest value in a tile: a value much smaller
than its neighbours keeps fewer digits of its own. Shapes: S = `TILE` outputs and T = S + k - 1 inputs a side of a tile,
k kernel size, n factors, R tiles (over all maps), I and O channels.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

TILE = 8


class Transforms(NamedTuple):
    """The matrices of one dimension, float32."""

    inputs: Tensor
    """A, ``(n, T)``."""
    kernels: Tensor
    """G, ``(n, k)``."""
    outputs: Tensor
    """C, ``(S, n)``."""


def num_factors(kernel: int) -> int:
    """Products n that stand for a tile's S * k in one dimension."""
    size = TILE + kernel - 1
    return size // 2 * 3 + 1 if size % 2 else (size // 2 - 1) * 3 + 2


@functools.cache
def transforms(kernel: int) -> Transforms:
    """The matrices for kernels of this size, on the CPU."""
    size = TILE + kernel - 1
    angle = 2 * np.pi / size
    rows_in, rows_kernel, rows_out = [], [], []
    for frequency in range(size // 2 + 1):
        turn = [angle * frequency * np.arange(count) for count in (size, kernel, TILE)]
        (a, b), (c, d) = ((np.cos(turn[0]), -np.sin(turn[0])), (np.cos(turn[1]), np.sin(turn[1])))
        if frequency == 0 or 2 * frequency == size:  # a real factor
            rows_in.append(a)
            rows_kernel.append(c)
            rows_out.append(np.cos(turn[2]) / size)
        else:  # (a + bi)(c + di) in three products: ac, bd, (a + b)(c + d)
            real, imaginary = 2 * np.cos(turn[2]) / size, -2 * np.sin(turn[2]) / size
            rows_in += [a, b, a + b]
            rows_kernel += [c, d, c + d]
            rows_out += [real - imaginary, -real - imaginary, imaginary]
    matrices = (np.stack(rows_in), np.stack(rows_kernel), np.stack(rows_out, axis=1))
    return Transforms(*(torch.from_numpy(matrix.astype(np.float32)) for matrix in matrices))


class _Products:
    """The factors of tiles and kernel, pair by pair, in memory that all pairs share.

    Args:
        tiles: ``(T * T, R, I)``.
        kernel: ``(k * k, I, O)``.
    """

    def __init__(self, tiles: Tensor, kernel: Tensor) -> None:
        size, (rows, inputs), outputs = round(len(kernel) ** 0.5), tiles.shape[1:], kernel.shape[2]
        self.a, self.g, self.c = transforms(size)
        self.x = self.a @ tiles.reshape(self.a.shape[1], -1)  # (n, T * R * I)
        self.w = self.g @ kernel.reshape(size, -1)  # (n, k * I * O)
        count = len(self.x)
        self.v = tiles.new_empty(count, rows, inputs)
        self.u = tiles.new_empty(count, inputs, outputs)
        self.m = tiles.new_empty(count, rows, outputs)

    def make(self, factor: int) -> tuple[Tensor, Tensor]:
        """Sets `v` and `u`; returns what of `x` and `w` is not needed any more, ``(T, R * I)`` and ``(k, I * O)``."""
        x = self.x[factor].view(self.a.shape[1], -1)
        w = self.w[factor].view(self.g.shape[1], -1)
        torch.mm(self.a, x, out=self.v.flatten(1))
        torch.mm(self.g, w, out=self.u.flatten(1))
        return x, w


def convolve_tiles(tiles: Tensor, kernel: Tensor) -> Tensor:
    """Outputs ``(S * S, R, O)`` of tiles ``(T * T, R, I)`` and a kernel ``(k * k, I, O)``, float32."""
    parts = _Products(tiles, kernel)
    y = tiles.new_empty(len(parts.x), TILE, parts.m[0].numel())
    for factor, part in enumerate(y):
        parts.make(factor)
        torch.bmm(parts.v, parts.u, out=parts.m)
        torch.mm(parts.c, parts.m.flatten(1), out=part)
    return (parts.c @ y.flatten(1)).view(TILE * TILE, *parts.m.shape[1:])


def convolve_tiles_backward(grad: Tensor, tiles: Tensor, kernel: Tensor, grad_kernel: Tensor) -> Tensor:
    """The gradient ``(T * T, R, I)`` of the tiles; that of the kernel is added to `grad_kernel` ``(k * k, I, O)``.

    Args:
        grad: ``(S * S, R, O)``.
        tiles: As `convolve_tiles` takes them.
        kernel: Likewise.
        grad_kernel: Receives a sum.
    """
    parts = _Products(tiles, kernel)
    y = parts.c.T @ grad.reshape(TILE, -1)  # (n, S * R * O)
    dv = torch.empty_like(parts.v)
    for factor, part in enumerate(y):
        x, w = parts.make(factor)
        torch.mm(parts.c.T, part.view(TILE, -1), out=parts.m.flatten(1))
        torch.bmm(parts.m, parts.u.transpose(1, 2), out=dv)
        torch.mm(parts.a.T, dv.flatten(1), out=x)
        torch.bmm(parts.v.transpose(1, 2), parts.m, out=parts.u)
        torch.mm(parts.g.T, parts.u.flatten(1), out=w)
    grad_kernel.view(parts.g.shape[1], -1).addmm_(parts.g.T, parts.w)
    return (parts.a.T @ parts.x).view(tiles.shape)
