"""``vmr-data``: what annotation and feature files hold, whether they fit together, and converting them."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

from leorn.object_features import cli as object_data
from leorn.object_features.convert import ObjectSource
from leorn.object_features.prepare import ObjectStore
from rgnet import streams_cli as concat_data
from rgnet.query_features import cli as query_data
from rgnet.query_features.convert import convert_query_features
from rgnet.streams import length_mismatches
from vmr_common.cli import query_options
from vmr_common.cli.entrypoint import Parser, command, echo
from vmr_common.cli.numbers import real, seconds, whole
from vmr_common.cli.query_options import chosen_split
from vmr_common.errors import UserError
from vmr_common.features.conversion import convert_features
from vmr_common.features.store import FeatureStore, Manifest, check_store, creator
from vmr_common.splits.formats import write_canonical
from vmr_common.splits.load import Split, data_root, found_path
from vmr_common.splits.registry import ENTRIES

_DESCRIPTION = """
Looks into annotations and features of video moment retrieval. Paths of what is read are looked for under
--data-root, then in the current folder.
"""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="vmr-data", description=_DESCRIPTION)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def sub(name: str, run: Callable[[argparse.Namespace], None], about: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=about, description=about)
        made.set_defaults(run=run)
        query_options.add_data_root(made)
        return made

    info = sub("info", _info, "Describe data sets, splits, annotation files and feature files.")
    info.add_argument("name", nargs="?", help="data set or split; without any: list the registered ones")
    query_options.add_options(info, split=False)
    _features_options(info)
    object_data.add_options(info)

    check = sub("check", _check, "List every problem of a split and its features; status 2 if there is one.")
    query_options.add_options(check)
    _features_options(check)
    query_data.add_options(check, word_vectors=True)
    object_data.add_options(check)
    object_data.add_slots(check)
    check.add_argument(
        "--dim", type=whole(1), help="expected width of a feature row, or of an object's feature"
    )
    check.add_argument(
        "--min-rows", type=whole(0), default=1, help="fewest feature rows per video (default 1)"
    )

    shapes = sub("shapes", _shapes, "Generate the embedded data set Shapes (also done on first use).")
    shapes.add_argument(
        "--long", action="store_true", help="the one of videos of 10 to 20 minutes, shapes-long"
    )
    shapes.add_argument("--objects", action="store_true", help="also its object features, objects.h5")
    shapes.add_argument("--folder", help="where (default: shapes or shapes-long under the data root)")

    concat = sub("concat", _concat, concat_data.ABOUT)
    query_options.add_options(concat)
    _features_options(concat)
    concat_data.add_options(concat)

    convert = sub("convert", _convert, "Write canonical annotations, or features as one HDF5 file.")
    query_options.add_options(convert)
    _features_options(convert)
    query_data.add_options(convert, word_vectors=False)
    object_data.add_options(convert)
    convert.add_argument("--out", required=True, help="file to write (relative to the current folder)")
    convert.add_argument(
        "--dtype", choices=("float16", "float32"), help="default float32, of object features float16"
    )
    for name, kind, about in (
        ("extractor", str, "network and weights that made the features"),
        ("fps", real(0, 1e6, above=True), "frames per second that the extractor saw"),
        ("stride-s", seconds, "seconds from one row to the next"),
        ("window-s", seconds, "seconds of video that one row saw"),
        ("source", str, "where the features come from"),
    ):
        convert.add_argument(f"--{name}", type=kind, help=f"manifest: {about}")
    object_data.add_conversion(convert)
    return parser


def _features_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--features", nargs="+", help="HDF5 files or folders of npy or npz files; several are joined")
    add("--key", nargs="+", help="data set in each video's group, or array in each npz file")
    add("--tolerance", type=whole(0), default=2, help="rows that joined features may differ by (default 2)")


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``vmr-data``."""
    arguments = _parser().parse_args(argv)
    arguments.data_root = data_root(arguments.data_root)
    arguments.run(arguments)


def _store(arguments: argparse.Namespace, dim: int | None = None) -> FeatureStore:
    paths = [found_path(path, arguments.data_root) for path in arguments.features]
    keys = arguments.key
    key = keys[0] if keys and len(keys) == 1 else keys
    return FeatureStore(paths, key=key, dim=dim, tolerance=arguments.tolerance)


def _progress(items: Sequence[str], what: str) -> Iterable[str]:
    return tqdm(items, desc=what, unit="video", delay=2, disable=None, leave=False)


# --- info --------------------------------------------------------------------------------------------------


def _info(arguments: argparse.Namespace) -> None:
    # here, because the other commands need no baseline
    from vmr_common.cli.info import feature_lines, find_parts, object_lines, registered_lines, split_lines

    if arguments.features:
        with _store(arguments) as store:
            echo(*feature_lines(store, _lengths(store)))
    if arguments.objects:
        with object_data.open_store(arguments) as objects:
            echo(*object_lines(objects, _lengths(objects)))
    name, root = arguments.name, arguments.data_root
    if name is None and arguments.annotations is None:
        if not (arguments.features or arguments.objects):
            echo(*registered_lines())
        return
    missing: list[str] = []
    if name is None or name in ENTRIES:
        split = chosen_split(arguments, name)
        assert split is not None
        splits = [split]
    else:
        splits, missing = find_parts(name, root)
    echo(*split_lines(splits, root), *missing)


def _lengths(store: FeatureStore | ObjectStore) -> list[int]:
    return [store.length(video) for video in _progress(store.videos(), "reading lengths")]


# --- check -------------------------------------------------------------------------------------------------


def _check(arguments: argparse.Namespace) -> None:
    split = chosen_split(arguments, arguments.split)
    of_queries = arguments.query_features or arguments.word_vectors
    if split is None and not (arguments.features or arguments.objects or of_queries):
        raise UserError(
            "nothing to check: give --split or --annotations, --features, --objects or --query-features, or several"
        )
    if split is not None:
        echo(*split.report.lines())
    found = _check_videos(arguments, split) if arguments.features else []
    if arguments.objects:
        found += _check_objects(arguments, split)
    if of_queries:
        name, count, problems = query_data.check(arguments, split)
        number = _say_each(problems)
        found.append((name, number, f"{count:,} queries"))
    for name, number, what in found:
        if not number:
            echo(f"{name}: {what}, all well")
    if bad := [f"{name}: {number} problems with {what}" for name, number, what in found if number]:
        raise UserError(f"{'; '.join(bad)}, listed above")


def _say_each(problems: Iterable[str]) -> int:
    count = 0
    for problem in problems:
        echo(problem)
        count += 1
    return count


def _check_videos(arguments: argparse.Namespace, split: Split | None) -> list[tuple[str, int, str]]:
    """Prints what is wrong with the features of videos; name, number of problems, what was judged."""
    # the width is judged per video below, so that one wrong file does not hide the other problems
    with _store(arguments) as store:
        videos = _videos(store, split)
        if not videos:
            raise UserError(f"{store.name}: holds no video")
        problems = sum(
            _say_each(check_store(store, [video], arguments.dim, arguments.min_rows))
            for video in _progress(videos, "checking features")
        )
        if split is not None:
            problems += _say_each(length_mismatches(store, split.queries))
        return [(store.name, problems, f"{len(videos):,} videos")]


def _check_objects(arguments: argparse.Namespace, split: Split | None) -> list[tuple[str, int, str]]:
    """Prints what is wrong with the objects of videos, as `_check_videos`."""
    with object_data.open_store(arguments) as store:
        videos = _videos(store, split)
        if not videos:
            raise UserError(f"{store.name}: holds no video")
        shown = _progress(videos, "checking objects")
        return [
            (store.name, _say_each(object_data.problems(store, shown, arguments)), f"{len(videos):,} videos")
        ]


def _videos(store: FeatureStore | ObjectSource, split: Split | None) -> list[str]:
    """The videos of a split, or all that the features hold."""
    return store.videos() if split is None else list(dict.fromkeys(query.video for query in split.queries))


# --- shapes ------------------------------------------------------------------------------------------------


def _shapes(arguments: argparse.Namespace) -> None:
    from leorn.object_features.shapes_file import ensure_objects
    from vmr_shapes import LONG, SHORT, ensure

    name, spec = ("shapes-long", LONG) if arguments.long else ("shapes", SHORT)
    folder = Path(arguments.folder) if arguments.folder else arguments.data_root / name
    echo(f"Shapes is in {ensure(folder, spec)}")
    if arguments.objects:
        echo(f"its objects are in {ensure_objects(folder, spec)}")


# --- concat ------------------------------------------------------------------------------------------------


def _concat(arguments: argparse.Namespace) -> None:
    if not arguments.features:
        raise UserError("nothing to join: give --features, the features of the single videos")

    def load_part(split: str | None, videos_key: str | None) -> Split | None:
        chosen = argparse.Namespace(**vars(arguments))
        chosen.videos_key = videos_key or arguments.videos_key
        return chosen_split(chosen, split)

    echo(*concat_data.run(arguments, _store(arguments), load_part))


# --- convert -----------------------------------------------------------------------------------------------


def _convert(arguments: argparse.Namespace) -> None:
    split = chosen_split(arguments, arguments.split)
    out = Path(arguments.out)
    kinds = ("features", "objects", "query_features")
    given = [f"--{kind.replace('_', '-')}" for kind in kinds if getattr(arguments, kind)]
    if len(given) > 1:
        raise UserError(f"give {' or '.join(given)}: each becomes a file of its own")
    if given:
        (_convert_objects if arguments.objects else _convert_features)(arguments, split, out)
        return
    if split is None:
        raise UserError(
            "nothing to convert: give --split or --annotations, --features, --objects or --query-features"
        )
    write_canonical(out, split.queries)
    echo(*split.report.lines(), f"{out}: {len(split.queries):,} queries written")


def _bar(total: int, unit: str) -> tqdm[NoReturn]:
    return tqdm(total=total, desc="converting", unit=unit, delay=2, disable=None, leave=False)


def _convert_objects(arguments: argparse.Namespace, split: Split | None, out: Path) -> None:
    with contextlib.closing(object_data.open_source(arguments)) as source:
        videos = _videos(source, split)
        with _bar(len(videos), "video") as done:
            count = object_data.convert(arguments, source, videos, done.update)
        echo(f"{out}: {count:,} videos of {source.objects} objects per frame written")


def _convert_features(arguments: argparse.Namespace, split: Split | None, out: Path) -> None:
    given = ("extractor", "fps", "stride_s", "window_s", "source")
    stated = {name: getattr(arguments, name) for name in given if getattr(arguments, name) is not None}

    def manifest(known: Manifest | None) -> Manifest:
        return dataclasses.replace(known or Manifest(), creator=creator(), **stated)

    dtype = arguments.dtype or "float32"
    if arguments.features:
        with _store(arguments) as store:
            videos, what = _videos(store, split), "videos"
            with _bar(len(videos), "video") as done:
                made = manifest(store.manifest)
                count = convert_features(store, out, made, dtype=dtype, videos=videos, step=done.update)
    else:
        with query_data.open_store(arguments) as texts:
            queries = texts.queries() if split is None else [query.id for query in split.queries]
            what = "queries"
            with _bar(len(queries), "query") as done:
                made = manifest(texts.manifest)
                count = convert_query_features(
                    texts, out, made, dtype=dtype, queries=queries, step=done.update
                )
    echo(f"{out}: {count:,} {what} written as {dtype}")
