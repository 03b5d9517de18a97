"""Changing an index: one writer at a time, new files first, then one swap of the manifest."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfmr.index.manifest import Manifest, read_manifest, write_manifest
from cfmr.index.shards import Shard, write_shard
from vmr_common.errors import UserError

SHARDS = "shards"
MODEL = "model.safetensors"
_LOCK = ".lock"


class Writer:
    """Holds an index for writing until it is closed (or the process ends, however it does).

    Args:
        folder: Of the index; created if it is not there.

    Raises:
        UserError: if another process is writing to it, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards = folder / SHARDS
        try:
            self.shards.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise UserError(f"{folder}: another process is writing to this index") from None

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets others write."""
        os.close(self._lock)

    def commit(self, manifest: Manifest) -> None:
        """Makes a manifest the state of the index, on the disk and for every reader that opens it from now on."""
        write_manifest(self.folder, manifest)

    def sweep(self) -> None:
        """Deletes shards that the manifest does not list: left by a killed writer, or replaced.

        Readers keep what they have opened; one that is just opening looks at the manifest again.
        """
        listed = {shard.name for shard in read_manifest(self.folder).shards}
        left = [path for path in self.shards.iterdir() if path.name.split(".")[0] not in listed]
        for path in [*left, *self.folder.glob(".*.partial")]:  # with the temporary files of `atomic_path`
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def removed(manifest: Manifest, folder: Path, videos: Sequence[str]) -> Manifest:
    """The manifest without some videos; a shard of which none is left is dropped.

    Raises:
        UserError: naming the first video that the index does not hold.
    """
    wanted, entries = set(videos), []
    for entry in manifest.shards:
        shard = Shard(folder / SHARDS, entry, manifest)
        rows = {shard.rows[video] for video in wanted & shard.rows.keys()}
        wanted -= shard.rows.keys()
        gone = tuple(sorted({*entry.removed, *rows}))
        if len(gone) < entry.videos:
            entries.append(dataclasses.replace(entry, removed=gone))
    if wanted:
        missing = next(video for video in videos if video in wanted)
        raise UserError(f"{folder}: holds no video {missing!r}")
    return dataclasses.replace(manifest, shards=tuple(entries))


def compacted(manifest: Manifest, writer: Writer, shard_videos: int) -> Manifest:
    """The manifest of the same videos in full shards, which are written first."""
    entries = [
        write_shard(writer.shards, videos, durations, vectors)
        for videos, durations, vectors in _regrouped(manifest, writer.folder, shard_videos)
    ]
    return dataclasses.replace(manifest, shards=tuple(entries))


def _regrouped(
    manifest: Manifest, folder: Path, size: int
) -> Iterator[tuple[list[str], list[float], NDArray[Any]]]:
    videos: list[str] = []
    durations: list[float] = []
    parts: list[NDArray[Any]] = []
    for entry in manifest.shards:
        shard = Shard(folder / SHARDS, entry, manifest)
        rows = np.flatnonzero(shard.live)
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            videos += [shard.table["videos"][row] for row in part.tolist()]
            durations += [shard.table["durations"][row] for row in part.tolist()]
            parts.append(shard.gather(part))
            while len(videos) >= size:
                joined = np.concatenate(parts)
                yield videos[:size], durations[:size], joined[:size]
                videos, durations, parts = videos[size:], durations[size:], [joined[size:]]
    if videos:
        yield videos, durations, np.concatenate(parts)
