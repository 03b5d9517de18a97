"""Searches of the server: at most so many at a time, in threads, the last answers kept for the next page."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import anyio.to_thread

from vmr_common.errors import UserError, quoted
from vmr_search.engine.moment_index import Filter
from vmr_search.hits import Results
from vmr_search.search import MOST_HITS, VIDEOS, Search
from vmr_search.server.errors import Refused
from vmr_search.server.limits import MOST_TOGETHER, Gate, Gone
from vmr_search.server.schema import SearchRequest
from vmr_search.server.videos import Library

logger = logging.getLogger(__name__)
KEPT = 128
"""Answers that are kept."""
FRESH_S = 5.0
"""Seconds after which the index is refreshed."""
KEPT_S = 60.0
"""Seconds for which one is kept, so that what was added to the index is found."""
_COMMON = ("the", "a", "person", "red", "is")  # words of which a model knows one
_STEP = 50  # answers are asked for in multiples of it, so that the next page is there already


@dataclass(frozen=True)
class _Settings:
    """The settings that two searches share that may share a scan."""

    k: int
    where: Filter
    least_score: float | None
    per_video: int | None
    exact: bool


@dataclass(eq=False)
class _Asked:
    """A sentence that waits for its answer."""

    text: str
    answer: asyncio.Future[Results]
    taken: bool = False


def _unsearchable(text: str, why: str) -> Refused:
    return Refused(422, "unsearchable", f"q: the sentence {quoted(text, 60)}: {why}", "q")


def _failed(error: UserError) -> Refused:
    """The answer for an error: what a search says of a sentence is told, what it says of files is for the log."""
    if str(error).startswith("the sentence"):
        return Refused(422, "unsearchable", f"q: {error}", "q")
    logger.error("%s", error)
    return Refused(500, "unreadable", "the index cannot be searched; the server's log says why")


class Finder:
    """Answers requests by a search.

    Args:
        search: The search; is used by several threads at a time.
        library: Tells the folders.
        running: Searches at a time.
        waiting_s: Seconds that one waits for its turn.
        look_into: Videos that a grounding method looks into.
        exact: Score every video, also where a request does not say so.
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
        self._refreshing, self._fresh_until = threading.Lock(), time.monotonic() + FRESH_S
        self._waiting: dict[_Settings, list[_Asked]] = {}

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
            Refused: naming the parameter that is wrong; 503 if it is busy, 500 if the index cannot be read.
        """
        if self._warm is not None and not self._warm.done():
            await asyncio.wait([self._warm], timeout=self.gate.waiting_s)
        if not wanted.q.strip():
            raise Refused(422, "invalid", "q: the sentence is empty", "q")
        end = wanted.offset + wanted.limit
        k = min(-(-(end + 1) // _STEP) * _STEP, MOST_HITS)
        # an engine may ask another machine
        where = await anyio.to_thread.run_sync(self._where, wanted) if wanted.video else self._where(wanted)
        exact = wanted.exact or self.exact
        settings = _Settings(k, where, wanted.least_score, wanted.per_video, exact)
        found = self._of_before((wanted.q, settings))
        if found is None:
            found = await self._together(wanted.q, settings, gone)
            self._keep((wanted.q, settings), found)
        return found, len(found) > end

    async def _together(self, text: str, settings: _Settings, gone: Gone | None) -> Results:
        """The answer to a sentence; those that wait share one scan where their settings are the same."""
        mine = _Asked(text, asyncio.get_running_loop().create_future())
        waiting = self._waiting.setdefault(settings, [])
        waiting.append(mine)
        try:
            async with self.gate.place(gone):
                if not mine.taken:
                    most = MOST_TOGETHER if self.search.grounder is None else 1
                    others = [one for one in waiting if one is not mine and not one.taken]
                    await self._answer([mine, *others][:most], settings)
            return await mine.answer
        finally:
            waiting.remove(mine)
            if not waiting:
                self._waiting.pop(settings, None)

    async def _answer(self, batch: Sequence[_Asked], settings: _Settings) -> None:
        for one in batch:
            one.taken = True
        found: Sequence[Results | Exception] = [Refused(503, "busy", "the search was stopped")] * len(batch)
        try:
            found = await self.gate.thread(self._search, [one.text for one in batch], settings)
        except Exception as error:
            found = [error] * len(batch)
        finally:
            for one, answer in zip(batch, found, strict=True):
                if isinstance(answer, Exception):
                    one.answer.set_exception(answer)
                    one.answer.exception()  # is known, also where nobody waits for it any more
                else:
                    one.answer.set_result(answer)

    def _search(self, texts: Sequence[str], settings: _Settings) -> list[Results | Exception]:
        """An answer to each sentence, or why it cannot be searched for."""
        try:
            self._refresh()
            reasons = self.search.retriever.unsearchable(texts)
            known = [text for text, why in zip(texts, reasons, strict=True) if why is None]
            found = iter(self._many(known, settings))
        except UserError as error:
            if len(texts) > 1:  # one of them may be at fault
                return [answer for text in texts for answer in self._search([text], settings)]
            return [_failed(error)]
        return [
            next(found) if why is None else _unsearchable(text, why)
            for text, why in zip(texts, reasons, strict=True)
        ]

    def _many(self, texts: Sequence[str], settings: _Settings) -> list[Results]:
        return self.search.many(
            texts,
            settings.k,
            where=settings.where,
            least_score=settings.least_score,
            per_video=settings.per_video,
            videos=self.look_into,
            exact=settings.exact,
        )

    def _refresh(self) -> None:
        """Sees what writers have added, every few seconds."""
        if time.monotonic() < self._fresh_until or not self._refreshing.acquire(blocking=False):
            return
        try:
            self.search.engine.refresh()
        finally:
            self._fresh_until = time.monotonic() + FRESH_S
            self._refreshing.release()

    def _where(self, wanted: SearchRequest) -> Filter:
        for video in wanted.video:
            if video not in self.search.engine:
                message = f"video: {quoted(video, 60)} is not in the index; ids are names of files without the ending"
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
        until, found = self._kept.get(key, (0.0, None))
        return found if time.monotonic() < until else None

    def _keep(self, key: Hashable, found: Results) -> None:
        self._kept.pop(key, None)
        self._kept[key] = (time.monotonic() + KEPT_S, found)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
