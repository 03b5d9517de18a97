"""Long videos out of short ones: the place of each video in the streams, and queries moved there.

Streams are a test bed for finding a moment in a long recording with real features, not real long video: scenes change
every half minute, and a sentence may fit several of the joined videos.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vmr_common.errors import UserError, counted, require
from vmr_common.features.stride import SLACK_S
from vmr_common.types import Query, as_moments


@dataclass(frozen=True, kw_only=True)
class Part:
    """One video inside a stream.

    Attributes:
        video: Its id.
        start_s: Where it begins in the stream, seconds.
        rows: Its feature rows, all of which are in the stream.
    """

    video: str
    start_s: float
    rows: int


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Videos joined end to end.

    Attributes:
        id: ``<name>-0000`` and so on.
        parts: The videos in order.
        duration: Rows times seconds per row.
    """

    id: str
    parts: tuple[Part, ...]
    duration: float


@dataclass(frozen=True)
class Joined:
    """Streams and the queries about them.

    Attributes:
        streams: The streams.
        queries: In order of streams and of the videos in them; ids are those of the original queries.
        counts: What was irregular, in words, with the number of queries.
    """

    streams: list[Stream]
    queries: list[Query]
    counts: dict[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Lines on what was made and what was irregular, for people."""
        minutes = [stream.duration / 60 for stream in self.streams]
        return [
            f"{counted(len(self.streams), 'stream')} of {min(minutes):.1f} to {max(minutes):.1f} minutes, "
            f"{counted(sum(len(stream.parts) for stream in self.streams), 'video')}, "
            f"{counted(len(self.queries), 'query')}",
            *(f"  {count} {words}" for words, count in self.counts.items()),
        ]


def plan_streams(
    name: str, lengths: Mapping[str, int], *, videos_per_stream: int, stride_s: float, seed: int
) -> list[Stream]:
    """Divides videos into streams, as evenly as possible, in an order that the seed decides.

    The order of the mapping plays no part: videos are ordered by a hash of seed, name and id.

    Args:
        name: Begins the ids of the streams.
        lengths: Video id to its number of feature rows.
        videos_per_stream: About how many videos make a stream.
        stride_s: Seconds per feature row. A video takes its rows times this, whatever its annotated duration.
        seed: Decides the order.

    Raises:
        UserError: if a number is not positive or there is no video.

    Example:
        >>> streams = plan_streams("a", {"x": 3, "y": 5, "z": 2}, videos_per_stream=2, stride_s=2.0, seed=0)
        >>> [stream.id for stream in streams], sum(stream.duration for stream in streams)
        (['a-0000', 'a-0001'], 20.0)
    """
    require(videos_per_stream >= 1, "videos per stream", videos_per_stream, "at least 1")
    require(0 < stride_s < np.inf, "stride_s", stride_s, "positive seconds per row")
    require(len(lengths) > 0, "videos", "none", "at least one")

    def place(video: str) -> bytes:
        return hashlib.sha256(f"{seed}\x1f{name}\x1f{video}".encode()).digest()

    order = sorted(lengths, key=place)
    count = max(1, round(len(order) / videos_per_stream))
    streams = []
    for number, chosen in enumerate(np.array_split(np.array(order, object), count)):
        first = np.cumsum([0, *(lengths[video] for video in chosen)]).tolist()
        parts = tuple(
            Part(video=video, start_s=row * stride_s, rows=lengths[video])
            for video, row in zip(chosen, first, strict=False)
        )
        streams.append(Stream(id=f"{name}-{number:04d}", parts=parts, duration=first[-1] * stride_s))
    return streams


def shift_queries(queries: Sequence[Query], streams: Sequence[Stream], stride_s: float) -> Joined:
    """Moves queries to where their videos lie in the streams.

    A moment that ends after its video's last row is cut there, one that starts there or later is dropped; a reversed
    one is put in order first. Highlight scores are left out.

    Raises:
        UserError: if a video's rows do not fit its annotated duration: then the stride is wrong.
    """
    where = {part.video: (stream, part) for stream in streams for part in stream.parts}
    order = {part.video: number for number, (_, part) in enumerate(where.values())}
    counts: Counter[str] = Counter()
    moved = [
        found
        for query in sorted(queries, key=lambda query: order[query.video])
        if (found := _moved(query, *where[query.video], stride_s, counts)) is not None
    ]
    texts = Counter((query.video, query.text.strip().lower()) for query in moved)
    counts["with the sentence of another query of their stream"] = sum(n for n in texts.values() if n > 1)
    return Joined(list(streams), moved, {words: count for words, count in counts.items() if count})


def _moved(query: Query, stream: Stream, part: Part, stride_s: float, counts: Counter[str]) -> Query | None:
    length = part.rows * stride_s
    if abs(length - query.duration) > 2 * stride_s + SLACK_S:
        raise UserError(
            f"video {part.video!r}: {part.rows} rows of {stride_s:g} s are {length:g} s, "
            f"its duration is {query.duration:g} s: expected rows times stride-s to be about the duration"
        )
    pairs = [sorted(pair) for pair in query.moments.tolist()]
    kept = [(max(start, 0.0), min(end, length)) for start, end in pairs if start < length and end > 0]
    if pairs and not kept:
        counts["dropped: outside the video's rows"] += 1
        return None
    counts["cut: end to the video's last row"] += any(end > length for _, end in pairs)
    glance = None if query.glance is None else part.start_s + min(max(query.glance, 0.0), length)
    return Query(
        id=query.id,
        video=stream.id,
        text=query.text,
        duration=stream.duration,
        moments=as_moments([[part.start_s + start, part.start_s + end] for start, end in kept]),
        glance=glance,
    )
