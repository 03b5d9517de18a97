"""`QdrantIndex`: vectors in collections of Qdrant, a server or a cluster, for those who outgrow one machine.

Install it by ``pip install vmr-search[qdrant]`` and give the address of a server (``https://...:6333``); its key is
read from ``QDRANT_API_KEY``, kept nowhere and sent to the server of ``QDRANT_URL`` alone. A window is a point of one
collection, and a video a point of a second one, which is written last and deleted first: what it does not name is not
there, so a killed writer leaves no half of a video.

What was tested: the embedded mode of the client, which searches all vectors, and addresses where nobody answers. What
was not: a server or a cluster, its graph (Qdrant has no inverted file; the windows of one video are each other's
neighbours in a graph, so it is asked for many), shards, replicas, and their consistency while nodes fail. Measure the
graph by ``vmr-search eval --against-exact`` before relying on it. Milvus is left out: one distributed engine is enough,
and its embedded form is for development.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, quoted
from vmr_search.engine.checks import checked_queries, checked_video, require_dtype, stored_problem
from vmr_search.engine.moment_index import EVERYTHING, Filter, FoundVideo, VideoWindows
from vmr_search.engine.qdrant_collections import AT_ONCE, Collections, StoredVideo
from vmr_search.engine.ranking import CANDIDATES, PER_VIDEO, ScoredWindows, ranked, scores_of

_FEW = 1000  # videos that are read at once, or that a filter may name without a search
_SENT = 4 << 20  # numbers of vectors in one request at the most
_BESIDE = 8  # videos whose scores are computed beside those that are asked for
_LEFT_NS = 3_600_000_000_000  # an hour: by then windows without a video are of a killed writer
_TRIES = 5


class _Changed(Exception):  # noqa: N818 - not an error: it is read again
    """A video was replaced or removed between two requests."""


class QdrantIndex:
    """An index in two collections of Qdrant, ``NAME-windows`` and ``NAME-videos``. Every search sees the newest state.

    Several processes may write at the same time; of two that write the same video, the last one counts.

    Args:
        place: The address of a server, or a folder for the embedded mode, which is for tests and trials.
        size: Length of a vector.
        identity: Of what makes the vectors.
        collection: NAME.

    Raises:
        UserError: if there is no such index, nobody answers, its vectors are of another model, or the client is not
            installed.
    """

    def __init__(self, place: Path | str, *, size: int, identity: str = "", collection: str = "vmr") -> None:
        self.place, self.size = place, size
        self._client = Collections(place, collection)
        try:
            facts = self._client.facts()
            if facts is None:
                raise UserError(
                    f"{place}: not an index of Qdrant (no collection {quoted(collection)} of ours)"
                )
            if facts["size"] != size:
                raise UserError(f"{place}: vectors of {facts['size']:,} numbers, index of {size:,} expected")
            if facts["identity"] != identity:
                raise UserError(f"{place}: holds vectors of another model than the index says")
            self._dtype = np.dtype(facts["dtype"])
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(
        cls,
        place: Path | str,
        *,
        size: int,
        identity: str = "",
        dtype: Literal["float16", "float32"] = "float16",
        collection: str = "vmr",
        shards: int | None = None,
        replicas: int | None = None,
    ) -> QdrantIndex:
        """An empty index.

        Args:
            place: See the class.
            size: Length of a vector.
            identity: Of what makes the vectors.
            dtype: Of the vectors, ``float16`` or ``float32``.
            collection: See the class.
            shards: Parts of a collection, over the nodes of a cluster; the server's own by default.
            replicas: Copies of each part; the server's own by default.

        Raises:
            UserError: if there is an index with videos or another collection of these names already, or nobody answers.
        """
        require_dtype(dtype, place)
        client = Collections(place, collection)
        try:
            client.create(size, dtype, identity, shards, replicas)
        finally:
            client.close()
        return cls(place, size=size, identity=identity, collection=collection)

    @classmethod
    def open(
        cls,
        place: Path | str,
        *,
        size: int,
        identity: str = "",
        device: str = "cpu",
        collection: str = "vmr",
        **created: Any,
    ) -> QdrantIndex:
        """The index that was created there; see the class."""
        return cls(place, size=size, identity=identity, collection=collection)

    # ---- content -------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Nothing: every search sees the newest state."""

    def __len__(self) -> int:
        """Number of videos."""
        return self._client.count()

    def __contains__(self, video: object) -> bool:
        return isinstance(video, str) and bool(self._client.of_ids([video]))

    def videos(self) -> list[str]:
        """The ids of all videos, in the order in which they were added."""
        return [one.video for one in self._client.all()]

    def durations(self) -> dict[str, float]:
        """Seconds by video, of all."""
        return {one.video: one.duration for one in self._client.all()}

    def verify(self) -> None:
        """Counts the windows of every video; raises `UserError` for the first that misses some."""
        counts = self._client.counts()
        for one in self._client.all():
            if counts.get(one.number, 0) != one.windows:
                raise UserError(f"{self.place}: damaged, windows of video {quoted(one.video)} are missing")

    def compact(self) -> None:
        """Deletes the windows that killed writers left more than an hour ago; a server tidies up by itself."""
        known = {one.number for one in self._client.all()}
        oldest = time.time_ns() - _LEFT_NS
        self._client.delete_windows(
            [one for one in self._client.counts() if one not in known and one < oldest]
        )

    def close(self) -> None:
        """Lets go of the connection."""
        self._client.close()

    # ---- writing -------------------------------------------------------------------------------------------

    def add(self, videos: Iterable[VideoWindows]) -> int:
        """Adds videos; how many. Each is there, whole, or not.

        Raises:
            UserError: if a video is there already or not possible, or the server does not answer; what was written
                before stays.
        """
        return self._write(videos, replace=False)

    def replace(self, videos: Iterable[VideoWindows]) -> int:
        """As `add`, for videos of which some are there: these are there once at any instant, old or new."""
        return self._write(videos, replace=True)

    def _write(self, videos: Iterable[VideoWindows], *, replace: bool) -> int:
        count, last = 0, 0
        for group in self._grouped(videos):
            old = self._client.of_ids([one.video for one in group])
            if old and not replace:
                raise UserError(f"{self.place}: holds video {quoted(old[0].video)} already")
            first = last = max(time.time_ns(), last)
            last += len(group)
            self._client.write(group, range(first, last))
            self._client.delete_windows([one.number for one in old])
            count += len(group)
        return count

    def _grouped(self, videos: Iterable[VideoWindows]) -> Iterator[list[VideoWindows]]:
        """Videos that are written together."""
        given: set[str] = set()
        group: list[VideoWindows] = []
        for one in videos:
            group.append(checked_video(one, self.size, self._dtype))
            if one.video in given:
                raise UserError(f"{self.place}: video {quoted(one.video)} is given twice")
            given.add(one.video)
            if len(group) == AT_ONCE or sum(video.vectors.size for video in group) > _SENT:
                yield group
                group = []
        if group:
            yield group

    def remove(self, videos: Sequence[str]) -> None:
        """Takes videos out.

        Raises:
            UserError: naming the first one that is not there; none is removed then.
        """
        found = self._client.of_ids(videos)
        known = {one.video for one in found}
        missing = [video for video in videos if video not in known]
        if missing:
            raise UserError(f"{self.place}: holds no video {quoted(missing[0])}")
        self._client.delete_videos(list(known))
        self._client.delete_windows([one.number for one in found])

    # ---- searching -----------------------------------------------------------------------------------------

    def search(
        self, queries: NDArray[np.float32], n: int, where: Filter = EVERYTHING, *, exact: bool = False
    ) -> list[list[FoundVideo]]:
        """For every query ``(Q, size)`` the `n` videos with the highest-scoring window, best first.

        Raises:
            UserError: if the queries do not fit, or the server does not answer.
        """
        vectors = checked_queries(queries, self.size, n)
        return [self._searched(query, n, where, exact) for query in vectors]

    def _searched(self, query: NDArray[np.float32], n: int, where: Filter, exact: bool) -> list[FoundVideo]:
        for left in reversed(range(_TRIES)):
            try:
                listed = None if where.videos is None else self._client.of_ids(sorted(where.videos))
                if listed is not None and len(listed) <= _FEW:
                    return self._scored(listed, query, n, where)[0]
                return self._promising(query, n, where, exact, listed)
            except _Changed:
                if not left:
                    raise UserError(f"{self.place}: changes faster than it can be searched") from None
        raise AssertionError

    def _promising(
        self, query: NDArray[np.float32], n: int, where: Filter, exact: bool, listed: list[StoredVideo] | None
    ) -> list[FoundVideo]:
        """The n best of the videos whose windows Qdrant finds; it is asked for more until these are certain."""
        length = float(np.linalg.norm(query))
        unit = query / length if length else query  # float16 holds no large numbers
        wanted = max(CANDIDATES, PER_VIDEO * n)
        while True:
            videos, scores = self._client.nearest(unit, wanted, where, listed, exact)
            best: dict[str, float] = {}
            for video, score in zip(videos, scores, strict=True):
                best.setdefault(video, score * length)
            found, least = self._certain(self._client.of_ids(list(best)), best, query, n, where)
            complete = len(videos) < wanted
            last = scores[-1] * length if scores else 0.0
            if complete or (len(found) >= n and not (exact and last >= least)):
                return found
            wanted *= 4

    def _certain(
        self,
        videos: list[StoredVideo],
        best: Mapping[str, float],
        query: NDArray[np.float32],
        n: int,
        where: Filter,
    ) -> tuple[list[FoundVideo], float]:
        """The n best of some videos, and the score of Qdrant from which on another one could be among them.

        Qdrant computes with float16, so its order is not quite ours.
        """
        looked = n + _BESIDE
        while True:
            found, longest = self._scored(videos[:looked], query, n, where)
            if len(found) < n:
                return found, -np.inf
            # float16 has 11 bits; twice, as both scores are rounded, and once more for the order of the sum
            slack = 2.0**-9 * longest * float(np.linalg.norm(query))
            least = found[-1].best - slack
            if looked >= len(videos) or best[videos[looked].video] < least:
                return found, least
            looked *= 2

    def _scored(
        self, videos: Sequence[StoredVideo], query: NDArray[np.float32], n: int, where: Filter
    ) -> tuple[list[FoundVideo], float]:
        """The n best of some videos, by exact scores of all their windows, and the length of the longest vector."""
        parts: list[ScoredWindows] = []
        longest = 0.0
        counts: dict[int, int] = {}
        for numbers, nth, windows, vectors in self._client.windows_of([one.number for one in videos]):
            if (problem := stored_problem(windows, vectors, self.size)) is not None:
                raise UserError(f"{self.place}: damaged, holds {problem}")
            parts.append(ScoredWindows(numbers, nth, windows, scores_of(vectors, query)))
            longest = max(longest, float(np.linalg.norm(vectors, axis=1).max()))
            for number in numbers.tolist():
                counts[number] = counts.get(number, 0) + 1
        if any(counts.get(one.number, 0) != one.windows for one in videos):
            raise _Changed
        names = {one.number: (one.video, one.duration) for one in videos}
        return ranked(parts, n, where, names.__getitem__), longest
