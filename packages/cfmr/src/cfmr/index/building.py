"""Adding videos to an index, in one process or under torchrun."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cfmr.index.manifest import Manifest, ShardEntry, read_manifest
from cfmr.index.shards import write_shard
from cfmr.index.writer import SHARDS, Writer, merged, require_shard_videos, without
from vmr_common.errors import UserError
from vmr_train import distributed
from vmr_train.predict import progress_bar

Encode = Callable[[Sequence[str]], NDArray[Any]]


def extend(
    folder: Path,
    manifest: Manifest,
    videos: Sequence[str],
    durations: Mapping[str, float],
    encode: Encode,
    shard_videos: int,
    report: Callable[[int], None] | None,
    replaced: Collection[str] = (),
) -> int:
    """Writes shards of videos and lists each in the manifest as soon as it is on the disk.

    All processes write shards; rank 0 alone holds the lock and changes the manifest. The change that lists a video
    anew is the one that takes its old row out, so that every state of the index holds it exactly once.

    Args:
        folder: Of the index.
        manifest: As the caller has seen it.
        videos: Those to write.
        durations: Seconds by video.
        encode: Vectors ``(n, P, K * D)`` of n videos.
        shard_videos: Videos per shard.
        report: Called on rank 0 with the number of videos that are in the index from this call so far.
        replaced: Those of `videos` that the index holds already.

    Returns:
        How many were written.

    Raises:
        UserError: if another process writes to the index or has changed it, the disk is full, and so on; what
            was reported before stays.
    """
    require_shard_videos(shard_videos)
    rank, world = distributed.rank(), distributed.world()
    parts = [videos[start : start + shard_videos] for start in range(0, len(videos), shard_videos)]
    rounds = [parts[start : start + world] for start in range(0, len(parts), world)]
    added, replaced = 0, frozenset(replaced)
    with contextlib.ExitStack() as stack:
        state = _State(folder, stack)
        found = distributed.from_rank_zero(state.begin)
        if found != manifest:
            raise UserError(f"{folder}: another process has just changed this index, try again")
        for share in progress_bar(rounds, title="index", total=len(rounds), unit="shard"):
            own = share[rank] if rank < len(share) else []
            entry = _write(folder, manifest.dtype, own, durations, encode) if own else None
            entries = distributed.gather(entry)  # between our own processes
            for failure in (one for one in entries if isinstance(one, Exception)):
                raise failure
            new = tuple(one for one in entries if isinstance(one, ShardEntry))
            old = [video for part in share for video in part if video in replaced]
            manifest = distributed.from_rank_zero(functools.partial(state.commit, manifest, new, old))
            added += sum(one.videos for one in new)
            if report is not None and rank == 0:
                report(added)
    return added


def _write(
    folder: Path, dtype: str, videos: Sequence[str], durations: Mapping[str, float], encode: Encode
) -> ShardEntry | Exception:
    try:
        vectors = encode(videos).astype(dtype)
        return write_shard(folder / SHARDS, videos, [durations[video] for video in videos], vectors)
    except UserError as error:  # the other processes must hear of it, or they would wait for ever
        return error
    except Exception as error:
        if distributed.world() == 1:
            raise
        return RuntimeError(repr(error))


class _State:
    """The index as its one writer, rank 0, changes it."""

    def __init__(self, folder: Path, stack: contextlib.ExitStack) -> None:
        self._folder, self._stack = folder, stack
        self._writer: Writer | None = None

    def begin(self) -> Manifest:
        """Locks the index until the end of the stack; the manifest as it is."""
        self._writer = self._stack.enter_context(Writer(self._folder))
        return read_manifest(self._folder)

    def commit(self, manifest: Manifest, new: tuple[ShardEntry, ...], old: Sequence[str]) -> Manifest:
        """Lists new shards instead of the rows of old videos, merges small shards if there are many.

        Returns the manifest as it is then.
        """
        assert self._writer is not None
        if old:
            manifest, _ = without(manifest, old, self._writer.shards)
        manifest = dataclasses.replace(manifest, shards=manifest.shards + new)
        self._writer.commit(manifest)
        fewer = merged(manifest, self._writer)
        if fewer != manifest:
            self._writer.commit(fewer)
            self._writer.sweep()
        return fewer
