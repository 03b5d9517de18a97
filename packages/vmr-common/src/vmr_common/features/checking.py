"""Every problem of a feature store and the videos that it should hold, each kind said in a few lines."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from vmr_common.errors import LISTED, UserError, counted, listed
from vmr_common.features.joining import RowsDiffer
from vmr_common.features.manifest import Manifest
from vmr_common.features.side_files import RATES
from vmr_common.features.store import FeatureStore
from vmr_common.features.stride import stride_of
from vmr_common.values import without_ending

_SWAPPED = "rows and columns look swapped"
_EACH = 3  # problems that are alike and still said one by one
_EXAMPLES = 5
_MANY = 16  # rows of a video that tell its rate
_LONGEST_ROW = 200.0  # seconds that no extractor leaves between two rows


@dataclass
class _Alike:
    """Problems of several videos of which the lines differ in the id (and what else is no news) alone."""

    count: int = 0
    lines: list[str] = field(default_factory=list)  # the first ones
    videos: list[str] = field(default_factory=list)

    def said(self) -> Iterator[str]:
        if self.count <= _EACH:
            yield from self.lines
            return
        yield f"{self.lines[0]} (and so {self.count - 1:,} more: {', '.join(map(repr, self.videos[1:]))}, ...)"


@dataclass
class _Kind:
    """Problems of one kind."""

    count: int = 0
    alike: dict[str, _Alike] = field(default_factory=dict)  # by what is the same of them

    def add(self, video: str, line: str, shape: str | None) -> None:
        """Notes a problem; one without a `line` is counted alone."""
        self.count += 1
        if not line:
            return
        if shape is None:
            shape = _without(video, line) if video else line
        if shape in self.alike or len(self.alike) < LISTED:
            alike = self.alike.setdefault(shape, _Alike())
            alike.count += 1
            if alike.count <= _EACH:
                alike.lines.append(line)
                alike.videos.append(video)

    def said(self, name: str) -> Iterator[str]:
        rest = self.count - sum(alike.count for alike in self.alike.values())
        if len(self.alike) == 1:  # then the others are taken to be like it
            next(iter(self.alike.values())).count += rest
            rest = 0
        for alike in self.alike.values():
            yield from alike.said()
        if rest:
            yield f"and {rest:,} more {name}"


def _without(video: str, line: str) -> str:
    """A line without the id, as a word of its own, of a video file or not, in a folder or not."""
    bare = without_ending(video)
    names = "|".join(map(re.escape, dict.fromkeys((bare, bare.rpartition("/")[2] or bare))))
    return re.sub(rf"(?<![^\W_])(?:{names})(?![^\W_])", "", line)


@dataclass
class Findings:
    """What a check found.

    Attributes:
        shapes: (T, D) of every video that could be read.
        remarks: Lines on what is unusual and no problem.
    """

    shapes: dict[str, tuple[int, int]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    wrong: set[str] = field(default_factory=set)
    _kinds: dict[str, _Kind] = field(default_factory=dict)

    def add(self, kind: str, line: str, video: str = "", shape: str | None = None) -> None:
        """Notes a problem of a `kind` (in the plural), with one video or all; many of one `shape` are said once."""
        self._kinds.setdefault(kind, _Kind()).add(video, line, shape)
        self.wrong.add(video)

    @property
    def count(self) -> int:
        """Number of problems."""
        return sum(kind.count for kind in self._kinds.values())

    @property
    def good(self) -> list[str]:
        """The videos with features that nothing is wrong with."""
        return [video for video in self.shapes if video not in self.wrong]

    def lines(self) -> Iterator[str]:
        """A line per problem, at most `LISTED` of a kind; what concerns many videos alike is said once."""
        for name, kind in self._kinds.items():
            yield from kind.said(name)


def check_features(
    store: FeatureStore,
    videos: Iterable[str],
    durations: Mapping[str, float] | None = None,
    *,
    dim: int | None = None,
    min_rows: int = 1,
) -> Findings:
    """Reads every one of `videos`, each once, and finds all that is wrong with their features.

    Problems are: a video that is missing or cannot be read, a width other than `dim` or than that of the other videos,
    rows and columns that look swapped, fewer than `min_rows` rows, rows that contradict the `durations` (seconds) or
    the files of the extractor beside them. Remarks are what else is unusual.
    """
    found, name, missing, manifest = Findings(), store.name, 0, None
    try:
        manifest = store.manifest
        dim = manifest.dim if dim is None and manifest is not None else dim
    except UserError as error:
        found.add("manifests", str(error))
        durations = None
        if len(store.paths) > 1:  # then no video can be read
            return found
    for video in dict.fromkeys(videos):
        if video not in store:
            missing += 1
            # to find what is like it takes a look at all names
            line = _error(store, video) if missing <= LISTED else ""
            found.add("videos that are missing", line, video)
            continue
        try:
            rows, width = store[video].shape
        except UserError as error:
            shape = "rows" if isinstance(error, RowsDiffer) else None
            found.add("videos that cannot be read", str(error), video, shape)
            continue
        found.shapes[video] = rows, width
        if dim is not None and width != dim:
            line = f"{name}: video {video!r} has width {width}, expected {dim}"
            found.add("videos of another width", line, video)
        if rows < min_rows:
            line = f"{name}: video {video!r} has {counted(rows, 'row')}, expected at least {min_rows}"
            found.add("videos with too few rows", line, video)
        for line in store.side_problems(video, (durations or {}).get(video)):
            found.add("files beside features that contradict them", line, video)
    _check_side_files(found, store, manifest)
    wrong = shape_problems(found.shapes, dim)
    for line in wrong:
        found.add("remarks on widths", f"{name}: {line}")
    if durations is not None and not any(line.startswith(_SWAPPED) for line in wrong):
        _check_stride(found, store, {video: durations[video] for video in found.shapes})
    return found


def _error(store: FeatureStore, video: str) -> str:
    try:
        store.shape(video)
    except UserError as error:
        return str(error)
    return f"{store.name}: video {video!r} was not there at first, somebody is writing"


def _check_side_files(found: Findings, store: FeatureStore, manifest: Manifest | None) -> None:
    """What files beside features disagree on is a remark, and a problem where nothing tells which are right."""
    with contextlib.suppress(UserError):  # a malformed one is a problem of its video
        for line, settled in store.side_disagreements():
            if settled or (manifest is not None and manifest.stride_s is not None):
                found.remarks.append(line)
            else:
                found.add("files beside features that disagree", line)


def _check_stride(found: Findings, store: FeatureStore, durations: Mapping[str, float]) -> None:
    """Videos that disagree with a stated stride are problems, or by much with that of most others."""
    rows_of = {video: rows for video, (rows, _) in found.shapes.items()}
    name, stride = store.name, stride_of(store, durations, rows=rows_of)
    longest = max((rows for rows, _ in found.shapes.values()), default=0)
    far = stride.known_by == "rows" and (stride.seconds or 0) >= _LONGEST_ROW and longest >= _MANY
    if far:
        found.add(
            "durations in another unit", f"{name}: {stride}: are the durations milliseconds, or frames?"
        )
    near = []
    for misfit, line in zip(stride.misfits, stride.lines(), strict=True):
        off = misfit.duration / misfit.rows / (stride.seconds or 1)
        if stride.known_by == "rows" and 1 / RATES < off < RATES:
            near.append(line)
        else:
            found.add("videos whose rows do not fit their duration", f"{name}: {line}", misfit.video)
    if near:
        videos = "1 video is" if len(near) == 1 else f"{len(near):,} videos are"
        found.remarks.append(f"{name}: {videos} a little off (frame rates that differ?): {near[0]}")
    if stride.misfits and stride.fitting is not None and stride.fitting != stride.seconds:
        found.remarks.append(f"{name}: {stride.fitting:.6g} s a row would fit most videos")
    if stride.known_by == "nothing" and (told := _contradiction(found.shapes, durations)):
        found.add("rates", f"{name}: {told}")
    if stride.videos > 1 and stride.known_by in ("rows", "nothing") and not far:
        found.remarks.append(f"{name}: {stride}; no manifest says it")


def _contradiction(shapes: Mapping[str, tuple[int, int]], durations: Mapping[str, float]) -> str | None:
    """That rates differ among the videos by more than frame rates do; None where all have the same number of rows."""
    seconds = sorted((durations[video] / rows, video) for video, (rows, _) in shapes.items() if rows >= _MANY)
    if len({shapes[video][0] for _, video in seconds}) < 2:
        return None
    some = len(seconds) // 10
    (least, fine), (most, coarse) = seconds[some], seconds[-1 - some]
    if most < RATES**2 * least:
        return None
    return (
        f"rows were taken at several rates: {least:.3g} s a row in video {fine!r} ({shapes[fine][0]:,} rows for its "
        f"{durations[fine]:g} s), {most:.3g} s a row in video {coarse!r} ({shapes[coarse][0]:,} rows for its "
        f"{durations[coarse]:g} s)"
    )


def shape_problems(shapes: Mapping[str, tuple[int, int]], dim: int | None = None) -> list[str]:
    """What is wrong with the shapes of videos: rows and columns swapped, or widths that differ (unless `dim` is known).

    Example:
        >>> shape_problems({"a": (48, 58), "b": (48, 62)})
        ['rows and columns look swapped: the videos have 58, 62 columns and 48 rows everywhere, expected (T, D)']
        >>> shape_problems({"a": (58, 48), "b": (62, 48)})
        []
    """
    widths = Counter(width for _, width in shapes.values())
    heights = Counter(rows for rows, _ in shapes.values())
    varied = len(heights) == 1 and len(widths) > 1
    if varied or (dim is not None and set(heights) == {dim} and dim not in widths):
        columns = listed([str(width) for width in dict.fromkeys(width for _, width in shapes.values())], 5)
        return [
            f"{_SWAPPED}: the videos have {columns} columns and {next(iter(heights))} rows "
            "everywhere, expected (T, D)"
        ]
    if len(widths) < 2 or dim is not None:  # then each video's is compared with it
        return []
    example = {width: video for video, (_, width) in reversed(list(shapes.items()))}
    usual = widths.most_common(1)[0][0]
    told = [
        f"{width} columns ({counted(count, 'video')}, as {example[width]!r})"
        for width, count in widths.most_common()
    ]
    swapped = [video for video, (rows, width) in shapes.items() if width != usual and rows == usual]
    said = f"widths differ: {listed(told, 5)}"
    if swapped:
        said += f"; {_SWAPPED} in {listed([repr(video) for video in swapped], _EXAMPLES)}"
    return [said]
