"""Seconds from one feature row to the next: what is stated, held against the rows and durations of the videos."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, counted
from vmr_common.features.manifest import BaseManifest
from vmr_common.types import Query

SLACK_S = 2.0
"""Seconds by which rows times stride may differ from an annotated duration, beside two rows."""

DRIFT = 0.01
"""Share of the duration by which they may differ on top: a film of two hours is not told to the second."""

_SECONDS = (
    *(1, 2, 1 / 2, 1 / 3, 1 / 4, 1 / 5, 1 / 10, 4, 5, 3, 10, 3 / 2),
    *(1 / fps for fps in (6, 8, 15, 24, 25, 30)),
)
_FRAMES = tuple(frames / fps for fps in (30, 25, 24) for frames in (16, 32, 8, 64, 4))
PLAIN = (*_SECONDS, *_FRAMES)
"""Strides that extractors use, the most usual ones first: seconds, frames per second, frames of usual rates."""

_MOST_OFF = 0.75  # rows that the middle video may have more or fewer than its duration at a plain stride


class HasRows(Protocol):
    """A store of features, as far as strides need it."""

    @property
    def name(self) -> str:
        """The path or paths, for messages."""

    @property
    def manifest(self) -> BaseManifest | None:
        """The manifest, or None."""

    def __contains__(self, video: str, /) -> bool:
        """True where the video is there."""

    def length(self, video: str, /) -> int:
        """Rows of a video."""


@dataclass(frozen=True)
class Misfit:
    """A video of which the rows, at a stride, are far from as long as annotated."""

    video: str
    rows: int
    duration: float  # seconds, annotated


@dataclass(frozen=True)
class Stride:
    """Seconds from one row to the next, how they are known, and the videos that disagree.

    `str` of it says so to people.
    """

    seconds: float | None  # None where nothing tells
    known_by: Literal["given", "manifest", "rows", "nothing"]
    # what rows against durations tell, whatever is stated; None where they tell nothing
    fitting: float | None
    videos: int  # number of videos that were compared
    misfits: tuple[Misfit, ...]  # videos that disagree with `seconds`
    span: str = ""  # rows of the videos and seconds a row by their durations, in words

    def __str__(self) -> str:
        if self.seconds is None:
            return "seconds a row are not known" + (f": videos have {self.span}" if self.span else "")
        source = {
            "given": "as given",
            "manifest": "manifest: stride_s",
            "rows": f"told by rows and durations of {counted(self.videos, 'video')}",
        }[self.known_by]
        return f"{self.seconds:.6g} s a row ({source})"

    def lines(self) -> Iterator[str]:
        """A line on every video that disagrees."""
        for misfit in self.misfits:
            told = f"{misfit.duration / misfit.rows:.3g} s a row, not {self}"
            yield f"video {misfit.video!r} has {counted(misfit.rows, 'row')} for its {misfit.duration:g} s: {told}"

    def disagreement(self) -> str | None:
        """How many videos disagree, an example, and the stride that would fit; None where all agree."""
        if not self.misfits:
            return None
        about = f"{len(self.misfits):,} of {counted(self.videos, 'video')} disagree"
        said = f"{about}: {next(self.lines())}"
        if self.fitting is not None and self.fitting != self.seconds:
            said += f" ({self.fitting:.6g} s a row would fit)"
        return said


def durations_of(queries: Iterable[Query]) -> dict[str, float]:
    """Seconds of each video of some queries."""
    return {query.video: query.duration for query in queries}


def stride_of(
    store: HasRows,
    durations: Mapping[str, float],
    given: float | None = None,
    *,
    rows: Mapping[str, int] | None = None,
) -> Stride:
    """Seconds from row to row: the `given` ones, else those of the manifest, else what rows against durations tell.

    What rows and durations tell is the stride that most videos fit, a plain one (`PLAIN`) where all of these fit it;
    they tell nothing where half of the videos or more fit none, or where several videos of other lengths all have the
    same number of rows. A video fits where its rows times the stride are within two rows, `SLACK_S`, a row's window and
    `DRIFT` of its duration. Only videos that are there are compared; a damaged array is another check's finding.

    Args:
        store: The features.
        durations: Seconds by video.
        given: Seconds from row to row, where they are configured.
        rows: Of the videos, where they are known already; else they are looked up.

    Raises:
        UserError: if `given` contradicts the manifest, naming both.
    """
    manifest = store.manifest
    stated = getattr(manifest, "stride_s", None)
    if given is not None and stated is not None and not math.isclose(given, stated, rel_tol=1e-3):
        raise UserError(
            f"{store.name}: the manifest says {stated:g} s from row to row (stride_s), asked for {given:g} s"
        )
    rows = _rows_of(store, durations) if rows is None else {v: rows[v] for v in durations if v in rows}
    seconds = stated if stated is not None else given
    window = getattr(manifest, "window_s", None) or 0.0
    found = _Rows(list(rows), np.array(list(rows.values())), np.array([durations[v] for v in rows]), window)
    fitting = found.fitting()
    known_by: Literal["given", "manifest", "rows", "nothing"]
    known_by = "manifest" if stated is not None else "given" if given is not None else "rows"
    if seconds is None:
        seconds, known_by = fitting, "rows" if fitting is not None else "nothing"
    misfits = () if seconds is None else found.misfits(seconds)
    return Stride(seconds, known_by, fitting, len(rows), misfits, found.span())


def _rows_of(store: HasRows, videos: Iterable[str]) -> dict[str, int]:
    """Rows of the videos that are there and whole."""
    rows: dict[str, int] = {}
    for video in videos:
        if video in store:
            with contextlib.suppress(UserError):
                rows[video] = store.length(video)
    return rows


@dataclass(frozen=True)
class _Rows:
    """Rows and durations of videos."""

    videos: list[str]
    rows: NDArray[np.int64]
    durations: NDArray[np.float64]
    window: float

    def fits(self, stride: float) -> NDArray[np.bool_]:
        slack = 2 * stride + SLACK_S + self.window + DRIFT * self.durations
        fits: NDArray[np.bool_] = np.abs(self.rows * stride - self.durations) <= slack
        return fits

    def misfits(self, stride: float) -> tuple[Misfit, ...]:
        return tuple(
            Misfit(self.videos[n], int(self.rows[n]), float(self.durations[n]))
            for n in np.flatnonzero(~self.fits(stride))
        )

    def span(self) -> str:
        if not self.videos:
            return ""
        least, most = int(self.rows.min()), int(self.rows.max())
        seconds = self.durations / self.rows
        rows = f"{counted(least, 'row')} each (pooled?)" if least == most else f"{least:,} to {most:,} rows"
        return f"{rows}, {seconds.min():.3g} to {seconds.max():.3g} s a row"

    def fitting(self) -> float | None:
        if not self.videos or (len(set(self.rows.tolist())) == 1 and np.ptp(self.durations) > SLACK_S):
            return None
        seconds = self.durations / self.rows
        # the middle first, so that it stands where others fit no more videos
        middles = np.quantile(seconds, [0.5, 0.35, 0.65, 0.2, 0.8])
        best = max(middles.tolist(), key=lambda stride: int(self.fits(stride).sum()))
        agreeing = self.fits(best)
        if 2 * agreeing.sum() <= len(agreeing):
            return None
        rows, durations = self.rows[agreeing], self.durations[agreeing]
        for plain in PLAIN:
            off = np.abs(durations / plain - rows)
            if np.median(off) <= _MOST_OFF and self.fits(plain)[agreeing].all():
                return float(plain)
        return float(np.median(seconds[agreeing]))
