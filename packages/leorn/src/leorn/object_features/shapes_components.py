"""Connected components of rendered frames: patches of touching coloured pixels of nearly one hue.

All frames of a video are labelled at once: pixels are joined to runs along the rows, and runs that touch from row
to row are united by pointer jumping. Nothing here knows the scene.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vmr_shapes.pixels import GREY, hue_sixths

ALIKE = 1 / 3  # sixths of the hue circle by which neighbours of one patch differ at most
LEAST = 6  # pixels of a patch

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Patches:
    """The coloured patches of a video, and the N pixels that they consist of.

    Attributes:
        count: Number of patches M, numbered by frame.
        owner: ``(N,)`` patch of each pixel.
        frame: ``(M,)`` frame of each patch, rising.
        place: ``(3, N)`` frame, row and column of each pixel.
        hue: ``(N,)`` sixths of the hue circle, in [0, 6).
        saturation: ``(N,)`` in (GREY, 1].
    """

    count: int
    owner: Ints
    frame: Ints
    place: Ints
    hue: Doubles
    saturation: Doubles

    def total(self, values: Doubles) -> Doubles:
        """Sums over the pixels of each patch, ``(M,)``, of values ``(N,)``."""
        sums: Doubles = np.asarray(np.bincount(self.owner, values, self.count), np.float64)
        return sums


def find_patches(frames: NDArray[np.uint8]) -> Patches:
    """Finds the patches of all frames.

    Args:
        frames: ``(F, H, W, 3)`` uint8 RGB.
    """
    high = frames.max(axis=-1)
    chroma = high - frames.min(axis=-1)
    pixels = np.flatnonzero(chroma.ravel() > GREY * high.ravel())
    colours = frames.reshape(-1, 3)[pixels].astype(np.float64)
    hue = hue_sixths(*colours.T)
    runs, touching = _runs(pixels, hue, frames.shape[1:3])
    owner = _unite(int(runs[-1]) + 1 if len(runs) else 0, touching)[runs]
    _, owner = np.unique(owner, return_inverse=True)  # roots are the first runs: numbered by frame
    kept = np.bincount(owner) >= LEAST if len(owner) else np.zeros(0, bool)
    inside = kept[owner]
    owner = (np.cumsum(kept) - 1)[owner[inside]]
    place = np.array(np.unravel_index(pixels[inside], frames.shape[:3]))
    count = int(kept.sum())
    frame = np.zeros(count, np.int64)
    frame[owner] = place[0]
    saturation = chroma.ravel()[pixels[inside]] / high.ravel()[pixels[inside]]
    return Patches(count, owner, frame, place, hue[inside], saturation)


def _runs(pixels: Ints, hue: Doubles, size: tuple[int, ...]) -> tuple[Ints, tuple[Ints, Ints]]:
    """The run along its row that each pixel belongs to ``(N,)``, and which runs touch those below."""
    height, width = size

    def joined(first: Ints, second: Ints) -> NDArray[np.bool_]:
        gap = np.abs(hue[first] - hue[second])
        return np.asarray(np.minimum(gap, 6 - gap) <= ALIKE)

    numbers = np.arange(len(pixels))
    left, right = numbers[:-1], numbers[1:]
    beside = (pixels[1:] == pixels[:-1] + 1) & (pixels[1:] % width != 0) & joined(left, right)
    runs = np.concatenate([np.zeros(min(len(pixels), 1), np.int64), np.cumsum(~beside)])
    below = np.searchsorted(pixels, pixels + width)
    there = (pixels // width % height != height - 1) & (below < len(pixels))
    there[there] = pixels[below[there]] == pixels[there] + width
    upper, lower = numbers[there], below[there]
    alike = joined(upper, lower)
    return runs, (runs[upper[alike]], runs[lower[alike]])


def _unite(count: int, touching: tuple[Ints, Ints]) -> Ints:
    """The lowest number that each of `count` things is connected to, ``(count,)``."""
    root = np.arange(count)
    while True:
        first, second = root[touching[0]], root[touching[1]]
        if np.array_equal(first, second):
            return root
        np.minimum.at(root, np.maximum(first, second), np.minimum(first, second))
        while not np.array_equal(root, root[root]):
            root = root[root]
