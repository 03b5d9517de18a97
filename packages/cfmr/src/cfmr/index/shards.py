"""Shards: vectors of some videos in a memory-mapped array, with a table of ids, durations and block checksums.

A shard is two files, ``<name>.npy`` with ``(n, P, K * D)`` and ``<name>.json``. Neither is ever changed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import math
import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from cfmr.index.manifest import Manifest, ShardEntry, opened, read_at_most
from vmr_common.boundary import boundary, reason
from vmr_common.cli.entrypoint import option_words
from vmr_common.errors import UserError, quoted, shortened
from vmr_common.io import atomic_path, parse_json, sha256, write_text
from vmr_common.schema import conform
from vmr_common.timeline import LEAST_DURATION, MOST_SECONDS

BLOCK = 64
"""Videos that are checked, and scored, together."""

_COLUMNS = 1024
_EXPONENTS = {2: 0x7C00, 4: 0x7F800000}  # of float16 and float32: all ones in NaN and infinity


class Table(TypedDict):
    """The table of a shard: ids, seconds, and a checksum per block."""

    videos: list[str]
    durations: list[float]
    sums: list[str]


class Shard:
    """An open shard: mapped, not read. The mapping needs no file descriptor and outlives the file.

    Args:
        folder: Where its files are.
        entry: What the manifest says of it.
        manifest: Of the index.

    Raises:
        UserError: if a file is missing, has another size or header, the table is damaged, or the system maps no
            more files.
    """

    def __init__(self, folder: Path, entry: ShardEntry, manifest: Manifest) -> None:
        self.entry = entry
        self.path = folder / f"{entry.name}.npy"
        self.table_path = folder / f"{entry.name}.json"
        with _opened(self.table_path) as file:
            self._raw_table = read_at_most(file, _most_bytes(entry.videos), self.table_path)
        if hashlib.sha256(self._raw_table).hexdigest() != entry.table_sha256:
            raise UserError(f"{self.table_path}: damaged, its checksum does not fit the index")
        shape = (entry.videos, len(manifest.moments), manifest.size)
        self._stamp, self._bytes, self.vectors = _mapped(
            self.path, entry.size, shape, np.dtype(manifest.dtype)
        )
        self.live = np.ones(entry.videos, dtype=np.bool_)
        self.live[list(entry.removed)] = False
        self._checked = np.zeros(-(-entry.videos // BLOCK), dtype=np.bool_)

    @functools.cached_property
    def table(self) -> Table:
        """The table, checked against its schema.

        Raises:
            UserError: if it is not a table of so many videos; names the key.
        """
        values = _parse_table(self._raw_table, self.table_path, self.entry.videos)
        self._raw_table = b""
        return values

    @functools.cached_property
    def rows(self) -> dict[str, int]:
        """Row by id of the videos that were not removed."""
        return {video: row for row, video in enumerate(self.table["videos"]) if self.live[row]}

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
                raise UserError(f"{self.path}: {stamp[1]} bytes, the index says {self.entry.size}: cut short")
            self._checked[:] = False
            self._stamp = stamp

    def block(self, number: int) -> NDArray[Any]:
        """The vectors of a block ``(n, P, K * D)``, checked when it is first read.

        Raises:
            UserError: if they are not what was written.
        """
        vectors = self.vectors[number * BLOCK : (number + 1) * BLOCK]
        if not self._checked[number]:
            first = quoted(self.table["videos"][number * BLOCK])
            if block_sum(vectors) != self.table["sums"][number]:
                raise UserError(f"{self.path}: damaged, the vectors from video {first} on were changed")
            if not _finite(vectors):
                raise UserError(f"{self.path}: the vectors from video {first} on hold NaN or infinity")
            self._checked[number] = True
        return vectors

    def blocks(self) -> int:
        """Number of blocks."""
        return len(self._checked)

    def gather(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Copies of the vectors of some rows ``(n, P, K * D)``, from checked blocks."""
        for number in np.unique(rows // BLOCK).tolist():
            self.block(number)
        found: NDArray[Any] = self.vectors[rows]
        return found

    def verify(self) -> None:
        """Reads every byte; raises `UserError` if the file is not what was written."""
        self.recheck_if_touched()
        if hashlib.sha256(self._bytes.data).hexdigest() != self.entry.vectors_sha256:
            raise UserError(f"{self.path}: damaged, its checksum does not fit the index")
        for number in range(self.blocks()):
            self.block(number)


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


def _most_bytes(videos: int) -> int:
    """Bytes that the table of so many videos may have: far more than their ids need."""
    return (1 << 20) + 4096 * videos


def _parse_table(raw: bytes, path: Path, videos: int) -> Table:
    with boundary(f"{path}: not UTF-8 text"):
        text = raw.decode()
    table: Table = conform(parse_json(text, str(path)), Table, str(path))
    lengths = {"videos": videos, "durations": videos, "sums": -(-videos // BLOCK)}
    for key, length in lengths.items():
        if len(table[key]) != length:  # type: ignore[literal-required]
            raise UserError(f"{path}: key {key!r} holds {len(table[key])} entries, expected {length}")  # type: ignore[literal-required]
    if len(set(table["videos"])) < videos:
        raise UserError(f"{path}: key 'videos' holds an id twice")
    wrong = next((found for found in table["durations"] if not LEAST_DURATION <= found <= MOST_SECONDS), None)
    if wrong is not None:
        raise UserError(f"{path}: key 'durations' holds {quoted(wrong)}, expected positive seconds")
    return table


def _mapped(
    path: Path, size: int, shape: tuple[int, ...], dtype: np.dtype[Any]
) -> tuple[_Stamp, NDArray[np.uint8], NDArray[Any]]:
    """State of the file, all its bytes, and the array in it, after its size and header are as the index says."""
    with _opened(path) as file:
        found = _stamp(os.fstat(file.fileno()))
        if found[1] != size:
            raise UserError(f"{path}: {found[1]} bytes, the index says {size}: cut short or changed")
        with boundary(f"{path}: damaged, not an array"):
            np.lib.format.read_magic(file)
            stored, by_column, stored_dtype = np.lib.format.read_array_header_1_0(file)
        start = file.tell()
    if stored != shape or stored_dtype != dtype or by_column:
        found_type = shortened(str(stored_dtype), 60) + (" by column" if by_column else "")
        raise UserError(f"{path}: {found_type} {quoted(stored)}, the index says {dtype} {shape}")
    if start % dtype.itemsize or start + math.prod(shape) * dtype.itemsize != size:
        raise UserError(f"{path}: damaged, {size} bytes for {dtype} {shape}")
    try:
        # private: nobody writes, and the descriptor is closed, where that of `numpy.memmap` stays open
        content = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8).numpy()
    except RuntimeError as error:
        if not path.exists():  # compaction took it away since the first look
            raise MissingShard(f"{path}: missing, but the index lists it") from None
        raise UserError(
            f"{path}: cannot be mapped ({reason(error)}); if the system maps no more files, merge the shards of this "
            f"index with {shlex.join(['cfmr-index', *option_words('--out', str(path.parent.parent)), '--compact'])}"
        ) from None
    return found, content, content[start:].view(dtype).reshape(shape)


def _finite(vectors: NDArray[Any]) -> bool:
    """True if all are finite, at the speed of memory (numpy's own test of float16 takes eight times as long)."""
    bits = vectors.view(f"u{vectors.itemsize}")
    exponent = _EXPONENTS[vectors.itemsize]
    return not bool(((bits & exponent) == exponent).any())


def block_sum(vectors: NDArray[Any]) -> str:
    """A checksum at the speed of memory: sums of 64-bit words per column of 8 KiB rows, hashed.

    Any one changed word is found; so is nearly everything else that is not made on purpose.
    """
    raw = np.ascontiguousarray(vectors).reshape(-1).view(np.uint8)
    whole = len(raw) // (8 * _COLUMNS) * 8 * _COLUMNS
    columns = raw[:whole].view(np.uint64).reshape(-1, _COLUMNS).sum(axis=0, dtype=np.uint64)
    digest = hashlib.blake2b(columns.tobytes(), digest_size=12)
    digest.update(raw[whole:].tobytes())
    return digest.hexdigest()


def write_shard(
    folder: Path, videos: Sequence[str], durations: Sequence[float], vectors: NDArray[Any]
) -> ShardEntry:
    """Writes the two files of a shard; nobody sees them before a manifest lists them.

    Args:
        folder: Of the shards.
        videos: n ids.
        durations: Their lengths, seconds.
        vectors: ``(n, P, K * D)`` float16 or float32.

    Raises:
        UserError: if they cannot be written, or a vector is not finite.
    """
    vectors = np.ascontiguousarray(vectors)
    if not np.isfinite(vectors).all():
        row = int(np.flatnonzero(~np.isfinite(vectors).all(axis=(1, 2)))[0])
        raise UserError(f"video {quoted(videos[row])}: the model's vectors are not finite")
    sums = [block_sum(vectors[start : start + BLOCK]) for start in range(0, len(vectors), BLOCK)]
    table = {"videos": list(videos), "durations": [float(d) for d in durations], "sums": sums}
    text = json.dumps(table)
    if len(text) > _most_bytes(len(videos)):
        raise UserError(f"the ids of {len(videos)} videos take {len(text):,} bytes, expected shorter ids")
    table_sha256 = hashlib.sha256(text.encode()).hexdigest()
    name = table_sha256[:24]  # the table holds the checksums of the vectors
    path = folder / f"{name}.npy"
    with atomic_path(path) as temporary:
        with temporary.open("wb") as file:
            np.lib.format.write_array(file, vectors, allow_pickle=False)
        digest, size = sha256(temporary), temporary.stat().st_size
    write_text(folder / f"{name}.json", text)
    return ShardEntry(
        name=name, videos=len(videos), size=size, vectors_sha256=digest, table_sha256=table_sha256
    )
