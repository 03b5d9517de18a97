"""``cfmr-index`` and ``cfmr-search``."""

from __future__ import annotations

import importlib.util
import os
from argparse import ArgumentParser
from collections.abc import Sequence

from vmr_common.cli.entrypoint import Parser, free_text
from vmr_common.cli.numbers import overlap, whole
from vmr_common.cli.query_options import add_data_root
from vmr_common.errors import SaidElsewhere, UserError
from vmr_train.cli import options

_ALONE = (
    "an index is built and searched by one process, found torchrun with more; beyond one machine vmr-search has "
    "other engines (vmr-search index --engine lance or qdrant)"
)


@options.command
def index(argv: Sequence[str]) -> None:
    """Builds an index of videos, adds to it, or takes videos out of it."""
    _require_search("cfmr-index")
    given = _index_parser().parse_args(argv)
    maintained = bool(given.remove or given.compact or given.verify)
    if given.replace and not given.add:
        raise UserError(
            "--replace says what --add does with videos that are there already; give it with --add"
        )
    for name in ("add", "checkpoint", "features", "key", "durations", "split", "dtype"):
        if maintained and getattr(given, name):
            raise UserError(f"--{name} builds or adds; give it without --remove, --compact and --verify")

    # torch takes seconds to load: not before the options are understood
    from cfmr.index import commands

    if maintained:
        commands.maintain(given)
    else:
        commands.build(given)


@options.command
def search(argv: Sequence[str]) -> None:
    """Finds the moments of a sentence in all videos of an index."""
    _require_search("cfmr-search")
    given = _search_parser().parse_intermixed_args(argv)
    if sum(value is not None for value in (given.query, given.queries, given.measure)) != 1:
        behind = "; a sentence behind --video is read as a video: put it before" if given.video else ""
        raise UserError(f"give one sentence, or --queries with a file, or --measure with a split{behind}")

    from cfmr.index import commands

    with commands.opened_index(given) as opened:
        if given.measure is None:
            commands.answer(given, opened)
        else:
            commands.measure_recall(given, opened)


def _require_search(command: str) -> None:
    if importlib.util.find_spec("vmr_search") is None:
        raise UserError(f"{command} needs vmr-search, which is not installed: pip install 'vmr-cfmr[search]'")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise SaidElsewhere(_ALONE) if os.environ.get("LOCAL_RANK", "0") != "0" else UserError(_ALONE)


def _index_parser() -> ArgumentParser:
    from vmr_search.engine.scan.manifest import MOST_VIDEOS, SHARD_VIDEOS

    parser = Parser(
        prog="cfmr-index",
        description="Encode every video of a collection once, so that cfmr-search finds moments in all of them. "
        "A build that was killed goes on where it stopped when the same command is given again.",
    )
    add = parser.add_argument
    add("--out", required=True, help="folder of the index")
    add("--checkpoint", help="the model: a checkpoint file or a run folder")
    add(
        "--features",
        nargs="+",
        help="HDF5 file or folder with clip features; several are joined (default: those of the model's run)",
    )
    add("--key", help="data set inside a video's group, or array of an npz file")
    add("--durations", help="seconds by video: CSV with id and length, or a JSON object")
    add(
        "--split",
        help="only the videos of: train, validation or test of the model's run, or a registered split",
    )
    about = "add the videos of further feature files; those that are there already are kept"
    add("--add", action="store_true", help=about)
    add("--replace", action="store_true", help="with --add: encode those anew that are there already")
    options.add_other_features(parser)
    add("--remove", nargs="+", type=free_text, metavar="VIDEO", help="take these videos out")
    add("--compact", action="store_true", help="rewrite it in full shards, free removed space")
    add("--verify", action="store_true", help="read every byte and compare the checksums")
    add("--dtype", choices=("float16", "float32"), help="of the vectors (default: float16)")
    add(
        "--shard-videos",
        type=whole(1, MOST_VIDEOS),
        default=SHARD_VIDEOS,
        help="videos per shard at the most, and between two moments from which a killed build goes on; many small "
        "shards are merged into full ones, of 512 videos or 64 MiB",
    )
    add("--device", default="auto", help="auto, cpu, cuda, ... for the model")
    add_data_root(parser, options.REMEMBERED)
    return parser


def _search_parser() -> ArgumentParser:
    from vmr_search.search import MOST_HITS

    parser = Parser(
        prog="cfmr-search",
        description="Find moments in a whole collection by a sentence. Scores of different videos were never "
        "trained against each other; inside one video (--video) this is the method of the paper.",
    )
    add = parser.add_argument
    add("index", help="folder made by cfmr-index")
    add("query", nargs="?", help="the sentence (behind -- if it begins with a dash)")
    add("-k", type=whole(1, MOST_HITS), default=10, help="moments per sentence")
    add("--video", nargs="+", type=free_text, help="search in these videos only")
    add("--queries", help="JSON lines, or a list, with query (and qid) each, or a .txt of a sentence a line")
    add("--measure", metavar="SPLIT", help="measure recall over the collection; as in cfmr-index")
    add("--nms", type=overlap, default=0.5, help="largest overlap of two moments of one video")
    add("--json", action="store_true", help="print JSON lines")
    add("--checkpoint", help="make sure that the index was built by this model")
    add("--device", default="cpu", help="where to multiply: cpu, cuda, ...")
    add_data_root(parser, options.REMEMBERED)
    return parser
