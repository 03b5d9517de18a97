"""The JSON files of an index, and which files in a folder are its own."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypedDict, TypeVar

from vmr_common.boundary import open_regular, reason
from vmr_common.errors import UserError, quoted
from vmr_common.folder_lock import LOCK
from vmr_common.io import no_links, parse_json, partial_of, write_text
from vmr_common.schema import conform

FORMAT = 2
DOING = "writing to this index"
"""What the lock of a folder says of its holder."""

_LIMIT = 1 << 30  # bytes of a file: some millions of shards

Content = TypeVar("Content")


class _File(TypedDict):
    format: int
    checksum: str
    content: Any


def write_checked(path: Path, content: Mapping[str, Any]) -> None:
    """Writes content with its checksum, atomically."""
    plain = json.loads(json.dumps(content))  # as it is read again: lists where it has tuples
    write_text(path, json.dumps({"format": FORMAT, "checksum": _checksum(plain), "content": plain}, indent=0))


def read_checked(path: Path, schema: type[Content]) -> Content:
    """The content of a file that `write_checked` wrote; do not change it.

    Raises:
        FileNotFoundError: if it is not there.
        UserError: if it is damaged, of another format, or not of its schema; names the key.
    """
    with opened(path) as file:
        text = read_at_most(file, _LIMIT, path)
    found: Content = _parsed(text, path, schema)  # type: ignore[arg-type]
    return found


@functools.lru_cache(maxsize=4)  # an addition looks several times whether a file is still the same
def _parsed(text: bytes, path: Path, schema: Any) -> Any:
    values = parse_json(text, str(path))
    if not isinstance(values, dict) or "content" not in values:
        raise UserError(f"{path}: not a file of an index, or damaged")
    if values.get("format") != FORMAT:
        raise UserError(
            f"{path}: index format {quoted(values.get('format'))}, expected {FORMAT}; build the index anew"
        )
    content = conform(values, _File, str(path))["content"]
    conform(content, schema, f"{path}: content")
    if values["checksum"] != _checksum(content):
        raise UserError(f"{path}: damaged, its checksum does not fit its content")
    return content


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A regular file of an index for reading.

    Raises:
        FileNotFoundError: if it is not there.
        UserError: if it cannot be read.
    """
    try:
        with open_regular(path) as file:
            yield file
    except FileNotFoundError:
        raise
    except OSError as error:
        advice = ""
        if error.errno in (errno.EMFILE, errno.ENFILE):
            advice = ": an index needs one or two at a time, so close others, or raise the limit (ulimit -n)"
        raise UserError(f"cannot read {path}: {reason(error)}{advice}") from error


def read_at_most(file: IO[bytes], limit: int, path: Path) -> bytes:
    """All bytes of a regular file; raises `UserError` if there are more than `limit`."""
    size = os.fstat(file.fileno()).st_size
    if size > limit:
        raise UserError(f"{path}: {size:,} bytes, expected at most {limit:,}")
    return file.read(size)


def require_own(folder: Path, marker: str, begun: Iterable[str] = ()) -> None:
    """Makes sure that an index may be written to a folder: it holds one, nothing, or what a killed writer began.

    Args:
        folder: Need not exist.
        marker: The file that says what the folder holds, and is written last.
        begun: What is written before it.

    Raises:
        UserError: if the folder holds anything else, or one of these names is a link there.
    """
    before = set(begun)
    no_links(folder, [LOCK, marker, *sorted(before)])
    if (folder / marker).exists():
        return
    try:
        names = set(os.listdir(folder))
        ours = {LOCK} | (before if _is_begun(folder) else set())
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{folder}: cannot hold an index ({reason(error)})") from error
    foreign = sorted(name for name in names - ours if partial_of(name) not in {marker, *before})
    if foreign:
        raise UserError(
            f"{folder}: not an index, and not empty (holds {quoted(foreign[0])}); choose a new or an empty folder"
        )


def _is_begun(folder: Path) -> bool:
    """True if the lock says that an index was begun here, in a folder that was empty then."""
    try:
        with open_regular(folder / LOCK) as file:
            return file.read(len(DOING)) == DOING.encode()
    except FileNotFoundError:
        return False
