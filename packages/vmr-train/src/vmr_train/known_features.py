"""What is known about features is held against what a model knows: it was trained on, or its configuration expects."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Mapping
from typing import Any

from vmr_common.errors import UserError, listed, quoted
from vmr_common.features.manifest import BaseManifest, same_extractor
from vmr_train.feature_files import HasManifest, VideoStore, parts_of
from vmr_train.video_files import stored_manifest

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
        warn(f"{store.name}: no manifest says what made these features; {of} {_facts(_values(known))}")
        return
    if known is None:
        warn(f"{store.name}: nothing says what features {of}; these are {_facts(_values(manifest))}")
        return
    before, now = _values(known), _values(manifest)
    pairs = {name: (before.get(name), now.get(name)) for name in COMPARED}
    different = [
        f"{name} is {_shown(name, found)}, was {_shown(name, wanted)}"
        for name, (wanted, found) in pairs.items()
        if None not in (wanted, found) and not _alike(name, wanted, found)
    ]
    if different:
        told = f"{store.name}: other features than {of}: {'; '.join(different)}"
        if any(line.startswith("dim is") for line in different):  # whatever is allowed, no layer takes them
            raise UserError(f"{told} (a model reads features of its own width alone)")
        _refuse(told, allow, warn)
    unknown = [
        f"{name} ({'is' if wanted is None else 'was'} {_shown(name, found if wanted is None else wanted)})"
        for name, (wanted, found) in pairs.items()
        if (wanted is None) != (found is None)
    ]
    if unknown:
        warn(f"{store.name}: known of one side alone, and not compared with what {of}: {', '.join(unknown)}")


def require_expected(
    expected: Mapping[str, Any],
    store: HasManifest,
    *,
    allow: bool,
    warn: Callable[[str], object] | None = logger.warning,
) -> None:
    """Compares the manifest fields that a configuration expects with those of a store.

    Args:
        expected: By name.
        store: What is to be read.
        allow: Say differences instead of refusing them.
        warn: Takes a line on fields that the store does not know; None: nothing is said of them.

    Raises:
        UserError: naming the store, the fields and both values; or a field that manifests do not have.
    """
    manifest = store.manifest
    if manifest is not None:
        type(manifest).from_mapping(expected, "expected manifest")
    now = _values(manifest)
    wanted = {name: value for name, value in expected.items() if value is not None}
    different = [
        name
        for name, value in wanted.items()
        if now.get(name) is not None and not _alike(name, value, now[name])
    ]
    if different:
        found = ", ".join(f"{name} {quoted(now[name], 60)}" for name in different)
        asked = ", ".join(quoted(wanted[name], 60) for name in different)
        _refuse(
            f"{store.name}: manifest says {found}, the configuration expects {asked}",
            allow,
            warn or logger.warning,
        )
    unknown = [f"{name} {quoted(value, 60)}" for name, value in wanted.items() if now.get(name) is None]
    if unknown and warn is not None:
        why = "no manifest" if manifest is None else "the manifest does not say"
        warn(f"{store.name}: the configuration expects {', '.join(unknown)}: {why}, going on")


def require_known(
    config: Any,
    store: VideoStore,
    trained: Mapping[str, Any] | None,
    *,
    allow: bool,
    warn: Callable[[str], object] = logger.warning,
    **further: HasManifest | None,
) -> None:
    """Holds the manifests of all inputs against what a checkpoint knows of them, and what the configuration expects.

    Args:
        config: Of the paper; `data.<part>.expected_manifest` and `data.<part>.path` are read.
        store: The features of videos.
        trained: The description in the checkpoint (`Meta`), or None before a training.
        allow: Say differences instead of refusing them.
        warn: Takes the lines, at most two of a part.
        **further: Further inputs by their part.

    Raises:
        UserError: as `require_same_features` and `require_expected`.
    """
    stores = {**parts_of(store), **further}
    for part, inputs in stores.items():
        if inputs is None:
            continue
        section, known = getattr(config.data, part, None), None
        if trained is not None:
            known = stored_manifest(trained, part)
            require_same_features(known, inputs, allow=allow, warn=warn)
            if known is None and inputs.manifest is None and _moved(trained, part, section, inputs):
                warn(f"{inputs.name}: nothing says whether these features are made as those of the training")
        if section is not None:
            said = warn if trained is None else None  # training has said what is not known
            # what training took by --allow-other-features is what the model understands
            told = _values(known)
            expected = {k: v for k, v in section.expected_manifest.items() if told.get(k) is None}
            require_expected(expected, inputs, allow=allow, warn=said)


def _moved(trained: Mapping[str, Any], part: str, section: Any, inputs: HasManifest) -> bool:
    """True where other files are read than in the training, by their names in the configuration."""
    known: Any = trained.get("config", {}).get("data")
    known = known.get(part) if isinstance(known, dict) else None
    given = not getattr(inputs, "paths", True)  # arrays, which are of no file
    return isinstance(known, dict) and not given and known.get("path") != getattr(section, "path", None)


def _refuse(text: str, allow: bool, warn: Callable[[str], object]) -> None:
    if not allow:
        raise UserError(f"{text} ({GOES_ON})")
    warn(text)


def _values(manifest: Mapping[str, Any] | BaseManifest | None) -> Mapping[str, Any]:
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


def _alike(name: str, one: Any, other: Any) -> bool:
    if name in NETWORKS and isinstance(one, str) and isinstance(other, str):
        return same_extractor(one, other)
    numbers = all(type(value) in (int, float) for value in (one, other))
    return math.isclose(one, other, rel_tol=1e-3) if numbers else bool(one == other)
