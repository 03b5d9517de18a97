"""Whether features are made as others that are known, by their manifests."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from vmr_common.errors import UserError, listed, quoted
from vmr_common.features.manifest import BaseManifest, same_extractor

logger = logging.getLogger(__name__)

NETWORKS = ("extractor", "detector")
COMPARED = (
    *NETWORKS,
    "weights_hash",
    "fps",
    "stride_s",
    "window_s",
    "dim",
    "normalised",
    "sampling",
    "frame_sampling",
    "resize",
    "crop",
    "value_range",
    "box_order",
    "box_units",
    "object_order",
)
"""Fields of manifests that decide whether a model understands features; the others tell where they come from."""
GOES_ON = "--allow-other-features, in Python allow_other_features=True, goes on"


class HasManifest(Protocol):
    """Features that may say how they were made."""

    @property
    def name(self) -> str:
        """The path or paths, for messages."""

    @property
    def manifest(self) -> BaseManifest | None:
        """The manifest, or None."""


def require_same_features(
    known: Mapping[str, Any] | BaseManifest | None,
    store: HasManifest,
    *,
    allow: bool,
    of: str = "the model was trained on",
    warn: Callable[[str], object] = logger.warning,
) -> None:
    """Makes sure that features are made as those that are known; facts that one side lacks are a warning of one line.

    Extractors and detectors are the same where their letters and digits are, numbers to a thousandth.

    Args:
        known: The manifest of those features, or None.
        store: The features that are to be read now.
        allow: Say differences instead of refusing them, but for another width.
        of: Where `known` comes from, in words.
        warn: Takes the lines.

    Raises:
        UserError: naming the store, every fact that differs and both of its values.
    """
    manifest = store.manifest
    if known is None and manifest is None:
        return
    if manifest is None:
        warn(f"{store.name}: no manifest says what made these features; {of} {_facts(values_of(known))}")
        return
    if known is None:
        warn(f"{store.name}: nothing says what features {of}; these are {_facts(values_of(manifest))}")
        return
    before, now = values_of(known), values_of(manifest)
    pairs = {name: (before.get(name), now.get(name)) for name in COMPARED}
    different = [
        f"{name} is {_shown(name, found)}, was {_shown(name, wanted)}"
        for name, (wanted, found) in pairs.items()
        if None not in (wanted, found) and not alike(name, wanted, found)
    ]
    if different:
        told = f"{store.name}: other features than {of}: {'; '.join(different)}"
        if any(line.startswith("dim is") for line in different):  # whatever is allowed, no layer takes them
            raise UserError(f"{told} (a model reads features of its own width alone)")
        refuse(told, allow, warn)
    unknown = [
        f"{name} ({'is' if wanted is None else 'was'} {_shown(name, found if wanted is None else wanted)})"
        for name, (wanted, found) in pairs.items()
        if (wanted is None) != (found is None)
    ]
    if unknown:
        warn(f"{store.name}: known of one side alone, and not compared with what {of}: {', '.join(unknown)}")


def refuse(text: str, allow: bool, warn: Callable[[str], object]) -> None:
    """Raises `UserError` with a text that says what goes on all the same, or warns where that is allowed."""
    if not allow:
        raise UserError(f"{text} ({GOES_ON})")
    warn(text)


def values_of(manifest: Mapping[str, Any] | BaseManifest | None) -> Mapping[str, Any]:
    """The fields of a manifest by name; none where there is none."""
    return (
        {}
        if manifest is None
        else dataclasses.asdict(manifest)
        if isinstance(manifest, BaseManifest)
        else manifest
    )


def _shown(name: str, value: Any) -> str:
    return quoted(value, 16 if name == "weights_hash" else 80)


def _facts(values: Mapping[str, Any]) -> str:
    told = [name for name in COMPARED if name != "weights_hash" and values.get(name) is not None]
    named = [f"{name} {_shown(name, values[name])}" for name in told]
    return listed(named, 4) or "features of which it says nothing"


def alike(name: str, one: Any, other: Any) -> bool:
    """True if two values of a field of a manifest mean the same."""
    if name in NETWORKS and isinstance(one, str) and isinstance(other, str):
        return same_extractor(one, other)
    numbers = all(type(value) in (int, float) for value in (one, other))
    return math.isclose(one, other, rel_tol=1e-3) if numbers else bool(one == other)
