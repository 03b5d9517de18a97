"""Filling an index: videos of feature files are encoded and added, batch by batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vmr_common.errors import UserError, counted, quoted, require
from vmr_common.features.sameness import require_same_features
from vmr_common.features.store import FeatureStore
from vmr_common.folder_lock import FolderLock
from vmr_common.values import duration_of, identifier
from vmr_search.engine.moment_index import VideoWindows
from vmr_search.folder import CorpusIndex, create, is_index, open_index, require_writable
from vmr_search.index_files import DOING
from vmr_search.retriever import Retriever

BATCH = 512
"""Videos that are added together, and between two moments from which a killed build goes on."""

_ENCODED_AT_ONCE = 8
_ASKED_ONE_BY_ONE = 32


def build(
    folder: str | Path,
    retriever: Retriever,
    store: FeatureStore,
    durations: Mapping[str, float],
    *,
    videos: Sequence[str] | None = None,
    engine: str = "scan",
    url: str | None = None,
    report: Callable[[int], None] | None = None,
    batch: int = BATCH,
    allow_other_features: bool = False,
    **options: Any,
) -> CorpusIndex:
    """An index of all videos of the feature files; a build that was killed goes on where it stopped.

    Args:
        folder: Of the index, which is created if it is not there.
        retriever: Makes the vectors.
        store: See `extend`.
        durations: See `extend`.
        videos: See `extend`.
        engine: See `folder.create`.
        url: See `folder.create`.
        report: See `extend`.
        batch: See `extend`.
        allow_other_features: See `extend`.
        **options: Of the engine, if the index is created.

    Raises:
        UserError: as `folder.create`, `folder.open_index` and `extend`; if a video cannot be used, nothing is created.
    """
    folder = Path(folder)
    if is_index(folder):
        index = open_index(folder, retriever=retriever)
        how: dict[str, Any] = {"report": report, "batch": batch, "allow_other_features": allow_other_features}
        extend(index, store, durations, videos=videos, **how)
        return index
    retriever.require_features(store, allow_other=allow_other_features)
    wanted = _given(store, videos)
    _require_usable(wanted, durations)
    index = create(folder, retriever, engine=engine, url=url, features=store.manifest, **options)
    with _held(index):
        _fill(index, store, durations, absent(index, wanted), index.engine.add, report, batch)
    return index


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
        index: Is held against other writers until all is done, unless its engine lets several write.
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
    known = index.facts.features
    if known is None or not len(index.engine):
        index.retriever.require_features(store, allow_other=allow_other_features)
    else:
        require_same_features(known, store, allow=allow_other_features, of="the index is made of")
    require_writable(index.folder)
    with _held(index):
        index.engine.refresh()
        given = _given(store, videos)
        wanted = given if replace else absent(index, given)
        _require_usable(wanted, durations)
        write = index.engine.replace if replace else index.engine.add
        _fill(index, store, durations, wanted, write, report, batch)
    return len(wanted)


def _given(store: FeatureStore, videos: Sequence[str] | None) -> list[str]:
    found = list(dict.fromkeys(store.videos() if videos is None else videos))
    if not found and not store.videos():
        raise store.empty()
    return found


def _fill(
    index: CorpusIndex,
    store: FeatureStore,
    durations: Mapping[str, float],
    videos: Sequence[str],
    write: Callable[[Iterable[VideoWindows]], int],
    report: Callable[[int], None] | None,
    batch: int,
) -> None:
    require(batch >= 1, "batch", batch, "at least 1")
    with tqdm(desc="index", total=len(videos), unit="video", leave=False, disable=None) as bar:
        for start in range(0, len(videos), batch):
            part = videos[start : start + batch]
            write(_encoded(index, store, durations, part))
            bar.update(len(part))
            if report is not None:
                report(start + len(part))


def absent(index: CorpusIndex, videos: Sequence[str]) -> list[str]:
    """The videos that an index does not hold, each once, in their order."""
    # a server is asked once for all of them
    held = index.engine if len(videos) <= _ASKED_ONE_BY_ONE else frozenset(index.engine.videos())
    return [video for video in dict.fromkeys(videos) if video not in held]


def _held(index: CorpusIndex) -> contextlib.AbstractContextManager[object]:
    """Two builds of a scan index would encode the same videos, and the second would be refused at its end."""
    alone = index.facts.engine == "scan"
    return FolderLock(index.folder, DOING) if alone else contextlib.nullcontext()


def _encoded(
    index: CorpusIndex, store: FeatureStore, durations: Mapping[str, float], videos: Sequence[str]
) -> Iterator[VideoWindows]:
    for start in range(0, len(videos), _ENCODED_AT_ONCE):
        part = videos[start : start + _ENCODED_AT_ONCE]
        seconds = [float(durations[video]) for video in part]
        made = index.retriever.windows([_rows(store, video) for video in part], seconds)
        for video, duration, (windows, vectors) in zip(part, seconds, made, strict=True):
            yield VideoWindows(video, duration, windows, vectors)


def _rows(store: FeatureStore, video: str) -> NDArray[np.float32]:
    """The rows of a video, as wide as those of the first one; raises `UserError` naming it where they are not."""
    rows = store[video]
    if rows.shape[1] != store.dim:
        raise UserError(
            f"{store.name}: video {quoted(video)} has rows of {rows.shape[1]:,} numbers, expected {store.dim:,} as the "
            "others"
        )
    return rows


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
