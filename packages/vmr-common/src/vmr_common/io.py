"""Files that are either whole or absent: atomic writes, hashes, and strict JSON."""

from __future__ import annotations

import codecs
import contextlib
import errno
import functools
import hashlib
import itertools
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from vmr_common.boundary import boundary, open_bytes, open_regular, read_bytes, reason
from vmr_common.errors import UserError, first_repeated, is_text, quoted

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked and stale files stay
    fcntl = None  # type: ignore[assignment]

_PARTIAL = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.partial", re.DOTALL)
_TRIES = 100

LINE_LIMIT = 64 << 20
"""Bytes of one line of text at the most."""

BLANK_LIMIT = 1 << 20
"""Blank lines of one text at the most: a small packed file can hold hundreds of millions."""


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path` that replaces `path` when the block succeeds.

    The data is flushed to the disk before the rename, so a killed process or a lost machine leaves either the old file
    or the new one. If the block fails, the temporary file is removed and `path` is untouched. What killed processes
    left of the same file is swept. A symbolic link at `path` is replaced, never followed; a device or a pipe is written
    to, and stays what it is. Raises `UserError` if the folder cannot be written, the disk is full, `path` is a folder,
    or nobody reads the pipe; names the path and the reason.
    """
    path = Path(path)
    with writing(path), contextlib.ExitStack() as stack:
        if (sink := _special(path)) is not None:
            import tempfile  # slow to import, and hardly ever needed

            stack.callback(os.close, sink)
            with tempfile.TemporaryDirectory() as folder:
                elsewhere = Path(folder) / "content"
                elsewhere.touch()
                yield elsewhere
                with elsewhere.open("rb") as content, os.fdopen(os.dup(sink), "wb") as target:
                    shutil.copyfileobj(content, target, 1 << 20)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep_partials(path.parent, lambda name: name == path.name)
        handle, temporary = _new_partial(path)
        stack.callback(os.close, handle)
        stack.callback(temporary.unlink, missing_ok=True)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~umask())
        os.replace(temporary, path)
        sync_folder(path.parent)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns what the system raises while a file is written into one error of the user.

    Raises `UserError` for every `OSError`, and for names that no file can have.
    """
    try:
        yield
    except UserError:
        raise
    except (OSError, UnicodeEncodeError) as error:
        raise UserError(f"cannot write {path}: {reason(error)}") from error


def _special(path: Path) -> int | None:
    """An open device or pipe where `path` is one, or a link to one; None where a file can be put there."""
    try:
        kind = os.stat(path).st_mode
    except OSError:
        return None
    if stat.S_ISREG(kind):
        return None
    if stat.S_ISDIR(kind):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    try:
        handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise UserError(f"cannot write {path}: nobody reads from this pipe") from None
        raise
    os.set_blocking(handle, True)
    return handle


def _new_partial(path: Path) -> tuple[int, Path]:
    """A new file beside `path`, locked for as long as its handle is open, so that nobody takes it for a dead one's."""
    for _ in range(_TRIES):
        temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}.partial")
        try:
            handle = os.open(
                temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600
            )
        except FileExistsError:
            continue
        if locked(handle) is not False and temporary.exists():
            return handle, temporary
        os.close(handle)  # somebody swept it before it was locked
    raise OSError(errno.EEXIST, "no free name for a temporary file")


def locked(handle: int) -> bool | None:
    """Locks an open file; False if another process holds it, None where files cannot be locked."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True


def partial_of(name: str) -> str | None:
    """The name of the file that `atomic_path` writes under this name, or None if it is no such name."""
    form = _PARTIAL.fullmatch(name)
    return None if form is None else form["name"]


def sweep_partials(folder: Path, of: Callable[[str], bool]) -> None:
    """Deletes what killed processes left of `atomic_path` in a folder, of files with a name that `of` says yes to.

    Nothing else is deleted; a folder that is a link is not followed.
    """
    if folder.is_symlink():
        return
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name = partial_of(entry.name)
            if name is None or not of(name) or not entry.is_file(follow_symlinks=False):
                continue
            with contextlib.suppress(OSError):
                handle = os.open(entry.path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
                try:
                    if locked(handle) is True:
                        os.unlink(entry.path)
                finally:
                    os.close(handle)


def no_links(folder: Path, names: Iterable[str]) -> None:
    """Makes sure that writing these names inside a folder stays inside it.

    Raises `UserError` for the first of them that is a symbolic link.
    """
    for name in names:
        if (folder / name).is_symlink():
            raise UserError(
                f"{folder / name}: is a symbolic link, which is not followed; expected a file or folder"
            )


def umask() -> int:
    """The permissions that this process takes away from new files."""
    current = os.umask(0)
    os.umask(current)
    return current


def sync_folder(folder: Path) -> None:
    """Makes sure that what was renamed or deleted in a folder is so on the disk, where the file system can do that."""
    with contextlib.suppress(OSError):  # not every file system lets a folder be synced
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    """Writes UTF-8 text atomically (see `atomic_path`)."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json_lines(path: str | Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes one JSON object per line, atomically."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def read_text(path: str | Path) -> str:
    """Reads UTF-8 text, through gzip when the name ends in ``.gz``.

    Raises `UserError` if the file is missing, unreadable, a broken or bloated gzip stream, or not UTF-8.
    """
    return decoded(read_bytes(Path(path)), str(path), first=True)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = first_repeated(key for key, _ in pairs)
        raise UserError(f"the key {quoted(twice, 60)} occurs twice in one object")
    return values


_decode = json.JSONDecoder(object_pairs_hook=_unique).decode  # one for all texts: files have a text per line


def parse_json(text: str | bytes, where: str, first_line: int | None = None) -> Any:
    """The value of a JSON text from a file of any origin; errors begin with `where`: file, and line or key.

    Of a text of many lines, which begins at line `first_line` of the file, errors name the line. Raises `UserError` if
    it is not JSON, nested too deeply, or holds a number of thousands of digits, half a surrogate pair, or an object
    with a key twice (of which the standard library would silently keep the last).
    """
    try:
        if isinstance(text, bytes):
            text = text.decode(json.detect_encoding(text))
        value = _decode(text)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
    except json.JSONDecodeError as error:
        place = where if first_line is None else f"{where}:{first_line - 1 + error.lineno}"
        raise UserError(f"{place}: not JSON ({error.msg})") from None
    except RecursionError:
        raise UserError(f"{where}: not usable JSON (nested too deeply)") from None
    except ValueError as error:  # a number of thousands of digits, bytes that are no text
        raise UserError(f"{where}: not usable JSON ({reason(error)})") from None
    if "\\u" in text:
        _refuse_surrogates(value, where)
    return value


def _refuse_surrogates(value: Any, where: str) -> None:
    """Raises `UserError` for text that no file can hold: JSON can spell half a surrogate pair."""
    left = [value]
    while left:
        item = left.pop()
        if isinstance(item, dict):
            left += item.keys()
            left += item.values()
        elif isinstance(item, list):
            left += item
        elif isinstance(item, str) and not is_text(item):
            raise UserError(f"{where}: {quoted(item, 60)} holds half a surrogate pair, which is no text")


def read_json(path: str | Path) -> Any:
    """Reads a JSON file (UTF-8, optionally gzipped), strictly.

    Raises `UserError` if it cannot be read, or as `parse_json`.
    """
    return parse_json(read_text(path), str(path), 1)


def read_json_lines(
    path: str | Path, *, unfinished_last: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number from 1, object) for every non-blank line of a JSON-lines file; one line is held at a time.

    With `unfinished_last` a last line that is still being written is left out: one without a newline that is not JSON.
    Raises `UserError` naming the line, if the file cannot be read or a line is not a JSON object.
    """
    with open_bytes(Path(path)) as file:
        yield from json_rows(text_lines(file, path), path, unfinished_last=unfinished_last)


def json_rows(
    lines: Iterable[tuple[int, str, bool]], path: str | Path, *, unfinished_last: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Number and object of every line of `text_lines`, as `read_json_lines`."""
    for number, line, ended in lines:
        try:
            row = parse_json(line, f"{path}:{number}")
        except UserError:
            if unfinished_last and not ended:
                return
            raise
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: expected a JSON object, found {type(row).__name__}")
        yield number, row


def text_lines(
    file: IO[bytes], path: str | Path, first: tuple[int, bytes] = (0, b""), *, blank: bool = False
) -> Iterator[tuple[int, str, bool]]:
    """Number, text and whether a newline ended it, of every non-blank line of UTF-8 text; one is held at a time.

    `first` is number and bytes of a line that was read from the file before; with `blank`, blank lines come too. Raises
    `UserError` naming the line, if it cannot be read, is not UTF-8 or longer than `LINE_LIMIT`.
    """
    if len(first[1]) > LINE_LIMIT:
        raise UserError(f"{path}:{first[0]}: a line of more than {LINE_LIMIT:,} bytes")
    for number, raw in itertools.chain([first] if first[0] else [], byte_lines(file, path, first[0])):
        if blank or not raw.isspace():
            # ASCII has no mark of byte order
            text = (
                raw.decode("ascii") if raw.isascii() else decoded(raw, f"{path}:{number}", first=number == 1)
            )
            yield number, text, raw.endswith(b"\n")


def byte_lines(
    file: IO[bytes], path: str | Path, before: int = 0, limit: int = LINE_LIMIT
) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of every line, at most `limit` each; one is held at a time.

    `before` lines were read from the file already. Raises `UserError` naming the line, if it cannot be read, is too
    long, or blank as `BLANK_LIMIT` others were.
    """
    blank = 0
    # what fails where the lines are used does not come back here
    with boundary(f"cannot read {path}"):
        # by newline bytes alone: sentences may hold U+2028 and other line separators unescaped
        for number, raw in enumerate(iter(functools.partial(file.readline, limit + 1), b""), before + 1):
            if len(raw) > limit:
                raise UserError(f"{path}:{number}: a line of more than {limit:,} bytes")
            if raw.isspace():
                blank += 1
                if blank > BLANK_LIMIT:
                    raise UserError(f"{path}:{number}: more than {BLANK_LIMIT:,} blank lines")
            yield number, raw


def decoded(raw: bytes, where: str, *, first: bool) -> str:
    """UTF-8 text, without the mark of byte order that may begin the first line.

    Raises `UserError` naming the first byte that is no text.
    """
    try:
        return raw.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        if first and raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise UserError(
                f'{where}: UTF-16 text (a spreadsheet\'s "Unicode text"), expected UTF-8: save it as UTF-8'
            ) from None
        raise UserError(f"{where}: not UTF-8 text (byte 0x{raw[error.start]:02x})") from None


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, hexadecimal.

    Raises `UserError` if the file cannot be read, or is a pipe, whose bytes nobody could read again.
    """
    with boundary(f"cannot read {path}"), open_regular(Path(path)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
