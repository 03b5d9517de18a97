"""Feature files of any layout into one HDF5 file without compression, resumable after a crash."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np

from vmr_common.boundary import boundary
from vmr_common.errors import UserError
from vmr_common.features.checks import Features
from vmr_common.features.folder import SUFFIXES
from vmr_common.features.lmdb import DATA_FILE
from vmr_common.features.manifest import Manifest
from vmr_common.features.store import FeatureStore, write_features
from vmr_common.parts_folder import PartsKind, parts_folder

PART_SIZE = 64  # videos between two points from which a conversion can go on

Value = TypeVar("Value")
ValueRead = TypeVar("ValueRead", covariant=True)


class _Store(Protocol[ValueRead]):
    """A store of values of one kind, by their ids."""

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
    """Writes the features of a store into one HDF5 file (see `write_features`); returns the number of videos written.

    Finished parts of 64 videos are kept in a hidden folder beside `out` until the file is whole: a conversion that was
    killed goes on from there when it is called again. Parts are compared with the sources, value by value, before they
    are used, so that what was changed meanwhile is converted as it is now. All `videos` are converted by default;
    `step` is called with the number of videos that were just finished.
    """
    write = functools.partial(write_features, manifest=manifest, dtype=dtype)
    conversion = Conversion("video", Path(out), dtype, write, FeatureStore, PART_SIZE, step)
    return conversion.run(store, store.paths, store.videos() if videos is None else videos)


@dataclasses.dataclass(frozen=True)
class Conversion(Generic[Value]):
    """Writes values part by part, then joins the parts."""

    noun: str  # what a value is of, for messages
    out: Path  # the file
    dtype: str  # `float32` or `float16`
    write: _Write[Value]  # writes a file of such values, with the manifest and as the dtype
    reopen: Callable[[Path], _Store[Value]]  # opens a file that `write` wrote
    part_size: int  # values per part
    step: Callable[[int], object] | None  # called with the number of values that were just finished

    def run(self, store: _Store[Value], sources: Sequence[Path], ids: Iterable[str]) -> int:
        """Converts the values of these ids, each once, and returns their number.

        Parts that hold what the sources hold now are not made again. `sources` are the files and folders of the store.
        """
        wanted = list(dict.fromkeys(ids))
        if not wanted:
            raise UserError(f"{store.name}: no {self.noun} to convert")
        if any(path.resolve() == self.out.resolve() for path in sources):
            raise UserError(f"{self.out}: the conversion would overwrite its own source")
        unchanged = _Unchanged(sources, self.out)
        # what is written through, a device say, has no place for a folder beside it
        special = self.out.exists() and not self.out.is_file()
        if special or (len(wanted) <= self.part_size and not (_folder_of(self.out) / _PARTS.note).is_file()):
            return self.write(self.out, unchanged.at_the_end(self._counted(store, wanted)))
        with parts_folder(_folder_of(self.out), _PARTS, f"converting to {self.out.name}") as folder:
            parts = []
            for start in range(0, len(wanted), self.part_size):
                chosen = wanted[start : start + self.part_size]
                path = folder / f"{start // self.part_size:06d}.h5"
                parts.append((path, chosen))
                if path.exists() and self._holds(path, store, chosen):
                    self._finished(len(chosen))
                else:
                    self.write(path, self._counted(store, chosen))
            return self.write(self.out, unchanged.at_the_end(self._joined(parts)))

    def _holds(self, path: Path, store: _Store[Value], keys: Sequence[str]) -> bool:
        """True if a part holds, value by value, what its sources hold now: what they were made from may be gone."""
        try:
            kept = self.reopen(path)
        except UserError:  # damaged
            return False
        with contextlib.closing(kept):
            return all(_same(kept, key, store[key], self.dtype) for key in keys)

    def _finished(self, count: int) -> None:
        if self.step is not None:
            self.step(count)

    def _counted(self, store: _Store[Value], wanted: Iterable[str]) -> Iterator[tuple[str, Value]]:
        for key in wanted:
            yield key, store[key]
            self._finished(1)

    def _joined(self, parts: Iterable[tuple[Path, Sequence[str]]]) -> Iterator[tuple[str, Value]]:
        for path, keys in parts:
            with contextlib.closing(self.reopen(path)) as finished:
                for key in keys:
                    yield key, finished[key]


def _same(store: _Store[Value], key: str, found: Value, dtype: str) -> bool:
    """True if a part holds the arrays that were found now, or these rounded to what they are stored as."""
    try:
        kept = store[key]
    except UserError:  # of another conversion, or damaged
        return False
    pairs = zip(_arrays(kept), _arrays(found), strict=True)
    return all(
        one is other or (one is not None and other is not None and _equal(one, other, dtype))
        for one, other in pairs
    )


def _equal(kept: Features, found: Features, dtype: str) -> bool:
    if kept.shape != found.shape:
        return False
    with np.errstate(over="ignore"):
        rounded = found.astype(dtype).astype(np.float32)
    # bit by bit, so that 0 and -0 differ
    bits = kept.view(np.uint32)
    return np.array_equal(bits, found.view(np.uint32)) or np.array_equal(bits, rounded.view(np.uint32))


def _arrays(value: object) -> list[Features | None]:
    """The arrays that a value of any kind consists of."""
    if isinstance(value, np.ndarray):
        return [value]
    return list(vars(value).values())


class _Unchanged:
    """State of the sources when a conversion to `out` began: their sizes and the times of their last changes.

    A folder around `out` changes by the conversion itself.
    """

    def __init__(self, sources: Sequence[Path], out: Path) -> None:
        self._out = out.resolve()
        self._before = {path: self._states(path) for path in sources}

    def at_the_end(self, items: Iterator[tuple[str, Value]]) -> Iterator[tuple[str, Value]]:
        """The items, then an error if a source is not what it was; files that came new into a folder do not count."""
        yield from items
        for path, before in self._before.items():
            now = self._states(path)
            changed = [name for name, state in before.items() if now.get(name) != state]
            if changed:
                raise UserError(
                    f"{path / changed[0]}: changed while it was converted; convert again when nobody writes there"
                )

    def _states(self, path: Path) -> dict[str, tuple[int, int]]:
        """Of a source, or of every file and folder in one that may be read."""
        with boundary(f"cannot read {path}"):
            if not path.is_dir():
                return {"": _state(path)}
            with os.scandir(path.resolve()) as entries:
                return {entry.name: _state(entry) for entry in entries if self._is_source(entry)}

    def _is_source(self, entry: os.DirEntry[str]) -> bool:
        if entry.is_dir():
            return not (entry.name.startswith(".") or self._out.is_relative_to(entry.path))
        return entry.is_file() and (entry.name == DATA_FILE or entry.name.endswith(SUFFIXES))


def _state(path: Path | os.DirEntry[str]) -> tuple[int, int]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns


# --- the hidden folder of finished parts ---

_PARTS = PartsKind(
    work="a conversion",
    note="conversion.json",
    what="finished parts of a conversion by vmr-data convert, deleted when it is done",
    part=re.compile(r"\d{6,}\.h5"),
)


def _folder_of(out: Path) -> Path:
    """The folder of the parts of the conversion to `out`."""
    return out.with_name(f".{out.name}.parts")
