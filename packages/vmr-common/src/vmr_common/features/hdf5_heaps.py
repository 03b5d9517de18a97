"""HDF5 files as HDF5 may read texts from them: a damaged heap of texts would keep it busy for ever."""

from __future__ import annotations

import io
import os
from typing import IO, Any

_START = b"GCOL\x01\x00\x00\x00"  # signature, version and three zero bytes
_HEADER = 16  # of the heap, its size from byte 8 on, and of each thing in it likewise
_ALIGNED = 8


class WithSoundHeaps(io.RawIOBase):
    """An HDF5 file for reading, in which heaps that HDF5 would never come to the end of are no heaps.

    HDF5 goes from one thing in a "global heap collection" to the next by their sizes, and stays where it is when
    one is 0 or wraps around.

    Args:
        file: The file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._size = os.fstat(file.fileno()).st_size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Goes to a place in the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The place in the file."""
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        """Reads bytes, without the signatures of heaps that have no end."""
        begin, view = self._file.tell(), memoryview(buffer).cast("B")
        count: int = self._file.readinto(view)  # type: ignore[attr-defined]
        before = max(0, begin - len(_START) + 1)  # a heap may begin where another read ends
        around = os.pread(self._file.fileno(), begin + count + len(_START) - 1 - before, before)
        place = around.find(_START)
        while place >= 0:
            if not self._is_sound(before + place):
                first = max(0, before + place - begin)
                last = min(count, before + place + len(_START) - begin)
                view[first:last] = bytes(last - first)
            place = around.find(_START, place + 1)
        return count

    def _is_sound(self, place: int) -> bool:
        """True if the sizes in the heap at `place` lead to its end."""
        head = os.pread(self._file.fileno(), _HEADER, place)
        size = int.from_bytes(head[8:], "little")
        if size > self._size - place:
            return False
        heap, here = os.pread(self._file.fileno(), size, place), _HEADER
        while here + _HEADER <= size:
            number = int.from_bytes(heap[here : here + 2], "little")
            length = int.from_bytes(heap[here + 8 : here + _HEADER], "little")
            step = _HEADER + -(-length // _ALIGNED) * _ALIGNED if number else length  # 0 is what is free
            if not 0 < step <= size - here:
                return False
            here += step
        return True
