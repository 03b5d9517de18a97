"""Shows all of it on a small corpus of its own: videos, a model, an index, the page."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from vmr_common.cli.entrypoint import EXIT_INTERRUPTED, Parser, echo
from vmr_common.cli.numbers import whole
from vmr_common.cli.query_options import add_data_root
from vmr_common.errors import UserError, counted

if TYPE_CHECKING:
    from vmr_common.types import Query

ABOUT = (
    "Renders a few videos of the embedded data set Shapes, takes or trains a small model, indexes the videos and opens "
    "the page on which they are searched and watched. What is there is kept: given again, it starts at once."
)
DATA = "shapes"
WRITERS = "vmr_common.video_files"
"""Entry points ``name = function(folder, out, videos)``: writes videos of a data set as files; their paths."""
_RETRIEVER = "cfmr"
_NAME = "demo"
_CONFIG = "shapes-corpus"
_SHORT = ["--cfg", _CONFIG, "--train.epochs", "6", "--train.eval_every", "6"]
"""Options of a training in a minute or two."""
_EXAMPLES = 5
logger = logging.getLogger(__name__)


def add(parser: ArgumentParser) -> None:
    """Sets the options."""
    option = parser.add_argument
    option("--folder", type=Path, default=Path("demo"), help="where all of it is kept (default: demo)")
    option("--count", type=whole(1, 1000), default=24, help="videos (default 24)")
    option(
        "--checkpoint",
        type=Path,
        help="a model that is there (default: the run in runs/cfmr/shapes-corpus, else one is trained, and kept)",
    )
    option(
        "--cfg",
        nargs="+",
        dest="configurations",
        help="configurations of its training (default: a short one of Shapes)",
    )
    option("--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1: this machine alone)")
    option("--port", type=whole(0, 65535), default=8000, help="port (default 8000; 0: any that is free)")
    option("--no-open", action="store_true", help="leave the browser closed")
    option("--no-serve", action="store_true", help="end when the index is made")
    add_data_root(parser)


def run(options: Namespace) -> None:
    """Makes what lacks, and serves it.

    Raises:
        UserError: if a package that it needs is not installed, or a step of it fails.
    """
    from vmr_common.splits.load import data_root, load_split

    # before torch is loaded: threads of a model this small wait for one another, ten times longer on a busy machine
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    root = data_root(options.data_root)
    point = _required()
    queries = load_split(f"{DATA}/test", root).queries
    videos = list(dict.fromkeys(query.video for query in queries))[: options.count]
    logger.info("1 of 3: %s as files", counted(len(videos), "video"))
    _write(root, options.folder / "videos", videos)
    checkpoint = options.checkpoint or _trained(options, root, point)
    logger.info("3 of 3: the index")
    index = options.folder / "index"
    _part(
        "build_index",
        [
            str(index),
            str(options.folder / "videos"),
            "--checkpoint",
            str(checkpoint),
            "--weights",
            str(root / DATA),
        ],
    )
    examples = _examples(queries, videos)
    echo("", "Try:", *(f"  {text}" for text in examples), "")
    if not options.no_serve:
        given = [str(index), "--videos", str(options.folder / "videos"), "--example", *examples]
        given += ["--host", options.host, "--port", str(options.port)]
        _part("serve", [*given, *([] if options.no_open else ["--open"])])


def _required() -> EntryPoint:
    """The retriever that is trained; raises `UserError` if it or the data set is not installed."""
    found = next(iter(entry_points(group="vmr.retrievers", name=_RETRIEVER)), None)
    if found is None:
        raise UserError(f'the demo trains a model of {_RETRIEVER}: pip install "vmr-search[demo]"')
    return found


def _write(root: Path, out: Path, videos: Sequence[str]) -> None:
    from vmr_common.splits.generated import offered

    write = offered(WRITERS, DATA)
    if write is None:
        raise UserError(f'the demo shows videos of {DATA}: pip install "vmr-search[demo]"')
    write(root / DATA, out, videos)


def _trained(options: Namespace, root: Path, point: EntryPoint) -> Path:
    """The run folder of the demo's model, trained by the command of its paper; a training that was killed goes on."""
    package = point.module.partition(".")[0]
    runs = Path(options.folder) / "runs"
    folder = runs / package / _NAME
    found = [folder, *([] if options.configurations else [Path("runs", package, _CONFIG)])]
    for done in (place for place in found if (place / "results.json").exists()):
        logger.info("2 of 3: the model in %s", done)
        return done
    logger.info("2 of 3: training a small model in %s, a minute or two", folder)
    words = ["--data-root", str(root), "--runs", str(runs), "--name", _NAME]
    words += (
        [word for given in options.configurations for word in ("--cfg", given)]
        if options.configurations
        else _SHORT
    )
    if folder.is_dir():
        words.append("--resume")
    with subprocess.Popen(
        [sys.executable, "-m", package, "train", *words], stdout=subprocess.DEVNULL
    ) as process:

        def end(*_: object) -> None:  # nobody would wait for a training that goes on alone
            process.terminate()
            raise KeyboardInterrupt

        before = signal.signal(signal.SIGTERM, end)
        try:
            status = process.wait()
        except KeyboardInterrupt:  # it has heard of it too, and saves its state
            process.wait()
            raise KeyboardInterrupt("the same command goes on") from None
        finally:
            signal.signal(signal.SIGTERM, before)
    if status == EXIT_INTERRUPTED:
        raise KeyboardInterrupt("the same command goes on")
    if status:
        raise UserError(f"the training ended with status {status}, see above")
    return folder


def _examples(queries: Sequence[Query], videos: Sequence[str]) -> list[str]:
    """Short sentences that are true of different videos."""
    found: dict[str, str] = {}
    for query in sorted(queries, key=lambda query: len(query.text)):
        if query.video in videos and query.text not in found.values():
            found.setdefault(query.video, query.text)
    return list(found.values())[:_EXAMPLES]


def _part(name: str, words: Sequence[str]) -> None:
    """Runs another command of this program."""
    import importlib

    module = importlib.import_module(f"vmr_search.cli.{name}")
    parser = Parser(prog=f"vmr-search {name}")
    module.add(parser)
    module.run(parser.parse_args(list(words)))
