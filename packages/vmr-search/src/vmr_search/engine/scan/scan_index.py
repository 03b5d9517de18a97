"""`ScanIndex`: the engine that scores every vector of every video, from files mapped into memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from vmr_common.errors import UserError, quoted
from vmr_search.engine.checks import checked_queries, checked_videos, require_dtype
from vmr_search.engine.moment_index import EVERYTHING, Filter, FoundVideo, VideoWindows
from vmr_search.engine.scan.manifest import MOST_VIDEOS, NAME, Manifest, read_manifest, require_size
from vmr_search.engine.scan.scoring import best_videos
from vmr_search.engine.scan.shards import MissingShard, Shard, write_shard
from vmr_search.engine.scan.writer import Writer, compacted, grouped, merged, without
from vmr_video.networks.weights import device_of

_AT_ONCE = 32  # queries that share a scan


class ScanIndex:
    """A scan index on disk. What another process writes is seen after `refresh`.

    Exact, crash-safe, and without any service: a writer that is killed leaves what it was before or what it becomes,
    and readers are never disturbed. One process writes at a time. Search may be called from many threads.

    Args:
        folder: The index.
        device: Where to multiply.

    Raises:
        UserError: if the folder is no index, or a file is damaged, cut short or missing.
    """

    def __init__(self, folder: str | Path, *, device: str = "cpu") -> None:
        self.folder = Path(folder)
        self.device = device_of(device)
        self._shards: list[Shard] = []
        self.manifest = read_manifest(self.folder)
        self.size = self.manifest.size
        self.refresh()

    @classmethod
    def create(
        cls,
        folder: str | Path,
        *,
        size: int,
        identity: str = "",
        dtype: Literal["float16", "float32"] = "float16",
    ) -> ScanIndex:
        """An empty index.

        Args:
            folder: Holds nothing, or an index without videos.
            size: Length of a vector.
            identity: Of what makes the vectors.
            dtype: ``float16`` (half the size and time, scores change by at most 1e-4 or so) or ``float32``.

        Raises:
            UserError: if there is an index already, the folder holds anything else or cannot be written, or a size is
                not possible.
        """
        folder = Path(folder)
        require_size(size, f"{folder}: size")
        require_dtype(dtype, folder)
        with Writer(folder) as writer:
            if (folder / NAME).exists() and read_manifest(folder).shards:
                raise UserError(f"{folder}: holds an index already")
            writer.commit(Manifest(identity=identity, dtype=dtype, size=size))
        return cls(folder)

    @classmethod
    def open(
        cls, folder: str | Path, *, size: int, identity: str = "", device: str = "cpu", **created: Any
    ) -> ScanIndex:
        """An index that must be one of vectors of this size, and of this identity.

        Raises:
            UserError: as the constructor, or if it is another one.
        """
        index = cls(folder, device=device)
        if (index.size, index.manifest.identity) != (size, identity):
            raise UserError(f"{index.folder}: holds vectors of another model than the index says")
        return index

    # ---- content -------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Takes in the index as it is now; what earlier searches found stays valid. Opens only what is new.

        Raises:
            UserError: as the constructor, or if the folder holds an index of another kind now.
        """
        opened = {shard.entry: shard for shard in self._shards}
        while True:
            manifest = read_manifest(self.folder)
            if dataclasses.replace(manifest, shards=self.manifest.shards) != self.manifest:
                raise UserError(f"{self.folder}: was replaced by an index of another kind, open it anew")
            try:
                for entry in manifest.shards:
                    if entry not in opened:
                        opened[entry] = Shard(self.folder, entry, manifest)
                break
            except MissingShard:
                # replaced by a writer between our two looks, unless the manifest is still the same
                if read_manifest(self.folder) == manifest:
                    raise
        self.manifest, self._shards = manifest, [opened[entry] for entry in manifest.shards]

    def __len__(self) -> int:
        """Number of videos."""
        return sum(entry.live for entry in self.manifest.shards)

    def __contains__(self, video: object) -> bool:
        return any(video in shard.numbers for shard in self._shards)

    def videos(self) -> list[str]:
        """The ids of all videos, in the order in which they were added."""
        return [video for shard in self._shards for video in shard.numbers]

    def durations(self) -> dict[str, float]:
        """Seconds by video, of all."""
        return {
            video: shard.table["durations"][number]
            for shard in self._shards
            for video, number in shard.numbers.items()
        }

    def bytes(self) -> int:
        """Size of its vectors and windows on the disk."""
        return sum(shard.bytes for shard in self._shards)

    def verify(self) -> None:
        """Reads every byte of the index; raises `UserError` for the first damage."""
        for shard in self._shards:
            shard.verify()

    def close(self) -> None:
        """Lets go of the files."""
        self._shards = []

    # ---- writing -------------------------------------------------------------------------------------------

    def add(self, videos: Iterable[VideoWindows]) -> int:
        """Adds videos; how many. They are written shard by shard as they come: few are held at a time.

        Raises:
            UserError: if a video is there already or not possible, another process writes, or the disk is full;
                what was written before stays.
        """
        return self._write(videos, replace=False)

    def replace(self, videos: Iterable[VideoWindows]) -> int:
        """As `add`, for videos of which some are there: these are there once at any instant, old or new."""
        return self._write(videos, replace=True)

    def _write(self, videos: Iterable[VideoWindows], *, replace: bool) -> int:
        count = 0
        with Writer(self.folder) as writer:
            self.refresh()
            taken = () if replace else self
            checked = checked_videos(
                videos, self.size, np.dtype(self.manifest.dtype), there=taken, place=self.folder
            )
            for group in grouped(checked):
                # the change that lists a video anew takes the old one out, so that every state holds it once
                old = [one.video for one in group] if replace else []
                entry = write_shard(self.folder, group)
                manifest, _ = without(self.manifest, self._shards, old)
                manifest = dataclasses.replace(manifest, shards=(*manifest.shards, entry))
                writer.commit(manifest)
                fewer = merged(manifest, self.folder)
                if fewer != manifest:
                    writer.commit(fewer)
                    writer.sweep()
                self.refresh()
                count += len(group)
        return count

    def remove(self, videos: Sequence[str]) -> None:
        """Takes videos out; `compact` gives their space back.

        Raises:
            UserError: naming the first video that is not there; none is removed then.
        """
        with Writer(self.folder) as writer:
            self.refresh()
            fewer, missing = without(self.manifest, self._shards, videos)
            if missing:
                raise UserError(f"{self.folder}: holds no video {quoted(missing[0])}")
            writer.commit(fewer)
            self.refresh()

    def compact(self, shard_videos: int = MOST_VIDEOS) -> None:
        """Rewrites the index in full shards, without what was removed. Open readers are not disturbed.

        Args:
            shard_videos: More videos than that are never put into a shard; full ones have no more in any case.
        """
        with Writer(self.folder) as writer:
            self.refresh()
            writer.commit(compacted(self.manifest, self.folder, shard_videos))
            self.refresh()

    # ---- searching -----------------------------------------------------------------------------------------

    def search(
        self, queries: NDArray[np.float32], n: int, where: Filter = EVERYTHING, *, exact: bool = False
    ) -> list[list[FoundVideo]]:
        """For every query ``(Q, size)`` the `n` videos with the highest-scoring window, best first; always exact.

        Raises:
            UserError: if the queries do not fit, or data that is read turns out to be damaged.
        """
        vectors = checked_queries(queries, self.size, n)
        shards = self._shards
        return [
            [
                _found(shards[shard].video(number), scores, where)
                for (shard, number), scores in zip(found.places.tolist(), found.scores, strict=True)
            ]
            for part in torch.from_numpy(vectors).split(_AT_ONCE)
            if len(part)
            for found in best_videos(shards, part, n, where, self.device)
        ]


def _found(video: VideoWindows, scores: NDArray[np.float32], where: Filter) -> FoundVideo:
    windows = video.windows
    if where.of_windows:
        keep = where.keeps(windows)
        windows, scores = windows[keep], scores[keep]
    return FoundVideo(video.video, video.duration, windows.copy(), scores)
