"""The manifest of a feature file: what made it, so that a configuration can refuse the wrong features."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar, get_type_hints

from vmr_common.errors import UserError, quoted
from vmr_common.io import parse_json
from vmr_common.schema import conform
from vmr_common.version import __version__

MANIFEST = "manifest"
"""Name of the attribute of an HDF5 file that holds its manifest."""

MANIFEST_LIMIT = 1 << 20
"""Bytes of a manifest at the most."""


@dataclass(frozen=True, kw_only=True)
class BaseManifest:
    """Description of how a file was made: the base of frozen dataclasses, None in a field that is not known."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], where: str = "manifest") -> Self:
        """A manifest from JSON values.

        Raises `UserError` for a field that manifests do not have (names the known ones), a value of another type than
        the field's, or a number that measures nothing; names the field.
        """
        hints = get_type_hints(cls)
        for name, value in values.items():
            if name not in hints:
                known = ", ".join(field.name for field in dataclasses.fields(cls))
                raise UserError(f"{where}: unknown field {quoted(name, 60)}, a manifest has {known}")
            conform(value, hints[name], f"{where}: {name}")
            # a row may have seen one picture, which takes no time
            if type(value) in (int, float) and not (value > 0 or (value == 0 and name == "window_s")):
                raise UserError(f"{where}: {name}: found {value}, expected a positive number")
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Manifest(BaseManifest):
    """Description of how a feature file was made. A field that is not known is None.

    Example:
        >>> Manifest(extractor="CLIP ViT-B/32", stride_s=0.5).fps is None
        True
    """

    extractor: str | None = None  # network and weights in words, e.g. `CLIP ViT-B/32`.
    weights_hash: str | None = None  # SHA-256 of the extractor's weights
    fps: float | None = None  # frames per second that the extractor saw
    stride_s: float | None = None  # seconds from one row to the next
    window_s: float | None = None  # seconds of video that one row saw
    dim: int | None = None  # width D of a row
    normalised: bool | None = None  # whether rows have length 1
    dtype: str | None = None  # type in the file, e.g. `float16`.
    sampling: str | None = None  # which frames: `middle` or `start`, see vmr_video.recipe
    decoder: str | None = None  # program and version that made pictures of the video
    resize: str | None = None  # e.g. `shorter side to 224, bicubic`
    crop: str | None = None  # e.g. `centre 224`
    value_range: str | None = None  # of the pixels that the network sees, and what is subtracted from them
    network: str | None = None  # name or folder that the weights came from
    precision: str | None = None  # type in which the network computed
    source: str | None = None  # where the videos or original features come from
    creator: str | None = None  # program and version that wrote the file


def same_extractor(one: str, other: str) -> bool:
    """True if two names of extractors have the same letters and digits.

    Example:
        >>> same_extractor("CLIP ViT-B/32", "clip-vit-b32"), same_extractor("CLIP ViT-B/32", "CLIP ViT-B/16")
        (True, False)
    """
    letters = [[letter for letter in name.lower() if letter.isalnum()] for name in (one, other)]
    return letters[0] == letters[1]


Kind = TypeVar("Kind", bound=BaseManifest)


def parse_facts(text: str, where: str, kind: type[Kind]) -> Kind:
    """A manifest of any kind from its JSON text.

    Raises `UserError` if it is not a JSON object with the fields of `kind`.
    """
    values = parse_json(text, f"{where}: manifest")
    if not isinstance(values, dict):
        raise UserError(f"{where}: the manifest is not a JSON object")
    return kind.from_mapping(values, f"{where}: manifest")


def merge_manifests(manifests: Sequence[Manifest | None], stride_s: float | None) -> Manifest | None:
    """The manifest of sources that are joined along the feature axis, whose rows are `stride_s` apart.

    `dim` is the sum and `extractor` names all, where every source says its own; every other field stands where all
    agree. Where a source has no manifest, nothing but the stride is known of the whole; None where not even that is.
    """
    known = [manifest for manifest in manifests if manifest is not None]
    if not known or len(known) < len(manifests):
        return None if stride_s is None else Manifest(stride_s=stride_s)
    merged: dict[str, Any] = {}
    for field in dataclasses.fields(Manifest):
        values = [getattr(manifest, field.name) for manifest in known]
        merged[field.name] = values[0] if all(value == values[0] for value in values) else None
    names = [manifest.extractor for manifest in known if manifest.extractor is not None]
    merged["extractor"] = " + ".join(names) if len(names) == len(known) else None
    widths = [manifest.dim for manifest in known if manifest.dim is not None]
    merged["dim"] = sum(widths) if len(widths) == len(known) else None
    return Manifest(**merged | {"stride_s": stride_s})


def creator() -> str:
    """Value of a manifest's `creator`: this package and its version."""
    return f"vmr-common {__version__}"
