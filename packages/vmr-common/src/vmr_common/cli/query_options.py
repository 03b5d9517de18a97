"""The options that say which queries a command is about, and where the data sets are."""

from __future__ import annotations

import argparse
from typing import Any, Protocol

from vmr_common.cli.entrypoint import free_text
from vmr_common.errors import UserError
from vmr_common.splits.fields import NAMES, parse_fields
from vmr_common.splits.formats import FORMATS
from vmr_common.splits.load import Split, custom_split, load_split
from vmr_common.splits.policies import POLICIES
from vmr_common.splits.registry import ENTRIES
from vmr_common.splits.sources import found_path, require_files

_OF_ANNOTATIONS = {"format": "auto", "durations": None, "policy": None, "fields": None, "subset": None}
"""Options that say how to read ``--annotations``, and their defaults."""
_SPLIT_FILES = ("annotations", "durations", "videos", "train_annotations")
_READ = (*_SPLIT_FILES, "features", "objects", "query_features", "word_vectors")
"""Options that name files of data that a command reads."""


class Options(Protocol):
    """A parser, or a group of its options."""

    @property
    def add_argument(self) -> Any:
        """Adds an option."""


def add_data_root(parser: Options, default: str = "data") -> None:
    """The option that says where the data sets are (see `splits.data_root`); `default` in words."""
    parser.add_argument(
        "--data-root",
        type=str,
        default=None,
        help="folder of the data sets, from which relative data paths start (default: $VMR_DATA, "
        f"else {default})",
    )


def add_options(parser: Options, *, split: bool = True) -> None:
    """The options that `chosen_split` reads; without ``--split`` where the command names splits in another way."""
    add = parser.add_argument
    if split:
        add("--split", help="registered split, such as charades-sta/test")
    add("--annotations", help="annotation file instead of a split")
    add(
        "--format",
        default=_OF_ANNOTATIONS["format"],
        help=f"format of --annotations: auto (default), {', '.join(FORMATS)}",
    )
    add("--durations", help="durations for --annotations where its format has none: CSV (id, length) or JSON")
    add(
        "--policy",
        help=f"irregular records of --annotations: {', '.join(POLICIES)} (default: that of the format)",
    )
    add_layout(parser)
    add("--videos", help="JSON file with the ids of the videos to keep")
    add("--videos-key", type=free_text, help="which list of --videos")


def add_layout(parser: Options) -> None:
    """The options that say how an annotation file is read: `layout` takes them."""
    add = parser.add_argument
    add(
        "--fields",
        nargs="+",
        metavar="FIELD=NAME",
        help=f"names of the fields of an annotation file, such as query=caption; fields: {', '.join(NAMES)}",
    )
    add("--subset", help="which part of an annotation file that holds several, such as training")
    add("--strip-extension", action="store_true", help="take folders and endings such as .mp4 off video ids")


def layout(options: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_layout` as those of `custom_split`."""
    return {
        "fields": parse_fields(options.fields),
        "subset": options.subset,
        "strip_extension": options.strip_extension,
    }


def require_given(options: argparse.Namespace, *splits: str | None) -> None:
    """Makes sure that all files of data are there that the options name, and those of registered splits.

    Raises `UserError` too for options of ``--annotations`` beside the name of a split or data set.
    """
    names = [name for name in splits if name is not None]
    # training annotations for the bias row of `vmr-score` are read by the same options
    if names and not getattr(options, "train_annotations", None):
        for key, default in _OF_ANNOTATIONS.items():
            if getattr(options, key, default) != default:
                named = f"split {names[0]}" if names[0] in ENTRIES else names[0]
                raise UserError(f"--{key} is for --annotations, {named} has its own")
    values = [getattr(options, name, None) or [] for name in _READ]
    paths = [path for value in values for path in ([value] if isinstance(value, str) else value)]
    entries = [ENTRIES[name] for name in names if name in ENTRIES]
    files = [file for entry in entries for file in entry.files]
    require_files([*files, *paths], options.data_root, made=[entry.made for entry in entries])


def chosen_split(options: argparse.Namespace, name: str | None, *, count: bool = True) -> Split | None:
    """The registered split `name`, else that of ``--annotations``, or None where the options name none.

    The options are those of `add_options`, and the folder `data_root`; files are looked for there, then in the current
    folder, all that the options name before any is read. Without `count` the report has no irregularities.
    """
    own = options.annotations is not None
    if name is None and not own and options.videos is not None:
        raise UserError("--videos needs a split or --annotations")
    if name is not None and own:
        raise UserError("give either split (a registered name) or annotations (a file), and not both")
    require_given(options, name)
    if name is None and not own:
        return None
    videos = options.videos and found_path(options.videos, options.data_root)
    more: dict[str, Any] = {"videos": videos, "videos_key": options.videos_key, "count": count}
    if name is not None:
        return load_split(name, options.data_root, strip_extension=options.strip_extension, **more)
    return own_split(options, options.annotations, **more)


def own_split(options: argparse.Namespace, annotations: str, **more: Any) -> Split:
    """The split of an annotation file, read as the options say; `more` are options of `custom_split`."""
    root = options.data_root
    return custom_split(
        found_path(annotations, root),
        format=options.format,
        durations=options.durations and found_path(options.durations, root),
        policy=options.policy,
        **layout(options),
        **more,
    )
