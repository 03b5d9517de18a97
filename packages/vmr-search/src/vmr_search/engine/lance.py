"""`LanceIndex`: vectors in a table of LanceDB, in a folder or an object store, with many readers.

Install it by ``pip install vmr-search[lance]``. A row is a window. A change is one commit of the table: readers see all
of it or nothing, from their next `LanceIndex.refresh` on. Approximate search asks an inverted file of 8-bit vectors
(IVF_SQ) which videos are worth scoring; their scores are then computed here, from the vectors as they were added. A
graph (HNSW) would be worse here: the windows of one video are each other's neighbours, and hide the other videos.
"""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vmr_common.errors import UserError, quoted
from vmr_common.timeline import LEAST_DURATION, MOST_SECONDS
from vmr_search.engine.checks import checked_queries, checked_videos, require_dtype
from vmr_search.engine.lance_search import SCORED, State, promising, scanned, scored, stored_in
from vmr_search.engine.lance_table import (
    TABLE,
    asking,
    connected,
    flushed,
    inverted_of,
    is_ours,
    listed,
    needs_of,
    numbers_in,
    require_ours,
    rows_of,
    schema_of,
    table_names,
    train,
    values_in,
)
from vmr_search.engine.moment_index import EVERYTHING, Filter, FoundVideo, VideoWindows
from vmr_search.engine.ranking import ranked

_FEW = 1000  # videos that a filter may name without a scan
_ADDED_BYTES = 64 << 20  # of vectors that are held while they are added
_ROWS = 4096  # of a part that is read
_KEPT = datetime.timedelta(hours=1)  # for how long readers find what small additions have replaced


class LanceIndex:
    """An index in a table of LanceDB. What another process writes is seen after `refresh`.

    Several processes may write at the same time; of two that add the same video at the same time, at most one succeeds.
    Search may be called from many threads.

    Args:
        place: A folder, or any address that LanceDB takes (``s3://bucket/corpus``).
        size: Length of a vector.
        identity: Of what makes the vectors.

    Raises:
        UserError: if there is no such table, it is damaged, of another kind or of vectors of another model, or LanceDB
            is not installed.
    """

    def __init__(self, place: Path | str, *, size: int, identity: str = "") -> None:
        self.place, self.size, self._identity = place, size, identity
        self._database = connected(place, create=False)
        self._local = Path(place) if isinstance(place, Path) or "://" not in place else None
        self._dtype = np.dtype(np.float16)
        self._state = self._opened()

    @classmethod
    def create(
        cls,
        place: Path | str,
        *,
        size: int,
        identity: str = "",
        dtype: Literal["float16", "float32"] = "float16",
    ) -> LanceIndex:
        """An empty index.

        Args:
            place: See the class.
            size: Length of a vector.
            identity: Of what makes the vectors.
            dtype: Of the vectors, ``float16`` or ``float32``.

        Raises:
            UserError: if there is a table with videos or of another kind already, or the place cannot be written.
        """
        require_dtype(dtype, place)
        database = connected(place, create=True)
        schema = schema_of(size, dtype, identity)
        with asking(f"{place}: LanceDB cannot create a table there"):
            begun = TABLE in table_names(database)
            if begun:
                found = database.open_table(TABLE)
                if not is_ours(found.schema) or found.count_rows():
                    raise UserError(f"{place}: holds a table {TABLE!r} already")
            database.create_table(TABLE, schema=schema, mode="overwrite" if begun else "create")
        return cls(place, size=size, identity=identity)

    @classmethod
    def open(
        cls, place: Path | str, *, size: int, identity: str = "", device: str = "cpu", **created: Any
    ) -> LanceIndex:
        """The index that was created there; see the class. LanceDB searches on the processor, whatever the device."""
        return cls(place, size=size, identity=identity)

    # ---- content -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with asking(f"{self.place}: LanceDB cannot read it"):
            yield

    def _opened(self) -> State:
        with self._reading():
            if TABLE not in table_names(self._database):
                raise UserError(f"{self.place}: not an index of LanceDB (no table {TABLE!r})")
            table = self._database.open_table(TABLE)
            schema = table.schema
        self._dtype = np.dtype(require_ours(schema, self.place, self.size, self._identity))
        return self._state_of(table)

    def _state_of(self, table: Any) -> State:
        """The content of a version of the table. Of two that added a video at the same time the first one counts."""
        with self._reading():
            found = table.search().where("nth = 0").select(["video", "number", "duration"]).to_arrow()
            found = found.sort_by("number")
            columns = [values_in(found, name).tolist() for name in ("video", "number", "duration")]
            inverted = inverted_of(table)
        numbers: dict[str, int] = {}
        durations: dict[str, float] = {}
        stray = []
        for video, number, duration in zip(*columns, strict=True):
            if not (video and number >= 0 and LEAST_DURATION <= duration <= MOST_SECONDS):  # false for NaN
                raise UserError(
                    f"{self.place}: damaged, video {quoted(video, 60)} has number {number}, duration {duration:g}"
                )
            if numbers.setdefault(video, number) == number:
                durations[video] = duration
            else:
                stray.append(number)
        return State(table, numbers, durations, inverted, stray)

    def refresh(self) -> None:
        """Takes in the table as it is now.

        Raises:
            UserError: if it cannot be read, or another kind of table is there now.
        """
        with self._reading():
            unchanged = self._database.open_table(TABLE).version == self._state.table.version
        if not unchanged:
            self._state = self._opened()

    def __len__(self) -> int:
        """Number of videos."""
        return len(self._state.numbers)

    def __contains__(self, video: object) -> bool:
        return video in self._state.numbers

    def videos(self) -> list[str]:
        """The ids of all videos, in the order in which they were added."""
        return list(self._state.numbers)

    def durations(self) -> dict[str, float]:
        """Seconds by video, of all."""
        return dict(self._state.durations)

    def verify(self) -> None:
        """Reads every row; raises `UserError` for the first that cannot be read or does not belong to its video."""
        state = self._state
        counts = dict.fromkeys(state.numbers.values(), 0)
        lasts = dict.fromkeys(state.numbers.values(), 0)
        with self._reading():
            for batch in state.table.search().select(SCORED).to_batches(_ROWS):
                stored_in(batch, self.size)
                pairs = zip(numbers_in(batch).tolist(), values_in(batch, "nth").tolist(), strict=True)
                for number, nth in pairs:
                    if number in counts:
                        counts[number] += 1
                        lasts[number] = max(lasts[number], nth + 1)
        for video, number in state.numbers.items():
            if counts[number] != lasts[number]:
                raise UserError(f"{self.place}: damaged, windows of video {quoted(video)} are missing")

    def close(self) -> None:
        """Lets go of the table; nothing else can be done with the index then."""
        self._state = State(None, {}, {}, None)

    # ---- writing -------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Any]:
        """The newest version of the table; what the block writes to it is on the disk afterwards."""
        with flushed(self._local), asking(f"{self.place}: LanceDB cannot write to it"):
            yield self._database.open_table(TABLE)

    def add(self, videos: Iterable[VideoWindows]) -> int:
        """Adds videos; how many. They are written in parts as they come: few are held at a time.

        Raises:
            UserError: if a video is there already or not possible, another process added it at the same time, or the
                disk is full; what was written before stays.
        """
        return self._write(videos, replace=False)

    def replace(self, videos: Iterable[VideoWindows]) -> int:
        """As `add`, for videos of which some are there: these are there once at any instant, old or new."""
        return self._write(videos, replace=True)

    def _write(self, videos: Iterable[VideoWindows], *, replace: bool) -> int:
        self.refresh()
        count = 0
        taken = () if replace else self
        checked = checked_videos(videos, self.size, self._dtype, there=taken, place=self.place)
        for group in _grouped(checked):
            known = self._state.numbers
            first = max(time.time_ns(), max(known.values(), default=0) + 1)
            numbers = dict(zip((one.video for one in group), range(first, first + len(group)), strict=True))
            old = [known[video] for video in numbers if video in known]
            with self._writing() as table:
                rows = rows_of(group, list(numbers.values()), table.schema)
                before = table.version
                if old:
                    merge = table.merge_insert("number").when_not_matched_insert_all()
                    merge.when_not_matched_by_source_delete(listed(old)).execute(rows)
                else:
                    table.add(rows)
            self._committed(
                table, group, numbers, alone=before == self._state.table.version == table.version - 1
            )
            count += len(group)
            self._tend()
        return count

    def _committed(
        self, table: Any, group: list[VideoWindows], numbers: dict[str, int], *, alone: bool
    ) -> None:
        """Takes in what was written; if others wrote at the same time, makes sure that no video is there twice."""
        if alone:
            state = self._state
            kept = {video: number for video, number in state.numbers.items() if video not in numbers}
            durations = state.durations | {one.video: one.duration for one in group}
            self._state = State(table, kept | numbers, durations, state.inverted, state.stray)
            return
        with self._reading():
            found = table.search().where("nth = 0").select(["video", "number"]).to_arrow().to_pydict()
        pairs = zip(found["video"], found["number"], strict=True)
        twice = [video for video, number in pairs if numbers.get(video, number) != number]
        if twice:
            with self._writing() as table:
                table.delete(listed([numbers[video] for video in twice]))
        self._state = self._state_of(table)
        if twice:
            raise UserError(
                f"{self.place}: another process wrote video {quoted(twice[0])} at the same time; it is what that wrote"
            )

    def remove(self, videos: Sequence[str]) -> None:
        """Takes videos out; `compact` gives their space back.

        Raises:
            UserError: naming the first video that is not there; none is removed then.
        """
        self.refresh()
        state = self._state
        missing = [video for video in videos if video not in state.numbers]
        if missing:
            raise UserError(f"{self.place}: holds no video {quoted(missing[0])}")
        if videos:
            self._delete([state.numbers[video] for video in dict.fromkeys(videos)])

    def _delete(self, numbers: list[int]) -> None:
        with self._writing() as table:
            table.delete(listed(numbers))
        self._state = self._state_of(table)

    def compact(self) -> None:
        """Merges small files, drops what was removed and all earlier versions, and brings the inverted file up to date.

        Readers of an earlier version, on any machine, go on with the newest one.
        """
        self.refresh()
        if self._state.stray:
            self._delete(self._state.stray)
        self._tend(now=True)

    def _tend(self, *, now: bool = False) -> None:
        """Keeps the search fast: merges small files, and trains the inverted file or takes the new windows into it."""
        with self._reading():
            needs = needs_of(self._state.table)
        if not (now or any(needs)):
            return
        with self._writing() as table:
            if needs.partitions:
                train(table, needs.partitions)
            # 0 would be the same, and a warning
            table.optimize(cleanup_older_than=datetime.timedelta(milliseconds=1) if now else _KEPT)
        self._state = self._state_of(table)

    # ---- searching -----------------------------------------------------------------------------------------

    def search(
        self, queries: NDArray[np.float32], n: int, where: Filter = EVERYTHING, *, exact: bool = False
    ) -> list[list[FoundVideo]]:
        """For every query ``(Q, size)`` the `n` videos with the highest-scoring window, best first.

        Raises:
            UserError: if the queries do not fit, or the table cannot be read.
        """
        vectors = checked_queries(queries, self.size, n)
        state = self._state
        try:
            return self._searched(state, vectors, n, where, exact)
        except UserError:
            self.refresh()  # a writer may have dropped the version that we read
            if self._state is state:
                raise
            return self._searched(self._state, vectors, n, where, exact)

    def _searched(
        self, state: State, queries: NDArray[np.float32], n: int, where: Filter, exact: bool
    ) -> list[list[FoundVideo]]:
        counted = state.counted(where.videos)
        with self._reading():
            if len(counted) <= n or (where.videos is not None and len(counted) <= _FEW):
                chosen = [counted] * len(queries)
            elif exact or state.inverted is None:
                chosen = scanned(state, queries, n, where, counted)
            else:
                chosen = [promising(state, state.inverted, query, n, where, counted) for query in queries]
            parts = [
                list(scored(state, numbers, query, where))
                for numbers, query in zip(chosen, queries, strict=True)
            ]
        return [ranked(found, n, where, state.named) for found in parts]


def _grouped(videos: Iterable[VideoWindows]) -> Iterator[list[VideoWindows]]:
    """Videos in parts that are held in memory and committed together."""
    group: list[VideoWindows] = []
    held = 0
    for one in videos:
        group.append(one)
        held += one.vectors.nbytes
        if held >= _ADDED_BYTES:
            yield group
            group, held = [], 0
    if group:
        yield group
