"""Features as models take them: standardised by columns, pooled, kept in memory."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vmr_common.features.checks import Features
from vmr_common.features.pooling import pool
from vmr_train.caches import LRUCache
from vmr_train.feature_files import FeatureSource


def unit_rows(features: NDArray[Any]) -> Features:
    """Rows ``(T, D)`` divided by their L2 norm (at least 1e-12), float32 (the loaders of 2D-TAN, CDN, LEORN).

    Example:
        >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    rows = np.asarray(features, dtype=np.float32)
    norms = np.sqrt(np.einsum("td,td->t", rows, rows))
    return np.asarray(rows / np.maximum(norms, 1e-12)[:, None], dtype=np.float32)


class FeaturesByVideo(Protocol):
    """Anything that gives a video's features ``(T, D)`` float32 by its id."""

    def __getitem__(self, video: str, /) -> Features:
        """The features of one video."""


@dataclass(frozen=True, eq=False)
class FeatureNormalizer:
    """Constants that standardise feature columns: ``(x - mean) / std``.

    Attributes:
        mean: ``(D,)`` float32.
        std: ``(D,)`` float32, positive.
    """

    mean: Features
    std: Features

    def __call__(self, rows: Features) -> Features:
        """Standardised rows ``(..., D)``."""
        return (rows - self.mean) / self.std

    @classmethod
    def measure(cls, features: FeaturesByVideo, videos: Iterable[str]) -> FeatureNormalizer:
        """Mean and standard deviation of each column over all rows of some videos.

        A column that never changes gets the deviation 1. Sums run in float64.

        Raises:
            ValueError: if there is no video.

        Example:
            >>> scale = FeatureNormalizer.measure({"a": np.array([[1.0, 5.0], [3.0, 5.0]])}, ["a"])
            >>> scale.mean.tolist(), scale.std.tolist()
            ([2.0, 5.0], [1.0, 1.0])
        """
        rows, total, squares = 0, np.zeros(1), np.zeros(1)
        for video in videos:
            values = np.asarray(features[video], dtype=np.float64)
            rows += len(values)
            total = total + values.sum(axis=0)
            squares = squares + (values**2).sum(axis=0)
        if rows == 0:
            raise ValueError("column statistics need at least one video")
        mean = total / rows
        std = np.sqrt(np.maximum(squares / rows - mean**2, 0.0))
        return cls(mean.astype(np.float32), np.where(std < 1e-6, 1.0, std).astype(np.float32))


@dataclass(frozen=True)
class Standardised:
    """Features standardised column by column on every access.

    Attributes:
        features: What is standardised.
        scale: The constants.
    """

    features: FeaturesByVideo
    scale: FeatureNormalizer

    def __getitem__(self, video: str, /) -> Features:
        """The standardised features of a video, ``(T, D)`` float32."""
        return self.scale(self.features[video])


class PreparedFeatures:
    """Features as a model takes them, kept in memory: ``prepared[video] -> (n, D) float32``.

    The first access of a video reads and prepares it, later ones find it as long as the limit allows; those used
    longest ago go first. The arrays are shared between callers, who must not write into them. A pickled copy starts
    with an empty memory.

    Args:
        store: Where the features come from.
        prepare: Makes what is kept of what the store gives; pickled with the rest.
        limit: Bytes that are kept at most (one video always is).
    """

    def __init__(
        self,
        store: FeatureSource,
        prepare: Callable[[Features], Features] | None = None,
        limit: float = math.inf,
    ) -> None:
        self.store = store
        self._prepare = prepare
        self._kept: LRUCache[str, Features] = LRUCache(limit, operator.attrgetter("nbytes"))

    def __getitem__(self, video: str) -> Features:
        """The prepared features of a video.

        Raises:
            UserError: as ``FeatureStore[video]``.
        """
        found = self._kept.get(video)
        if found is None:
            rows = self.store[video]
            found = self._kept[video] = rows if self._prepare is None else self._prepare(rows)
        return found


def pooled_features(store: FeatureSource, length: int, *, unit: bool = False) -> PreparedFeatures:
    """Features pooled to a fixed length and kept in memory: ``pooled[video] -> (length, D) float32``.

    Args:
        store: Where the features come from.
        length: Rows to pool to (see `pool`).
        unit: Whether rows are divided by their L2 norm before they are pooled.

    Raises:
        ValueError: if `length` is not positive.
    """
    if length < 1:
        raise ValueError(f"length must be positive, found {length}")
    return PreparedFeatures(store, functools.partial(_pool_units if unit else pool, length=length))


def _pool_units(features: Features, length: int) -> Features:
    return pool(unit_rows(features), length)
