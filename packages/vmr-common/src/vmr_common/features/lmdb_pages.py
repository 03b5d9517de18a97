"""The pages of an LMDB file, held against each other before the library follows them: it trusts them with the process.

Layout: ``lmdb.h`` and ``mdb.c`` of LMDB 0.9, data version 1.
"""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

from vmr_common.boundary import boundary, open_regular
from vmr_common.errors import UserError

MAGIC, MAGIC_AT = b"\xde\xc0\xef\xbe", 16  # of the first page, on machines of our byte order
_BRANCH, _LEAF, _OVERFLOW, _META, _DIRTY = 1, 2, 4, 8, 16  # flags of pages
_BIG, _TABLE = 1, 2  # flags of entries: the value on pages of its own, a table inside the table
_TABLE_BYTES = 48
_PAGE = struct.Struct("<QHHHH")  # number, unused, flags, end of the list of entries, start of the entries
_ENTRY = struct.Struct("<HHHH")  # low and high part of size or page, flags or highest part, size of the key
_FIRST = MAGIC_AT + 24  # of the descriptions of the two tables in a first page, the second is ours
_DESCRIPTION = struct.Struct("<IHHQQQQQ")  # page size, flags, depth, four counts, root
_LAST = _FIRST + 2 * _DESCRIPTION.size  # the last page and the number of the transaction
_EMPTY = (1 << 64) - 1
_SIZES = [1 << bits for bits in range(9, 17)]


def check_pages(path: Path) -> None:
    """Makes sure that the library can follow every page of an LMDB file and stays inside it."""
    what = f"{path}: not a readable LMDB"
    with boundary(what), open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            _Pages(content, size, path, what).check()


class _Pages:
    def __init__(self, content: mmap.mmap, size: int, path: Path, what: str) -> None:
        self.content, self.what = content, what
        self.page_size = _DESCRIPTION.unpack_from(content, _FIRST)[0]
        if self.page_size not in _SIZES:
            raise UserError(f"{what} (pages of {self.page_size:,} bytes)")
        metas = [self._meta(number) for number in (0, 1)]
        flags, self.root, self.last = max(metas, key=lambda meta: meta[0])[1:]  # of two alike the first
        needed = (self.last + 1) * self.page_size
        if size < needed:
            raise UserError(
                f"{path}: {size:,} bytes, expected {needed:,}: the file is cut off "
                "(if it is whole where it comes from, compact it there with mdb_copy -c)"
            )
        if flags:
            raise UserError(f"{what} (its table has the flags {flags:#x}: several values for a key, say)")

    def _meta(self, number: int) -> tuple[int, int, int, int]:
        """Transaction, flags of the table, root and last page, as one of the two first pages says."""
        begin = number * self.page_size
        flags = _PAGE.unpack_from(self.content, begin)[2]
        magic = self.content[begin + MAGIC_AT : begin + MAGIC_AT + len(MAGIC)]
        version = int.from_bytes(self.content[begin + MAGIC_AT + 4 : begin + MAGIC_AT + 8], "little")
        if not flags & _META or magic != MAGIC or version != 1:
            raise self._damaged(number)
        table = _DESCRIPTION.unpack_from(self.content, begin + _FIRST + _DESCRIPTION.size)
        last, transaction = struct.unpack_from("<QQ", self.content, begin + _LAST)
        return transaction, table[1], table[-1], last

    def _damaged(self, number: int) -> UserError:
        return UserError(f"{self.what} (page {number:,} is damaged)")

    def check(self) -> None:
        """Follows the pages from the root."""
        left, seen = [self.root] if self.root != _EMPTY else [], set()
        while left:
            number = left.pop()
            # two ways to one page would be a circle, or work without end
            if number in seen or not 1 < number <= self.last:
                raise self._damaged(number)
            seen.add(number)
            left += self._children(number)

    def _children(self, number: int) -> list[int]:
        """The pages below a page; none below a leaf, of which the entries are checked."""
        begin, size = number * self.page_size, self.page_size
        named, _, flags, lower, upper = _PAGE.unpack_from(self.content, begin)
        kind = flags & ~_DIRTY
        count = (lower - _PAGE.size) // 2
        fits = _PAGE.size < lower <= upper <= size and lower % 2 == 0
        # the library ends the process over a branch with a single way
        if (
            named != number
            or not fits
            or kind not in (_BRANCH, _LEAF)
            or count < (2 if kind == _BRANCH else 1)
        ):
            raise self._damaged(number)
        children = []
        for place in struct.unpack_from(f"<{count}H", self.content, begin + _PAGE.size):
            if not upper <= place <= size - _ENTRY.size:
                raise self._damaged(number)
            low, high, flags, key = _ENTRY.unpack_from(self.content, begin + place)
            room = size - place - _ENTRY.size - key
            if kind == _BRANCH:
                children.append(low | high << 16 | flags << 32)
                needed = 0
            else:
                needed = self._value(low | high << 16, flags, begin + place + _ENTRY.size + key, room, number)
            if needed > room:
                raise self._damaged(number)
        return children

    def _value(self, length: int, flags: int, begin: int, room: int, number: int) -> int:
        """The bytes that a value takes in its leaf."""
        if flags == _BIG:
            if room < 8:
                raise self._damaged(number)
            first = int.from_bytes(self.content[begin : begin + 8], "little")
            if not 1 < first <= self.last:
                raise self._damaged(first)
            named, _, kind, low, high = _PAGE.unpack_from(self.content, first * self.page_size)
            pages = low | high << 16
            if named != first or not kind & _OVERFLOW or first + pages > self.last + 1:
                raise self._damaged(first)
            if length > pages * self.page_size - _PAGE.size:
                raise self._damaged(first)
            return 8
        if flags not in (0, _TABLE) or (flags == _TABLE and length != _TABLE_BYTES):
            raise self._damaged(number)
        return length
