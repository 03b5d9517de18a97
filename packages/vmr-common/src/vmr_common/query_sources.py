"""Where query features lie: HDF5, npz archives, LMDB. Use `query_features.QueryFeatureStore`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Protocol

import h5py
from numpy.typing import NDArray

from vmr_common import npz
from vmr_common.errors import UserError
from vmr_common.feature_checks import reason
from vmr_common.feature_sources import FolderSource, Hdf5Source, open_source
from vmr_common.lmdb_source import LmdbSource

TOKENS = "token_features"
NAMES = (TOKENS, *npz.SENTENCE_KEYS)
Arrays = dict[str, NDArray[Any]]


class ArraySource(Protocol):
    """One place with the named arrays of many queries."""

    def arrays(self, query: str, where: str) -> Arrays:
        """Those of `NAMES` that the query has; messages begin with `where`."""

    def has(self, query: str) -> bool:
        """Whether the query is there."""

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
    source = open_source(path, TOKENS)
    if isinstance(source, Hdf5Source):
        return Hdf5Arrays(source)
    if isinstance(source, LmdbSource):
        return LmdbArrays(source)
    assert isinstance(source, FolderSource)
    return FolderArrays(source)


class _Wrapped:
    """What query sources take over from the feature source of the same layout."""

    def __init__(self, source: Any) -> None:
        self.source = source

    def has(self, query: str) -> bool:
        """Whether the query is there."""
        return bool(self.source.has(query))

    def names(self) -> list[str]:
        """All query ids."""
        found: list[str] = self.source.names()
        return found

    def manifest_text(self) -> str | None:
        """The manifest as JSON text, or None."""
        text: str | None = self.source.manifest_text()
        return text

    def close(self) -> None:
        """Closes what is open in this process."""
        self.source.close()

    def _missing(self, query: str, where: str) -> UserError:
        return UserError(f"{where} is missing (there are {len(self.names())} others)")


class Hdf5Arrays(_Wrapped):
    """A group per query with named data sets, or a data set per query with its tokens."""

    def arrays(self, query: str, where: str) -> Arrays:
        """Those of `NAMES` that the query has."""
        if not self.has(query):
            raise self._missing(query, where)
        try:
            node = self.source.file()[query]
            if isinstance(node, h5py.Dataset):
                return {TOKENS: node[()]}
            nodes = {name: node[name] for name in NAMES if name in node}
            return {name: found[()] for name, found in nodes.items() if isinstance(found, h5py.Dataset)}
        except (OSError, RuntimeError, KeyError, TypeError) as error:
            raise UserError(f"{where} cannot be read ({reason(error)})") from None


class FolderArrays(_Wrapped):
    """A folder with ``<query>.npz``, or ``<query>.npy`` with the tokens alone."""

    def arrays(self, query: str, where: str) -> Arrays:
        """Those of `NAMES` that the query has."""
        path = self.source.file(query)
        if path is None:
            raise UserError(f"{where} is missing (no {query}.npz there)")
        with npz.readable(f"{path}: not a readable npy or npz file", path):
            if path.suffix == ".npy":
                return {TOKENS: npz.read_file(path)}
            return npz.read_arrays(str(path), NAMES)


class LmdbArrays(_Wrapped):
    """An LMDB environment whose values are npz archives."""

    def arrays(self, query: str, where: str) -> Arrays:
        """Those of `NAMES` that the query has."""
        value = self.source.entry(query)
        if value is None:
            raise self._missing(query, where)
        with npz.readable(f"{where} is not a readable npz archive"):
            return npz.read_arrays(io.BytesIO(value), NAMES)


class NpzArrays:
    """One npz archive with the arrays ``<query>/<name>``, or ``<query>`` with the tokens alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._index: dict[str, dict[str, str]] | None = None

    def _members(self) -> dict[str, dict[str, str]]:
        """Query -> array name -> name in the archive."""
        if self._index is None:
            with npz.readable(f"{self.path}: not a readable npz file", self.path):
                entries = npz.array_names(str(self.path))
            self._index = {}
            for entry in entries:
                query, _, name = entry.rpartition("/")
                if name not in NAMES:
                    query, name = entry, TOKENS
                if query and entry != npz.STRAY:
                    self._index.setdefault(query, {})[name] = entry
        return self._index

    def arrays(self, query: str, where: str) -> Arrays:
        """Those of `NAMES` that the query has."""
        members = self._members().get(query)
        if members is None:
            raise UserError(f"{where} is missing (there are {len(self._members())} others)")
        with npz.readable(f"{where} cannot be read", self.path):
            found = npz.read_arrays(str(self.path), members.values())
        return {name: found[member] for name, member in members.items()}

    def has(self, query: str) -> bool:
        """Whether the query is there."""
        return query in self._members()

    def names(self) -> list[str]:
        """All query ids."""
        return list(self._members())

    def manifest_text(self) -> str | None:
        """An archive has no manifest."""
        return None

    def close(self) -> None:
        """Nothing stays open between reads."""
