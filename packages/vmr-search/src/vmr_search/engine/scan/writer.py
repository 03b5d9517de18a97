"""Changing a scan index: one writer at a time, new files first, then one swap of the manifest."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from vmr_common.errors import require
from vmr_common.folder_lock import FolderLock
from vmr_common.io import sweep_partials, writing
from vmr_search.engine.moment_index import VideoWindows
from vmr_search.engine.scan.manifest import (
    MOST_VIDEOS,
    NAME,
    SHARD_BYTES,
    SHARD_VIDEOS,
    Manifest,
    ShardEntry,
    is_shard_name,
    read_manifest,
    write_manifest,
)
from vmr_search.engine.scan.shards import Shard, write_shard
from vmr_search.index_files import DOING, require_own

MOST_SMALL = 64
"""Small shards that can be merged with one beside them, that an index has at the most; beyond, they are merged."""


class Writer:
    """Holds an index for writing until it is closed (or the process ends, however it does).

    What the manifest does not list is deleted at the beginning and at the end: shards left by a killed writer, or
    replaced. Readers keep what they have opened; one that is just opening reads the manifest again.

    Args:
        folder: Of the index; created if it is not there.

    Raises:
        UserError: if another process is writing to it, the folder cannot be written, or as `require_own`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        require_own(folder, NAME)
        self._lock = FolderLock(folder, DOING)
        try:
            self.sweep()
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with contextlib.suppress(ValueError):  # what is left is deleted by the next writer
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
        sweep_partials(self.folder, lambda name: name == NAME or _is_shard_file(name))
        if not (self.folder / NAME).exists():
            return
        listed = {shard.name for shard in read_manifest(self.folder).shards}
        with writing(self.folder), os.scandir(self.folder) as entries:
            files = [entry for entry in entries if entry.is_file(follow_symlinks=False)]
            for entry in files:
                if _is_shard_file(entry.name) and entry.name.partition(".")[0] not in listed:
                    Path(entry.path).unlink(missing_ok=True)


def _is_shard_file(name: str) -> bool:
    stem, dot, kind = name.rpartition(".")
    return bool(dot) and kind in ("bin", "json") and is_shard_name(stem)


def without(manifest: Manifest, shards: Sequence[Shard], videos: Iterable[str]) -> tuple[Manifest, list[str]]:
    """The manifest without some videos, and those of them that no shard holds; an empty shard is dropped."""
    left, entries = dict.fromkeys(videos), []
    for shard in shards:
        entry = shard.entry
        fewer, more = sorted([left.keys(), shard.numbers.keys()], key=len)
        gone = [video for video in fewer if video in more]
        removed = {*entry.removed, *(shard.numbers[video] for video in gone)}
        for video in gone:
            del left[video]
        if len(removed) < entry.videos:
            entries.append(dataclasses.replace(entry, removed=tuple(sorted(removed))))
    return dataclasses.replace(manifest, shards=tuple(entries)), list(left)


def grouped(videos: Iterable[VideoWindows], most: int = MOST_VIDEOS) -> Iterator[list[VideoWindows]]:
    """Videos in the groups that make full shards: of `SHARD_VIDEOS`, or of `SHARD_BYTES`; at most `most`."""
    most = min(most, SHARD_VIDEOS)
    group: list[VideoWindows] = []
    size = 0
    for one in videos:
        group.append(one)
        size += one.vectors.nbytes + one.windows.nbytes
        if len(group) >= most or size >= SHARD_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def compacted(manifest: Manifest, folder: Path, shard_videos: int) -> Manifest:
    """The manifest of an index rewritten in full shards, without what was removed; one shard is open at a time.

    Raises:
        UserError: unless a shard can hold so many videos.
    """
    require(1 <= shard_videos <= MOST_VIDEOS, "shard_videos", shard_videos, f"1 to {MOST_VIDEOS:,}")
    shard_videos = min(shard_videos, SHARD_VIDEOS)
    shards, full = list(manifest.shards), 0
    while full < len(shards) and _is_full(shards[full], manifest, shard_videos):
        full += 1
    entries = shards[:full] + _rewritten(manifest, shards[full:], folder, shard_videos)
    return dataclasses.replace(manifest, shards=tuple(entries))


def _is_full(entry: ShardEntry, manifest: Manifest, shard_videos: int) -> bool:
    return not entry.removed and (
        entry.videos == shard_videos or entry.rows * manifest.row_bytes() >= SHARD_BYTES
    )


def merged(manifest: Manifest, folder: Path) -> Manifest:
    """The manifest with its small shards merged into full ones where they lie side by side, if that makes many fewer.

    However videos are added, each is written again at most about ``SHARD_VIDEOS / MOST_SMALL`` times, and an index has
    at most `MOST_SMALL` small shards more than twice its full ones. The order of the videos stays.
    """

    def is_small(entry: ShardEntry) -> bool:
        size = entry.rows * manifest.row_bytes()
        return entry.live < SHARD_VIDEOS // 2 and size < SHARD_BYTES // 2

    runs = [(small, list(run)) for small, run in itertools.groupby(manifest.shards, is_small)]
    if sum(len(run) - 1 for small, run in runs if small) < MOST_SMALL:
        return manifest
    entries: list[ShardEntry] = []
    for small, run in runs:
        entries += _rewritten(manifest, run, folder) if small and len(run) > 1 else run
    return dataclasses.replace(manifest, shards=tuple(entries))


def _rewritten(
    manifest: Manifest, shards: Sequence[ShardEntry], folder: Path, most: int = MOST_VIDEOS
) -> list[ShardEntry]:
    videos = (one for entry in shards for one in Shard(folder, entry, manifest).all_live())
    return [write_shard(folder, group) for group in grouped(videos, most)]
