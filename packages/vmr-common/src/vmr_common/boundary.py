"""Foreign files: whatever is wrong with one ends in one error, and nothing is allocated on its word alone."""

from __future__ import annotations

import contextlib
import gzip
import io
import math
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from vmr_common.errors import UserError, one_line, shortened

FREE = 256 << 20
"""Bytes that a file may ask for whatever its own size."""

RATIO = 64
"""Times its own size that a file may ask for beyond `FREE`: packed text and features stay far below."""

TEXT_LIMIT = 8 << 30
"""Bytes of text that are read from a pipe, or unpacked, at the most."""

PICKLE_START = b"\x80"
PICKLED = "holds pickled objects, which are never loaded"
_BLOCK = 1 << 20


@contextlib.contextmanager
def boundary(what: str, path: Path | None = None) -> Iterator[None]:
    """Turns whatever a library raises over a foreign file into one error of the user.

    Damaged files raise what their damaged part runs into, so no list of exceptions is complete. Keep the block small,
    the library's calls alone: a fault of ours inside it would be called the user's.

    Args:
        what: Begins the message, with what the file should have been: ``a.npy: not a readable npy file``.
        path: The file, whose start is read to tell a pickle from other damage; None where there are only bytes.

    Raises:
        UserError: for every `Exception`; one that is raised inside passes unchanged.
    """
    try:
        yield
    except UserError:
        raise
    except MemoryError:
        raise UserError(f"{what} (it needs more memory than there is)") from None
    except RecursionError:
        raise UserError(f"{what} (nested too deeply)") from None
    except Exception as error:
        pickled = "allow_pickle" in str(error)
        if path is not None and not pickled:
            with contextlib.suppress(OSError, UserError), open_regular(path) as file:
                pickled = file.read(len(PICKLE_START)) == PICKLE_START
        raise UserError(what + (f": it {PICKLED}" if pickled else f" ({reason(error)})")) from None


def reason(error: BaseException) -> str:
    """The text of an error on one line, not too long: zipfile quotes the bytes that it cannot read."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return shortened(one_line(str(text)), 300)


def open_regular(path: Path) -> io.BufferedReader:
    """Opens a regular file for reading; never waits for a pipe or a device.

    Raises `OSError` if it cannot be opened. Raises `UserError` if it is something else than a regular file.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise UserError(f"{path}: expected a regular file, found a folder, a pipe or a device")
    return os.fdopen(handle, "rb")


def require_size(shape: Sequence[int], dtype: np.dtype[Any], stored: int, where: str) -> int:
    """The bytes that an array takes, checked before any of them is allocated; the file holds `stored` bytes of it.

    Raises `UserError`, beginning with `where`, if the declared shape is none, or more than `FREE` and more than `RATIO`
    times the stored bytes are declared.
    """
    if not all(type(count) is int and 0 <= count < 1 << 48 for count in shape) or len(shape) > 32:
        raise UserError(f"{where} declares the shape {tuple(shape)}, expected counts of rows and columns")
    size = math.prod(shape) * dtype.itemsize
    if size > max(FREE, RATIO * stored):
        raise UserError(
            f"{where} declares {size:,} bytes (shape {tuple(shape)}, {dtype}), but the file holds {stored:,} of them"
        )
    return size


def read_bytes(path: Path) -> bytes:
    """All bytes of a file or pipe, unpacked where the name ends in ``.gz``.

    Raises `UserError` if it cannot be read, is a broken gzip stream, or holds more than `open_bytes` allows.
    """
    with open_bytes(path) as file, boundary(f"cannot read {path}"):
        return file.read()


@contextlib.contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """A file or pipe for reading from its start, unpacked where the name ends in ``.gz``, with a bound on its bytes.

    Raises `UserError` if it cannot be opened; what fails in reading is for the caller's `boundary`, but that too many
    bytes come is told here.
    """
    with contextlib.ExitStack() as stack:
        try:
            raw: IO[bytes] = stack.enter_context(path.open("rb"))
            found = os.fstat(raw.fileno())
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
            raise UserError(f"cannot read {path}: {reason(error)}") from None
        packed = path.suffix == ".gz"
        regular = stat.S_ISREG(found.st_mode)
        limit = max(FREE, RATIO * found.st_size) if packed and regular else TEXT_LIMIT
        if packed:
            raw = cast(IO[bytes], stack.enter_context(gzip.GzipFile(fileobj=raw)))
        if packed or not regular:
            raw = stack.enter_context(io.BufferedReader(_Bounded(raw, limit, path), _BLOCK))
        yield raw


class _Bounded(io.RawIOBase):
    """Bytes of a stream up to a limit, beyond which reading fails."""

    def __init__(self, stream: IO[bytes], limit: int, path: Path) -> None:
        self._stream, self._left, self._limit, self._path = stream, limit, limit, path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)
        data = self._stream.read(min(len(view), _BLOCK))
        self._left -= len(data)
        if self._left < 0:
            raise UserError(
                f"{self._path}: holds more than {self._limit:,} bytes of text, the most that is read"
            )
        view[: len(data)] = data
        return len(data)
