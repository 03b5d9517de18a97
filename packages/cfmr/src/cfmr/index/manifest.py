"""The one file that says what an index holds; replacing it is the only way in which an index changes."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypedDict

from vmr_common.boundary import open_regular, reason
from vmr_common.errors import UserError, quoted
from vmr_common.features.manifest import Manifest as FeatureManifest
from vmr_common.io import parse_json, write_text
from vmr_common.schema import conform

FORMAT = 1
NAME = "manifest.json"
SHARD_VIDEOS = 512
"""Videos of a full shard, if nothing else is said."""
MOST_VIDEOS = 65_536
"""Videos of one shard at the most: it is held in memory while it is written."""

_SHARD_NAME = re.compile("[0-9a-f]{24}")
_SHA256 = re.compile("[0-9a-f]{64}")
_LIMIT = 1 << 30  # bytes of the file: some millions of shards


class _Shard(TypedDict):
    name: str
    videos: int
    size: int
    vectors_sha256: str
    table_sha256: str
    removed: list[int]


class _Content(TypedDict):
    model: str
    model_sha256: str
    dtype: Literal["float16", "float32"]
    moments: list[tuple[float, float]]
    size: int
    features: dict[str, str | float | bool | None] | None
    shards: list[_Shard]


class _File(TypedDict):
    format: int
    checksum: str
    content: _Content


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """A part of the index.

    Attributes:
        name: Stem of its two files; derived from their content, so a name never means two things.
        videos: How many it holds, removed ones included.
        size: Bytes of the vector file.
        vectors_sha256: Of the vector file.
        table_sha256: Of the table file.
        removed: Rows of videos that were removed since, ascending.
    """

    name: str
    videos: int
    size: int
    vectors_sha256: str
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
        model: `Encoder.hash` of the model that made the vectors.
        model_sha256: Of the copy of the model in the index; empty if there is none.
        dtype: ``float16`` or ``float32``.
        moments: The proposals of every video, fractions of its duration.
        size: Length of a vector.
        features: Manifest of the feature files (see `vmr_common.features.manifest`), or None.
        shards: The parts, in order.
    """

    model: str
    model_sha256: str
    dtype: str
    moments: tuple[tuple[float, float], ...]
    size: int
    features: dict[str, Any] | None
    shards: tuple[ShardEntry, ...] = ()


def is_shard_name(name: str) -> bool:
    """True if the stem of a file is one that this program gives to shards."""
    return _SHARD_NAME.fullmatch(name) is not None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replaces the manifest of an index atomically; readers see the old one or the new one, whole."""
    content = _plain(manifest)
    text = json.dumps({"format": FORMAT, "checksum": _checksum(content), "content": content}, indent=0)
    write_text(folder / NAME, text)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an index.

    Raises:
        UserError: if the folder is no index, or the manifest is damaged, of another format version, or says what no
            manifest can say; names the key.
    """
    path = folder / NAME
    try:
        with opened(path) as file:
            text = read_at_most(file, _LIMIT, path)
    except FileNotFoundError:
        raise UserError(f"{folder}: not an index (no {NAME})") from None
    return _parsed(text, path)


@functools.lru_cache(maxsize=2)  # an addition looks several times whether the manifest is still the same
def _parsed(text: bytes, path: Path) -> Manifest:
    values = parse_json(text, str(path))
    if not isinstance(values, dict) or "content" not in values:
        raise UserError(f"{path}: not the manifest of an index, or damaged")
    if values.get("format") != FORMAT:
        raise UserError(f"{path}: index format {quoted(values.get('format'))}, expected {FORMAT}")
    content = conform(values, _File, str(path))["content"]
    if values["checksum"] != _checksum(content):
        raise UserError(f"{path}: damaged, its checksum does not fit its content")
    return _checked(content, str(path))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """A regular file of an index for reading.

    Raises:
        FileNotFoundError: if it is not there.
        UserError: if it cannot be read.
    """
    try:
        with open_regular(path) as file:
            yield file
    except FileNotFoundError:
        raise
    except OSError as error:
        advice = ""
        if error.errno in (errno.EMFILE, errno.ENFILE):
            advice = ": an index needs one or two at a time, so close others, or raise the limit (ulimit -n)"
        raise UserError(f"cannot read {path}: {reason(error)}{advice}") from error


def read_at_most(file: IO[bytes], limit: int, path: Path) -> bytes:
    """All bytes of a regular file; raises `UserError` if there are more than `limit`."""
    size = os.fstat(file.fileno()).st_size
    if size > limit:
        raise UserError(f"{path}: {size:,} bytes, expected at most {limit:,}")
    return file.read(size)


def fingerprint(manifest: Manifest) -> str:
    """A hash that is equal where two processes see the same state of an index."""
    return _checksum(_plain(manifest))


def require_possible(manifest: Manifest, where: str) -> None:
    """Raises `UserError` for a manifest that could not be read again."""
    _checked(conform(_plain(manifest), _Content, where), where)


def _checked(content: _Content, where: str) -> Manifest:
    """The manifest from values of the right types, if they are possible ones."""
    if content["size"] < 1:
        raise UserError(f"{where}: key size: found {content['size']}, expected at least 1")
    if not content["moments"]:
        raise UserError(f"{where}: key moments: found none, expected the proposals of a video")
    for number, (start, end) in enumerate(content["moments"]):
        if not 0 <= start <= end <= 1:
            raise UserError(
                f"{where}: key moments[{number}]: found {quoted([start, end])}, expected fractions of a duration"
            )
    if content["model_sha256"] and not _SHA256.fullmatch(content["model_sha256"]):
        raise UserError(
            f"{where}: key model_sha256: found {quoted(content['model_sha256'])}, expected a SHA-256"
        )
    if content["features"] is not None:
        FeatureManifest.from_mapping(content["features"], f"{where}: key features")
    _require_unique([shard["name"] for shard in content["shards"]], where)
    return Manifest(
        model=content["model"],
        model_sha256=content["model_sha256"],
        dtype=content["dtype"],
        moments=tuple((float(start), float(end)) for start, end in content["moments"]),
        size=content["size"],
        features=content["features"],
        shards=tuple(
            _entry(shard, f"{where}: key shards[{number}]") for number, shard in enumerate(content["shards"])
        ),
    )


def _require_unique(names: Iterable[str], where: str) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise UserError(f"{where}: key shards: lists {quoted(name)} twice")
        seen.add(name)


def _entry(shard: _Shard, where: str) -> ShardEntry:
    if not is_shard_name(shard["name"]):  # it becomes part of a path
        raise UserError(f"{where}.name: found {quoted(shard['name'])}, expected 24 hexadecimal digits")
    if not 1 <= shard["videos"] <= MOST_VIDEOS:
        raise UserError(f"{where}.videos: found {quoted(shard['videos'])}, expected 1 to {MOST_VIDEOS:,}")
    if not 0 < shard["size"] < 1 << 63:
        raise UserError(f"{where}.size: found {quoted(shard['size'])}, expected a number of bytes")
    removed = shard["removed"]
    if removed != sorted(set(removed)) or (removed and not 0 <= removed[0] <= removed[-1] < shard["videos"]):
        raise UserError(
            f"{where}.removed: found {quoted(removed)}, expected ascending rows below {shard['videos']}"
        )
    return ShardEntry(
        name=shard["name"],
        videos=shard["videos"],
        size=shard["size"],
        vectors_sha256=shard["vectors_sha256"],
        table_sha256=shard["table_sha256"],
        removed=tuple(removed),
    )


def _plain(manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON gives it back: lists where it has tuples."""
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(manifest)))
    return values


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
