"""Heaps of texts in HDF5 files: a damaged one would keep HDF5 busy for ever."""

from __future__ import annotations

import io
import os
from typing import IO, Any

_HEAP = b"GCOL\x01\x00\x00\x00"  # signature, version and three zero bytes
_HEAP_HEADER = 16  # of the heap, its size from byte 8 on, and of each thing in it likewise
_HEAP_ALIGNED = 8


class WithSoundHeaps(io.RawIOBase):
    """An HDF5 file for reading, in which heaps that HDF5 would never come to the end of are no heaps.

    HDF5 goes from one thing in a "global heap collection" to the next by their sizes, and stays where it is when
    one is 0 or wraps around.
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
        before = max(0, begin - len(_HEAP) + 1)  # a heap may begin where another read ends
        around = os.pread(self._file.fileno(), begin + count + len(_HEAP) - 1 - before, before)
        place = around.find(_HEAP)
        while place >= 0:
            if not self._is_sound(before + place):
                first = max(0, before + place - begin)
                last = min(count, before + place + len(_HEAP) - begin)
                view[first:last] = bytes(last - first)
            place = around.find(_HEAP, place + 1)
        return count

    def _is_sound(self, place: int) -> bool:
        """True if the sizes in the heap at `place` lead to its end."""
        head = os.pread(self._file.fileno(), _HEAP_HEADER, place)
        size = int.from_bytes(head[8:], "little")
        if size > self._size - place:
            return False
        heap, here = os.pread(self._file.fileno(), size, place), _HEAP_HEADER
        while here + _HEAP_HEADER <= size:
            number = int.from_bytes(heap[here : here + 2], "little")
            length = int.from_bytes(heap[here + 8 : here + _HEAP_HEADER], "little")
            # number 0 is what is free
            step = _HEAP_HEADER + -(-length // _HEAP_ALIGNED) * _HEAP_ALIGNED if number else length
            if not 0 < step <= size - here:
                return False
            here += step
        return True
