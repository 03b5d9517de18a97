"""The video files that the server may read: a table of ids, never a path out of a request."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from vmr_common.errors import UserError, quoted
from vmr_search.server.errors import Refused

logger = logging.getLogger(__name__)

KINDS = {
    ".mp4": "video/mp4",
    ".m4v": "video/mp4",
    ".mov": "video/mp4",  # browsers play most of them under this name, and none under their own
    ".webm": "video/webm",
    ".mkv": "video/x-matroska",
    ".ogv": "video/ogg",
    ".ogm": "video/ogg",
    ".avi": "video/x-msvideo",
    ".ts": "video/mp2t",
    ".mpg": "video/mpeg",
    ".mpeg": "video/mpeg",
    ".3gp": "video/3gpp",
    ".gif": "image/gif",
}
"""Media types by the ending of a file; of others ``application/octet-stream``."""


_LONGEST_RANGE = 200  # letters of the header: some ranges of some digits


class Library:
    """Video files by id, of which those are served that lie in some folders.

    Args:
        files: The file of each id.
        roots: The folders; a link in them that leads out is not followed.
    """

    def __init__(self, files: Mapping[str, Path], roots: Sequence[Path]) -> None:
        self._files = dict(files)
        self._roots = [root.resolve() for root in roots]
        self._by_folder: dict[str, list[str]] = {}
        for video, path in self._files.items():
            self._by_folder.setdefault(_folder_of(path, roots), []).append(video)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, video: object) -> bool:
        return video in self._files

    @property
    def folders(self) -> list[str]:
        """The folders below the given ones that hold videos, by their path from there; without the given ones."""
        return sorted(name for name in self._by_folder if name)

    def in_folder(self, name: str) -> frozenset[str]:
        """The ids in a folder and those below it.

        Raises:
            Refused: if it holds none.
        """
        below = f"{name.strip('/')}/" if name.strip("/") else ""
        found = frozenset(
            video
            for folder, videos in self._by_folder.items()
            if f"{folder}/".startswith(below)
            for video in videos
        )
        if not found:
            raise Refused(422, "no_such_folder", f"folder: {quoted(name, 60)} holds no video", "folder")
        return found

    def title(self, video: str) -> str:
        """The name of a video's file, else its id."""
        path = self._files.get(video)
        return video if path is None else path.name

    def file(self, video: str) -> Path:
        """The regular file of a video, all links followed.

        Raises:
            Refused: 404 if no file is known of this id, or it is gone, or lies outside.
        """
        path = self._files.get(video)
        if path is None:
            raise Refused(404, "no_such_video", "there is no file of this video", "video")
        try:
            found = path.resolve(strict=True)
            regular = stat.S_ISREG(os.stat(found).st_mode)
        except (OSError, RuntimeError):
            raise Refused(404, "file_gone", "the file of this video is gone", "video") from None
        if not regular or not any(found.is_relative_to(root) for root in self._roots):
            raise Refused(404, "no_such_video", "there is no file of this video", "video")
        return found


def _folder_of(path: Path, roots: Sequence[Path]) -> str:
    for root in roots:
        if path.is_relative_to(root):
            name = path.parent.relative_to(root).as_posix()
            return "" if name == "." else name
    return ""


class Played(FileResponse):
    """A file that may be cut short while it is sent: the log says so in a line, and the connection ends."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        left = 0

        async def counted(message: Message) -> None:
            nonlocal left
            if message["type"] == "http.response.start":
                left = int(Headers(raw=message["headers"]).get("content-length", 0))
            elif message["type"] == "http.response.body":
                left -= len(message.get("body", b""))
                if left > 0 and not message.get("more_body") and scope["method"] != "HEAD":
                    logger.warning("%s: was cut short while it was sent", self.path)
                    return  # an answer without its end: the server closes the connection
            await send(message)

        await super().__call__(scope, receive, counted)


def play(path: Path, request_range: str | None) -> FileResponse:
    """A video file as an answer, whole or the part that the request asks for.

    Raises:
        Refused: 416 for a part that is not there, 404 if the file cannot be read.
    """
    try:
        facts = os.stat(path)
        if not os.access(path, os.R_OK):
            raise UserError("cannot be read")
    except (OSError, UserError):
        raise Refused(404, "file_gone", "the file of this video cannot be read", "video") from None
    if request_range is not None and not _possible(request_range, facts.st_size):
        headers = {"Content-Range": f"bytes */{facts.st_size}"}
        raise Refused(416, "range_not_satisfiable", "the file has no such bytes", headers=headers)
    return Played(
        path,
        media_type=KINDS.get(path.suffix.lower(), "application/octet-stream"),
        stat_result=facts,
        headers={"Cache-Control": "private, no-cache"},
    )


def _possible(text: str, size: int) -> bool:
    """False if a header ``Range`` asks for bytes that are not there, or cannot be understood."""
    unit, _, ranges = text.partition("=")
    if len(text) > _LONGEST_RANGE or unit.strip().lower() != "bytes":
        return False
    for part in ranges.split(","):
        first, dash, last = (word.strip() for word in part.partition("-"))
        if not dash or not all(word.isascii() and word.isdigit() for word in (first, last) if word):
            return False
        if first and last and int(first) > int(last):
            return False
        if not (int(first) < size if first else last and int(last) > 0 and size > 0):
            return False
    return True
