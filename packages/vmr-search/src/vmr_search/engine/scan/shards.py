"""Shards: the windows of some videos in a memory-mapped file, with a table of ids, durations and checksums.

A shard is two files. ``<name>.bin`` holds all vectors ``(rows, size)`` of the index's type, then start and end of all
windows ``(rows, 2)`` float64, little-endian, the rows of a video in a run; ``<name>.json`` is the table. Neither is
ever changed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from vmr_common.boundary import boundary, reason
from vmr_common.errors import UserError, quoted
from vmr_common.io import atomic_path, parse_json, sha256, write_text
from vmr_common.schema import conform
from vmr_common.timeline import LEAST_DURATION, MOST_SECONDS
from vmr_search.engine.moment_index import VideoWindows
from vmr_search.engine.scan.manifest import Manifest, ShardEntry
from vmr_search.index_files import opened, read_at_most

BLOCK = 1024
"""Rows that are checked together."""

_COLUMNS = 1024
_EXPONENTS = {2: 0x7C00, 4: 0x7F800000}  # of float16 and float32: all ones in NaN and infinity


class Table(TypedDict):
    """The table of a shard.

    Attributes:
        videos: Ids.
        durations: Seconds.
        windows: How many each video has.
        norm: Length of the longest vector.
        sums: A checksum per block.
    """

    videos: list[str]
    durations: list[float]
    windows: list[int]
    norm: float
    sums: list[str]


class Shard:
    """An open shard: mapped, not read. The mapping needs no file descriptor and outlives the file.

    Args:
        folder: Where its files are.
        entry: What the manifest says of it.
        manifest: Of the index.

    Raises:
        UserError: if a file is missing or has another size, the table is damaged, or the system maps no more files.
    """

    def __init__(self, folder: Path, entry: ShardEntry, manifest: Manifest) -> None:
        self.entry = entry
        self.path = folder / f"{entry.name}.bin"
        self.table_path = folder / f"{entry.name}.json"
        with _opened(self.table_path) as file:
            self._raw_table = read_at_most(file, _most_bytes(entry.videos, entry.rows), self.table_path)
        if hashlib.sha256(self._raw_table).hexdigest() != entry.table_sha256:
            raise UserError(f"{self.table_path}: damaged, its checksum does not fit the index")
        self.bytes = entry.rows * manifest.row_bytes()
        self._stamp, self._content = _mapped(self.path, self.bytes)
        split = self.bytes - 16 * entry.rows
        self.vectors: NDArray[Any] = self._content[:split].view(manifest.dtype).reshape(-1, manifest.size)
        self.windows: NDArray[np.float64] = self._content[split:].view(np.float64).reshape(-1, 2)
        self.live = np.ones(entry.videos, dtype=np.bool_)
        self.live[list(entry.removed)] = False
        self._checked = np.zeros(-(-entry.rows // BLOCK), dtype=np.bool_)
        self._parsing = threading.Lock()

    @functools.cached_property
    def table(self) -> Table:
        """The table, checked against its schema.

        Raises:
            UserError: if it is not a table of so many videos; names the key.
        """
        with self._parsing:
            if self._raw_table:
                self._parsed = _parse_table(self._raw_table, self.table_path, self.entry)
                self._raw_table = b""
            return self._parsed

    @functools.cached_property
    def starts(self) -> NDArray[np.int64]:
        """First row of each video, and the number of rows ``(videos + 1,)``."""
        return np.concatenate([[0], np.cumsum(self.table["windows"], dtype=np.int64)])

    @functools.cached_property
    def numbers(self) -> dict[str, int]:
        """Number by id of the videos that were not removed."""
        return {video: number for number, video in enumerate(self.table["videos"]) if self.live[number]}

    def recheck_if_touched(self) -> None:
        """Forgets which blocks were found whole if the file was written to since.

        Raises:
            UserError: if it has another size now (reading past its end would kill the process).
        """
        try:
            stamp = _stamp(os.stat(self.path))
        except OSError:
            return  # replaced by compaction; what is mapped stays whole
        if stamp != self._stamp and stamp[0] == self._stamp[0]:
            if stamp[1] != self._stamp[1]:
                raise UserError(f"{self.path}: {stamp[1]} bytes, the index says {self.bytes}: cut short")
            self._checked[:] = False
            self._stamp = stamp

    def check(self, first: int, last: int) -> None:
        """Checks the blocks with rows `first` to `last`, this one excluded, that were not checked before.

        Raises:
            UserError: if they are not what was written.
        """
        for number in range(first // BLOCK, -(-last // BLOCK)):
            if not self._checked[number]:
                self._check_block(number)
                self._checked[number] = True

    def _check_block(self, number: int) -> None:
        rows = slice(number * BLOCK, (number + 1) * BLOCK)
        vectors, windows = self.vectors[rows], self.windows[rows]
        whole = block_sum(vectors, windows) == self.table["sums"][number]
        finite = _finite(vectors) and bool(
            ((windows[:, 0] >= 0) & (windows[:, 0] <= windows[:, 1]) & (windows[:, 1] <= MOST_SECONDS)).all()
        )
        if not (whole and finite):
            video = int(np.searchsorted(self.starts, number * BLOCK, side="right")) - 1
            first = quoted(self.table["videos"][video])
            if not whole:
                raise UserError(f"{self.path}: damaged, the vectors from video {first} on were changed")
            raise UserError(f"{self.path}: the vectors from video {first} on hold NaN or infinity")

    def rows_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """All rows of some videos, one video after the other."""
        first, count = self.starts[numbers], self.starts[numbers + 1] - self.starts[numbers]
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        found: NDArray[np.int64] = np.repeat(first, count) + within
        return found

    def gather(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Copies of the vectors of some rows, from checked blocks."""
        for number in np.unique(rows // BLOCK).tolist():
            self.check(number * BLOCK, number * BLOCK + 1)
        found: NDArray[Any] = self.vectors[rows]
        return found

    def video(self, number: int) -> VideoWindows:
        """A video, from checked blocks; its arrays are those of the file."""
        first, last = self.starts[number : number + 2].tolist()
        self.check(first, last)
        table = self.table
        return VideoWindows(
            table["videos"][number],
            table["durations"][number],
            self.windows[first:last],
            self.vectors[first:last],
        )

    def all_live(self) -> Iterator[VideoWindows]:
        """Its videos that were not removed."""
        return map(self.video, np.flatnonzero(self.live).tolist())

    def verify(self) -> None:
        """Reads every byte; raises `UserError` if the file is not what was written."""
        self.recheck_if_touched()
        if hashlib.sha256(self._content.data).hexdigest() != self.entry.sha256:
            raise UserError(f"{self.path}: damaged, its checksum does not fit the index")
        self.check(0, self.entry.rows)


class MissingShard(UserError):  # noqa: N818 - the name says what is wrong
    """A listed shard is not there: the index was damaged, or changed between two looks."""


_Stamp = tuple[int, int, int]


def _stamp(found: os.stat_result) -> _Stamp:
    return found.st_ino, found.st_size, found.st_mtime_ns


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with opened(path) as file:
            yield file
    except FileNotFoundError:
        raise MissingShard(f"{path}: missing, but the index lists it") from None


def _most_bytes(videos: int, rows: int) -> int:
    """Bytes that the table of so many videos may have: far more than their ids need."""
    return (1 << 20) + 4096 * videos + rows


def _parse_table(raw: bytes, path: Path, entry: ShardEntry) -> Table:
    with boundary(f"{path}: not UTF-8 text"):
        text = raw.decode()
    table: Table = conform(parse_json(text, str(path)), Table, str(path))
    blocks = -(-entry.rows // BLOCK)
    lengths = {"videos": entry.videos, "durations": entry.videos, "windows": entry.videos, "sums": blocks}
    for key, length in lengths.items():
        if len(table[key]) != length:  # type: ignore[literal-required]
            raise UserError(f"{path}: key {key!r} holds {len(table[key])} entries, expected {length}")  # type: ignore[literal-required]
    if len(set(table["videos"])) < entry.videos:
        raise UserError(f"{path}: key 'videos' holds an id twice")
    wrong = next((found for found in table["durations"] if not LEAST_DURATION <= found <= MOST_SECONDS), None)
    if wrong is not None:
        raise UserError(f"{path}: key 'durations' holds {quoted(wrong)}, expected positive seconds")
    if min(table["windows"]) < 1 or sum(table["windows"]) != entry.rows:
        raise UserError(f"{path}: key 'windows' counts other windows than the {entry.rows} of the index")
    if not table["norm"] >= 0:
        raise UserError(f"{path}: key 'norm': found {quoted(table['norm'])}, expected a length")
    return table


def _mapped(path: Path, size: int) -> tuple[_Stamp, NDArray[np.uint8]]:
    """State of the file and all its bytes, after its size is as the index says."""
    with _opened(path) as file:
        found = _stamp(os.fstat(file.fileno()))
    if found[1] != size:
        raise UserError(f"{path}: {found[1]} bytes, the index says {size}: cut short or changed")
    try:
        # private: nobody writes, and the descriptor is closed, where that of `numpy.memmap` stays open
        content = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
    except RuntimeError as error:
        if not path.exists():  # compaction took it away since the first look
            raise MissingShard(f"{path}: missing, but the index lists it") from None
        raise UserError(
            f"{path}: cannot be mapped ({reason(error)}); if the system maps no more files, compact the index"
        ) from None
    return found, content


def _finite(vectors: NDArray[Any]) -> bool:
    """True if all are finite, at the speed of memory (numpy's own test of float16 takes eight times as long)."""
    bits = vectors.view(f"u{vectors.itemsize}")
    exponent = _EXPONENTS[vectors.itemsize]
    return not bool(((bits & exponent) == exponent).any())


def block_sum(vectors: NDArray[Any], windows: NDArray[np.float64]) -> str:
    """A checksum at the speed of memory: sums of 64-bit words per column of 8 KiB rows, hashed with the windows.

    Any one changed word is found; so is nearly everything else that is not made on purpose.
    """
    raw = np.ascontiguousarray(vectors).reshape(-1).view(np.uint8)
    whole = len(raw) // (8 * _COLUMNS) * 8 * _COLUMNS
    columns = raw[:whole].view(np.uint64).reshape(-1, _COLUMNS).sum(axis=0, dtype=np.uint64)
    digest = hashlib.blake2b(columns.tobytes(), digest_size=12)
    digest.update(raw[whole:].tobytes())
    digest.update(windows.tobytes())
    return digest.hexdigest()


def write_shard(folder: Path, videos: Sequence[VideoWindows]) -> ShardEntry:
    """Writes the two files of a shard; nobody sees them before a manifest lists them.

    Args:
        folder: Of the index.
        videos: At least one, their vectors finite and of the index's type.

    Raises:
        UserError: if they cannot be written.
    """
    vectors = np.concatenate([one.vectors for one in videos])
    windows = np.concatenate([one.windows for one in videos])
    blocks = [slice(start, start + BLOCK) for start in range(0, len(vectors), BLOCK)]
    norms = [np.linalg.norm(vectors[rows].astype(np.float32), axis=1).max() for rows in blocks]
    table = {
        "videos": [one.video for one in videos],
        "durations": [float(one.duration) for one in videos],
        "windows": [len(one.windows) for one in videos],
        "norm": float(max(norms)),
        "sums": [block_sum(vectors[rows], windows[rows]) for rows in blocks],
    }
    text = json.dumps(table)
    if len(text) > _most_bytes(len(videos), len(vectors)):
        raise UserError(f"the ids of {len(videos)} videos take {len(text):,} bytes, expected shorter ids")
    table_sha256 = hashlib.sha256(text.encode()).hexdigest()
    name = table_sha256[:24]  # the table holds the checksums of vectors and windows
    path = folder / f"{name}.bin"
    with atomic_path(path) as temporary:
        with temporary.open("wb") as file:
            file.write(vectors.data)
            file.write(windows.data)
        digest = sha256(temporary)
    write_text(folder / f"{name}.json", text)
    return ShardEntry(
        name=name, videos=len(videos), rows=len(vectors), sha256=digest, table_sha256=table_sha256
    )
