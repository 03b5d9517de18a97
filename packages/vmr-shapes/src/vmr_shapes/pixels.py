"""Pixel statistics that both kinds of features share: coloured pixels, their hue, and changes around a row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

HUES = 12  # equal bins of the hue circle
GREY = 0.2  # least saturation of a pixel that counts as coloured
UNIT = 4096  # statistics are rounded to 1 / UNIT


def hue_sixths(red: NDArray[Any], green: NDArray[Any], blue: NDArray[Any]) -> Doubles:
    """Hue in sixths of the circle, in [0, 6), of channels of whole numbers from 0 to 255; 0 where they are equal."""
    high = np.maximum(np.maximum(red, green), blue)
    spread = np.maximum(high - np.minimum(np.minimum(red, green), blue), 1)
    sixths: Doubles = np.select(
        [high == red, high == green],
        [(green - blue) / spread % 6, (blue - red) / spread + 2],
        (red - green) / spread + 4,
    )
    return sixths


def around_rows(changes: Doubles, per_row: int) -> Doubles:
    """Weighted means over the changes within a row and the two before and after, ``(F - 1, C)`` to ``(T, C)``.

    There are none beyond the video's ends. The outermost ones count half, so that a motion to and fro in four frames
    cancels out.
    """
    rows = (len(changes) + 1) // per_row
    padded = np.pad(changes, ((2, per_row + 1), (0, 0)))
    weights = (0.5, *(1.0,) * (per_row + 1), 0.5)
    parts = (w * padded[k : k + rows * per_row : per_row] for k, w in enumerate(weights))
    return np.asarray(sum(parts, np.zeros(1)) / (per_row + 2))
