"""Configuration keys with new names: the old ones are refused where people write them, read where runs stored them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

RENAMED = {
    "data.features.made_for": "expected_manifest",
    "data.objects.made_for": "expected_manifest",
    "data.queries.made_for": "expected_manifest",
    "data.seconds_per_row": "feature_stride",
    "data.kept_gb": "cache_gb",
    "search.before_nms": "pre_nms_top_k",
    "search.keep": "post_nms_top_k",
    "search.pairs_at_once": "window_batch_size",
}
"""Old key, with the sections that lead to it -> new name of the same key."""


def new_name(key: str, is_key: Callable[[str], bool]) -> str | None:
    """The present name of a dotted key that has changed its name, if the configuration has it, else None."""
    section, _, _ = key.rpartition(".")
    name = f"{section}.{RENAMED[key]}" if key in RENAMED else ""
    return name if name and is_key(name) else None


def with_new_names(values: Mapping[str, Any], is_key: Callable[[str], bool]) -> dict[str, Any]:
    """A stored configuration of any version, with the keys of this one.

    Args:
        values: The configuration; anything may stand in it.
        is_key: True for the dotted keys that the configuration has today: those keep their names.
    """
    result = dict(values)
    for key in RENAMED:
        if is_key(key):
            continue
        *path, name = key.split(".")
        section: Any = result
        for part in path:
            below = section.get(part)
            if not isinstance(below, dict):
                break
            section[part] = section = dict(below)
        else:
            if name in section and RENAMED[key] not in section:
                section[RENAMED[key]] = section.pop(name)
    return result
