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

from vmr_common.features.manifest import Manifest, creator
from vmr_shapes.pixels import GREY, HUES, UNIT, around_rows, hue_sixths
from vmr_shapes.spec import PortableRandom, ShapesSpec

CELLS = 4  # per side
NOTHING = HUES  # bin of pixels without colour
BITS = 6  # per channel, for the look-up of hue, saturation and chroma
# what soft edges do to each motion of a thing at rest, in the order of `_hue_rows`
NOISE = (0.03, 0.03, 0.03, 0.004, 0.04, 0.04, 0.008, 0.0)
LEAST = 3  # pixels of a hue that count as something being there
FINE = 256  # standardised statistics are rounded to 1 / FINE before the projection
LIMIT = 6.0  # standard deviations
BLOCK = 96  # frames that are worked on at once: their pixels stay in the cache
LEVELS = 8  # the projection's entries are integers of -LEVELS .. LEVELS
# kinds of statistics: looks and motion of each hue, motion and light of the frame, and those of each cell
LOOKS, MOVES, FLOWS, LIGHT, PLACES = 6, 8, 9, 1, 6
WEIGHTS = (0.35,) * LOOKS + (3.5,) + (0.7,) * (MOVES - 1) + (4.0,) * FLOWS + (8.0,) + (0.25,) * PLACES
COLUMNS = (HUES,) * (LOOKS + MOVES) + (1,) * (FLOWS + LIGHT) + (CELLS * CELLS,) * PLACES

EXTRACTOR = "Shapes pixel statistics"
"""With this begins what a manifest says of the extractor."""

Ints = NDArray[np.int64]
Doubles = NDArray[np.float64]


def _lookup() -> NDArray[np.uint8]:
    """Hue bin of every colour at `BITS` bits per channel."""
    step = 256 >> BITS
    level = np.arange(1 << BITS) * step + step // 2
    red, green, blue = (c.ravel() for c in np.meshgrid(level, level, level, indexing="ij"))
    high = np.maximum(np.maximum(red, green), blue)
    chroma = high - np.minimum(np.minimum(red, green), blue)
    hue = np.floor(hue_sixths(red, green, blue) * HUES / 6 + 0.5).astype(np.int64) % HUES
    return np.where(chroma > GREY * high, hue, NOTHING).astype(np.uint8)


BIN = _lookup()


def statistics(frames: NDArray[np.uint8], frames_per_row: int) -> NDArray[np.int32]:
    """Pixel statistics of a video, one row per `frames_per_row` frames.

    Args:
        frames: ``(F, H, W, 3)`` uint8 RGB, H = W.
        frames_per_row: Frames that a row stands for; its motion also looks two frames before and after.

    Returns:
        ``(F // frames_per_row, sum(COLUMNS))`` int32, in units of ``1 / UNIT``.
    """
    size = frames.shape[1]
    blocks = [_sums(frames, start, min(start + BLOCK, len(frames))) for start in range(0, len(frames), BLOCK)]
    by_hue = {name: np.concatenate([block.by_hue[name] for block in blocks]) for name in blocks[0].by_hue}
    by_cell = [np.concatenate(parts) for parts in zip(*(block.by_cell for block in blocks), strict=True)]
    columns = _hue_rows(by_hue, size, frames_per_row)
    columns += [_mean(np.concatenate([block.light for block in blocks]), frames_per_row)]
    columns += _cell_rows(by_cell, size, frames_per_row)
    return np.rint(np.concatenate(columns, axis=1) * UNIT).astype(np.int32)


@dataclass(frozen=True)
class _Sums:
    """Sums over the pixels of each of F frames: by hue ``(F, HUES)``, by cell ``(F, CELLS²)``; light ``(F, 1)``."""

    by_hue: dict[str, Doubles]
    by_cell: list[Doubles]
    light: Doubles


def _sums(video: NDArray[np.uint8], start: int, stop: int) -> _Sums:
    """The sums of the frames from `start` to `stop`."""
    before = min(start, 1)  # what changes from one frame to the next needs the frame before
    frames = video[start - before : stop]
    count, size = frames.shape[0], frames.shape[1]
    pixels = frames.reshape(-1, 3)
    # grey has no hue
    tinted = np.flatnonzero((pixels[:, 0] != pixels[:, 1]) | (pixels[:, 1] != pixels[:, 2]))
    red, green, blue = (pixels[tinted] >> (8 - BITS)).T.astype(np.int32)
    hue = BIN[(red << 2 * BITS) | (green << BITS) | blue]
    place, hue = tinted[hue != NOTHING], hue[hue != NOTHING]
    label = np.full(frames.shape[:3], NOTHING, np.uint8)
    label.reshape(-1)[place] = hue
    frame, y, x = np.unravel_index(place, label.shape)
    channels = pixels[place].T.astype(np.float64, order="C")
    high = channels.max(axis=0)
    chroma = high - channels.min(axis=0)
    saturation = np.maximum(np.floor(chroma * 255 / high) - GREY * 255, 0)
    edges = _edges(label, (frame, y, x))

    def total(key: Ints, weight: Doubles, groups: int) -> Doubles:
        sums: Doubles = np.asarray(np.bincount(key, weight, count * groups), np.float64)
        return sums.reshape(count, groups)[before:]

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
        "stir": _stir(pixels, place, size * size),
    }
    by_hue = {name: total(frame * HUES + hue, weight, HUES) for name, weight in weights.items()}
    cell = (frame * CELLS + y * CELLS // size) * CELLS + x * CELLS // size
    by_cell = [total(cell, weight, CELLS * CELLS) for weight in (*channels, saturation, edges)]
    return _Sums(by_hue, by_cell, _light(frames, label)[before:])


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


def _light(frames: NDArray[np.uint8], label: NDArray[np.uint8]) -> Doubles:
    """Mean brightness of the pixels without colour, ``(F, 1)``, 0 to 1."""
    plain = (label == NOTHING).reshape(len(label), -1)
    green = np.where(plain, frames[..., 1].reshape(plain.shape), 0)
    light: Doubles = green.sum(axis=1, dtype=np.int64) / np.maximum(np.count_nonzero(plain, axis=1), 1) / 255
    return light[:, None]


def _stir(pixels: NDArray[np.uint8], place: Ints, per_frame: int) -> Doubles:
    """For each coloured pixel, by how much it differs from the frame before, summed over the channels."""
    before = np.where(place < per_frame, place, place - per_frame)
    change = np.abs(pixels[place].astype(np.int16) - pixels[before])
    return np.asarray(change @ np.ones(3))


def _hue_rows(sums: dict[str, Doubles], size: int, per_row: int) -> list[Doubles]:
    """Looks and motion of each hue: `LOOKS` + `MOVES` blocks ``(T, HUES)``."""
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
    stir = np.where(here[1:], sums["stir"][1:] / (255 * unit[1:]), 0)
    stir, dx, dy, growth, across, along, turn, flash = (
        around_rows(v, per_row) for v in (stir, dx, dy, growth, np.abs(dx), np.abs(dy), turn, flash)
    )
    sway = (across - np.abs(dx), along - np.abs(dy))
    changes = zip((stir, dx, dy, growth, *sway, turn, flash), NOISE, strict=True)
    moves = [_root(_above(v, noise)) for v, noise in changes]
    parts = [v for signed in moves[1:4] for v in (np.maximum(-signed, 0), np.maximum(signed, 0))]
    flows = [v.sum(axis=1, keepdims=True) for v in (*parts, moves[4], moves[6], moves[7])]
    return [_mean(v, per_row) for v in looks] + moves + flows


def _cell_rows(sums: list[Doubles], size: int, per_row: int) -> list[Doubles]:
    """Colour, covered area, edges and change per cell of a coarse grid: `PLACES` blocks ``(T, CELLS²)``."""
    area = (size // CELLS) ** 2 * 255 / 8
    parts = [v / area for v in sums[:4]] + [sums[4] / (size // CELLS)]
    change = sum((np.abs(np.diff(v, axis=0)) for v in parts[:4]), np.zeros(1))
    return [_mean(v, per_row) for v in parts] + [np.sqrt(around_rows(change, per_row))]


def _above(values: Doubles, noise: float) -> Doubles:
    """Values drawn towards zero by `noise`, none past it."""
    return np.sign(values) * np.maximum(np.abs(values) - noise, 0)


def _root(values: Doubles) -> Doubles:
    """Square roots that keep the sign: slow motion stays visible beside fast motion."""
    return np.sign(values) * np.sqrt(np.abs(values))


def _mean(values: Doubles, per_row: int) -> Doubles:
    """Means over the frames of each row."""
    rows = len(values) // per_row
    return sum((values[k : rows * per_row : per_row] for k in range(per_row)), np.zeros(1)) / per_row


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
        matrix = np.floor(PortableRandom(seed, 9002).array(sum(COLUMNS), dim) * (2 * LEVELS + 1)) - LEVELS
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


def manifest_of(spec: ShapesSpec, projection: Projection) -> Manifest:
    """What made the features of a Shapes data set."""
    return Manifest(
        extractor=f"{EXTRACTOR}: colour, edges and motion, randomly projected",
        weights_hash=projection.digest(),
        fps=float(spec.fps),
        stride_s=spec.stride,
        window_s=(spec.frames_per_row + 4) / spec.fps,
        normalised=False,
        creator=creator(),
    )
