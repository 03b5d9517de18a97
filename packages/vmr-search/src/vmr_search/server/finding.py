"""Searches of the server: at most so many at a time, in threads, the last answers kept for the next page."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable

import anyio.to_thread

from vmr_common.errors import UserError, quoted
from vmr_search.engine.moment_index import Filter
from vmr_search.hits import Results
from vmr_search.search import MOST_HITS, VIDEOS, Search
from vmr_search.server.errors import Refused
from vmr_search.server.limits import Gate, Gone
from vmr_search.server.schema import SearchRequest
from vmr_search.server.videos import Library

logger = logging.getLogger(__name__)
KEPT = 128
"""Answers that are kept."""
KEPT_S = 60.0
"""Seconds for which one is kept, so that what was added to the index is found."""
_COMMON = ("the", "a", "person", "red", "is")  # words of which a model knows one
_STEP = 50  # answers are asked for in multiples of it, so that the next page is there already


class Finder:
    """Answers requests by a search.

    Args:
        search: The search; is used by several threads at a time.
        library: Tells the folders.
        running: Searches at a time.
        waiting_s: Seconds that one waits for its turn.
        look_into: Videos that a grounding method looks into.
        exact: Look at every video, also where a request does not say so.
    """

    def __init__(
        self,
        search: Search,
        library: Library,
        running: int,
        waiting_s: float,
        look_into: int = VIDEOS,
        exact: bool = False,
    ) -> None:
        self.search, self.library = search, library
        self.look_into, self.exact = look_into, exact
        self.gate = Gate(running, waiting_s, "the search")
        self.ready = False
        self._warm: asyncio.Task[None] | None = None
        self._kept: OrderedDict[Hashable, tuple[float, Results]] = OrderedDict()
        self._lock = threading.Lock()

    def start(self) -> None:
        """Loads the model, while pages and files are served already."""
        self._warm = asyncio.create_task(self._load())

    async def _load(self) -> None:
        try:
            await anyio.to_thread.run_sync(self._first)
        except UserError as error:  # the searches say it too
            logger.error("%s", error)
        finally:
            self.ready = True

    def _first(self) -> None:
        """Encodes a sentence, whatever its answer: the first one takes longest."""
        retriever = self.search.retriever
        for text, why in zip(_COMMON, retriever.unsearchable(_COMMON), strict=True):
            if why is None:
                retriever.sentences([text])
                return

    async def find(self, wanted: SearchRequest, gone: Gone | None = None) -> tuple[Results, bool]:
        """The whole answer up to the end of the wanted page at least, and whether there is more behind it.

        Raises:
            Refused: naming the parameter that is wrong; or 503.
            UserError: if the index is damaged.
        """
        if self._warm is not None and not self._warm.done():
            await asyncio.wait([self._warm], timeout=self.gate.waiting_s)
        end = wanted.offset + wanted.limit
        k = min(-(-(end + 1) // _STEP) * _STEP, MOST_HITS)
        where = self._where(wanted)
        key = (wanted.q, k, where, wanted.least_score, wanted.exact)
        found = self._of_before(key)
        if found is None:
            found = await self.gate.run(self._search, wanted, k, where, gone=gone)
            self._keep(key, found)
        return found, len(found) > end

    def _search(self, wanted: SearchRequest, k: int, where: Filter) -> Results:
        if not wanted.q.strip():
            raise Refused(422, "invalid", "q: the sentence is empty", "q")
        why = self.search.retriever.unsearchable([wanted.q])[0]
        if why is not None:
            raise Refused(422, "unsearchable", f"q: the sentence {quoted(wanted.q, 60)}: {why}", "q")
        exact = wanted.exact or self.exact
        least = wanted.least_score
        return self.search(wanted.q, k, where=where, least_score=least, videos=self.look_into, exact=exact)

    def _where(self, wanted: SearchRequest) -> Filter:
        for video in wanted.video:
            if video not in self.search.engine:
                message = f"video: {quoted(video, 60)} is not in the index"
                raise Refused(422, "no_such_video", message, "video")
        chosen: frozenset[str] | None = frozenset(wanted.video) or None
        if wanted.folder:
            inside = frozenset[str]().union(*(self.library.in_folder(name) for name in wanted.folder))
            chosen = inside if chosen is None else chosen & inside
        given = {
            name: value
            for name in ("after", "before", "shortest", "longest")
            if (value := getattr(wanted, name)) is not None
        }
        try:
            return Filter(videos=chosen, **given)
        except UserError as error:
            raise Refused(422, "invalid", str(error), str(error).split()[0]) from None

    def _of_before(self, key: Hashable) -> Results | None:
        with self._lock:
            until, found = self._kept.get(key, (0.0, None))
            return found if time.monotonic() < until else None

    def _keep(self, key: Hashable, found: Results) -> None:
        with self._lock:
            self._kept.pop(key, None)
            self._kept[key] = (time.monotonic() + KEPT_S, found)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
