"""The one file that says what an index holds; replacing it is the only way in which an index changes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vmr_common.errors import UserError
from vmr_common.files import read_json, write_text

FORMAT = 1
NAME = "manifest.json"


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


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an index holds.

    Attributes:
        model: `Encoder.hash` of the model that made the vectors.
        model_sha256: Of the copy of the model in the index; empty if there is none.
        dtype: ``float16`` or ``float32``.
        moments: The proposals of every video, fractions of its duration.
        size: Length of a vector.
        features: Manifest of the feature files (see `vmr_common.manifest`), or None.
        shards: The parts, in order.
    """

    model: str
    model_sha256: str
    dtype: str
    moments: tuple[tuple[float, float], ...]
    size: int
    features: dict[str, Any] | None
    shards: tuple[ShardEntry, ...] = ()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replaces the manifest of an index atomically; readers see the old one or the new one, whole."""
    content = _plain(manifest)
    text = json.dumps({"format": FORMAT, "checksum": _checksum(content), "content": content}, indent=0)
    write_text(folder / NAME, text)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of an index.

    Raises:
        UserError: if the folder is no index, or the manifest is damaged or of another format version.
    """
    path = folder / NAME
    if not path.exists():
        raise UserError(f"{folder}: not an index (no {NAME})")
    values = read_json(path)
    if not isinstance(values, dict) or "content" not in values:
        raise UserError(f"{path}: not the manifest of an index, or damaged")
    if values.get("format") != FORMAT:
        raise UserError(f"{path}: index format {values.get('format')!r}, expected {FORMAT}")
    if values.get("checksum") != _checksum(values["content"]):
        raise UserError(f"{path}: damaged, its checksum does not fit its content")
    content = values["content"]
    shards = tuple(
        ShardEntry(**{**shard, "removed": tuple(shard["removed"])}) for shard in content.pop("shards")
    )
    moments = tuple((float(start), float(end)) for start, end in content.pop("moments"))
    return Manifest(**content, moments=moments, shards=shards)


def _plain(manifest: Manifest) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(manifest)))
    return values


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
