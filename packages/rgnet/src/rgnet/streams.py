"""Long videos out of short ones, as files: features joined end to end into streams, annotation times shifted along."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from rgnet.stream_plan import Joined, Stream, plan_streams, shift_queries
from vmr_common.errors import UserError, counted, quoted
from vmr_common.features.checks import Features
from vmr_common.features.manifest import Manifest, creator
from vmr_common.features.store import FeatureStore, write_features
from vmr_common.features.stride import durations_of, stride_of
from vmr_common.io import partial_of, read_json, write_text, writing
from vmr_common.schema import conform
from vmr_common.splits.objects import write_canonical
from vmr_common.types import Query
from vmr_common.whole_folder import held, whole_folder

_JOINED = "videos joined end to end by "
_WHAT = f"{_JOINED}rgnet-data concat; start_s is where a video begins in its stream"
FEATURES, STREAMS = "features.h5", "streams.json"
logger = logging.getLogger(__name__)


def _stride(
    store: FeatureStore, queries: Iterable[Query], given: float | None, warn: Callable[[str], object]
) -> float:
    """Seconds per feature row (see `stride_of`); what rows and durations tell alone is said."""
    found = stride_of(store, durations_of(queries), given)
    if found.seconds is None:
        raise UserError(f"{store.name}: {found}, and no manifest says it; say it with --stride-s")
    if found.known_by == "rows":
        warn(f"{store.name}: {found}; --stride-s or a manifest states it")
    return found.seconds


def write_concat(
    folder: str | Path,
    splits: Mapping[str, Sequence[Query]],
    store: FeatureStore,
    *,
    stride_s: float | None = None,
    videos_per_stream: int = 20,
    seed: int = 0,
    dtype: str = "float32",
    source: str | None = None,
    step: Callable[[int], object] | None = None,
    warn: Callable[[str], object] = logger.warning,
) -> dict[str, Joined]:
    """Joins the videos of each split into streams and writes them as one data set.

    The files are ``<split>.jsonl`` (canonical annotations), ``features.h5`` (a data set per stream) and
    ``streams.json`` (which video lies where). The folder is written whole or not at all.

    Args:
        folder: Where; made if it is not there. Streams that were joined there before are replaced at the end.
        splits: Name to queries. Videos without features, and their queries, are left out and counted.
        store: Features of the single videos.
        stride_s: Seconds per feature row, by default what the store's manifest says, or rows against durations tell.
        videos_per_stream: About how many videos make a stream.
        seed: Decides which videos lie together and in which order.
        dtype: ``float32`` or ``float16``.
        source: Where videos and sentences come from, for the manifest.
        step: Called with 1 for each stream written.
        warn: Takes a line where rows and durations alone tell the stride.

    Returns:
        What was made of each split.

    Raises:
        UserError: if no video has features, a video is in two splits, nothing tells the stride, rows and durations do
            not fit, or the folder holds anything but joined streams.
    """
    stride = _stride(store, itertools.chain.from_iterable(splits.values()), stride_s, warn)
    joined = {
        name: _join(name, queries, store, stride, videos_per_stream, seed) for name, queries in splits.items()
    }
    _refuse_shared_videos(joined)
    known = store.manifest or Manifest()
    parts = sum(len(stream.parts) for made in joined.values() for stream in made.streams)
    manifest = dataclasses.replace(
        known,
        stride_s=stride,
        source=f"{parts} videos joined into streams (not recorded as such): {source or known.source or store.name}",
        creator=creator(),
    )
    streams = [stream for made in joined.values() for stream in made.streams]
    about = About(
        what=_WHAT,
        stride_s=stride,
        seed=seed,
        source=str(manifest.source),
        streams={
            name: {
                stream.id: [
                    PartJson(video=part.video, start_s=part.start_s, rows=part.rows) for part in stream.parts
                ]
                for stream in made.streams
            }
            for name, made in joined.items()
        },
    )
    folder = Path(folder).resolve()
    _refuse_foreign(folder)
    with writing(folder), held(folder, _is_own):
        _refuse_foreign(folder)
        with whole_folder(folder, _is_own) as fresh:
            write_features(fresh / FEATURES, _rows(streams, store, step), manifest, dtype)
            for name, made in joined.items():
                write_canonical(fresh / f"{name}.jsonl", made.queries)
            write_text(fresh / STREAMS, json.dumps(about, indent=1) + "\n")
    return joined


class PartJson(TypedDict):
    """A `Part` in ``streams.json``."""

    video: str
    start_s: float
    rows: int


class About(TypedDict):
    """Content of ``streams.json``."""

    what: str
    stride_s: float
    seed: int
    source: str
    streams: dict[str, dict[str, list[PartJson]]]


def _is_own(name: str) -> bool:
    """True for the names of files that `write_concat` writes."""
    name = partial_of(name) or name
    return name in (FEATURES, STREAMS) or re.fullmatch(r"[A-Za-z0-9_-]+\.jsonl", name) is not None


def _refuse_foreign(folder: Path) -> None:
    """Makes sure that a folder may be replaced: it is not there, empty, or holds nothing but joined streams.

    Raises:
        UserError: naming what else is in it.
    """
    if not os.path.lexists(folder):
        return
    if not folder.is_dir():
        raise UserError(f"{folder}: a file stands where the folder of the streams belongs")
    names = os.listdir(folder)
    if not names:
        return
    parts: list[str] = []
    if (folder / STREAMS).is_file():
        with contextlib.suppress(UserError):
            about = conform(read_json(folder / STREAMS), About, str(folder / STREAMS))
            parts = list(about["streams"]) if about["what"].startswith(_JOINED) else []
    known = {FEATURES, STREAMS, *(f"{part}.jsonl" for part in parts)} if parts else set()
    foreign = sorted(name for name in names if (partial_of(name) or name) not in known)
    if foreign:
        raise UserError(
            f"{folder}: holds {foreign[0]}, which is not of joined streams; name another folder or an empty one"
        )


def _join(
    name: str,
    queries: Sequence[Query],
    store: FeatureStore,
    stride_s: float,
    videos_per_stream: int,
    seed: int,
) -> Joined:
    asked = dict.fromkeys(query.video for query in queries)
    lengths = {video: store.length(video) for video in asked if video in store}
    if not lengths:
        raise UserError(f"{store.name}: no features for any of {counted(len(asked), 'video')} of {name}")
    streams = plan_streams(name, lengths, videos_per_stream=videos_per_stream, stride_s=stride_s, seed=seed)
    there = [query for query in queries if query.video in lengths]
    made = shift_queries(there, streams, stride_s)
    missing = {"left out: no features for the video": len(queries) - len(there)}
    return dataclasses.replace(made, counts={**{w: n for w, n in missing.items() if n}, **made.counts})


def _refuse_shared_videos(joined: Mapping[str, Joined]) -> None:
    seen: dict[str, str] = {}
    for name, made in joined.items():
        for part in (part for stream in made.streams for part in stream.parts):
            if seen.setdefault(part.video, name) != name:
                raise UserError(
                    f"video {part.video!r} is in {seen[part.video]} and in {name}, expected splits by video"
                )


def _rows(
    streams: Sequence[Stream], store: FeatureStore, step: Callable[[int], object] | None
) -> Iterator[tuple[str, Features]]:
    for stream in streams:
        rows = [store[part.video] for part in stream.parts]
        for part, found in zip(stream.parts, rows, strict=True):
            if found.shape[1] != rows[0].shape[1]:
                raise UserError(
                    f"{store.name}: video {quoted(part.video)} has width {found.shape[1]}, "
                    f"but {quoted(stream.parts[0].video)} has {rows[0].shape[1]}: expected one width"
                )
        yield stream.id, np.concatenate(rows)
        if step is not None:
            step(1)
