"""The application: addresses, and what answers them."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request, Response
from starlette.responses import FileResponse

from vmr_common.version import __version__
from vmr_search.search import VIDEOS, Search
from vmr_search.server import clips, errors, page
from vmr_search.server.addresses import found_moment
from vmr_search.server.clips import require_moment
from vmr_search.server.errors import Failure
from vmr_search.server.finding import Finder
from vmr_search.server.guard import Guard
from vmr_search.server.limits import MOST_MARKED, MOST_PICTURES, Gate
from vmr_search.server.pictures import Pictures
from vmr_search.server.schema import Health, MarkersRequest, SearchAnswer, SearchRequest, Seconds
from vmr_search.server.videos import Library, play
from vmr_video.answers.files import Kind

ABOUT = """Finds moments of a corpus of videos by a sentence. Read only: every request is a GET.
Times are seconds of the video."""
_FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": Failure} for status in (403, 404, 414, 422, 500, 501, 503)
}
Text = Annotated[str, Query(max_length=1000)]


def create_app(
    search: Search,
    files: Mapping[str, Path] | None = None,
    roots: Sequence[Path] = (),
    *,
    hosts: Collection[str] | None = None,
    examples: Sequence[str] = (),
    searches: int | None = None,
    waiting_s: float = 20.0,
    look_into: int = VIDEOS,
    exact: bool = False,
) -> FastAPI:
    """The application of a search.

    Args:
        search: The search; is used by several threads at a time.
        files: The video file of each id; None: those that the search knows.
        roots: The folders outside of which no file is served.
        hosts: Names under which it answers (`guard.LOCAL`); None: any.
        examples: Sentences that the page offers.
        searches: At a time; None: as many as there are processors, 4 at the most.
        waiting_s: Seconds that a request waits for its turn, before the answer is 503.
        look_into: Videos that a grounding method looks into.
        exact: Score every video, also where a request does not say so.

    Returns:
        It; its `state.ended` is an event that ends the encoding of clips, which nothing else interrupts.
    """
    library = Library(search.files if files is None else files, roots)
    running = searches or min(os.cpu_count() or 1, 4)
    finder = Finder(search, library, running, waiting_s, look_into, exact)
    work, ended = tempfile.TemporaryDirectory(prefix="vmr-search-"), threading.Event()

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        finder.start()
        try:
            yield
        finally:
            ended.set()
            work.cleanup()

    app = FastAPI(
        title="vmr-search",
        version=__version__,
        description=ABOUT,
        docs_url=None,  # they load scripts from elsewhere; ours is at /docs
        redoc_url=None,
        lifespan=lifespan,
        responses=_FAILURES,
    )
    app.state.ended = ended
    errors.install(app, [*roots, Path(work.name)])
    app.add_middleware(Guard, hosts=hosts)
    app.include_router(_Found(finder, Path(work.name), waiting_s).router())
    app.include_router(_Media(library, Path(work.name), waiting_s, ended.is_set).router())
    app.include_router(page.router(search, library, examples, app))
    return app


class _Found:
    """The addresses that search."""

    def __init__(self, finder: Finder, work: Path, waiting_s: float) -> None:
        self.finder, self.work = finder, work
        self.gate = Gate(1, waiting_s, "the export")

    def router(self) -> APIRouter:
        router = APIRouter()
        add = router.add_api_route
        add("/search", self.search, methods=["GET"], summary="Search for a sentence", tags=["search"])
        about = "All that a search finds, as markers for editors"
        add("/markers", self.markers, methods=["GET"], summary=about, tags=["files"], response_class=Response)
        add("/health", self.health, methods=["GET"], summary="State of the server", tags=["server"])
        return router

    async def search(self, wanted: Annotated[SearchRequest, Query()], request: Request) -> SearchAnswer:
        found, more = await self.finder.find(wanted, request.is_disconnected)
        shown = found[wanted.offset : wanted.offset + wanted.limit]
        return SearchAnswer(
            query=wanted.q,
            offset=wanted.offset,
            more=more,
            videos=found.videos,
            note=found.note,
            seconds=found.seconds,
            hits=[
                found_moment(rank, hit, self.finder.library)
                for rank, hit in enumerate(shown, wanted.offset + 1)
            ],
        )

    async def markers(self, wanted: Annotated[MarkersRequest, Query()], request: Request) -> Response:
        found, _ = await self.finder.find(wanted, request.is_disconnected)
        library = self.finder.library
        hits = [hit for hit in found[wanted.offset : wanted.offset + wanted.limit] if hit.video in library]

        def made() -> Response:
            answers = [clips.found_answer(hit, found, library) for hit in hits[:MOST_MARKED]]
            readable = [answer for answer in answers if answer is not None]
            return clips.markers(readable, wanted.kind, self.work)

        return await self.gate.run(made, gone=request.is_disconnected)

    def health(self) -> Health:
        return Health(
            status="ready" if self.finder.ready else "starting",
            version=__version__,
            videos=len(self.finder.search.engine),
            files=len(self.finder.library),
        )


class _Media:
    """The addresses that read video files."""

    def __init__(self, library: Library, work: Path, waiting_s: float, ended: Callable[[], bool]) -> None:
        self.library, self.work, self.ended = library, work, ended
        self.pictures = Pictures()
        self.small = Gate(2, waiting_s, "the making of pictures")
        self.large = Gate(1, waiting_s, "the making of clips")

    def router(self) -> APIRouter:
        router = APIRouter(tags=["files"])

        def add(place: str, call: Any, about: str, kind: str, methods: Sequence[str] = ("GET",)) -> None:
            responses: dict[int | str, dict[str, Any]] = {200: {"content": {kind: {}}}}
            settings: dict[str, Any] = {"response_class": Response, "responses": responses}
            router.add_api_route(place, call, methods=list(methods), summary=about, **settings)

        add("/video/{video:path}", self.video, "The video's file, whole or in ranges", "video/*")
        router.add_api_route("/video/{video:path}", self.video, methods=["HEAD"], include_in_schema=False)
        add("/thumb/{video:path}", self.thumb, "The picture at a time", "image/jpeg")
        add("/strip/{video:path}", self.strip, "Pictures of a stretch side by side", "image/jpeg")
        add("/clip/{video:path}", self.clip, "A moment as a file", "video/mp4")
        add("/markers/{video:path}", self.markers, "A moment as a marker for editors", "text/csv")
        return router

    async def video(self, video: str, request: Request) -> FileResponse:
        return play(self.library.file(video), request.headers.get("range"))

    async def thumb(
        self,
        video: str,
        request: Request,
        t: Seconds = 0.0,
        height: Annotated[int, Query(ge=16, le=480)] = 180,
    ) -> Response:
        path = self.library.file(video)
        gone = request.is_disconnected
        data = await self.small.run(self.pictures.thumb, path, round(t, 2), height, gone=gone)
        return _picture(data)

    async def strip(
        self,
        video: str,
        request: Request,
        start: Seconds,
        end: Seconds,
        n: Annotated[int, Query(ge=1, le=MOST_PICTURES)] = 6,
    ) -> Response:
        require_moment(start, end, most=float("inf"))
        path = self.library.file(video)
        gone = request.is_disconnected
        data = await self.small.run(self.pictures.strip, path, round(start, 2), round(end, 2), n, gone=gone)
        return _picture(data)

    async def clip(
        self, video: str, request: Request, start: Seconds, end: Seconds, exact: bool = True
    ) -> Response:
        require_moment(start, end)
        path = self.library.file(video)
        gone = request.is_disconnected
        return await self.large.run(clips.clip, path, start, end, exact, self.work, self.ended, gone=gone)

    async def markers(
        self,
        video: str,
        request: Request,
        start: Seconds,
        end: Seconds,
        kind: Kind = "csv",
        q: Text = "",
        score: Annotated[float, Query(allow_inf_nan=False)] = 0.0,
    ) -> Response:
        require_moment(start, end, most=float("inf"))
        path = self.library.file(video)

        def made() -> Response:
            return clips.markers(
                [clips.answer_of(path, q, start, end, score)],
                kind,
                self.work,
                clips.name_of(path, start, end),
            )

        return await self.small.run(made, gone=request.is_disconnected)


def _picture(data: bytes) -> Response:
    return Response(data, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=300"})
