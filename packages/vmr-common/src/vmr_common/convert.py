"""Feature files of any layout into one HDF5 file without compression, resumable after a crash."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError
from vmr_common.features import FeatureStore, write_features
from vmr_common.files import write_text
from vmr_common.manifest import Facts, Manifest
from vmr_common.objects import ObjectFrames, ObjectManifest, ObjectStore, sampled_frames, write_objects
from vmr_common.query_features import QueryFeatureStore, write_query_features
from vmr_common.regions import BoxForm

PART_SIZE = 64  # videos between two points from which a conversion can go on
QUERIES_PART_SIZE = 4096  # likewise queries, which are small

Value = TypeVar("Value")
ValueRead = TypeVar("ValueRead", covariant=True)


class _Store(Protocol[ValueRead]):
    """What values of one kind are read from, by their ids."""

    @property
    def name(self) -> str: ...

    def __getitem__(self, key: str, /) -> ValueRead: ...

    def close(self) -> None: ...


_Write = Callable[[Path, Iterable[tuple[str, Value]]], int]


def convert_features(
    store: FeatureStore,
    out: str | Path,
    manifest: Manifest,
    *,
    dtype: str = "float32",
    videos: Sequence[str] | None = None,
    step: Callable[[int], object] | None = None,
) -> int:
    """Writes the features of a store into one HDF5 file (see `write_features`), streaming.

    Finished parts of 64 videos are kept in a hidden folder beside `out` until the file is whole: a conversion
    that was killed goes on from there when it is called again with the same arguments and unchanged sources.

    Args:
        store: Where features come from, of any layout or joined.
        out: The file.
        manifest: What made the features.
        dtype: ``float32`` or ``float16``.
        videos: Which videos, by default all.
        step: Called with the number of videos that were just finished.

    Returns:
        The number of videos written.

    Raises:
        UserError: if there is no video, one cannot be read, or the file cannot be written.
    """
    write = functools.partial(write_features, manifest=manifest, dtype=dtype)
    conversion = _Conversion("video", Path(out), manifest, dtype, write, FeatureStore, PART_SIZE, step)
    chosen = store.videos() if videos is None else videos
    return conversion.run(store, store.paths, chosen, [_sources(store.paths), store.keys])


def convert_query_features(
    store: QueryFeatureStore,
    out: str | Path,
    manifest: Manifest,
    *,
    dtype: str = "float32",
    queries: Sequence[str] | None = None,
    step: Callable[[int], object] | None = None,
) -> int:
    """Writes the features of queries into one HDF5 file (see `write_query_features`), as `convert_features` does.

    Args:
        store: Where features come from, of any layout.
        out: The file.
        manifest: What made the features.
        dtype: ``float32`` or ``float16``.
        queries: Ids of the queries, by default all.
        step: Called with the number of queries that were just finished.

    Returns:
        The number of queries written.

    Raises:
        UserError: if there is no query, one cannot be read, or the file cannot be written.
    """
    write = functools.partial(write_query_features, manifest=manifest, dtype=dtype)
    conversion = _Conversion(
        "query", Path(out), manifest, dtype, write, QueryFeatureStore, QUERIES_PART_SIZE, step
    )
    chosen = store.queries() if queries is None else queries
    return conversion.run(store, store.paths, chosen, ["queries", _sources(store.paths)])


class ObjectSource(Protocol):
    """What object features are read from: an `ObjectStore` or a `regions.RegionFolder`."""

    @property
    def name(self) -> str:
        """Where it lies, for messages."""

    @property
    def paths(self) -> list[Path]:
        """The files and folders."""

    @property
    def objects(self) -> int:
        """Object slots per frame."""

    def videos(self) -> list[str]:
        """The ids of all videos."""

    def length(self, video: str) -> int:
        """Number of frames of a video."""

    def read(self, video: str, frames: NDArray[np.int64] | None = None) -> ObjectFrames:
        """The objects of some frames, or of all."""

    def close(self) -> None:
        """Closes what is open."""


def convert_objects(
    source: ObjectSource,
    out: str | Path,
    manifest: ObjectManifest,
    *,
    dtype: str = "float16",
    frames: int | None = None,
    boxes: BoxForm | None = None,
    videos: Sequence[str] | None = None,
    step: Callable[[int], object] | None = None,
) -> int:
    """Writes object features into one HDF5 file (see `write_objects`), as `convert_features` does.

    Args:
        source: Where objects come from; it also says how many slots are kept.
        out: The file.
        manifest: What made the objects.
        dtype: ``float16`` or ``float32``.
        frames: Frames per video, taken by `sampled_frames`; None keeps those that there are.
        boxes: How the source gives boxes, which then become x1 y1 x2 y2 in fractions; None leaves them.
        videos: Which videos, by default all.
        step: Called with the number of videos that were just finished.

    Returns:
        The number of videos written.

    Raises:
        UserError: if there is no video, one cannot be read, or the file cannot be written.
    """
    options = [repr(value) for name, value in sorted(vars(source).items()) if not name.startswith("_")]
    options += [repr(value) for value in (source.objects, frames, boxes)]
    write = functools.partial(write_objects, manifest=manifest, dtype=dtype)
    conversion = _Conversion("video", Path(out), manifest, dtype, write, ObjectStore, PART_SIZE, step)
    chosen = source.videos() if videos is None else videos
    plan = ["objects", _sources(source.paths), options]
    return conversion.run(_Sampled(source, frames, boxes), source.paths, chosen, plan)


@dataclasses.dataclass(frozen=True)
class _Sampled:
    """Object features of a source, with so many frames per video and boxes in our form."""

    source: ObjectSource
    frames: int | None
    boxes: BoxForm | None

    @property
    def name(self) -> str:
        return self.source.name

    def __getitem__(self, video: str) -> ObjectFrames:
        rows = None if self.frames is None else sampled_frames(self.source.length(video), self.frames)
        found = self.source.read(video, rows)
        if self.boxes is None:
            return found
        where = f"{self.source.name}: video {video!r}"
        return dataclasses.replace(
            found, boxes=self.boxes.standard(found.boxes, found.confidence > 0, None, where)
        )

    def close(self) -> None:
        self.source.close()


@dataclasses.dataclass(frozen=True)
class _Conversion(Generic[Value]):
    """Writes values part by part, then joins the parts.

    Attributes:
        noun: What a value is of, for messages.
        out: The file.
        manifest: What made the values.
        dtype: ``float32`` or ``float16``.
        write: Writes a file of such values, with the manifest and as the dtype.
        reopen: Opens a file that `write` wrote.
        part_size: Values per part.
        step: Called with the number of values that were just finished.
    """

    noun: str
    out: Path
    manifest: Facts
    dtype: str
    write: _Write[Value]
    reopen: Callable[[Path], _Store[Value]]
    part_size: int
    step: Callable[[int], object] | None

    def run(
        self, store: _Store[Value], sources: Iterable[Path], ids: Iterable[str], plan: Sequence[object]
    ) -> int:
        """Converts the values of these ids; parts of the same plan that are there are not made again.

        Args:
            store: Gives the values.
            sources: The files and folders that they come from.
            ids: Of the values; one that comes again is left out.
            plan: What decides about a part, beside the ids and what the conversion itself holds.

        Returns:
            The number of values written.

        Raises:
            UserError: if there is no value, or the file is one of the sources.
        """
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            raise UserError(f"{store.name}: no {self.noun} to convert")
        if any(path.resolve() == self.out.resolve() for path in sources):
            raise UserError(f"{self.out}: the conversion would overwrite its own source")
        if len(wanted) <= self.part_size:
            return self.write(self.out, self._counted(store, wanted))
        folder = _parts_folder(self.out, json.dumps([*plan, *self._about(wanted), self.part_size]))
        parts = []
        for start in range(0, len(wanted), self.part_size):
            chosen = wanted[start : start + self.part_size]
            parts.append((folder / f"{start // self.part_size:06d}.h5", chosen))
            if parts[-1][0].exists():
                self._finished(len(chosen))
            else:
                self.write(parts[-1][0], self._counted(store, chosen))
        count = self.write(self.out, self._joined(parts))
        shutil.rmtree(folder)
        return count

    def _about(self, wanted: Sequence[str]) -> list[object]:
        """What a conversion consists of beside its sources: parts of another one are of no use."""
        digest = hashlib.sha256("\n".join(wanted).encode()).hexdigest()
        return [digest, dataclasses.asdict(self.manifest), self.dtype]

    def _finished(self, count: int) -> None:
        if self.step is not None:
            self.step(count)

    def _counted(self, store: _Store[Value], wanted: Iterable[str]) -> Iterator[tuple[str, Value]]:
        for key in wanted:
            yield key, store[key]
            self._finished(1)

    def _joined(self, parts: Iterable[tuple[Path, Sequence[str]]]) -> Iterator[tuple[str, Value]]:
        for path, keys in parts:
            with contextlib.closing(self.reopen(path)) as part:
                for key in keys:
                    yield key, part[key]


def _sources(paths: Iterable[Path]) -> list[tuple[str, int, int]]:
    return [(str(path.resolve()), *_state(path)) for path in paths]


def _state(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change of a source, over all files of a folder."""
    files = [path]
    if path.is_dir():
        files = [file for file in path.iterdir() if file.suffix in (".npy", ".npz", ".mdb") or file.is_dir()]
    stats = [file.stat() for file in files]
    return sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)


def _parts_folder(out: Path, plan: str) -> Path:
    folder = out.with_name(f".{out.name}.parts")
    note = folder / "plan.json"
    if not (note.is_file() and note.read_text(encoding="utf-8") == plan):
        shutil.rmtree(folder, ignore_errors=True)
        write_text(note, plan)
    return folder
