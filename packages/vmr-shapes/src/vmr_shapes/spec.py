"""Specification of a Shapes data set: its sizes, its seeds and the words for colours, shapes and actions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar, get_type_hints

import numpy as np

from vmr_common.schema import conform

SPLITS = ("train", "val", "test")
SHAPES = ("circle", "square", "triangle", "star")
SIZES = ("small", "big")
# hue in degrees, the mark's and body's brightness follow from it in `scene`
COLOURS = {"red": 0, "orange": 30, "yellow": 58, "green": 120, "blue": 228, "purple": 282}
SLIDES = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_MOST = 100_000  # of anything that a spec counts
ACTIONS = (*SLIDES, "spin", "grow", "shrink", "blink", "shake")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ShapesSpec:
    """Everything that decides the bytes of a Shapes data set.

    Attributes:
        seed: Decides scenes, pixels, features and glances.
        sentence_seed: Decides which events are asked for and in which words; pixels do not depend on it.
        train: Number of training videos; likewise `val` and `test`.
        duration: Shortest and longest video, seconds.
        things: Fewest and most shapes in a video.
        events: Fewest and most actions in a video.
        queries: Fewest and most sentences for a video.
        moment: Shortest and longest action as a fraction of the video.
        held_out: Share of a test video's actions that are forced to be combinations training never shows.
        size: Height and width of a frame, pixels (a multiple of 4).
        fps: Frames per second.
        frames_per_row: Frames per feature row, so a row covers ``frames_per_row / fps`` seconds.
        feature_dim: Width of a feature row.
        word_dim: Width of a word vector.
    """

    seed: int = 0
    sentence_seed: int = 0
    train: int = 640
    val: int = 100
    test: int = 150
    duration: tuple[float, float] = (16.0, 32.0)
    things: tuple[int, int] = (4, 6)
    events: tuple[int, int] = (5, 7)
    queries: tuple[int, int] = (3, 6)
    moment: tuple[float, float] = (0.11, 0.34)
    held_out: float = 0.25
    size: int = 56
    fps: int = 4
    frames_per_row: int = 2
    feature_dim: int = 128
    word_dim: int = 50

    def __post_init__(self) -> None:
        for name in ("train", "val", "test", "size", "fps", "frames_per_row", "feature_dim", "word_dim"):
            if not 1 <= getattr(self, name) <= _MOST:
                raise ValueError(
                    f"{name} must be at least 1 and at most {_MOST:,}, found {getattr(self, name)}"
                )
        if min(self.seed, self.sentence_seed) < 0:
            raise ValueError(f"seeds must not be negative, found {self.seed}, {self.sentence_seed}")
        for name in ("duration", "things", "events", "queries", "moment"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= _MOST:
                raise ValueError(
                    f"{name} must be two rising positive numbers, at most {_MOST:,}, found {low}, {high}"
                )
        if self.things[1] > len(COLOURS):
            raise ValueError(
                f"things must end at {len(COLOURS)}, one for each colour, found {self.things[1]}"
            )
        if self.moment[1] > 0.5:
            raise ValueError(f"moment must end at 0.5 of the video at most, found {self.moment[1]}")
        if self.size % 4 or not 40 <= self.size <= 1024:
            raise ValueError(f"size must be a multiple of 4 from 40 to 1024, found {self.size}")
        if self.queries[0] > self.events[0]:
            raise ValueError(f"queries asks for {self.queries[0]} sentences of {self.events[0]} events")

    @property
    def stride(self) -> float:
        """Seconds per feature row."""
        return self.frames_per_row / self.fps

    def count(self, split: str) -> int:
        """Number of videos in a split."""
        return int(getattr(self, split))

    def videos(self, split: str) -> list[str]:
        """The video ids of a split, ``train-0000`` and so on."""
        return [f"{split}-{index:04d}" for index in range(self.count(split))]

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ShapesSpec:
        """The inverse of `to_json`.

        Raises:
            TypeError, ValueError: for an unknown field or a value out of range.
        """
        hints = get_type_hints(cls)
        for name, value in values.items():
            conform(value, hints.get(name, Any), name)
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**arguments)


SHORT = ShapesSpec()
# a row per second; each thing does many things in a video, and most actions are done by several things
LONG = ShapesSpec(
    train=120,
    val=15,
    test=30,
    duration=(600.0, 1200.0),
    things=(6, 6),
    events=(26, 34),
    queries=(18, 24),
    moment=(0.0134, 0.0333),
    fps=2,
)


class PortableRandom:
    """Random choices that come out the same on every machine and numpy version.

    Only the generator's raw doubles are used: those are fixed by the bit stream, while numpy may change how
    it turns the stream into normals, permutations or choices.
    """

    def __init__(self, *key: int) -> None:
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key)))

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number in ``[low, high)``."""
        return low + (high - low) * float(self._generator.random())

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.uniform() < probability

    def integer(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return low + math.floor(self.uniform() * (high - low + 1))

    def choice(self, items: Sequence[T], weights: Sequence[float] | None = None) -> T:
        """One of the items, evenly or by weight."""
        if weights is None:
            return items[self.integer(0, len(items) - 1)]
        rest = self.uniform() * sum(weights)
        for item, weight in zip(items, weights, strict=True):
            rest -= weight
            if rest < 0:
                return item
        return items[-1]

    def shuffled(self, items: Sequence[T]) -> list[T]:
        """The items in random order."""
        pool = list(items)
        return [pool.pop(self.integer(0, len(pool) - 1)) for _ in range(len(pool))]

    def array(self, *shape: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Numbers in ``[0, 1)``."""
        return self._generator.random(shape)


def split_video(video: str, spec: ShapesSpec) -> tuple[str, int]:
    """Splits a video id into its split and number.

    Raises:
        ValueError: if the data set has no such video.
    """
    split, _, number = video.rpartition("-")
    if split in SPLITS and number.isascii() and number.isdecimal():
        index = int(number)
        if index < spec.count(split) and video == f"{split}-{index:04d}":
            return split, index
    raise ValueError(f"no video {video!r} in this Shapes data set")
