"""Shards: vectors of some videos in a memory-mapped array, with a table of ids, durations and block checksums.

A shard is two files, ``<name>.npy`` with ``(n, P, K * D)`` and ``<name>.json``. Neither is ever changed.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfmr.index.manifest import Manifest, ShardEntry
from vmr_common.errors import UserError
from vmr_common.files import atomic_path, sha256, write_text

BLOCK = 64
"""Videos that are checked, and scored, together."""

_COLUMNS = 1024


class Shard:
    """An open shard: mapped, not read.

    Args:
        folder: Where its files are.
        entry: What the manifest says of it.
        manifest: Of the index.

    Raises:
        UserError: if a file is missing, has another size or header, or the table is damaged.
    """

    def __init__(self, folder: Path, entry: ShardEntry, manifest: Manifest) -> None:
        self.entry = entry
        self.path = folder / f"{entry.name}.npy"
        self.table_path = folder / f"{entry.name}.json"
        shape = (entry.videos, len(manifest.moments), manifest.size)
        try:
            found = os.stat(self.path)
            raw = self.table_path.read_bytes()
        except FileNotFoundError as error:
            raise MissingShard(f"{error.filename}: missing, but the index lists it") from None
        except OSError as error:
            raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
        if found.st_size != entry.size:
            raise UserError(
                f"{self.path}: {found.st_size} bytes, the index says {entry.size}: cut short or changed"
            )
        if hashlib.sha256(raw).hexdigest() != entry.table_sha256:
            raise UserError(f"{self.table_path}: damaged, its checksum does not fit the index")
        self._raw_table = raw
        try:
            # copy-on-write: nobody writes, and torch takes the array without a warning
            self.vectors: NDArray[Any] = np.load(self.path, mmap_mode="c", allow_pickle=False)
        except FileNotFoundError as error:  # compaction took it away since the first look
            raise MissingShard(f"{error.filename}: missing, but the index lists it") from None
        except (ValueError, EOFError, OSError) as error:
            raise UserError(f"{self.path}: damaged, not an array ({error})") from None
        if self.vectors.shape != shape or self.vectors.dtype != np.dtype(manifest.dtype):
            raise UserError(
                f"{self.path}: {self.vectors.dtype} {self.vectors.shape}, the index says {manifest.dtype} {shape}"
            )
        self.live = np.ones(entry.videos, dtype=np.bool_)
        self.live[list(entry.removed)] = False
        self._checked = np.zeros(-(-entry.videos // BLOCK), dtype=np.bool_)
        self._stamp = (found.st_ino, found.st_size, found.st_mtime_ns)

    @functools.cached_property
    def table(self) -> dict[str, Any]:
        """`videos` (ids), `durations` (seconds) and `sums` (a checksum per block)."""
        values: dict[str, Any] = json.loads(self._raw_table)
        return values

    @functools.cached_property
    def rows(self) -> dict[str, int]:
        """Row by id of the videos that were not removed."""
        return {video: row for row, video in enumerate(self.table["videos"]) if self.live[row]}

    def _stat(self) -> tuple[int, int, int]:
        try:
            found = os.stat(self.path)
        except OSError:
            return self._stamp  # replaced by compaction; what is mapped stays whole
        return found.st_ino, found.st_size, found.st_mtime_ns

    def recheck_if_touched(self) -> None:
        """Forgets which blocks were found whole if the file was written to since.

        Raises:
            UserError: if it has another size now (reading past its end would kill the process).
        """
        stamp = self._stat()
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
            if block_sum(vectors) != self.table["sums"][number]:
                first = self.table["videos"][number * BLOCK]
                raise UserError(f"{self.path}: damaged, the vectors from video {first!r} on were changed")
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
        if sha256(self.path) != self.entry.vectors_sha256:
            raise UserError(f"{self.path}: damaged, its checksum does not fit the index")
        for number in range(self.blocks()):
            self.block(number)


class MissingShard(UserError):  # noqa: N818 - the name says what is wrong
    """A listed shard is not there: the index was damaged, or changed between two looks."""


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
        raise UserError(f"video {videos[row]!r}: the model's vectors are not finite")
    sums = [block_sum(vectors[start : start + BLOCK]) for start in range(0, len(vectors), BLOCK)]
    table = {"videos": list(videos), "durations": [float(d) for d in durations], "sums": sums}
    text = json.dumps(table)
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
