"""Changing an index: one writer at a time, new files first, then one swap of the manifest."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cfmr.index.manifest import (
    MOST_VIDEOS,
    NAME,
    SHARD_VIDEOS,
    Manifest,
    ShardEntry,
    is_shard_name,
    read_manifest,
    write_manifest,
)
from cfmr.index.shards import Shard, write_shard
from vmr_common.boundary import open_regular, reason
from vmr_common.errors import UserError, quoted, require
from vmr_common.io import LOCK, FolderLock, no_links, sweep_partials, writing

SHARDS = "shards"
MODEL = "model.safetensors"
MOST_SMALL = 64
"""Shards less than half full that an index has at the most; beyond, they are merged."""

_DOING = "writing to this index"


def require_own(folder: Path) -> None:
    """Makes sure that an index may be written to a folder: it holds one, nothing, or what a killed writer began.

    Raises:
        UserError: if the folder holds anything else, or one of the names of an index is a link there.
    """
    no_links(folder, [SHARDS, LOCK, NAME, MODEL])
    if (folder / NAME).exists():
        read_manifest(folder)  # another program's file of that name is refused
        return
    try:
        names = set(os.listdir(folder))
        begun = _begun(folder)
        inside = os.listdir(folder / SHARDS) if SHARDS in names else []
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{folder}: cannot hold an index ({reason(error)})") from error
    ours = {LOCK, SHARDS, MODEL} if begun else {LOCK, SHARDS}
    partial = (f".{NAME}.", f".{MODEL}.")
    foreign = sorted(name for name in names - ours if not name.startswith(partial))
    foreign += [f"{SHARDS}/{name}" for name in sorted(inside)]  # shards come after the manifest
    if foreign:
        raise UserError(
            f"{folder}: not an index, and not empty (holds {quoted(foreign[0])}); choose a new or an empty folder"
        )


def _begun(folder: Path) -> bool:
    """True if the lock says that an index was begun here, in a folder that was empty then."""
    try:
        with open_regular(folder / LOCK) as file:
            return file.read(len(_DOING)) == _DOING.encode()
    except FileNotFoundError:
        return False


class Writer:
    """Holds an index for writing until it is closed (or the process ends, however it does).

    What the manifest does not list is deleted at the beginning and at the end: shards left by a killed writer, or
    replaced. Readers keep what they have opened; one that is just opening looks at the manifest again.

    Args:
        folder: Of the index; created if it is not there.

    Raises:
        UserError: if another process is writing to it, the folder cannot be written, or as `require_own`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shards = folder / SHARDS
        require_own(folder)
        self._lock = FolderLock(folder, _DOING)
        try:
            with writing(self.shards):
                self.shards.mkdir(exist_ok=True)
            self.sweep()
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets others write."""
        try:
            with contextlib.suppress(UserError):  # what is left is deleted by the next writer
                self.sweep()
        finally:
            self._lock.close()

    def commit(self, manifest: Manifest) -> None:
        """Makes a manifest the state of the index, on the disk and for every reader that opens it from now on."""
        write_manifest(self.folder, manifest)

    def sweep(self) -> None:
        """Deletes shards that the manifest does not list, and what killed writers left of unfinished files.

        Only regular files whose names have the form of a shard's: whatever else lies there is not ours.
        """
        if not (self.folder / NAME).exists():
            return
        listed = {shard.name for shard in read_manifest(self.folder).shards}
        with writing(self.shards), os.scandir(self.shards) as entries:
            files = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
            for entry in files:
                if _is_shard_file(entry.name) and entry.name.partition(".")[0] not in listed:
                    Path(entry.path).unlink(missing_ok=True)
        sweep_partials(self.shards, _is_shard_file)
        sweep_partials(self.folder, {NAME, MODEL}.__contains__)


def _is_shard_file(name: str) -> bool:
    stem, dot, kind = name.rpartition(".")
    return bool(dot) and kind in ("npy", "json") and is_shard_name(stem)


def remove(folder: Path, videos: Sequence[str]) -> None:
    """Takes videos out of an index; a shard of which none is left is dropped.

    Raises:
        UserError: naming the first video that the index does not hold; none is removed then.
    """
    with Writer(folder) as writer:
        fewer, missing = without(read_manifest(folder), videos, writer.shards)
        if missing:
            raise UserError(f"{folder}: holds no video {quoted(missing[0])}")
        writer.commit(fewer)


def without(manifest: Manifest, videos: Sequence[str], folder: Path) -> tuple[Manifest, list[str]]:
    """The manifest with some videos taken out, and those of them that no shard in `folder` holds."""
    wanted, entries = set(videos), []
    for entry in manifest.shards:
        shard = Shard(folder, entry, manifest)
        gone = {shard.rows[video] for video in wanted & shard.rows.keys()}
        wanted -= shard.rows.keys()
        if len(gone) < entry.live:
            entries.append(dataclasses.replace(entry, removed=tuple(sorted({*entry.removed, *gone}))))
    fewer = dataclasses.replace(manifest, shards=tuple(entries))
    return fewer, [video for video in videos if video in wanted]


def compact(folder: Path, shard_videos: int = SHARD_VIDEOS) -> None:
    """Rewrites an index in full shards, without what was removed; one shard is open at a time.

    Raises:
        UserError: if the index cannot be read or written; it is what it was then.
    """
    require_shard_videos(shard_videos)
    with Writer(folder) as writer:
        manifest = read_manifest(folder)
        shards, full = list(manifest.shards), 0
        while full < len(shards) and shards[full].live == shards[full].videos == shard_videos:
            full += 1
        entries = shards[:full] + _rewritten(manifest, shards[full:], writer, shard_videos)
        writer.commit(dataclasses.replace(manifest, shards=tuple(entries)))


def require_shard_videos(count: int) -> None:
    """Raises `UserError` unless a shard can hold so many videos."""
    require(1 <= count <= MOST_VIDEOS, "shard_videos", count, f"1 to {MOST_VIDEOS:,}")


def merged(manifest: Manifest, writer: Writer) -> Manifest:
    """The manifest with its small shards merged into full ones, if there are more than `MOST_SMALL` of them.

    However videos are added, each is written again at most about ``SHARD_VIDEOS / MOST_SMALL`` times, and an index has
    at most `MOST_SMALL` shards more than its full ones.
    """
    small = [entry for entry in manifest.shards if entry.live < SHARD_VIDEOS // 2]
    if len(small) <= MOST_SMALL:
        return manifest
    kept = [entry for entry in manifest.shards if entry.live >= SHARD_VIDEOS // 2]
    entries = kept + _rewritten(manifest, small, writer, SHARD_VIDEOS)
    return dataclasses.replace(manifest, shards=tuple(entries))


def _rewritten(
    manifest: Manifest, shards: Sequence[ShardEntry], writer: Writer, size: int
) -> list[ShardEntry]:
    return [
        write_shard(writer.shards, videos, durations, vectors)
        for videos, durations, vectors in _regrouped(manifest, shards, writer.shards, size)
    ]


def _regrouped(
    manifest: Manifest, shards: Sequence[ShardEntry], folder: Path, size: int
) -> Iterator[tuple[list[str], list[float], NDArray[Any]]]:
    videos: list[str] = []
    durations: list[float] = []
    parts: list[NDArray[Any]] = []
    for entry in shards:
        shard = Shard(folder, entry, manifest)
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
