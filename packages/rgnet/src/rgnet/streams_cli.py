"""``vmr-data concat``: its options, and what it prints."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from tqdm import tqdm

from rgnet.streams import FEATURES, STREAMS, write_concat
from vmr_common.cli.numbers import seconds, whole
from vmr_common.errors import UserError, require
from vmr_common.features.store import FeatureStore
from vmr_common.splits.load import Split

ABOUT = "Join the features of many videos into long streams, and shift the moments along."
WHOLE = "all"  # name of the only part where none is given


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command beside those of annotations and features."""
    add = parser.add_argument
    add("--out", required=True, help=f"folder (from the current one) for PART.jsonl, {FEATURES}, {STREAMS}")
    add(
        "--parts",
        nargs="+",
        metavar="PART=NAME",
        help="parts to write, e.g. train=dev_train test=dev_test: NAME is a list of --videos, "
        "or without --videos a registered split (default: one part, all)",
    )
    add("--per-stream", type=whole(1), default=20, help="about how many videos make a stream (default 20)")
    add(
        "--stride-s", type=seconds, help="seconds per feature row (default: what the features' manifest says)"
    )
    add("--seed", type=whole(0), default=0, help="decides which videos lie together and in which order")
    add("--dtype", choices=("float16", "float32"), default="float32", help="default float32")
    add("--source", help="manifest: where videos and sentences come from")


def run(
    arguments: argparse.Namespace, store: FeatureStore, load: Callable[[str | None, str | None], Split | None]
) -> list[str]:
    """Writes the streams and returns what there is to say.

    Args:
        arguments: The parsed options.
        store: The features.
        load: Gives the queries of a registered split (None: those that the options name) restricted to a list of
            ``--videos`` (None: the one of ``--videos-key``).

    Raises:
        UserError: for options that name no queries, and as `write_concat`.
    """
    splits = _splits(arguments, load)
    with store, tqdm(desc="joining", unit="stream", delay=2, disable=None, leave=False) as bar:
        joined = write_concat(
            arguments.out,
            {name: split.queries for name, split in splits.items()},
            store,
            stride_s=arguments.stride_s,
            videos_per_stream=arguments.per_stream,
            seed=arguments.seed,
            dtype=arguments.dtype,
            source=arguments.source,
            step=bar.update,
        )
    lines = [line for split in splits.values() for line in split.report.lines()]
    for name, made in joined.items():
        first, *counts = made.lines()
        lines += [f"{Path(arguments.out) / f'{name}.jsonl'}: {first}", *counts]
    return lines


def _splits(
    arguments: argparse.Namespace, load: Callable[[str | None, str | None], Split | None]
) -> dict[str, Split]:
    given = arguments.split is not None or arguments.annotations is not None
    if arguments.parts is None:
        parts: dict[str, str | None] = {WHOLE: None}
    else:
        parts = dict(_part(text) for text in arguments.parts)
        require(len(parts) == len(arguments.parts), "--parts", "a name twice", "different names")
        if arguments.videos is None and given:
            raise UserError(
                "--parts names lists of --videos, or registered splits without --split or --annotations"
            )
    splits = {}
    for part, name in parts.items():
        lists = arguments.videos is not None
        split = load(arguments.split if given or lists else name, name if lists else None)
        if split is None:
            raise UserError(
                "nothing to join: give --split or --annotations, or --parts with registered splits"
            )
        splits[part] = split
    return splits


def _part(text: str) -> tuple[str, str]:
    part, _, name = text.partition("=")
    good = bool(name) and part.replace("-", "").replace("_", "").isalnum() and part.isascii()
    require(good, "--parts", repr(text), "PART=NAME with letters and digits, - and _ in PART")
    return part, name
