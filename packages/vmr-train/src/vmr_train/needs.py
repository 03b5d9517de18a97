"""The files that a configuration needs: which are there, and where the others come from."""

from __future__ import annotations

import dataclasses
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from vmr_common.cli.entrypoint import echo
from vmr_common.errors import UserError
from vmr_common.splits import sources
from vmr_common.splits.registry import ENTRIES
from vmr_train.config import RunConfig
from vmr_train.ranges import PathText, types_of
from vmr_train.splits import SplitConfig

SPLITS, WORDS = "data.splits", "data.word_vectors"
"""Keys of queries and of word vectors, which a trained model needs for new words alone."""
MADE_ALIKE = (SPLITS, WORDS, "data.features", "data.objects", "data.queries.path")
"""Keys of what a trained model does without where features and sentences are made anew."""


def needed_files(config: RunConfig) -> dict[str, str]:
    """The paths of all files that a configuration names, and those of its registered splits; their keys by path."""
    found: dict[str, str] = {}
    for key, path in _files(config, ""):
        found.setdefault(path, key)
    return found


def _files(config: Any, section: str) -> Iterator[tuple[str, str]]:
    if isinstance(config, SplitConfig) and config.split in ENTRIES:
        yield from ((f"{section}.split", path) for path in ENTRIES[config.split].files)
    for name, hint in types_of(type(config), rules=True).items():
        value, key = getattr(config, name), f"{section}.{name}" if section else name
        if dataclasses.is_dataclass(value):
            yield from _files(value, key)
        elif value is not None and _names_files(hint):
            yield from ((key, path) for path in ([value] if isinstance(value, str) else value))


def _names_files(hint: Any) -> bool:
    return hint == PathText or any(map(_names_files, get_args(hint)))


def made_on_first_use(config: RunConfig) -> set[str]:
    """The folders of the embedded data sets whose splits a configuration names."""
    splits = config.data.splits
    named = [part.split for part in (splits.train, splits.validation, splits.test) if part is not None]
    return {ENTRIES[name].made for name in named if name in ENTRIES} - {""}


def _place(key: str, path: str, root: Path) -> Path | None:
    # weights to begin with are no data: they lie where a run left them
    here = Path() if key.startswith("init") else root
    return sources.place_of(path, here, sources.GZIPPED)


def require_files(config: RunConfig, root: Path, but: Sequence[str] = ()) -> None:
    """Makes sure that the files of a configuration are there, without those whose keys begin as one of `but`.

    Raises:
        UserError: naming all that are missing, where they were looked for, and where they come from.
    """
    sources.require_files(_needed_but(config, but), root, made=made_on_first_use(config))


def _needed_but(config: RunConfig, but: Sequence[str]) -> list[str]:
    return [path for path, key in needed_files(config).items() if not key.startswith(("init", *but))]


def require_requested(config: RunConfig, options: Namespace) -> None:
    """Makes sure that the files are there that a trained model needs for what the options of its command ask for.

    Raises:
        UserError: as `require_files`.
    """
    if getattr(options, "video_file", None) is not None:
        files = [] if options.queries is None else [options.queries]
        sources.require_files([*files, *_needed_but(config, MADE_ALIKE)], options.root)
        return
    made, unread, paths = made_on_first_use(config), [SPLITS], []
    asked = ("video", "query", "query_id", "duration")
    if getattr(options, "queries", None) is not None:
        # beside a question the file is one question too many, which is said before it is looked for
        alone = all(getattr(options, name, None) is None for name in asked)
        paths = [options.queries] if alone else []
    elif "split" in options:
        # the training queries choose the bias row
        unread = [f"{SPLITS}.test", f"{SPLITS}.validation"]
        if options.annotations is not None:
            paths = [options.annotations]
        elif (entry := ENTRIES.get(options.split)) is not None:
            paths, made = entry.files, made | {entry.made}
        else:
            unread = []
    sources.require_files([*paths, *_needed_but(config, [*unread, WORDS])], options.root, made=made)


def check_files(config: RunConfig, root: Path) -> None:
    """Prints every file of a configuration: its size, or where it comes from.

    Raises:
        UserError: if one is missing; files that are made on first use are not.
    """
    found = needed_files(config)
    made = made_on_first_use(config)
    places = {path: _place(key, path, root) for path, key in found.items()}
    missing = [path for path, place in places.items() if not (place or path.partition("/")[0] in made)]
    width = max(map(len, found))
    for path, key in found.items():
        state = "missing" if path in missing else _size(places[path])
        echo(f"{state:>17}  {path:<{width}}  {key}")
        if path in missing:
            known = "an earlier run" if key.startswith("init") else sources.origin(path)
            echo(f"{'':>19}{known or 'not a file of a known data set'}")
    echo(f"looked for under {sources.described(root)}, then in the current folder")
    if missing:
        raise UserError(f"{len(missing)} of {len(found)} files of {config.name} are missing, listed above")
    echo(f"{config.name}: nothing is missing")


def _size(place: Path | None) -> str:
    if place is None:
        return "made on first use"
    if place.is_dir():
        return "folder"
    size = place.stat().st_size
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"
