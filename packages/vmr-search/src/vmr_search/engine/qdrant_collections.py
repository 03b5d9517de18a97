"""The two collections of `QdrantIndex`, and what is asked of them."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vmr_common.boundary import boundary
from vmr_common.errors import UserError, quoted
from vmr_search.engine.moment_index import Filter, VideoWindows
from vmr_search.engine.qdrant_connection import connected

AT_ONCE = 256
"""Points that are written, or read with their vectors, by one request."""

_IDS = uuid.UUID("5b0b1f0c-6f0e-4c55-9d3a-6d1d3f1b3a52")  # of the points of videos, by their ids
_FACTS = str(uuid.uuid5(uuid.NAMESPACE_URL, "vmr-search: the index"))
_NAMED = 1000  # ids or numbers in one request
_TOLD = 10_000  # points that are read at once without vectors
_BREADTH = 512  # of the search in the graph, at the least
_LINKS, _BUILT = 32, 256  # of a point in the graph, and the breadth while it is made


_Item = TypeVar("_Item")


class StoredVideo(NamedTuple):
    """The point of a video.

    Attributes:
        video: Its id.
        number: By which its windows are found; larger the later it was written.
        duration: Seconds.
        windows: How many.
    """

    video: str
    number: int
    duration: float
    windows: int


class Collections:
    """A connection to the two collections of an index.

    Args:
        place: Address of a server, or a folder for the embedded mode.
        name: Of the index.

    Raises:
        UserError: if the client is not installed or the address is not possible.
    """

    def __init__(self, place: Path | str, name: str) -> None:
        self.place, self.embedded = place, isinstance(place, Path)
        self.windows, self.videos = f"{name}-windows", f"{name}-videos"
        # the embedded mode is not made for several threads
        self._lock: contextlib.AbstractContextManager[object] = (
            threading.RLock() if self.embedded else contextlib.nullcontext()
        )
        self._client = connected(place)

    @contextlib.contextmanager
    def _asking(self) -> Iterator[Any]:
        with self._lock, boundary(f"{self.place}: Qdrant does not answer, or refuses"):
            yield self._client

    def close(self) -> None:
        """Lets go of the connection."""
        with contextlib.suppress(UserError), self._asking() as client:
            client.close()

    # ---- the index -----------------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any] | None:
        """Size, dtype and identity of the vectors; None: there is no index."""
        with self._asking() as client:
            if not client.collection_exists(self.videos) or not client.collection_exists(self.windows):
                return None
            found = client.retrieve(self.videos, [_FACTS])
            payload = found[0].payload if found else {}
        if not _are_facts(payload):
            return None
        return {key: payload[key] for key in ("size", "dtype", "identity")}

    def create(self, size: int, dtype: str, identity: str, shards: int | None, replicas: int | None) -> None:
        """Makes empty collections, anew if there are such without videos.

        Raises:
            UserError: if there are others.
        """
        with self._asking() as client:
            begun = [name for name in (self.videos, self.windows) if client.collection_exists(name)]
        if begun and (self.videos not in begun or self.facts() is None or self.count()):
            raise UserError(f"{self.place}: holds a collection {quoted(begun[0])} already")
        with self._asking() as client:
            from qdrant_client import models

            for name in begun:
                client.delete_collection(name)
            vectors = models.VectorParams(
                size=size,
                distance=models.Distance.DOT,
                datatype=models.Datatype.FLOAT16 if dtype == "float16" else models.Datatype.FLOAT32,
                on_disk=True,
                hnsw_config=models.HnswConfigDiff(m=_LINKS, ef_construct=_BUILT),
            )
            spread = {"shard_number": shards, "replication_factor": replicas}
            client.create_collection(self.windows, vectors_config=vectors, **spread)
            client.create_collection(self.videos, vectors_config={}, **spread)
            if not self.embedded:  # which has none, and says so
                for name, key, kind in (
                    (self.windows, "number", models.PayloadSchemaType.INTEGER),
                    (self.windows, "start_s", models.PayloadSchemaType.FLOAT),
                    (self.windows, "end_s", models.PayloadSchemaType.FLOAT),
                    (self.windows, "length_s", models.PayloadSchemaType.FLOAT),
                    (self.videos, "number", models.PayloadSchemaType.INTEGER),
                ):
                    client.create_payload_index(name, key, kind)
            facts = {"size": size, "dtype": dtype, "identity": identity}
            client.upsert(self.videos, [models.PointStruct(id=_FACTS, vector={}, payload=facts)], wait=True)

    # ---- videos --------------------------------------------------------------------------------------------

    def count(self) -> int:
        """Number of videos."""
        from qdrant_client import models

        filled = models.Filter(must=[models.FieldCondition(key="number", range=models.Range(gte=0))])
        with self._asking() as client:
            found = int(client.count(self.videos, count_filter=filled, exact=True).count)
        return max(found, 0)

    def all(self) -> list[StoredVideo]:
        """All videos, in the order of their numbers."""
        found: list[StoredVideo] = []
        for records in self._read(self.videos, None, _TOLD, with_payload=True):
            found += self._videos_in(records)
        return sorted(found, key=lambda one: one.number)

    def of_ids(self, videos: Sequence[str]) -> list[StoredVideo]:
        """The stored ones of some videos, in their order."""
        found: dict[str, StoredVideo] = {}
        for part in _parts(list(dict.fromkeys(videos)), _NAMED):
            with self._asking() as client:
                records = client.retrieve(self.videos, [_point_of(video) for video in part])
            found |= {one.video: one for one in self._videos_in(records)}
        return [found[video] for video in dict.fromkeys(videos) if video in found]

    def write(self, videos: Sequence[VideoWindows], numbers: Sequence[int]) -> None:
        """Writes some videos under new numbers: their windows first, which count when their points are there."""
        from qdrant_client import models

        windows = [
            models.PointStruct(
                id=str(uuid.uuid4()),
                vector=vector,
                payload={
                    "video": one.video,
                    "number": number,
                    "nth": nth,
                    "start_s": start,
                    "end_s": end,
                    "length_s": end - start,
                },
            )
            for one, number in zip(videos, numbers, strict=True)
            for nth, ((start, end), vector) in enumerate(
                zip(one.windows.tolist(), one.vectors.astype(np.float32).tolist(), strict=True)
            )
        ]
        points = [
            models.PointStruct(
                id=_point_of(one.video),
                vector={},
                payload=StoredVideo(one.video, number, one.duration, len(one.windows))._asdict(),
            )
            for one, number in zip(videos, numbers, strict=True)
        ]
        with self._asking() as client:
            for part in _parts(windows, AT_ONCE):
                client.upsert(self.windows, part, wait=True)
            client.upsert(self.videos, points, wait=True)

    def delete_videos(self, videos: Sequence[str]) -> None:
        """Deletes the points of some videos."""
        with self._asking() as client:
            for part in _parts(videos, _NAMED):
                client.delete(self.videos, [_point_of(video) for video in part], wait=True)

    def _videos_in(self, records: Sequence[Any]) -> list[StoredVideo]:
        found = []
        for record in records:
            payload = record.payload or {}
            if str(record.id) != _FACTS:
                with boundary(f"{self.place}: {self.videos} holds points that are no videos"):
                    found.append(
                        StoredVideo(
                            str(payload["video"]),
                            int(payload["number"]),
                            float(payload["duration"]),
                            int(payload["windows"]),
                        )
                    )
        return found

    # ---- windows -------------------------------------------------------------------------------------------

    def counts(self) -> dict[int, int]:
        """Numbers of windows by the number of their video."""
        found: dict[int, int] = {}
        for records in self._read(self.windows, None, _TOLD, with_payload=["number"]):
            for record in records:
                with boundary(f"{self.place}: {self.windows} holds points that are no windows"):
                    number = int((record.payload or {}).get("number", -1))
                found[number] = found.get(number, 0) + 1
        return found

    def windows_of(
        self, numbers: Sequence[int]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float32]]]:
        """The windows of some numbers: numbers, places, seconds and vectors, part by part."""
        for part in _parts(numbers, _NAMED):
            for records in self._read(
                self.windows, _one_of(part), AT_ONCE, with_payload=True, with_vectors=True
            ):
                if not records:
                    continue
                with boundary(f"{self.place}: {self.windows} holds points that are no windows"):
                    told = [record.payload for record in records]
                    places = np.array([[one["number"], one["nth"]] for one in told], dtype=np.int64)
                    windows = np.array([[one["start_s"], one["end_s"]] for one in told], dtype=np.float64)
                    vectors = np.array([record.vector for record in records], dtype=np.float32)
                yield places[:, 0], places[:, 1], windows, vectors

    def nearest(
        self,
        query: NDArray[np.float32],
        n: int,
        where: Filter,
        videos: Sequence[StoredVideo] | None,
        exact: bool,
    ) -> tuple[list[str], list[float]]:
        """Videos and scores of the n windows with the highest score, best first; some may just be replaced."""
        from qdrant_client import models

        conditions = _conditions(where)
        if videos is not None:
            conditions += _one_of([one.number for one in videos]).must
        with self._asking() as client:
            found = client.query_points(
                self.windows,
                query=query.tolist(),
                query_filter=models.Filter(must=conditions) if conditions else None,
                search_params=None
                if self.embedded
                else models.SearchParams(exact=exact, hnsw_ef=max(_BREADTH, 2 * n)),
                limit=n,
                with_payload=["video"],
            ).points
        with boundary(f"{self.place}: {self.windows} holds points that are no windows"):
            return [str(point.payload["video"]) for point in found], [float(point.score) for point in found]

    def delete_windows(self, numbers: Sequence[int]) -> None:
        """Deletes the windows of some numbers."""
        with self._asking() as client:
            for part in _parts(numbers, _NAMED):
                client.delete(self.windows, _one_of(part), wait=True)

    def _read(self, collection: str, where: Any, at_once: int, **wanted: Any) -> Iterator[list[Any]]:
        offset = None
        while True:
            with self._asking() as client:
                records, offset = client.scroll(
                    collection, scroll_filter=where, limit=at_once, offset=offset, **wanted
                )
            yield records
            if offset is None:
                return


def _point_of(video: str) -> str:
    return str(uuid.uuid5(_IDS, video))


def _are_facts(payload: Any) -> bool:
    return (
        isinstance(payload, dict)
        and type(payload.get("size")) is int
        and payload.get("dtype") in ("float16", "float32")
        and isinstance(payload.get("identity"), str)
    )


def _parts(items: Sequence[_Item], count: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), count):
        yield items[start : start + count]


def _one_of(numbers: Sequence[int]) -> Any:
    from qdrant_client import models

    return models.Filter(must=[models.FieldCondition(key="number", match=models.MatchAny(any=list(numbers)))])


def _conditions(where: Filter) -> list[Any]:
    """The conditions of a filter on windows; a little wider than `Filter.keeps`, which decides."""
    from qdrant_client import models

    def between(key: str, **bounds: float) -> Any:
        return models.FieldCondition(key=key, range=models.Range(**bounds))

    conditions = []
    if where.after:
        conditions.append(between("end_s", gt=where.after))
    if np.isfinite(where.before):
        conditions.append(between("start_s", lte=where.before))
    if where.shortest or np.isfinite(where.longest):
        longest = {"lte": where.longest} if np.isfinite(where.longest) else {}
        conditions.append(between("length_s", gte=where.shortest, **longest))
    return conditions
