"""Frame features computed from the pixels alone: colour, edge and motion statistics, then a fixed projection.

Nothing here knows the scene, the sentences or the palette: colours are twelve equal bins of the hue circle.
All sums are of integers (float64 holds them exactly), so their order, and with it the machine, is irrelevant.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vmr_common.shapes.spec import Draw

HUES = 12
CELLS = 4  # per side
NOTHING = HUES  # bin of pixels without colour
BITS = 6  # per channel, for the look-up of hue, saturation and chroma
GREY = 0.14  # least saturation of a pixel that counts as coloured
LEAST = 6  # pixels of a hue that count as something being there
UNIT = 4096  # statistics are stored as integers of 1 / UNIT
FINE = 256  # standardised statistics are rounded to 1 / FINE before the projection
LIMIT = 6.0  # standard deviations
LEVELS = 8  # the projection's entries are integers of -LEVELS .. LEVELS
LOOKS, MOVES, PLACES = 6, 7, 6  # kinds of statistics: of each hue, of each hue's motion, of each cell
WEIGHTS = (0.7,) * LOOKS + (1.5,) * MOVES + (0.4,) * PLACES
COLUMNS = (HUES,) * (LOOKS + MOVES) + (CELLS * CELLS,) * PLACES

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


def _lookup() -> tuple[NDArray[np.uint8], Doubles, Doubles]:
    """Hue bin, saturation and chroma (both 0 to 255) of every colour at `BITS` bits per channel."""
    step = 256 >> BITS
    level = np.arange(1 << BITS) * step + step // 2
    red, green, blue = (c.ravel() for c in np.meshgrid(level, level, level, indexing="ij"))
    high = np.maximum(np.maximum(red, green), blue)
    chroma = high - np.minimum(np.minimum(red, green), blue)
    spread = np.maximum(chroma, 1)
    sixth = np.select(
        [high == red, high == green],
        [(green - blue) / spread % 6, (blue - red) / spread + 2],
        (red - green) / spread + 4,
    )
    hue = np.floor(sixth * HUES / 6 + 0.5).astype(np.int64) % HUES
    saturation = chroma * 255 // high
    coloured = saturation > GREY * 255
    return (
        np.where(coloured, hue, NOTHING).astype(np.uint8),
        np.where(coloured, saturation, 0).astype(np.float64),
        np.where(coloured, chroma, 0).astype(np.float64),
    )


BIN, SATURATION, CHROMA = _lookup()


def statistics(frames: NDArray[np.uint8], frames_per_row: int) -> NDArray[np.int32]:
    """Pixel statistics of a video, one row per `frames_per_row` frames.

    Args:
        frames: ``(F, H, W, 3)`` uint8 RGB, H = W.
        frames_per_row: Frames that a row stands for; its motion also looks one frame before and after.

    Returns:
        ``(F // frames_per_row, sum(COLUMNS))`` int32, in units of ``1 / UNIT``.
    """
    count, size = frames.shape[0], frames.shape[1]
    codes = (frames >> (8 - BITS)).astype(np.int32)
    code = (codes[..., 0] << 2 * BITS) | (codes[..., 1] << BITS) | codes[..., 2]
    label = BIN[code]
    frame, y, x = np.nonzero(label != NOTHING)
    code = code[frame, y, x]
    hue, saturation, chroma = BIN[code], SATURATION[code], CHROMA[code]
    edges = _edges(label, (frame, y, x))

    def total(key: Ints, weight: Doubles, groups: int) -> Doubles:
        sums: Doubles = np.asarray(np.bincount(key, weight, count * groups), np.float64)
        return sums.reshape(count, groups)

    # coordinates from the frame's middle, in half pixels, so that they are whole numbers
    x2, y2 = (np.asarray(2 * v + 1 - size, np.float64) for v in (x, y))
    weights = {
        "mass": saturation,
        "x": saturation * x2,
        "y": saturation * y2,
        "square": saturation * (x2 * x2 + y2 * y2),
        "chroma": chroma,
        "chroma_x": chroma * x2,
        "chroma_y": chroma * y2,
        "edge": edges,
    }
    by_hue = {name: total(frame * HUES + hue, weight, HUES) for name, weight in weights.items()}
    cell = (frame * CELLS + y * CELLS // size) * CELLS + x * CELLS // size
    channels = frames[frame, y, x].T.astype(np.float64)
    by_cell = [total(cell, weight, CELLS * CELLS) for weight in (*channels, saturation, edges)]
    columns = _hue_rows(by_hue, size, frames_per_row) + _cell_rows(by_cell, size, frames_per_row)
    return np.rint(np.concatenate(columns, axis=1) * UNIT).astype(np.int32)


def _edges(label: NDArray[np.uint8], place: tuple[Ints, Ints, Ints]) -> Doubles:
    """For each coloured pixel, how many of its four neighbours have another bin (none beyond the border)."""
    frame, y, x = place
    side = label.shape[1] + 2
    bins = np.pad(label, ((0, 0), (1, 1), (1, 1)), mode="edge").ravel()
    here = (frame * side + y + 1) * side + x + 1
    own = bins[here]
    count = np.zeros(len(own), np.int8)
    for step in (1, -1, side, -side):
        count += bins[here + step] != own
    return count.astype(np.float64)


def _hue_rows(sums: dict[str, Doubles], size: int, per_row: int) -> list[Doubles]:
    """What each hue looks like and how it moves: `LOOKS` + `MOVES` blocks ``(T, HUES)``."""
    mass = sums["mass"] / 255  # about the pixels covered
    here = mass >= LEAST
    whole = np.where(here, sums["mass"], 1)
    chroma = np.where(here, np.maximum(sums["chroma"], 1), 1)
    x, y = (np.where(here, sums[k] / whole, 0) for k in ("x", "y"))
    radius = np.sqrt(np.where(here, mass, 0))
    unit = np.where(here, radius, 1)
    # from the middle of the colour to the middle of its brightness: turns with a thing that has a dark mark
    mark_x = np.where(here, sums["chroma_x"] / chroma - x, 0) / unit
    mark_y = np.where(here, sums["chroma_y"] / chroma - y, 0) / unit
    spread = np.where(here, (sums["square"] / whole - x * x - y * y) / (unit * unit), 0)
    looks = [here * 1.0, radius / 10, x / size, y / size, spread, np.where(here, sums["edge"] / unit, 0)]

    both = here[1:] & here[:-1]
    dx, dy = (np.where(both, v[1:] - v[:-1], 0) for v in (x, y))
    turn = np.where(both, np.abs(np.diff(mark_x, axis=0)) + np.abs(np.diff(mark_y, axis=0)), 0)
    growth = np.where(both, np.diff(radius, axis=0), 0)
    flash = (here[1:] != here[:-1]) * 1.0
    signed = [_root(_motion(v, per_row)) for v in (dx, dy, growth)]
    others = [np.sqrt(_motion(v, per_row)) for v in (np.abs(dx), np.abs(dy), turn, flash)]
    return [_mean(v, per_row) for v in looks] + signed + others


def _cell_rows(sums: list[Doubles], size: int, per_row: int) -> list[Doubles]:
    """Colour, covered area, edges and change per cell of a coarse grid: `PLACES` blocks ``(T, CELLS²)``."""
    area = (size // CELLS) ** 2 * 255 / 8
    parts = [v / area for v in sums[:4]] + [sums[4] / (size // CELLS)]
    change = sum((np.abs(np.diff(v, axis=0)) for v in parts[:4]), np.zeros(1))
    return [_mean(v, per_row) for v in parts] + [np.sqrt(_motion(change, per_row))]


def _root(values: Doubles) -> Doubles:
    """Square roots that keep the sign: slow motion stays visible beside fast motion."""
    return np.sign(values) * np.sqrt(np.abs(values))


def _mean(values: Doubles, per_row: int) -> Doubles:
    """Means over the frames of each row."""
    rows = len(values) // per_row
    return sum((values[k : rows * per_row : per_row] for k in range(per_row)), np.zeros(1)) / per_row


def _motion(changes: Doubles, per_row: int) -> Doubles:
    """Means over the changes within a row and those that lead in and out; none at the video's ends."""
    rows = (len(changes) + 1) // per_row
    silence = np.zeros((1, changes.shape[1]))
    padded = np.concatenate([silence, changes, np.repeat(silence, per_row, axis=0)])
    window = range(per_row + 1)
    return sum((padded[k : k + rows * per_row : per_row] for k in window), np.zeros(1)) / len(window)


@dataclass(frozen=True)
class Projection:
    """Standardises pixel statistics and mixes them into features.

    Mean and deviation are those of the training videos, one each per kind of statistic: a colour that is
    rare is not blown up.

    Attributes:
        mean: ``(K,)`` whole numbers in units of ``1 / UNIT``, one per kind of statistic.
        deviation: ``(K,)`` likewise, at least 1.
        matrix: ``(sum(COLUMNS), D)`` whole numbers.
    """

    mean: Doubles
    deviation: Doubles
    matrix: Doubles

    @classmethod
    def drawn(cls, mean: Sequence[float], deviation: Sequence[float], dim: int, seed: int) -> Projection:
        """With the given constants and a matrix drawn from a seed."""
        matrix = np.floor(Draw(seed, 9002).array(sum(COLUMNS), dim) * (2 * LEVELS + 1)) - LEVELS
        return cls(np.array(mean, float), np.array(deviation, float), matrix)

    @classmethod
    def fit(cls, rows: NDArray[np.int32], dim: int, seed: int) -> Projection:
        """With the constants of the training videos' statistics ``(N, sum(COLUMNS))``."""
        means, deviations = [], []
        for block in np.split(rows, np.cumsum(COLUMNS)[:-1], axis=1):
            mean = round(int(block.sum(dtype=np.int64)) / block.size)
            squares = int(((block.astype(np.int64) - mean) ** 2).sum())
            means.append(mean)
            deviations.append(max(1, round(math.sqrt(squares / block.size))))
        return cls.drawn(means, deviations, dim, seed)

    def __call__(self, rows: NDArray[np.int32]) -> NDArray[np.float32]:
        """Features ``(T, D)`` float32 of statistics ``(T, sum(COLUMNS))``; of the order of one."""
        mean, deviation, weight = (np.repeat(v, COLUMNS) for v in (self.mean, self.deviation, WEIGHTS))
        scaled = np.clip((rows - mean) / deviation, -LIMIT, LIMIT) * weight
        # whole numbers: the matrix product is exact in float64, in whatever order it is summed
        mixed: Doubles = np.rint(scaled * FINE) @ self.matrix
        power = sum(w * w * n for w, n in zip(WEIGHTS, COLUMNS, strict=True)) * LEVELS * (LEVELS + 1) / 3
        features: NDArray[np.float32] = (mixed / (FINE * math.sqrt(power))).astype(np.float32)
        return features

    def digest(self) -> str:
        """SHA-256 of everything that turns pixels into features, hexadecimal."""
        parts = (self.mean, self.deviation, self.matrix, np.array(WEIGHTS), np.array(COLUMNS))
        return hashlib.sha256(b"".join(np.ascontiguousarray(p, "<f8").tobytes() for p in parts)).hexdigest()
