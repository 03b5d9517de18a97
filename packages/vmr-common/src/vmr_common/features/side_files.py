"""Files that extractors write beside features: ``<video>_fps.npy`` and ``<video>_timestamps_ms.npy``."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, counted, listed
from vmr_common.features import npz
from vmr_common.features.manifest import Manifest

FPS, TIMES = "_fps", "_timestamps_ms"
_SAMPLE = 64  # videos whose side files tell what is true of all
_SAME = 0.02  # share by which what is the same may differ
RATES = 1.3
"""By which strides may differ where only the videos' own frames per second do."""


@dataclass(frozen=True)
class SideFiles:
    """Side files of a folder.

    Attributes:
        folder: The folder.
        videos: Ids that have a side file.
        endings: What follows the ids in the names of the other arrays, each ending once.
    """

    folder: Path
    videos: Sequence[str]
    endings: Sequence[str]

    def facts(self) -> dict[str, float]:
        """`fps` and `stride_s`, where the side files of (some of) the videos agree on them.

        Raises:
            UserError: if a file holds something else.
        """
        return {
            name: float(np.median(list(told.values())))
            for name, told in self._told.items()
            if told and _agree(list(told.values()))
        }

    def disagreements(self) -> Iterator[tuple[str, bool]]:
        """A line on each of `fps` and `stride_s` on which side files disagree, and whether that is no contradiction.

        Videos may differ in frame rate; of strides most must be about the same, and others are `problems` of their own.

        Raises:
            UserError: if a file holds something else.
        """
        for name, told in self._told.items():
            if told and not _agree(list(told.values())):
                groups: dict[str, list[str]] = {}
                for video, value in told.items():
                    groups.setdefault(f"{value:.3g}", []).append(video)
                usual = sorted(groups.items(), key=lambda group: -len(group[1]))
                shown = [
                    f"{value} ({counted(len(videos), 'video')}, as {videos[0]!r})" for value, videos in usual
                ]
                line = f"{self.folder}: side files disagree on {name}: {listed(shown, 5)}"
                yield line, name == "fps" or self.usual_stride is not None

    @functools.cached_property
    def usual_stride(self) -> float | None:
        """`stride_s` of most videos, from which those of other frame rates may differ a little; None without one."""
        try:
            strides = list(self._told["stride_s"].values())
        except UserError:  # each file is judged with its own video
            return None
        middle = float(np.median(strides)) if strides else 0.0
        return middle if 2 * sum(_near(stride, middle) for stride in strides) > len(strides) else None

    @functools.cached_property
    def _told(self) -> dict[str, dict[str, float]]:
        """What the side files of some videos tell, by video."""
        chosen = self.videos[:: max(1, len(self.videos) // _SAMPLE)]
        return {
            "fps": {video: fps for video in chosen if (fps := self.fps(video)) is not None},
            "stride_s": {video: stride for video in chosen if (stride := self.stride(video)) is not None},
        }

    def fps(self, video: str) -> float | None:
        """Frames per second that the extractor saw of a video, or None."""
        values = self._values(video, FPS)
        if values is None:
            return None
        if values.size != 1 or not (np.isfinite(values).all() and values.item() > 0):
            raise UserError(
                f"{self.folder / (video + FPS)}.npy: expected one positive number, frames per second"
            )
        return float(values.item())

    def times(self, video: str) -> NDArray[np.float64] | None:
        """Seconds of each row of a video, or None."""
        values = self._values(video, TIMES)
        if values is None:
            return None
        if values.ndim != 1 or not np.isfinite(values).all() or (np.diff(values) < 0).any():
            raise UserError(
                f"{self.folder / (video + TIMES)}.npy: expected increasing milliseconds, one per row"
            )
        return values / 1000

    def stride(self, video: str) -> float | None:
        """Seconds from row to row of a video, or None where they differ or are not known."""
        times = self.times(video)
        if times is None or len(times) < 2:
            return None
        steps = np.diff(times)
        middle = float(np.median(steps))
        return middle if middle > 0 and np.allclose(steps, middle, rtol=0.05, atol=0.002) else None

    def problems(
        self, video: str, rows: int, manifest: Manifest | None, duration: float | None
    ) -> Iterator[str]:
        """What of a video's side files contradicts its `rows` of features, the manifest, or the other side files."""
        where = self.folder / video
        try:
            times = self.times(video)
            found = {"fps": (FPS, self.fps(video)), "stride_s": (TIMES, self.stride(video))}
        except UserError as error:
            yield str(error)
            return
        if times is not None and len(times) != rows:
            yield f"{where}{TIMES}.npy: {len(times)} times for {rows} rows of features"
        for name, (ending, value) in found.items():
            stated = getattr(manifest, name, None)
            if value and stated and abs(value - stated) > _SAME * stated:
                others = name in (facts := self.facts()) and abs(facts[name] - stated) <= _SAME * stated
                says = "those of others tell" if others else "the manifest says"
                yield f"{where}{ending}.npy: tells {name} {value:g}, {says} {stated:g}"
            elif (
                name == "stride_s"
                and value
                and (usual := self.usual_stride)
                and not stated
                and not _near(value, usual)
            ):
                known = "" if duration is None else f" ({counted(rows, 'row')} for its {duration:g} s)"
                yield f"{where}{ending}.npy: tells {name} {value:g}, those of most others {usual:g}{known}"

    def _values(self, video: str, ending: str) -> NDArray[np.float64] | None:
        path = self.folder / f"{video}{ending}.npy"
        if not path.is_file():
            return None
        _, dtype = npz.read_file_layout(path)
        if dtype.kind not in "fiu":
            raise UserError(f"{path}: holds values of type {dtype}, expected numbers")
        return npz.read_file(path).astype(np.float64)


def _agree(values: Sequence[float]) -> bool:
    return bool(np.ptp(values) <= _SAME * np.median(values))


def _near(one: float, other: float) -> bool:
    """True for strides that may be of the same number of frames, at other frame rates."""
    return 1 / RATES < one / other < RATES


def side_files(folder: Path, stems: Iterable[str]) -> SideFiles:
    """The side files among the npy files of a folder, of which `stems` are the names without ``.npy``.

    Example:
        >>> found = side_files(Path(), ["a_clip", "a_fps", "b_clip", "b_fps"])
        >>> found.videos, found.endings
        (['a', 'b'], ['_clip'])
    """
    videos, others = set(), []
    for stem in stems:
        side = next((ending for ending in (FPS, TIMES) if stem.endswith(ending) and stem != ending), None)
        if side is None:
            others.append(stem)
        else:
            videos.add(stem.removesuffix(side))
    endings = set()
    for stem in others if videos else ():
        place = len(stem)
        while place > 0 and stem[:place] not in videos:
            place = stem.rfind("_", 0, place)
        if place > 0:
            endings.add(stem[place:])
    return SideFiles(folder, sorted(videos), sorted(endings))
