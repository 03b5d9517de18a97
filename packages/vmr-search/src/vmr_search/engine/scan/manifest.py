"""The one file that says what a scan index holds; replacing it is the only way in which the index changes."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict

from vmr_common.errors import UserError, first_repeated, quoted
from vmr_search.index_files import read_checked, write_checked

NAME = "manifest.json"
SHARD_VIDEOS = 512
"""Videos of a full shard, if nothing else is said."""
SHARD_BYTES = 64 << 20
"""A shard is full as well when it has so many bytes: it is held in memory while it is written."""
MOST_VIDEOS = 65_536
"""Videos of one shard at the most."""

_SHARD_NAME = re.compile("[0-9a-f]{24}")


class _Shard(TypedDict):
    name: str
    videos: int
    rows: int
    sha256: str
    table_sha256: str
    removed: list[int]


class _Content(TypedDict):
    identity: str
    dtype: Literal["float16", "float32"]
    size: int
    shards: list[_Shard]


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """A part of the index.

    Attributes:
        name: Stem of its two files; derived from their content, so a name never means two things.
        videos: How many it holds, removed ones included.
        rows: How many windows.
        sha256: Of the file of vectors and windows.
        table_sha256: Of the table file.
        removed: Numbers of the videos that were removed since, ascending.
    """

    name: str
    videos: int
    rows: int
    sha256: str
    table_sha256: str
    removed: tuple[int, ...] = ()

    @property
    def live(self) -> int:
        """Number of its videos that were not removed."""
        return self.videos - len(self.removed)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The content of an index.

    Attributes:
        identity: Of what made the vectors.
        dtype: ``float16`` or ``float32``.
        size: Length of a vector.
        shards: The parts, in the order in which videos were added.
    """

    identity: str
    dtype: str
    size: int
    shards: tuple[ShardEntry, ...] = ()

    def row_bytes(self) -> int:
        """Bytes of a window: its vector, its start and its end."""
        return self.size * (2 if self.dtype == "float16" else 4) + 16


def is_shard_name(name: str) -> bool:
    """True if the stem of a file is one that this program gives to shards."""
    return _SHARD_NAME.fullmatch(name) is not None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replaces the manifest of an index atomically; readers see the old one or the new one, whole."""
    write_checked(folder / NAME, dataclasses.asdict(manifest))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an index.

    Raises:
        UserError: if the folder is no index, or the manifest is damaged, of another format version, or says what no
            manifest can say; names the key.
    """
    path = folder / NAME
    try:
        content = read_checked(path, _Content)
    except FileNotFoundError:
        raise UserError(f"{folder}: not an index (no {NAME})") from None
    require_size(content["size"], f"{path}: key size")
    if (twice := first_repeated(shard["name"] for shard in content["shards"])) is not None:
        raise UserError(f"{path}: key shards: lists {quoted(twice)} twice")
    return Manifest(
        identity=content["identity"],
        dtype=content["dtype"],
        size=content["size"],
        shards=tuple(
            _entry(shard, f"{path}: key shards[{number}]") for number, shard in enumerate(content["shards"])
        ),
    )


def require_size(size: int, where: str) -> None:
    """Raises `UserError` for a length that no vector has."""
    if not 1 <= size <= 1 << 20:
        raise UserError(f"{where}: found {quoted(size)}, expected 1 to {1 << 20:,}")


def _entry(shard: _Shard, where: str) -> ShardEntry:
    if not is_shard_name(shard["name"]):  # it becomes part of a path
        raise UserError(f"{where}.name: found {quoted(shard['name'])}, expected 24 hexadecimal digits")
    if not 1 <= shard["videos"] <= MOST_VIDEOS:
        raise UserError(f"{where}.videos: found {quoted(shard['videos'])}, expected 1 to {MOST_VIDEOS:,}")
    if not shard["videos"] <= shard["rows"] < 1 << 40:
        raise UserError(f"{where}.rows: found {quoted(shard['rows'])}, expected at least one of each video")
    removed = shard["removed"]
    if removed != sorted(set(removed)) or (removed and not 0 <= removed[0] <= removed[-1] < shard["videos"]):
        raise UserError(
            f"{where}.removed: found {quoted(removed)}, expected ascending numbers below {shard['videos']}"
        )
    return ShardEntry(
        name=shard["name"],
        videos=shard["videos"],
        rows=shard["rows"],
        sha256=shard["sha256"],
        table_sha256=shard["table_sha256"],
        removed=tuple(removed),
    )
