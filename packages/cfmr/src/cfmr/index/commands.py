"""The work of ``cfmr-index`` and ``cfmr-search`` once their options are understood."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import io
import json
import logging
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cfmr.index.corpus import measure
from cfmr.index.encoder import Encoder
from cfmr.index.video_index import QUERIES_AT_ONCE, Hit, VideoIndex
from cfmr.index.writer import compact, remove, require_own
from vmr_common.cli.entrypoint import echo, word_of
from vmr_common.errors import UserError, listed, quoted, visible
from vmr_common.features.store import FeatureStore
from vmr_common.splits.load import data_root
from vmr_common.splits.registry import ENTRIES
from vmr_common.splits.sources import GZIPPED, found_path, place_of, require_files
from vmr_common.splits.text_files import read_durations
from vmr_common.types import Query
from vmr_search.questions import Question, Questions, checked_questions
from vmr_train import distributed
from vmr_train.cli.requests import known_durations, named_split
from vmr_train.cli.results import moment_table
from vmr_train.clock import format_clock
from vmr_train.feature_files import open_features
from vmr_train.predict import progress_bar
from vmr_train.splits import load
from vmr_train.unknown_words import UNKNOWN, UnknownWords

logger = logging.getLogger(__name__)


def maintain(given: Namespace) -> None:
    """Removes, compacts and verifies as the options say; on rank 0."""
    folder = Path(given.out)
    if given.remove:
        remove(folder, given.remove)
        count = len(set(given.remove))
        echo(f"{count:,} {'video' if count == 1 else 'videos'} removed")
    if given.compact:
        compact(folder, given.shard_videos)
    opened = VideoIndex.open(folder)
    if given.verify:
        opened.verify()
        echo("every byte is as it was written")
    echo(_summary(opened))


def build(given: Namespace) -> None:
    """Builds an index or adds to it; every process encodes its share."""
    folder = Path(given.out)
    distributed.from_rank_zero(lambda: require_own(folder))
    exists = distributed.from_rank_zero((folder / "manifest.json").exists)
    if given.add and not exists:
        raise UserError(f"{folder}: no index to add to")
    if given.checkpoint is not None:
        encoder = Encoder.load(given.checkpoint, given.device)
    elif exists:
        encoder = VideoIndex.open(folder).encoder
    else:
        raise UserError("--checkpoint is needed to build an index")
    root = data_root(given.data_root, encoder.checkpoint.data_root)
    require_files([*(given.features or ()), *([given.durations] if given.durations else ())], root)
    store = _open_features(given, encoder, root)
    videos = None if given.split is None else _videos_of(given.split, encoder, root)
    if videos is not None and encoder.config.data.features.missing == "drop":
        videos = _with_features(videos, store)
    wanted = list(dict.fromkeys(store.videos() if videos is None else videos))
    if given.durations is not None:
        durations = read_durations(found_path(given.durations, root))
    else:
        durations = known_durations(encoder.config.data.splits, store, root, wanted)
    found = VideoIndex.open(folder, encoder) if exists else None
    dtype = given.dtype or (found.manifest.dtype if found else "float16")
    if found and dtype != found.manifest.dtype:
        raise UserError(f"{folder}: holds {found.manifest.dtype} vectors, --dtype asks for {dtype}")
    if found and not given.add:
        _require_resumable(found, store)
    new = set(wanted if found is None else found.absent(wanted))
    there = [video for video in wanted if video not in new]

    def report(count: int) -> None:
        logger.info("%s videos encoded, and in the index", f"{count:,}")

    how: dict[str, Any] = {
        "videos": wanted,
        "shard_videos": given.shard_videos,
        "report": report,
        "allow_other_features": given.allow_other_features,
    }
    if found and given.add:
        found.add(store, durations, replace=given.replace, **how)
    else:
        found = VideoIndex.build(folder, encoder, store, durations, dtype=dtype, **how)
    if distributed.rank() == 0:
        if exists:
            echo(_added(len(new), there, given))
        search = shlex.join(["cfmr-search", word_of(folder)])
        echo(f"{_summary(found)}\nnext  {search} {_example(encoder, root)}")


def _added(count: int, there: Sequence[str], given: Namespace) -> str:
    """How many videos were added to an index that was there, and what became of those that it held already."""
    line = f"{count:,} {'video' if count == 1 else 'videos'} added"
    if not there:
        return line
    named = listed([quoted(video, 60) for video in there], 3)
    were, are, them = ("was", "is", "it") if len(there) == 1 else ("were", "are", "them")
    kept = f"kept, {'' if given.add else '--add '}--replace encodes {them} again"
    became = "replaced" if given.replace else kept
    return f"{line}; {len(there):,} {were} there already ({named}) and {are} {became}"


def _videos_of(split: str, encoder: Encoder, root: Path) -> list[str]:
    queries = distributed.from_rank_zero(lambda: _queries_of(split, encoder, root))
    return list(dict.fromkeys(query.video for query in queries))


def _with_features(videos: list[str], store: FeatureStore) -> list[str]:
    lacking = [video for video in videos if video not in store]
    if lacking and distributed.rank() == 0:
        named = listed([quoted(video, 60) for video in lacking], 3)
        logger.warning("%d of %d videos are left out, without features: %s", len(lacking), len(videos), named)
    return [video for video in videos if video not in lacking]


def _queries_of(split: str, encoder: Encoder, root: Path) -> list[Query]:
    return named_split(split, encoder.config.data.splits, root).queries


def _example(encoder: Encoder, root: Path) -> str:
    """A sentence to search for, as words of a command line: one of the run's test part if that is at hand, or a gap."""
    part = encoder.config.data.splits.test
    files = ENTRIES[part.split].files if part.split in ENTRIES else [part.annotations or ""]
    if any(place_of(file, root, GZIPPED) is None for file in files):  # nothing is generated for an example
        return '"..."'
    try:
        sentence = load(part, root).queries[0].text
    except (UserError, IndexError):
        return '"..."'
    return shlex.join(["--", sentence] if sentence.startswith("-") else [sentence])


def _open_features(given: Namespace, encoder: Encoder, root: Path) -> FeatureStore:
    wanted = encoder.config.data.features
    if given.features is None:
        return open_features(wanted, root)
    key = wanted.key if given.key is None else given.key
    return open_features(dataclasses.replace(wanted, path=given.features, key=key), root)


def _require_resumable(found: VideoIndex, store: FeatureStore) -> None:
    foreign = next((video for video in found.videos() if video not in store), None)
    if foreign is not None:
        raise UserError(
            f"{found.folder}: holds an index of other videos ({quoted(foreign)} is not in {store.name}); "
            "pass --add to add to it, or choose another folder"
        )


def _summary(found: VideoIndex) -> str:
    size, shards = sum(shard.size for shard in found.manifest.shards), len(found.manifest.shards)
    return (
        f"{found.folder}: {len(found):,} {'video' if len(found) == 1 else 'videos'}, {len(found.moments)} proposals "
        f"each, {shards} {'shard' if shards == 1 else 'shards'}, {size / 1e6:,.1f} MB {found.manifest.dtype}"
    )


def open_index(given: Namespace) -> VideoIndex:
    """The index to search, made by the model of ``--checkpoint`` where that is given."""
    encoder = None if given.checkpoint is None else Encoder.load(given.checkpoint, "cpu")
    return VideoIndex.open(given.index, encoder)


def measure_recall(given: Namespace, opened: VideoIndex) -> None:
    """Prints the recall over the collection for the queries of a split."""
    root = data_root(given.data_root, opened.encoder.checkpoint.data_root)
    queries = distributed.from_rank_zero(lambda: _queries_of(given.measure, opened.encoder, root))
    shared = distributed.world() > 1
    scores = measure(opened, queries, nms=given.nms, device=given.device, shared=shared)
    if distributed.rank() == 0:
        echo(json.dumps(dataclasses.asdict(scores)) if given.json else scores.text())


def answer(given: Namespace, opened: VideoIndex) -> None:
    """Checks all questions, then answers them batch by batch; rank 0 alone reads and writes."""
    with contextlib.ExitStack() as stack:
        asked: list[Questions] = []

        def begin() -> int:
            asked.append(stack.enter_context(_questions(given, opened.encoder)))
            return asked[0].count

        count = distributed.from_rank_zero(begin)
        bar: tqdm[Question] = stack.enter_context(progress_bar((), title="search", total=count, unit="query"))
        for _ in range(0, count, QUERIES_AT_ONCE):
            batch = distributed.from_rank_zero(lambda: asked[0].next(QUERIES_AT_ONCE))
            texts = [question["query"] for question in batch if "reason" not in question]
            answers = iter(_search(given, opened, texts) if texts else [])
            found = [[] if "reason" in question else next(answers) for question in batch]
            # the other processes end as quietly as the one whose reader went away
            if not distributed.from_rank_zero(functools.partial(_print, batch, found, given.json)):
                raise BrokenPipeError
            bar.update(len(batch))


def _search(given: Namespace, opened: VideoIndex, texts: Sequence[str]) -> list[list[Hit]]:
    return opened.search_vectors(
        opened.encoder.encode_queries(texts),
        given.k,
        videos=given.video,
        nms=given.nms,
        device=given.device,
        shared=distributed.world() > 1,
    )


@contextlib.contextmanager
def _questions(given: Namespace, encoder: Encoder) -> Iterator[Questions]:
    unknown = UnknownWords()
    if given.queries is None:
        if not given.query.strip():
            raise UserError("the query is empty, expected a sentence")
        encoder.knows(given.query, unknown)
        unknown.warn()
        yield Questions(1, io.StringIO(json.dumps({"query": given.query})))
        return

    def unsearchable(texts: Sequence[str]) -> list[str | None]:
        return [None if encoder.knows(text, unknown) else UNKNOWN for text in texts]

    root = data_root(given.data_root, encoder.checkpoint.data_root)
    require_files([given.queries], root)
    with checked_questions(str(found_path(given.queries, root, GZIPPED)), unsearchable) as asked:
        unknown.warn()
        yield asked


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
    if "reason" in question:
        return f"{_cell(question['query'])}\n  {question['reason']}"
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
