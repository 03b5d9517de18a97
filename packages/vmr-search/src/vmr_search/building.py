"""Filling an index: videos of feature files are encoded and added, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from vmr_common.errors import UserError, counted, quoted, require
from vmr_common.features.sameness import require_same_features
from vmr_common.features.store import FeatureStore
from vmr_common.io import FolderLock
from vmr_common.values import duration_of, identifier
from vmr_search.engine.moment_index import VideoWindows
from vmr_search.folder import CorpusIndex, require_writable
from vmr_search.index_files import DOING

BATCH = 512
"""Videos that are added together, and between two moments from which a killed build goes on."""

_ENCODED_AT_ONCE = 8


def extend(
    index: CorpusIndex,
    store: FeatureStore,
    durations: Mapping[str, float],
    *,
    videos: Sequence[str] | None = None,
    replace: bool = False,
    report: Callable[[int], None] | None = None,
    batch: int = BATCH,
    allow_other_features: bool = False,
) -> int:
    """Encodes videos and adds those that are absent: a build that was killed goes on where it stopped.

    Args:
        index: Is held against other writers until all is done.
        store: Raw features.
        durations: Seconds by video.
        videos: Which ones; all of `store` by default.
        replace: Encode those anew that are there; each is there once at any instant, old or new.
        report: Called after each batch with the number of videos that are in the index from this call so far.
        batch: Videos that are added together.
        allow_other_features: Say it instead of refusing features that are made in another way than the model's, or than
            those that the index is made of.

    Returns:
        How many were encoded.

    Raises:
        UserError: if another process writes to the index, a video's features or duration are missing or not possible,
            the features do not fit, or the disk is full; what was reported before stays.
    """
    require(batch >= 1, "batch", batch, "at least 1")
    known = index.facts.features
    if known is None or not len(index.engine):
        index.retriever.require_features(store, allow_other=allow_other_features)
    else:
        require_same_features(known, store, allow=allow_other_features, of="the index is made of")
    require_writable(index.folder)
    with FolderLock(index.folder, DOING):
        index.engine.refresh()
        given = list(dict.fromkeys(store.videos() if videos is None else videos))
        wanted = given if replace else absent(index, given)
        _require_usable(wanted, durations)
        write = index.engine.replace if replace else index.engine.add
        for start in range(0, len(wanted), batch):
            part = wanted[start : start + batch]
            write(_encoded(index, store, durations, part))
            if report is not None:
                report(start + len(part))
    return len(wanted)


def absent(index: CorpusIndex, videos: Sequence[str]) -> list[str]:
    """Those videos that an index does not hold, each once, in their order."""
    return [video for video in dict.fromkeys(videos) if video not in index.engine]


def _encoded(
    index: CorpusIndex, store: FeatureStore, durations: Mapping[str, float], videos: Sequence[str]
) -> Iterator[VideoWindows]:
    for start in range(0, len(videos), _ENCODED_AT_ONCE):
        part = videos[start : start + _ENCODED_AT_ONCE]
        seconds = [float(durations[video]) for video in part]
        made = index.retriever.windows([store[video] for video in part], seconds)
        for video, duration, (windows, vectors) in zip(part, seconds, made, strict=True):
            yield VideoWindows(video, duration, windows, vectors)


def _require_usable(videos: Sequence[str], durations: Mapping[str, float]) -> None:
    """Raises `UserError` unless the ids are text and the lengths of the videos are known and possible."""
    unknown = [video for video in videos if video not in durations]
    if unknown:
        raise UserError(
            f"the duration of {counted(len(unknown), 'video')} is not known, for example {quoted(unknown[0])}; a "
            "table of seconds by video says it (--durations), or stride_s in the manifest of the features "
            "(vmr-data convert --stride-s)"
        )
    for video in videos:
        identifier(video, "video", quoted(video))
        duration_of(durations[video], f"video {quoted(video)}")
