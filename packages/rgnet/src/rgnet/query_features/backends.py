"""File formats of query features: HDF5, npz archives, LMDB. Use `store.QueryFeatureStore`."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from h5py import h5d, h5g
from numpy.typing import NDArray

from vmr_common.errors import UserError
from vmr_common.features import npz
from vmr_common.features.backends import FeatureBackend, Hdf5Backend, open_backend
from vmr_common.features.folder import ARRAYS, FolderBackend
from vmr_common.features.lmdb import LmdbBackend
from vmr_common.features.per_process import PerProcess

TOKENS = "token_features"
NAMES = (TOKENS, *npz.SENTENCE_KEYS)
Arrays = dict[str, NDArray[Any]]


class ArraySource(Protocol):
    """One place with the named arrays of many queries."""

    def arrays(self, query: str, where: str) -> Arrays:
        """Those of `NAMES` that the query has; messages begin with `where`."""

    def has(self, query: str) -> bool:
        """True if the query is there."""

    def names(self) -> list[str]:
        """All query ids."""

    def manifest_text(self) -> str | None:
        """The manifest as JSON text, or None."""

    def close(self) -> None:
        """Closes what is open in this process."""


def open_arrays(path: Path) -> ArraySource:
    """The source at `path`, by what is there; nothing stays open.

    Raises:
        UserError: if nothing is there or something of another kind.
    """
    if path.is_file() and path.suffix.lower() == ".npz":
        return NpzArrays(path)
    source = open_backend(path, TOKENS)
    if isinstance(source, Hdf5Backend):
        return Hdf5Arrays(source)
    if isinstance(source, LmdbBackend):
        return LmdbArrays(source)
    assert isinstance(source, FolderBackend)
    return FolderArrays(source)


Wrapped = TypeVar("Wrapped", bound=FeatureBackend)


class _Wrapped(Generic[Wrapped]):
    """The parts of a query backend that are those of the feature backend of the same layout."""

    def __init__(self, source: Wrapped) -> None:
        self.source = source

    def has(self, query: str) -> bool:
        """True if the query is there."""
        return self.source.has(query)

    def names(self) -> list[str]:
        """All query ids."""
        return self.source.names()

    def manifest_text(self) -> str | None:
        """The manifest as JSON text, or None."""
        return self.source.manifest_text()

    def close(self) -> None:
        """Closes what is open in this process."""
        self.source.close()


def _missing(where: str, count: int) -> UserError:
    return UserError(f"{where} is missing (there are {count:,} others)")


class Hdf5Arrays(_Wrapped[Hdf5Backend]):
    """A group per query with named data sets, or a data set per query with its tokens."""

    def arrays(self, query: str, where: str) -> Arrays:
        """Those of `NAMES` that the query has."""
        hdf5 = self.source.hdf5
        node = hdf5.find(query, where)
        if node is None:
            raise _missing(where, hdf5.count())
        if isinstance(node, h5d.DatasetID):
            nodes = {TOKENS: node}
        elif isinstance(node, h5g.GroupID):
            nodes = {name: hdf5.find(f"{query}/{name}", f"{where}, {name}") for name in NAMES}
        else:
            raise UserError(f"{where} is neither a group nor a data set")
        return {
            name: self._values(found, f"{where}, {name}")
            for name, found in nodes.items()
            if isinstance(found, h5d.DatasetID)
        }

    def _values(self, node: Any, where: str) -> NDArray[Any]:
        hdf5 = self.source.hdf5
        found = hdf5.numbers(node, where)
        hdf5.check(found)
        return hdf5.values(found)


class FolderArrays(_Wrapped[FolderBackend]):
    """A folder with ``<query>.npz``, or ``<query>.npy`` with the tokens alone."""

    def arrays(self, query: str, where: str) -> Arrays:
        """Those of `NAMES` that the query has."""
        path = self.source.file(query, ARRAYS)
        if path is None:
            raise UserError(f"{where} is missing (no {query}.npz there)")
        if path.suffix == ".npy":
            return {TOKENS: npz.read_file(path)}
        with npz.Archive(path, str(path)) as archive:
            return _known(archive)


class LmdbArrays(_Wrapped[LmdbBackend]):
    """An LMDB environment whose values are npz archives."""

    def arrays(self, query: str, where: str) -> Arrays:
        """Those of `NAMES` that the query has."""
        value = self.source.entry(query)
        if value is None:
            raise _missing(where, self.source.count())
        with self.source.opened(value, where) as archive:
            return _known(archive)


def _known(archive: npz.Archive) -> Arrays:
    return {name: archive.read(name) for name in NAMES if name in archive}


class NpzArrays:
    """One npz archive with the arrays ``<query>/<name>``, or ``<query>`` with the tokens alone.

    The archive stays open, in each process on its own: to read its directory takes time for every array in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._archive = PerProcess(
            functools.partial(npz.Archive, path, str(path), ": not a readable npz file")
        )

        self._count: int | None = None

    def _members(self, query: str) -> dict[str, str]:
        """Name in `NAMES` -> name in the archive, of the arrays of a query."""
        archive = self._archive.get()
        found = {name: f"{query}/{name}" for name in NAMES if query and f"{query}/{name}" in archive}
        if query and _query_of(query) == query and query in archive:
            if TOKENS in found:
                raise UserError(
                    f"{self.path}: query {query!r} has its tokens twice, also as {found[TOKENS]!r}"
                )
            found[TOKENS] = query
        return found

    def arrays(self, query: str, where: str) -> Arrays:
        """Those of `NAMES` that the query has."""
        members = self._members(query)
        if not members:
            if self._count is None:
                self._count = len(self.names())
            raise _missing(where, self._count)
        archive = self._archive.get()
        return {name: archive.read(member) for name, member in members.items()}

    def has(self, query: str) -> bool:
        """True if the query is there."""
        return bool(self._members(query))

    def names(self) -> list[str]:
        """All query ids."""
        return list(dict.fromkeys(filter(None, map(_query_of, self._archive.get().names))))

    def manifest_text(self) -> str | None:
        """An archive has no manifest."""
        return None

    def close(self) -> None:
        """Closes the archive; the next read opens it again."""
        self._archive.close()


def _query_of(entry: str) -> str:
    """The query that an array of an archive belongs to; empty where it is of none."""
    query, _, name = entry.rpartition("/")
    if name in NAMES:
        return query
    return "" if entry == npz.STRAY else entry
