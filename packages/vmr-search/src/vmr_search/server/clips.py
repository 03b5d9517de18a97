"""Moments to take away: clips as files, and markers for editors; made for one request and then deleted."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from vmr_common.errors import UserError
from vmr_search.hits import Hit, Results
from vmr_search.server.errors import Refused
from vmr_search.server.limits import MOST_CLIP_S
from vmr_search.server.videos import Library

if TYPE_CHECKING:
    from vmr_video.answers import Answer
    from vmr_video.answers.files import Kind

_TYPES = {"edl": "text/plain", "fcpxml": "application/xml", "csv": "text/csv"}


class Passing(FileResponse):
    """A file in a folder of its own, which is deleted once it was sent."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            shutil.rmtree(Path(self.path).parent, ignore_errors=True)


def answer_of(path: Path, text: str, start: float, end: float, score: float = 0.0, note: str = "") -> Answer:
    """A moment of a file as the record that clips and markers are made of.

    Raises:
        Refused: 422 if it does not lie in the video, 501 where videos cannot be read here.
        UserError: if the file cannot be read.
    """
    try:
        from vmr_video.answers import Answer
        from vmr_video.media import probe

        made = Answer(probe(path), text, [[start, end]], [score], note)  # type: ignore[arg-type]
    except ModuleNotFoundError:
        raise Refused(501, "not_available", "this needs PyAV, which is not installed") from None
    if not made.within():
        length = f"{made.video.duration:.2f} s"
        raise Refused(422, "invalid", f"start: the moment does not lie in the video ({length})", "start")
    return made


def found_answer(hit: Hit, found: Results, library: Library) -> Answer | None:
    """A hit as such a record; None if its file is gone or cannot be read.

    Raises:
        Refused: 501 where videos cannot be read here.
    """
    try:
        path = library.file(hit.video)
        return answer_of(path, found.text, hit.start, hit.end, hit.score, found.note)
    except UserError:
        return None
    except Refused as refused:
        if refused.status == 501:
            raise
        return None


def require_moment(start: float, end: float, most: float = MOST_CLIP_S) -> None:
    """Raises `Refused` unless a moment ends after its start, and is not too long."""
    if end <= start:
        raise Refused(422, "invalid", f"end: expected more than the start, {start:g} s", "end")
    if end - start > most:
        raise Refused(422, "invalid", f"end: expected at most {most:g} s after the start", "end")


def name_of(path: Path, start: float, end: float) -> str:
    """The name of a file of a moment, without an ending."""
    return f"{path.stem[:120]}-{start:.2f}-{end:.2f}"


def clip(
    path: Path, start: float, end: float, exact: bool, work: Path, stop: Callable[[], bool] = lambda: False
) -> Response:
    """A moment as a file to save.

    Args:
        path: The video.
        start: Seconds.
        end: Seconds.
        exact: Encode it anew, so that it begins and ends to the frame; else a copy from the key frame before it.
        work: Folder for what is made.
        stop: Asked while it is encoded; True ends that.

    Raises:
        Refused: as `answer_of`.
        UserError: if the video cannot be read, or `stop` has said so.
    """
    answer = answer_of(path, "clip", start, end)
    from vmr_video.answers import cut_moments

    folder = Path(tempfile.mkdtemp(dir=work))
    with _deleted_on_failure(folder):
        (made,) = cut_moments(folder, [answer], exact=exact, stop=stop)
        name = f"{name_of(path, start, end)}{made.suffix}"
        kind = {".mp4": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime"}.get(made.suffix)
        return Passing(made, media_type=kind or "video/x-matroska", filename=name, stat_result=made.stat())


def markers(answers: Sequence[Answer], kind: Kind, work: Path, name: str = "moments") -> Response:
    """Moments as a file for editors, `name` without its ending.

    Raises:
        Refused: 404 if there is none.
        UserError: as `vmr_video.answers.export`.
    """
    if not answers:
        raise Refused(404, "nothing_found", "there is no moment of a video file to export")
    from vmr_video.answers import export

    with tempfile.TemporaryDirectory(dir=work) as folder:
        file = Path(folder) / f"moments.{kind}"
        try:
            export(file, answers, kind)
        except UserError as error:
            raise Refused(422, "invalid", str(error), "kind") from None
        data = file.read_bytes()
    headers = {"Content-Disposition": f"attachment; filename*=utf-8''{quote(f'{name}.{kind}', safe='')}"}
    return Response(data, media_type=_TYPES[kind], headers=headers)


@contextlib.contextmanager
def _deleted_on_failure(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
