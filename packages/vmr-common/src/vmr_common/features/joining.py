"""Features of several sources side by side: row k of each must be of the same time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vmr_common.errors import UserError
from vmr_common.features.checks import Features


class RowsDiffer(UserError):  # noqa: N818 - the same error
    """The sources have so different numbers of rows of a video that they are not joined."""


_SAME = 1e-3  # share by which strides that are the same may differ


@dataclass(frozen=True)
class Joining:
    """How sources are joined along the feature axis.

    Attributes:
        name: The sources, for messages.
        strides: Seconds from row to row that each source's manifest states; None where none does.
        resample: Whether strides that differ are brought to that of the first source, else they are an error.
        tolerance: Rows by which the lengths of a video may differ: all are cut to the shortest at the end.

    Raises:
        UserError: if strides differ without `resample`, or with it one is not known.
    """

    name: str
    strides: Sequence[float | None]
    resample: bool
    tolerance: int

    def __post_init__(self) -> None:
        known = [stride for stride in self.strides if stride is not None]
        differ = [stride for stride in known if not math.isclose(stride, known[0], rel_tol=_SAME)]
        if differ and not self.resample:
            raise UserError(
                f"{self.name}: the manifests say {known[0]:g} s and {differ[0]:g} s from row to row (stride_s), so "
                "rows do not belong together; --resample (data.features.resample) brings all to the stride of the first"
            )
        if self.resample and len(known) < len(self.strides):
            raise UserError(
                f"{self.name}: to resample, the stride of each source must be known, and {len(known)} of "
                f"{len(self.strides)} have a manifest that says it (vmr-data convert --stride-s writes one)"
            )

    @property
    def stride(self) -> float | None:
        """Seconds from row to row of what is joined; None where no source says it."""
        return next((stride for stride in self.strides if stride is not None), None)

    def rows(self, video: str, lengths: Sequence[int]) -> int:
        """Rows of a video of which the sources have so many.

        Raises:
            RowsDiffer: if they differ by more than `tolerance` rows, of the longest stride where strides differ.
        """
        ratios = self._ratios()
        ends = [_end(length, ratio) for length, ratio in zip(lengths, ratios, strict=True)]
        if max(ends) - min(ends) > self.tolerance * max(1.0, *ratios):
            strides = [f" of {stride:g} s" if max(ratios) > min(ratios) else "" for stride in self.strides]
            found = ", ".join(f"{length}{stride}" for length, stride in zip(lengths, strides, strict=True))
            rest = (
                "where strides differ, state them in manifests and give --resample (data.features.resample)"
            )
            stated = "" if self.resample else f"; {rest}"
            raise RowsDiffer(
                f"{self.name}: video {video!r} has {found} rows, "
                f"expected at most {self.tolerance} rows of difference between joined sources{stated}"
            )
        if min(ends) == 0:
            raise UserError(f"{self.name}: video {video!r} has no row that all sources have")
        return min(ends)

    def join(self, video: str, parts: Sequence[Features]) -> Features:
        """The features of a video from those of each source: row k is of each the row that row k's middle lies in."""
        rows = self.rows(video, [len(part) for part in parts])
        taken = [_taken(part, rows, ratio) for part, ratio in zip(parts, self._ratios(), strict=True)]
        return np.concatenate(taken, axis=1)

    def _ratios(self) -> list[float]:
        """Rows of the result for one row of each source."""
        first = self.strides[0]
        if not self.resample or first is None:
            return [1.0] * len(self.strides)
        ratios = [(stride or first) / first for stride in self.strides]
        return [1.0 if math.isclose(ratio, 1, rel_tol=_SAME) else ratio for ratio in ratios]


def _end(length: int, ratio: float) -> int:
    """The first row of the result of which the middle lies behind the `length` rows of a source."""
    return length if ratio == 1 else max(0, math.ceil(length * ratio - 0.5))


def _taken(part: Features, rows: int, ratio: float) -> Features:
    """The rows of a source that the first `rows` of the result take."""
    if ratio == 1:
        return part[:rows]
    places = np.minimum((np.arange(rows) + 0.5) / ratio, len(part) - 1)
    taken: Features = np.take(part, places.astype(np.int64), axis=0)
    return taken
