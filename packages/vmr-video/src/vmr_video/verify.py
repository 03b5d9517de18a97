"""Finds out how a file of features was made: a few of its videos are extracted anew and compared, row by row."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, counted, listed
from vmr_common.features.store import FeatureStore
from vmr_video.decoding import Failed
from vmr_video.extractor import FEATURES, Extractor, ExtractorOptions, kind_of, kinds, row_width
from vmr_video.media import probe
from vmr_video.pipeline import BATCH, extract
from vmr_video.recipe import Sampling

logger = logging.getLogger(__name__)

ALIKE = 0.99
"""Median cosine of rows from which on two files were made alike, but for the decoder's and the type's rounding."""
CLOSE = 0.9
"""Median cosine from which on it is the same network on other pictures."""
SAME = 2e-4
"""Median cosines that are nearer tell no two answers apart: a video in which little moves."""

_SLOW = (1 / 4, 1 / 3, 1 / 2, 2 / 3, 3 / 4, 1, 5 / 4, 4 / 3, 3 / 2, 15 / 8, 2, 5 / 2, 3, 4, 5, 6)
_FAST = (25 / 4, 15 / 2, 8, 10, 12, 25 / 2, 15, 16, 20, 24 / 1.001, 24, 25, 30 / 1.001, 30)
RATES = _SLOW + _FAST
"""Rows per second that files have."""

_OFFSETS = range(-2, 5)  # half rows

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Video:
    """A video that the file has rows of."""

    id: str
    path: Path
    duration: float
    rows: Floats


@dataclass(frozen=True)
class Match:
    """The nearness of the file's rows to those of an extractor.

    Attributes:
        extractor: Its name.
        rate: Rows per second.
        offset: Half rows from the instants k / rate; 0 is the sampling `start`, 1 `middle`.
        cosine: Median over all rows.
        rows: Their number.
        scale: Median of the file's row lengths over the extractor's, before it normalises.
        rivals: Other offsets that are as near.
    """

    extractor: str
    rate: float
    offset: int
    cosine: float
    rows: int
    scale: float
    rivals: tuple[int, ...] = ()

    @property
    def sampling(self) -> str:
        """The offset in words."""
        said = [_sampling(offset) for offset in sorted({self.offset, *self.rivals})]
        return said[0] if len(said) == 1 else f"{' or '.join(said)} (these videos do not tell them apart)"


def _sampling(offset: int) -> str:
    return {0: "start", 1: "middle"}.get(offset, f"{offset / 2:+g} rows from start")


def verify(
    file: Path,
    videos: Sequence[tuple[str, Path]],
    *,
    extractors: Sequence[str] = (),
    options: ExtractorOptions | None = None,
    sample: int = 3,
    workers: int = 1,
    batch: int = BATCH,
) -> str:
    """Says in one line how the file was made.

    Args:
        file: Features of any layout that `FeatureStore` reads.
        videos: Pairs of id and path; of those, a few that the file has rows of are extracted anew.
        extractors: Names to try; by default the one of the file's manifest, else all whose weights are at hand.
        options: `weights`, `device` and `precision` count; `fps` where the rate is not to be found out.
        sample: Videos that are extracted anew.
        workers: Processes that decode.
        batch: Frames in one call of the extractor.

    Raises:
        UserError: if the file has rows of none of the videos, no extractor can be tried, or none is near; says what
            was closest.
    """
    options = options or ExtractorOptions()
    with FeatureStore(file) as store:
        manifest = store.manifest
        chosen = _sampled(store, file, videos, sample)
    stated = None if manifest is None else manifest.extractor
    names = list(extractors) or ([stated] if stated in kinds() and stated is not None else list(kinds()))
    named = bool(extractors) or len(names) == 1
    if options.weights is None and manifest is not None and names == [stated]:
        options = dataclasses.replace(options, weights=manifest.network)
    rates = [options.fps] if options.fps else _rates(chosen, file)
    found: list[Match] = []
    for extractor, name in _loaded(names, options, chosen, named):
        for rate in rates:
            found += _matches(extractor, name, rate, chosen, workers, batch, options)
    if not found:
        width = chosen[0].rows.shape[1]
        raise UserError(
            f"{file}: no extractor at hand makes rows {width} wide; name one by --extractor and its --weights"
        )
    best = max(found, key=lambda match: match.cosine)
    return _conclusion(file, best, chosen)


def _sampled(store: FeatureStore, file: Path, videos: Sequence[tuple[str, Path]], sample: int) -> list[Video]:
    both = [(video, path) for video, path in videos if video in store]
    if not both:
        named = listed([video for video, _ in videos], 2)
        raise UserError(
            f"{file}: has rows of none of {counted(len(videos), 'video')} ({named}); it has {listed(store.videos(), 2)}"
        )
    step = max(1, len(both) // sample)
    return [Video(video, path, probe(path).duration, store[video]) for video, path in both[::step][:sample]]


def _rates(videos: Sequence[Video], file: Path) -> list[float]:
    """Rows per second that all videos' numbers of rows allow, nearest first."""
    seen = float(np.median([len(video.rows) / video.duration for video in videos]))
    fitting = [
        rate
        for rate in RATES
        if all(abs(len(video.rows) - video.duration * rate) <= 1.01 for video in videos)
    ]
    if not fitting:
        logger.info("%s: %.4g rows per second are none of the usual rates", file, seen)
        return [seen]
    return sorted(fitting, key=lambda rate: abs(math.log(rate / seen)))[:3]


def _loaded(
    names: Iterable[str], options: ExtractorOptions, videos: Sequence[Video], named: bool
) -> Iterator[tuple[Extractor, str]]:
    """The extractors of these names that can be loaded and make rows of the file's width."""
    width = videos[0].rows.shape[1]
    left_out = []
    for name in names:
        kind = kind_of(name)
        if kind.write is not None:  # objects have no rows to compare
            continue
        try:
            extractor = kind.load(dataclasses.replace(options, fps=None, sampling=None, normalise=False))
            made = row_width(extractor)
        except UserError:
            if named:
                raise
            left_out.append(name)
            continue
        if made == width:
            yield extractor, name
        elif named:
            raise UserError(f"{name} with these weights makes rows {made} wide, the file's are {width} wide")
    if left_out:
        logger.info("not tried, as their weights are not at hand: %s", ", ".join(left_out))


def _matches(
    extractor: Extractor,
    name: str,
    rate: float,
    videos: Sequence[Video],
    workers: int,
    batch: int,
    options: ExtractorOptions,
) -> list[Match]:
    """The best offset of an extractor at a rate; none where no video could be read."""
    pictures = extractor.context == (0, 0) and extractor.row_frames == 1
    if pictures:
        made = _extracted(name, options, {"fps": 2 * rate, "sampling": "start"}, videos, workers, batch)
        by_offset = {offset: _paired(videos, made, 2, offset) for offset in _OFFSETS}
    else:
        by_offset = {}
        rules: tuple[Sampling, ...] = ("start", "middle")
        for place, rule in enumerate(rules):
            more = {"stride_s": 1 / rate, "sampling": rule}
            made = _extracted(name, options, more, videos, workers, batch)
            by_offset |= {place + 2 * shift: _paired(videos, made, 1, shift) for shift in (-1, 0, 1)}
    found = [
        Match(name, rate, offset, float(np.median(cosines)), len(cosines), float(np.median(scales)))
        for offset, (cosines, scales) in by_offset.items()
        if len(cosines)
    ]
    if not found:
        return []
    best = max(found, key=lambda match: match.cosine)
    rivals = [other for other in found if other is not best and best.cosine - other.cosine < SAME]
    # what a rule of the field explains, and then the number of rows, decides between equals
    equal = sorted([best, *rivals], key=lambda match: (match.offset not in (0, 1), -match.cosine))
    return [
        dataclasses.replace(
            equal[0], rivals=tuple(match.offset for match in equal[1:] if match.offset in (0, 1))
        )
    ]


def _extracted(
    name: str,
    options: ExtractorOptions,
    more: Mapping[str, object],
    videos: Sequence[Video],
    workers: int,
    batch: int,
) -> dict[str, Floats]:
    settings = {"fps": None, "normalise": False} | dict(more)
    extractor = kind_of(name).load(dataclasses.replace(options, **settings))  # type: ignore[arg-type]
    found = {}
    for video in extract(
        extractor, [(video.id, video.path) for video in videos], workers=workers, batch=batch
    ):
        if isinstance(video, Failed):
            raise UserError(video.reason)
        found[video.video] = video.rows[FEATURES]
    return found


def _paired(
    videos: Sequence[Video], made: Mapping[str, Floats], step: int, offset: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Cosine and ratio of lengths, of all rows k of the file and rows ``step * k + offset`` that were made."""
    cosines, scales = [], []
    for video in videos:
        place = step * np.arange(len(video.rows)) + offset
        there = (place >= 0) & (place < len(made[video.id]))
        old, new = video.rows[there].astype(np.float64), made[video.id][place[there]].astype(np.float64)
        lengths = np.linalg.norm(old, axis=1), np.linalg.norm(new, axis=1)
        cosines.append((old * new).sum(1) / np.maximum(lengths[0] * lengths[1], 1e-12))
        scales.append(lengths[0] / np.maximum(lengths[1], 1e-12))
    return np.concatenate(cosines), np.concatenate(scales)


def _conclusion(file: Path, best: Match, videos: Sequence[Video]) -> str:
    norms = np.concatenate([np.linalg.norm(video.rows, axis=1) for video in videos])
    if np.abs(norms - 1).max() < 0.01:
        lengths = "rows normalised"
    elif abs(best.scale - 1) < 0.02:
        lengths = "rows not normalised"
    else:
        lengths = f"rows {best.scale:.3g} times as long"
    figures = f"median cosine {best.cosine:.4f} over {best.rows} rows of {counted(len(videos), 'video')}"
    rate = f"{best.rate:.6g} row{'s' * (best.rate != 1)} a second"
    what = f"{best.extractor} at {rate}, sampling {best.sampling}, {lengths}"
    if best.cosine >= ALIKE:
        return f"{file}: these are {what} ({figures}; {_counted(best.rate, videos)})"
    if best.cosine >= CLOSE:
        raise UserError(
            f"{file}: near {what}, but not equal ({figures}); the same network on other pictures, or one of its kind"
        )
    raise UserError(f"{file}: matches nothing that was tried; the closest is {what} ({figures})")


def _counted(rate: float, videos: Sequence[Video]) -> str:
    """The rule for the number of rows."""
    rules = {
        "round": lambda length: math.floor(length + 0.5),
        "ceil": lambda length: math.ceil(length - 1e-6),
        "floor": lambda length: math.floor(length + 1e-6),
    }
    fitting = [
        name
        for name, rule in rules.items()
        if all(len(video.rows) == rule(video.duration * rate) for video in videos)
    ]
    return (
        f"{' or '.join(fitting)}(duration x rate) rows" if fitting else "its numbers of rows follow no rule"
    )
