"""Features as models take them: pooled to a fixed length, standardised by columns, kept in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vmr_common.features.checks import Features
from vmr_common.timeline import pooling_bounds

# from here on a sum per clip costs less than a step per row: many rows a clip, or values that leave the cache
_MANY_ROWS, _MANY_VALUES = 16, 1 << 20


def pool(features: NDArray[Any], length: int) -> Features:
    """Pools ``(T, D)`` rows to a fixed number of clips, ``(length, D)`` float32.

    With ``b = pooling_bounds(T, length)``, clip j is the mean of the rows ``b[j]`` up to but without ``b[j + 1]``, or
    row ``b[j]`` itself where that range is empty. Short videos are stretched by repetition; when T > length the last
    row is never used. Source: the released loaders of CPL, RGN and CFMR. Raises `ValueError` if `features` is not
    two-dimensional, has no row, or `length` is not positive.

    Example:
        >>> pool(np.array([[1.0], [3.0], [5.0], [7.0]]), 2).ravel().tolist()
        [2.0, 5.0]
    """
    if features.ndim != 2:
        raise ValueError(f"expected features of shape (T, D), found {features.shape}")
    features = np.asarray(features, dtype=np.float32)
    bounds = pooling_bounds(len(features), length)
    starts, sizes = bounds[:-1], np.diff(bounds)
    if sizes.max() <= 1:
        return features[starts]
    counts = np.maximum(sizes, 1)
    if sizes.max() > _MANY_ROWS or features.size > _MANY_VALUES:
        pooled = np.empty((length, features.shape[1]), dtype=np.float32)
        for clip, start, count in zip(pooled, starts.tolist(), counts.tolist(), strict=True):
            np.add.reduce(features[start : start + count], axis=0, out=clip)
    else:
        pooled = features[starts]
        for offset in range(1, int(sizes.max())):
            longer = sizes > offset
            pooled[longer] += features[starts[longer] + offset]
    pooled /= counts.astype(np.float32)[:, None]
    return pooled
