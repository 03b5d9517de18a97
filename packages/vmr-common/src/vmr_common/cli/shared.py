"""Parts that several commands on data have: sub-commands, feature options, progress, a list of problems."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from vmr_common.cli.entrypoint import Parser, echo, free_text
from vmr_common.cli.numbers import real, seconds, whole
from vmr_common.cli.query_options import add_data_root
from vmr_common.errors import LISTED, UserError, counted
from vmr_common.splits.load import Split, data_root
from vmr_common.splits.sources import found_path

if TYPE_CHECKING:
    from tqdm import tqdm

    from vmr_common.features.store import FeatureStore

PATHS = "Paths of what is read are looked for under --data-root, then in the current folder."


class Commands:
    """A command that consists of sub-commands, each a function of its options."""

    def __init__(self, prog: str, description: str) -> None:
        self.parser = Parser(prog=prog, description=description)
        self._commands = self.parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(
        self, name: str, run: Callable[[argparse.Namespace], None], about: str
    ) -> argparse.ArgumentParser:
        """The parser of a sub-command, which has the option ``--data-root`` already."""
        parser = self._commands.add_parser(name, help=about, description=about)
        parser.set_defaults(run=run)
        add_data_root(parser)
        return parser

    def run(self, argv: Sequence[str] | None) -> None:
        """Runs the sub-command that the arguments name."""
        arguments = self.parser.parse_args(argv)
        arguments.data_root = data_root(arguments.data_root)
        arguments.run(arguments)


def add_features(parser: argparse.ArgumentParser) -> None:
    """The options that `feature_store` reads."""
    add = parser.add_argument
    about = "HDF5 files, LMDBs, or folders with a file per video (npy, npz, h5, pt); several are joined"
    add("--features", nargs="+", help=about)
    add("--key", nargs="+", help="data set in each video's group, or array in each file")
    add(
        "--ending", nargs="+", help="what follows the id in the names of files, such as _clip; one per source"
    )
    add("--tolerance", type=whole(0), default=2, help="rows that joined features may differ by (default 2)")
    about = "bring joined features to the stride of the first source"
    add("--resample", action="store_true", help=about)


def feature_store(arguments: argparse.Namespace) -> FeatureStore:
    """The store of ``--features``, joined where there are several."""
    from vmr_common.features.store import FeatureStore

    paths = [found_path(path, arguments.data_root) for path in arguments.features]
    key, ending = (
        given[0] if given and len(given) == 1 else given for given in (arguments.key, arguments.ending)
    )
    more = {"tolerance": arguments.tolerance, "resample": arguments.resample}
    return FeatureStore(paths, key=key, ending=ending, **more)


def add_conversion(parser: argparse.ArgumentParser, dtype: str) -> None:
    """The options of where a conversion writes to, and in which type."""
    parser.add_argument("--out", required=True, help="file to write (relative to the current folder)")
    parser.add_argument(
        "--dtype", choices=("float16", "float32"), default=dtype, help=f"of features (default {dtype})"
    )


def add_manifest(parser: argparse.ArgumentParser) -> None:
    """The options that `stated` reads for the manifest of features of videos or queries."""
    for name, kind, about in (
        ("extractor", free_text, "network and weights that made the features"),
        ("fps", real(0, 1e6, above=True), "frames per second that the extractor saw"),
        ("stride-s", seconds, "seconds from one row to the next"),
        ("window-s", seconds, "seconds of video that one row saw"),
        ("source", free_text, "where the features come from"),
    ):
        parser.add_argument(f"--{name}", type=kind, help=f"manifest: {about}")


MANIFEST = ("extractor", "fps", "stride_s", "window_s", "source")


def stated(arguments: argparse.Namespace, names: Sequence[str] = MANIFEST) -> dict[str, Any]:
    """The manifest fields that the options give."""
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}


def refuse_source(out: str | Path, what: str, read: Iterable[str | None], root: Path) -> None:
    """Raises `UserError` if a file that is to be written is one that the command reads; `what` is to be written."""
    place = Path(out).resolve()
    if any(path is not None and found_path(path, root).resolve() == place for path in read):
        raise UserError(f"{out}: the {what} would overwrite its own source")


class HasIds(Protocol):
    """A store that lists its videos."""

    @property
    def name(self) -> str:
        """Path or paths, for messages."""

    def videos(self) -> list[str]:
        """The ids of all videos."""


def videos_of(store: HasIds, split: Split | None) -> list[str]:
    """The videos of a split, or all that a store holds."""
    return store.videos() if split is None else list(dict.fromkeys(query.video for query in split.queries))


def progress(items: Sequence[str], what: str) -> Iterable[str]:
    """The items, with a progress bar on a terminal."""
    from tqdm import tqdm

    return tqdm(items, desc=what, unit="video", delay=2, disable=None, leave=False)


def bar(total: int, unit: str) -> tqdm[NoReturn]:
    """The progress bar of a conversion, on a terminal."""
    from tqdm import tqdm

    return tqdm(total=total, desc="converting", unit=unit, delay=2, disable=None, leave=False)


def echo_each(problems: Iterable[str]) -> int:
    """Prints problems as they are found, and returns their number."""
    count = 0
    for problem in problems:
        echo(problem)
        count += 1
    return count


def lines_of(found: Sequence[object], what: str, hint: str = "") -> list[str]:
    """A line on each of the first things that were found, and one with the number of all.

    Example:
        >>> lines_of(["a:1 is late", "a:2 is late"], "late queries", " (milliseconds?)")
        ['  a:1 is late', '  a:2 is late', '  2 late queries (milliseconds?)']
    """
    last = f"{len(found):,} {what}{hint}" + (
        f", the first {LISTED} of them above" if len(found) > LISTED else ""
    )
    return [f"  {line}" for line in (*found[:LISTED], last)] if found else []


def problems(name: str, count: int, what: str) -> str:
    """How many problems there are with something.

    Example:
        >>> problems("a.h5", 1, "3 videos")
        'a.h5: 1 problem with 3 videos'
    """
    return f"{name}: {counted(count, 'problem')} with {what}"


def conclude(name: str, count: int, what: str) -> None:
    """Says that all is well with what was checked, or raises `UserError` where there were problems."""
    if count:
        raise UserError(f"{problems(name, count, what)}, listed above")
    echo(f"{name}: {what}, all well")
