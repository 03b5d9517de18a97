"""The commands cfmr-index and cfmr-search."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import io
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from cfmr.encoder import Encoder
from cfmr.index.corpus import measure
from cfmr.index.manifest import MOST_VIDEOS
from cfmr.index.questions import Question, Questions, checked_questions
from cfmr.index.video_index import QUERIES_AT_ONCE, Hit, VideoIndex
from cfmr.index.writer import SHARD_VIDEOS, compact, remove, require_own
from vmr_common.cli.entrypoint import Parser, command, echo
from vmr_common.cli.numbers import overlap, whole
from vmr_common.cli.query_options import add_data_root
from vmr_common.errors import UserError, quoted, visible
from vmr_common.features.config import FeaturesConfig, open_features
from vmr_common.features.store import FeatureStore
from vmr_common.splits.formats import read_durations
from vmr_common.splits.load import data_root
from vmr_common.timeline import format_clock
from vmr_common.types import Query
from vmr_train import distributed
from vmr_train.cli.requests import known_durations, named_split
from vmr_train.cli.results import moment_table
from vmr_train.distributed import session
from vmr_train.predict import progress_bar

logger = logging.getLogger(__name__)


@command
def index(argv: Sequence[str] | None = None) -> None:
    """Builds an index of videos, adds to it, or takes videos out of it."""
    parser = Parser(
        prog="cfmr-index",
        description="Encode every video of a collection once, so that cfmr-search finds moments in all of them. "
        "A build that was killed goes on where it stopped when the same command is given again.",
    )
    parser.add_argument("--out", required=True, help="folder of the index")
    parser.add_argument("--checkpoint", help="the model: a checkpoint file or a run folder")
    parser.add_argument(
        "--features",
        nargs="+",
        help="HDF5 file or folder with clip features; several are joined (default: those of the model's run)",
    )
    parser.add_argument("--key", help="data set inside a video's group, or array of an npz file")
    parser.add_argument("--durations", help="seconds by video: CSV with id and length, or a JSON object")
    parser.add_argument(
        "--split",
        help="only the videos of: train, validation or test of the model's run, or a registered split",
    )
    parser.add_argument("--add", action="store_true", help="add the videos of further feature files")
    parser.add_argument("--remove", nargs="+", metavar="VIDEO", help="take these videos out")
    parser.add_argument(
        "--compact", action="store_true", help="rewrite it in full shards, free removed space"
    )
    parser.add_argument("--verify", action="store_true", help="read every byte and compare the checksums")
    parser.add_argument("--dtype", choices=("float16", "float32"), help="of the vectors (default: float16)")
    parser.add_argument(
        "--shard-videos",
        type=whole(1, MOST_VIDEOS),
        default=SHARD_VIDEOS,
        help="videos per shard, and between two moments from which a killed build goes on; if there are more than "
        "64 shards of fewer than 256 videos, they are merged",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, ... for the model")
    add_data_root(parser)
    options = parser.parse_args(argv)
    with session(options.device):
        if options.remove or options.compact or options.verify:
            distributed.from_rank_zero(lambda: _maintain(options))
        else:
            _build(options)


def _maintain(options: argparse.Namespace) -> None:
    for name in ("add", "checkpoint", "features", "key", "durations", "split", "dtype"):
        if getattr(options, name):
            raise UserError(f"--{name} builds or adds; give it without --remove, --compact and --verify")
    folder = Path(options.out)
    if options.remove:
        remove(folder, options.remove)
        echo(f"{len(set(options.remove))} videos removed")
    if options.compact:
        compact(folder, options.shard_videos)
    opened = VideoIndex.open(folder)
    if options.verify:
        opened.verify()
        echo("every byte is as it was written")
    echo(_summary(opened))


def _build(options: argparse.Namespace) -> None:
    folder = Path(options.out)
    distributed.from_rank_zero(lambda: require_own(folder))
    exists = distributed.from_rank_zero((folder / "manifest.json").exists)
    if options.add and not exists:
        raise UserError(f"{folder}: no index to add to")
    if options.checkpoint is not None:
        encoder = Encoder.load(options.checkpoint, options.device)
    elif exists:
        encoder = VideoIndex.open(folder).encoder
    else:
        raise UserError("--checkpoint is needed to build an index")
    root = data_root(options.data_root)
    store = _open_features(options, encoder, root)
    videos = None if options.split is None else _videos_of(options.split, encoder, root)
    if options.durations is not None:
        durations = read_durations(options.durations)
    else:
        wanted = store.videos() if videos is None else videos
        durations = known_durations(encoder.config.data.splits, store, root, wanted)
    found = VideoIndex.open(folder, encoder) if exists else None
    dtype = options.dtype or (found.manifest.dtype if found else "float16")
    if found and dtype != found.manifest.dtype:
        raise UserError(f"{folder}: holds {found.manifest.dtype} vectors, --dtype asks for {dtype}")
    if found and not options.add:
        _require_resumable(found, store)

    def report(count: int) -> None:
        logger.info("%s videos are in the index", f"{count:,}")

    if found and options.add:
        found.add(store, durations, videos=videos, shard_videos=options.shard_videos, report=report)
    else:
        found = VideoIndex.build(
            folder,
            encoder,
            store,
            durations,
            videos=videos,
            dtype=dtype,
            shard_videos=options.shard_videos,
            report=report,
        )
    if distributed.rank() == 0:
        echo(f'{_summary(found)}\nnext  cfmr-search {folder} "..."')


def _videos_of(split: str, encoder: Encoder, root: Path) -> list[str]:
    queries = distributed.from_rank_zero(lambda: _queries_of(split, encoder, root))
    return list(dict.fromkeys(query.video for query in queries))


def _queries_of(split: str, encoder: Encoder, root: Path) -> list[Query]:
    return named_split(split, encoder.config.data.splits, root).queries


def _open_features(options: argparse.Namespace, encoder: Encoder, root: Path) -> FeatureStore:
    wanted = encoder.config.data.features
    if options.features is None:
        return open_features(wanted, root)
    given = FeaturesConfig(
        path=[str(Path(path).absolute()) for path in options.features],
        key=wanted.key if options.key is None else options.key,
        dim=wanted.dim,
        expected_manifest=wanted.expected_manifest,
    )
    return open_features(given, root)


def _require_resumable(found: VideoIndex, store: FeatureStore) -> None:
    foreign = next((video for video in found.videos() if video not in store), None)
    if foreign is not None:
        raise UserError(
            f"{found.folder}: holds an index of other videos ({quoted(foreign)} is not in {store.name}); "
            "pass --add to add to it, or choose another folder"
        )


def _summary(found: VideoIndex) -> str:
    size = sum(shard.size for shard in found.manifest.shards)
    return (
        f"{found.folder}: {len(found):,} videos, {len(found.moments)} proposals each, "
        f"{len(found.manifest.shards)} shards, {size / 1e6:,.1f} MB {found.manifest.dtype}"
    )


@command
def search(argv: Sequence[str] | None = None) -> None:
    """Finds the moments of a sentence in all videos of an index."""
    parser = Parser(
        prog="cfmr-search",
        description="Find moments in a whole collection by a sentence. Scores of different videos were never "
        "trained against each other; inside one video (--video) this is the method of the paper.",
    )
    parser.add_argument("index", help="folder made by cfmr-index")
    parser.add_argument("query", nargs="?", help="the sentence")
    parser.add_argument("-k", type=whole(1), default=10, help="moments per sentence")
    parser.add_argument("--video", nargs="+", help="search in these videos only")
    parser.add_argument("--queries", help="JSON lines with query (and qid) each, instead of one sentence")
    parser.add_argument(
        "--measure", metavar="SPLIT", help="measure recall over the collection; as in cfmr-index"
    )
    parser.add_argument(
        "--nms", type=overlap, default=0.5, help="largest overlap of two moments of one video"
    )
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    parser.add_argument("--checkpoint", help="make sure that the index was built by this model")
    parser.add_argument("--device", default="cpu", help="where to multiply: cpu, cuda, ...")
    add_data_root(parser)
    options = parser.parse_args(argv)
    given = [value for value in (options.query, options.queries, options.measure) if value is not None]
    if len(given) != 1:
        raise UserError("give one sentence, or --queries with a file, or --measure with a split")
    with session(options.device):
        encoder = None if options.checkpoint is None else Encoder.load(options.checkpoint, "cpu")
        opened = VideoIndex.open(options.index, encoder)
        if options.measure is None:
            _answer(options, opened)
            return
        queries = distributed.from_rank_zero(
            lambda: _queries_of(options.measure, opened.encoder, data_root(options.data_root))
        )
        shared = distributed.world() > 1
        scores = measure(opened, queries, nms=options.nms, device=options.device, shared=shared)
        if distributed.rank() == 0:
            echo(json.dumps(dataclasses.asdict(scores)) if options.json else scores.text())


def _answer(options: argparse.Namespace, opened: VideoIndex) -> None:
    """Checks all questions, then answers them batch by batch; rank 0 alone reads and writes."""
    with contextlib.ExitStack() as stack:
        asked: list[Questions] = []

        def begin() -> int:
            asked.append(stack.enter_context(_questions(options, opened.encoder)))
            return asked[0].count

        count = distributed.from_rank_zero(begin)
        bar: tqdm[Question] = stack.enter_context(progress_bar((), title="search", total=count, unit="query"))
        for _ in range(0, count, QUERIES_AT_ONCE):
            batch = distributed.from_rank_zero(lambda: asked[0].next(QUERIES_AT_ONCE))
            found = opened.search(
                [question["query"] for question in batch],
                options.k,
                videos=options.video,
                nms=options.nms,
                device=options.device,
                shared=distributed.world() > 1,
            )
            # the other processes end as quietly as the one whose reader went away
            if not distributed.from_rank_zero(functools.partial(_print, batch, found, options.json)):
                raise BrokenPipeError
            bar.update(len(batch))


def _questions(options: argparse.Namespace, encoder: Encoder) -> contextlib.AbstractContextManager[Questions]:
    if options.queries is not None:
        return checked_questions(options.queries, encoder.knows)
    if not options.query.strip():
        raise UserError("the query is empty, expected a sentence")
    return contextlib.nullcontext(Questions(1, io.StringIO(json.dumps({"query": options.query}))))


def _print(batch: Sequence[Question], found: Sequence[Sequence[Hit]], as_json: bool) -> bool:
    """Writes answers at once; False if nobody reads them any more."""
    write = _as_json if as_json else _as_table
    try:
        with tqdm.external_write_mode():
            echo(*(write(question, hits) for question, hits in zip(batch, found, strict=True)))
            sys.stdout.flush()
    except BrokenPipeError:
        return False
    return True


def _as_json(question: Question, found: Sequence[Hit]) -> str:
    return json.dumps({**question, "moments": [dataclasses.asdict(hit) for hit in found]}, ensure_ascii=False)


def _as_table(question: Question, found: Sequence[Hit]) -> str:
    videos = [_cell(hit.video) for hit in found]
    width = max([len("video"), *map(len, videos)])
    columns = {"rank": ">4", "video": f"<{width}", "start": ">8", "end": ">8", "score": ">8"}
    rows = [
        (str(rank), video, format_clock(hit.start), format_clock(hit.end), f"{hit.score:.3f}")
        for rank, (video, hit) in enumerate(zip(videos, found, strict=True), 1)
    ]
    return moment_table(_cell(question["query"]), columns, rows)


def _cell(text: str) -> str:
    """Foreign text on one line of a table."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")
