"""HDF5 files of any origin: opened once per process, entered link by link, and read from inside the file alone.

HDF5 can link into other files and keep values in them (external storage, virtual data sets). Read as features, any
file of the reader would end up in what is made of them, so all of that is refused before the other file is opened.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5s, h5t, h5z
from numpy.typing import NDArray

from vmr_common.boundary import FREE, RATIO, boundary, open_regular, reason, require_size
from vmr_common.errors import UserError, is_text, quoted
from vmr_common.features.hdf5_heaps import WithSoundHeaps
from vmr_common.features.manifest import MANIFEST, MANIFEST_LIMIT
from vmr_common.features.per_process import PerProcess

_SOFT_LINKS = 16  # followed on the way to one entry, as many as HDF5 itself follows
_LEAST_ENTRY = 8  # bytes that a name, or a chunk, takes in a file at the least
_FEW_CHUNKS = 1 << 16  # that a data set may have without a byte stored: HDF5 notes each when it reads
_UNPACKED = {h5z.FILTER_DEFLATE: 1032, h5z.FILTER_LZF: 88}  # the most that a byte can become
_PLAIN = (h5z.FILTER_SHUFFLE, h5z.FILTER_FLETCHER32)  # leave the number of bytes as it is
_CHECKSUM = 4  # bytes that a filter may take off the end of a chunk
_BLOCK = 1 << 20
_NUMBERS = (h5t.INTEGER, h5t.FLOAT)
_NO_NUMBERS = {h5t.ENUM: "enumeration", h5t.BITFIELD: "bit field"}  # which numpy would take for whole numbers


class Numbers(NamedTuple):
    """A data set of numbers that lies in its file."""

    node: Any  # the `h5d.DatasetID`
    shape: tuple[int, ...]  # `()` also where it has none
    dtype: np.dtype[Any]  # of its values
    stored: int | None  # bytes in the file, if one plain piece; None where that is to be found out
    where: str  # what it is called in messages


@dataclass
class _Opened:
    file: h5py.File
    size: int
    sound: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def close(self) -> None:
        self.file.close()


class Hdf5File:
    """An HDF5 file, opened in each process on first use; only its path is pickled."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._opened = PerProcess(functools.partial(_open, path))

    @property
    def sound(self) -> dict[str, str]:
        """For the caller's notes, until the file is closed: what it has checked, and its name for `again`."""
        return self._opened.get().sound

    def names(self, group: str = "") -> list[str]:
        """The names of a group's entries, by default of the file's, in the order of the file."""
        where = f"{self.path}: the list of names"
        opened = self._opened.get()
        node = self.find(group, where) if group else opened.file.id
        found: list[bytes] = []

        def add(name: bytes) -> bool | None:
            found.append(name)
            # a damaged tree may go in circles
            return True if len(found) * _LEAST_ENTRY > opened.size else None

        with boundary(f"{where} cannot be read"):
            node.links.iterate(add)
        if len(found) * _LEAST_ENTRY > opened.size:
            raise UserError(f"{where} cannot be read (it is longer than the file)")
        try:
            return [name.decode() for name in found]
        except UnicodeDecodeError as error:
            raise UserError(f"{self.path}: the name {quoted(error.object, 60)} is not UTF-8 text") from None

    def count(self, group: str = "") -> int:
        """Number of entries of a group, by default of the file."""
        counts = self._opened.get().counts
        if group not in counts:
            counts[group] = len(self.names(group))
        return counts[group]

    def find(self, name: str, where: str) -> Any:
        """The data set (`h5d.DatasetID`), group (`h5g.GroupID`) or type of this name, or None.

        The name may be ``group/entry`` and so on. Soft links are followed inside the file. Errors begin with `where`.
        """
        if not is_name(name):
            return None
        root = node = self._opened.get().file.id
        left, links = name.encode().split(b"/")[::-1], 0
        with boundary(f"{where} cannot be read"):
            while left:
                step = left.pop()
                if step in (b"", b"."):  # in the target of a soft link
                    continue
                if not isinstance(node, h5g.GroupID) or not node.links.exists(step):
                    return None
                kind = node.links.get_info(step).type
                if kind == h5l.TYPE_HARD:
                    node = h5o.open(node, step)
                elif kind != h5l.TYPE_SOFT:
                    raise UserError(f"{where} is a link out of the file, which is never followed")
                elif links == _SOFT_LINKS:
                    raise UserError(f"{where} is a link in a circle, or one of more than {_SOFT_LINKS}")
                else:
                    links += 1
                    target = node.links.get_val(step)
                    left += target.split(b"/")[::-1]
                    node = root if target.startswith(b"/") else node
        return node

    def find_quickly(self, name: str) -> Any:
        """The data set that `find` gives, where nothing but entries of this file lead to it; None for all the rest."""
        if not is_name(name):
            return None
        root = self._opened.get().file.id
        with contextlib.suppress(Exception):  # `find` says what is wrong
            steps = name.encode().split(b"/")
            for number in range(len(steps)):
                if root.links.get_info(b"/".join(steps[: number + 1])).type != h5l.TYPE_HARD:
                    return None
            return h5d.open(root, name.encode())
        return None

    def numbers(self, node: Any, where: str) -> Numbers:
        """Declared shape and type of a data set, after making sure that it is of numbers and lies in this file."""
        with boundary(f"{where} cannot be read"):
            # the storage first: to ask a virtual data set for its shape opens its sources
            stored = None if node.get_offset() is None else node.get_storage_size()
            plan = node.get_create_plist() if stored is None else None
            if plan is not None and (plan.get_layout() == h5d.VIRTUAL or plan.get_external_count()):
                raise UserError(f"{where} keeps its values in other files, which are never read")
            kind = node.get_type()
            known, dtype, shape = kind.get_class(), kind.dtype, node.shape
        if known not in _NUMBERS:
            said = dtype if dtype.kind == "b" else _NO_NUMBERS.get(known, dtype)
            raise UserError(f"{where} holds values of type {quoted(str(said), 60)[1:-1]}, expected numbers")
        return Numbers(node, shape or (), dtype, stored, where)

    def check(self, found: Numbers) -> None:
        """Holds what a data set declares against what the file holds of it, before anything is allocated."""
        size = self._opened.get().size
        stored = found.stored
        if stored is None:
            with boundary(f"{found.where} cannot be read"):
                plan = found.node.get_create_plist()
                chunk = plan.get_chunk() if plan.get_layout() == h5d.CHUNKED else None
                stored = found.node.get_storage_size() if chunk is None else 0
            if chunk is not None:
                stored = _check_chunks(found, plan, chunk, size)
        require_size(found.shape, found.dtype, min(stored, size), found.where)

    def values(self, found: Numbers) -> NDArray[Any]:
        """All values of a data set that `check` found nothing wrong with."""
        with boundary(f"{found.where} cannot be read"):
            return _values(found.node, found.shape, found.dtype)

    def open(self, name: str, where: str, access: Any = None) -> Any:
        """A data set that was found and checked since the file was opened."""
        with boundary(f"{where} cannot be read"):
            return h5d.open(self._opened.get().file.id, name.encode(), access)

    def again(self, name: str, where: str) -> NDArray[Any]:
        """All values of a data set that was found, checked and read since the file was opened."""
        node = self.open(name, where)
        with boundary(f"{where} cannot be read"):
            return _values(node, node.shape, node.dtype)

    def manifest_text(self) -> str | None:
        """The text of the attribute ``manifest``, or None."""
        where = f"{self.path}: the attribute {MANIFEST!r}"
        root, name = self._opened.get().file.id, MANIFEST.encode()
        with boundary(f"{where} cannot be read"):
            if not h5a.exists(root, name):
                return None
            found = h5a.open(root, name)
            usable = (
                found.get_type().get_class() == h5t.STRING
                and found.get_space().get_simple_extent_type() == h5s.SCALAR
                and found.get_storage_size() <= MANIFEST_LIMIT
            )
        if not usable:
            raise UserError(f"{where} is no text of at most {MANIFEST_LIMIT:,} bytes")
        with boundary(f"{where} cannot be read"), open_regular(self.path) as plain:
            with h5py.File(WithSoundHeaps(plain), "r") as guarded:
                value = guarded.attrs[MANIFEST]
            text = value.decode() if isinstance(value, bytes) else str(value)
            text.encode()  # h5py marks bytes that are no text by halves of surrogate pairs
        return text

    def close(self) -> None:
        """Closes the file; the next use opens it again."""
        self._opened.close()


def is_name(name: str) -> bool:
    """True if HDF5 can hold something of this name."""
    return not ("\0" in name or {"", "."} & set(name.split("/"))) and is_text(name)


def _open(path: Path) -> _Opened:
    try:
        with open_regular(path) as plain:
            size = os.fstat(plain.fileno()).st_size
    except OSError as error:
        raise UserError(f"cannot read {path}: {reason(error)}") from None
    with boundary(f"{path}: not a readable HDF5 file"):
        try:
            # with the library's own choice first: within a process all handles of a file must agree on it
            return _Opened(h5py.File(path, "r"), size)
        except BlockingIOError:  # many network file systems refuse locks
            return _Opened(h5py.File(path, "r", locking=False), size)


def _values(node: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    values: NDArray[Any] = np.empty(shape, dtype)
    if values.size:
        node.read(h5s.ALL, h5s.ALL, values)
    return values


def _check_chunks(found: Numbers, plan: Any, chunk: tuple[int, ...], size: int) -> int:
    """The bytes that a file of `size` bytes holds of a chunked data set."""
    node, shape, dtype, _, where = found
    packing, place, filtered = _packing(plan, where)
    with boundary(f"{where} cannot be read"):
        room = math.prod(chunk) * node.get_type().get_size()
    count, total, wrong, large = 0, 0, 0, []

    def add(info: Any) -> bool | None:
        nonlocal count, total, wrong
        count, total = count + 1, total + info.size
        if info.size * _UNPACKED.get(packing, 0) > FREE and not info.filter_mask >> place & 1:
            large.append(info)
        # HDF5 trusts what is said of a chunk, and reads beyond it where that is wrong
        fits = info.size > _CHECKSUM if filtered else info.size == room
        inside = info.byte_offset + info.size <= size
        wrong += not (
            fits and inside and all(n % step == 0 for n, step in zip(info.chunk_offset, chunk, strict=True))
        )
        return True if wrong or count * _LEAST_ENTRY > size else None

    with boundary(f"{where} cannot be read"):
        beyond = node.chunk_iter(add)
    if wrong:
        raise UserError(f"{where} cannot be read (the list of its chunks is damaged)")
    declared = math.prod(-(-rows // step) for rows, step in zip(shape, chunk, strict=True))
    if beyond or declared > max(_FEW_CHUNKS, RATIO * count):
        raise UserError(f"{where} declares {declared:,} chunks, but the file holds {count:,} of them")
    require_size(chunk, dtype, min(total, size), f"{where}, a chunk of it,")
    for info in large:
        _check_unpacking(node, packing, info, room, where)
    return min(total, size)


def _packing(plan: Any, where: str) -> tuple[int, int, bool]:
    """The filter that compresses the chunks, its place among the filters, and whether there is any filter."""
    with boundary(f"{where} cannot be read"):
        filters = [plan.get_filter(number) for number in range(plan.get_nfilters())]
    packing = [(code, place) for place, (code, *_) in enumerate(filters) if code not in _PLAIN]
    if len(packing) > 1 or not all(code in _UNPACKED for code, _ in packing):
        names = ", ".join(quoted(name, 60)[2:-1] or f"filter {code}" for code, _, _, name in filters)
        raise UserError(
            f"{where} is packed by {names}; gzip and lzf are read (h5repack -f GZIP=4 changes it)"
        )
    code, place = packing[0] if packing else (h5z.FILTER_NONE, 0)
    return code, place, bool(filters)


def _check_unpacking(node: Any, packing: int, info: Any, room: int, where: str) -> None:
    """Raises `UserError` if a chunk, unpacked bit by bit, is more than its `room` bytes."""
    if packing != h5z.FILTER_DEFLATE:
        raise UserError(f"{where} has a chunk of {info.size:,} bytes in lzf, which may unpack to anything")
    with boundary(f"{where} cannot be read"):
        _, data = node.read_direct_chunk(info.chunk_offset)
        unpacker, found = zlib.decompressobj(), 0
        while data and not unpacker.eof and found <= room + _BLOCK:
            found += len(unpacker.decompress(data, _BLOCK))
            data = unpacker.unconsumed_tail
    if found > room + _BLOCK:
        raise UserError(f"{where} has a chunk that unpacks to more than the {room:,} bytes that it declares")
