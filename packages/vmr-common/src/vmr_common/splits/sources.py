"""Files of the data sets: where a command looks for them, and where they come from (``sources.json``)."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from vmr_common.errors import UserError

DATA_ROOT_VARIABLE = "VMR_DATA"
GZIPPED = ("", ".gz")
"""Endings under which a file of text is found."""
RULE = f"--data-root, else ${DATA_ROOT_VARIABLE}, else data"


@functools.cache
def sources() -> Mapping[str, Mapping[str, Any]]:
    """What is known of each file of the data sets, by its path under the data root; several may share one entry."""
    table = json.loads(files("vmr_common.splits").joinpath("sources.json").read_text(encoding="utf-8"))
    return {path: entry for entry in table["files"] for path in entry["paths"]}


def origin(path: str) -> str:
    """What a file of the data sets is, where it is published and the command that makes it; empty if not known.

    Example:
        >>> origin("tacos/test.json")
        'TACoS in the layout of 2D-TAN, https://github.com/microsoft/VideoX/tree/master/2D-TAN/data/TACoS'
    """
    entry = sources().get(path, {})
    made = f"make it: {entry['make']}" if "make" in entry else ""
    return ", ".join(filter(None, [entry.get("what"), *entry.get("addresses", [])[:1], made]))


def was_read(path: str) -> bool:
    """True if we have read a file of the data sets; of others, counts and layout are as published."""
    return bool(sources().get(path, {}).get("paths", {}).get(path))


def place_of(path: str, root: str | Path, endings: Sequence[str] = ("",)) -> Path | None:
    """The place of a file that is read: under the data root, else in the current folder; None if it is in neither."""
    places = (os.path.join(folder, f"{path}{ending}") for folder in (root, "") for ending in endings)
    return next((Path(place) for place in places if os.path.exists(place)), None)


def found_path(path: str, root: str | Path, endings: Sequence[str] = ("",)) -> Path:
    """`place_of` a file, or where it is missing under the data root."""
    return place_of(path, root, endings) or Path(root) / path


def described(root: str | Path) -> str:
    """The data root and where it comes from, for a message."""
    return f"{root} ({RULE}{'' if os.path.isdir(root) else '; this folder does not exist'})"


def require_files(
    paths: Iterable[str], root: str | Path, where: str = "", made: Collection[str] = ()
) -> None:
    """Makes sure that files are there, with or without ``.gz``; those of data sets that are `made` later need not be.

    Raises `UserError` that names all that are missing, where they were looked for, and where they come from.
    """
    lacking: dict[str, list[str]] = {}
    for path in dict.fromkeys(paths):
        if path.partition("/")[0] not in made and place_of(path, root, GZIPPED) is None:
            lacking.setdefault(origin(path), []).append(path)
    if not lacking:
        return
    said = [
        f"{', '.join(str(Path(root) / path) for path in group)}: no such file{about and f' ({about})'}"
        for about, group in lacking.items()
    ]
    if any(not os.path.isabs(path) for group in lacking.values() for path in group):
        said.append(f"looked for under {described(root)} and in the current folder")
    raise UserError(where + "; ".join(said))
