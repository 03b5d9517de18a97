"""Checks of what is known about features against what a model was trained on, and its configuration expects."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from vmr_common.errors import quoted
from vmr_common.features.sameness import HasManifest, alike, refuse, require_same_features, values_of
from vmr_train.feature_files import VideoStore, parts_of
from vmr_train.video_files import stored_manifest

logger = logging.getLogger(__name__)


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
    now = values_of(manifest)
    wanted = {name: value for name, value in expected.items() if value is not None}
    different = [
        name
        for name, value in wanted.items()
        if now.get(name) is not None and not alike(name, value, now[name])
    ]
    if different:
        found = ", ".join(f"{name} {quoted(now[name], 60)}" for name in different)
        asked = ", ".join(quoted(wanted[name], 60) for name in different)
        refuse(
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
            told = values_of(known)
            expected = {k: v for k, v in section.expected_manifest.items() if told.get(k) is None}
            require_expected(expected, inputs, allow=allow, warn=said)


def _moved(trained: Mapping[str, Any], part: str, section: Any, inputs: HasManifest) -> bool:
    """True where other files are read than in the training, by their names in the configuration."""
    known: Any = trained.get("config", {}).get("data")
    known = known.get(part) if isinstance(known, dict) else None
    given = not getattr(inputs, "paths", True)  # arrays, which are of no file
    return isinstance(known, dict) and not given and known.get("path") != getattr(section, "path", None)
