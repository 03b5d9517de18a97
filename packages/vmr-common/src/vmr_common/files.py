"""Files that are either whole or absent: atomic writes, hashes and JSON lines."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vmr_common.errors import UserError


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path` that replaces `path` when the block succeeds.

    The data is flushed to the disk before the rename, so a killed process or a lost machine leaves either
    the old file or the new one. If the block fails, the temporary file is removed and `path` is untouched.

    Raises:
        UserError: if the folder cannot be written or the disk is full; names the path and the reason.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        os.chmod(temporary, 0o666 & ~umask())
        os.replace(temporary, path)
        temporary = None
        _sync_folder(path.parent)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def umask() -> int:
    """The permissions that this process takes away from new files."""
    current = os.umask(0)
    os.umask(current)
    return current


def _sync_folder(folder: Path) -> None:
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

    Raises:
        UserError: if the file is missing, unreadable, a broken gzip stream or not UTF-8.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        if path.suffix == ".gz":
            data = gzip.decompress(data)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read {path}: {reason}") from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: not UTF-8 text (byte 0x{data[error.start]:02x} at offset {error.start})"
        ) from None


def read_json(path: str | Path) -> Any:
    """Reads a JSON file (UTF-8, optionally gzipped).

    Raises:
        UserError: if it cannot be read or is not JSON (names the line), or an object holds a key twice (of
            which the standard library would silently keep the last).
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in values if keys.count(key) > 1)
            raise UserError(f"{path}: the key {twice[:60]!r} occurs twice in one object")
        return values

    try:
        return json.loads(read_text(path), object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    except UserError:
        raise
    except ValueError as error:  # a number of thousands of digits
        raise UserError(f"{path}: not usable JSON ({error})") from None
    except RecursionError:
        raise UserError(f"{path}: not usable JSON (nested too deeply)") from None


def read_json_lines(
    path: str | Path, *, unfinished_last: bool = False
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number from 1, object) for every non-blank line of a JSON-lines file.

    Args:
        path: The file.
        unfinished_last: Leave out a last line that is still being written: one without a newline that is not JSON.

    Raises:
        UserError: if the file cannot be read or a line is not a JSON object; names the line.
    """
    # split("\n"), not splitlines(): sentences may hold U+2028 and other line separators unescaped
    lines = read_text(path).split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if unfinished_last and number == len(lines):
                return
            raise UserError(f"{path}:{number}: not a JSON object ({error.msg})") from None
        except ValueError as error:  # a number of thousands of digits
            raise UserError(f"{path}:{number}: not usable JSON ({error})") from None
        except RecursionError:
            raise UserError(f"{path}:{number}: not usable JSON (nested too deeply)") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: expected a JSON object, found {type(row).__name__}")
        yield number, row


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file's bytes, hexadecimal.

    Raises:
        UserError: if the file cannot be read.
    """
    digest = hashlib.sha256()
    add_bytes(digest, path)
    return digest.hexdigest()


def add_bytes(digest: hashlib._Hash, path: str | Path) -> None:
    """Adds a file's bytes to a hash.

    Raises:
        UserError: if the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
