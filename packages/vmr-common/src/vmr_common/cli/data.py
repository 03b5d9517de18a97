"""``vmr-data``: what annotation and feature files hold, whether they fit together, and converting them."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from vmr_common.cli.entrypoint import command, echo
from vmr_common.cli.numbers import whole
from vmr_common.cli.query_options import add_options, chosen_split, require_given
from vmr_common.cli.shared import (
    PATHS,
    Commands,
    add_conversion,
    add_features,
    add_manifest,
    bar,
    feature_store,
    lines_of,
    problems,
    progress,
    refuse_source,
    stated,
    videos_of,
)
from vmr_common.errors import UserError, counted
from vmr_common.io import write_text
from vmr_common.splits.generated import offered
from vmr_common.splits.load import Split
from vmr_common.splits.outside import outside_of, seem_fractions, unit_hint
from vmr_common.splits.registry import ENTRIES


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``vmr-data``."""
    _commands().run(argv)


def _commands() -> Commands:
    commands = Commands("vmr-data", f"Looks into annotations and features of video moment retrieval. {PATHS}")

    info = commands.add("info", _info, "Describe data sets, splits, annotation files and feature files.")
    info.add_argument("name", nargs="?", help="data set or split; without any: list the registered ones")
    add_options(info, split=False)
    add_features(info)

    about = "List every problem of a split and its features (annotations: the first broken record); status 2 if any."
    check = commands.add("check", _check, about)
    add_options(check)
    add_features(check)
    check.add_argument("--dim", type=whole(1), help="expected width of a feature row")
    least = "fewest feature rows per video (default 1)"
    check.add_argument("--min-rows", type=whole(0), default=1, help=least)
    about = "write the videos whose features are well, for --videos"
    check.add_argument("--write-videos-with-features", metavar="FILE", help=about)

    about = "Write canonical annotations, or features as one HDF5 file."
    convert = commands.add("convert", _convert, about)
    add_options(convert)
    add_features(convert)
    add_conversion(convert, "float32")
    add_manifest(convert)

    about = "List the files that a configuration of a paper needs; status 2 if one is missing."
    needs = commands.add("needs", _needs, about)
    needs.add_argument("--package", required=True, help="rgn, cfmr, cdn, leorn or rgnet")
    needs.add_argument("--cfg", help="a bundled configuration or a YAML file (default: the package's)")

    return commands


def _info(arguments: argparse.Namespace) -> None:
    # here, because the other commands need no baseline
    from vmr_common.cli.info import feature_lines, find_parts, registered_lines, split_lines

    require_given(arguments, arguments.name)
    name, root = arguments.name, arguments.data_root
    splits: list[Split] = []
    missing: list[str] = []
    if name is not None and name not in ENTRIES:
        splits, missing = find_parts(name, root, strip_extension=arguments.strip_extension)
    elif split := chosen_split(arguments, name):
        splits = [split]
    if arguments.features:
        with feature_store(arguments) as store:
            shapes = {video: store.shape(video) for video in progress(store.videos(), "reading lengths")}
            echo(*feature_lines(store, shapes, [query for split in splits for query in split.queries]))
    if splits:
        echo(*split_lines(splits, root), *missing)
    elif not arguments.features:
        echo(*registered_lines())


def _needs(arguments: argparse.Namespace) -> None:
    # the paper's own command, so that nothing here imports a paper
    train = offered("console_scripts", f"{arguments.package}-train")
    if train is None:
        raise UserError(f"--package {arguments.package}: no such package is installed")
    cfg = ["--cfg", arguments.cfg] if arguments.cfg else []
    raise SystemExit(train(["--check", "--data-root", str(arguments.data_root), *cfg]))


def _check(arguments: argparse.Namespace) -> None:
    split = chosen_split(arguments, arguments.split)
    if split is None and not arguments.features:
        raise UserError("nothing to check: give --split or --annotations, --features, or both")
    if arguments.write_videos_with_features and not arguments.features:
        raise UserError("--write-videos-with-features needs --features")
    if out := arguments.write_videos_with_features:
        read = [arguments.annotations, arguments.durations, arguments.videos, *(arguments.features or ())]
        refuse_source(out, "list of videos", read, arguments.data_root)
    wrong = []
    if split is not None:
        echo(*split.report.lines())
        outside = outside_of(split)
        unit = unit_hint(outside) if 2 * len(outside) > len(split.queries) else ""
        one = len(outside) == 1
        words = "query that lies outside its video" if one else "queries that lie outside their videos"
        echo(*lines_of(outside, words, unit))
        # of a registered split it is known, and no fault of the user's
        if arguments.split is None:
            queries = counted(len(split.queries), "query")
            if outside:
                wrong.append(problems(split.name, len(outside), queries))
            if fractions := seem_fractions(split):
                echo(f"  {fractions}")
                wrong.append(problems(split.name, 1, queries))
    if arguments.features:
        wrong += _check_features(arguments, split)
    if wrong:
        raise UserError("; ".join(wrong) + ", listed above")


def _check_features(arguments: argparse.Namespace, split: Split | None) -> list[str]:
    """Prints what is wrong with the features, and says how much in one text, if anything."""
    from vmr_common.features.checking import check_features
    from vmr_common.features.stride import durations_of

    with feature_store(arguments) as store:
        videos = videos_of(store, split)
        if not videos:
            raise store.empty()
        found = check_features(
            store,
            progress(videos, "checking features"),
            None if split is None else durations_of(split.queries),
            dim=arguments.dim,
            min_rows=arguments.min_rows,
        )
    about = counted(len(videos), "video")
    echo(*found.lines(), *map("  {}".format, found.remarks))
    if not found.count:
        echo(f"{store.name}: {about}, all well")
    if arguments.write_videos_with_features:
        out = Path(arguments.write_videos_with_features)
        write_text(out, json.dumps(found.good, ensure_ascii=False) + "\n")
        echo(f"{out}: {len(found.good):,} of {about}, those with features in order (for --videos)")
    elif found.good and len(found.shapes) < len(videos):
        echo(f"  {store.name}: --write-videos-with-features FILE lists the videos that are in order")
    return [problems(store.name, found.count, about)] if found.count else []


def _convert(arguments: argparse.Namespace) -> None:
    split = chosen_split(arguments, arguments.split)
    out = Path(arguments.out)
    if arguments.features:
        from vmr_common.features.conversion import convert_features
        from vmr_common.features.manifest import Manifest, creator

        with feature_store(arguments) as store:
            videos = videos_of(store, split)
            if not videos:
                raise store.empty()
            with bar(len(videos), "video") as done:
                given, before = stated(arguments), store.manifest or Manifest()
                made = dataclasses.replace(before, creator=creator(), **given)
                count = convert_features(
                    store, out, made, dtype=arguments.dtype, videos=videos, step=done.update
                )
        old = {name: getattr(before, name) for name in given}
        echo(
            f"{out}: {counted(count, 'video')} written as {arguments.dtype}",
            *(
                f"{out}: {name} is {value}, as given; the source said {old[name]}"
                for name, value in given.items()
                if old[name] not in (None, value)
            ),
        )
        return
    if split is None:
        raise UserError("nothing to convert: give --split or --annotations, or --features")
    from vmr_common.splits.objects import write_canonical

    refuse_source(out, "conversion", [arguments.annotations, arguments.durations], arguments.data_root)
    write_canonical(out, split.queries)
    echo(*split.report.lines(), f"{out}: {counted(len(split.queries), 'query')} written")
