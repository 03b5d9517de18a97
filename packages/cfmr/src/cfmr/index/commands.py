"""The work of ``cfmr-index`` and ``cfmr-search`` once their options are understood."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import itertools
import json
import logging
import shlex
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from tqdm import tqdm

from cfmr.index.corpus import QUERIES_AT_ONCE, measure
from cfmr.index.encoder import Encoder
from cfmr.retriever import NAME, CFMRRetriever
from cfmr.retriever import load as load_retriever
from vmr_common.cli.entrypoint import echo, word_of
from vmr_common.errors import UserError, counted, listed, quoted, visible
from vmr_common.features.store import FeatureStore
from vmr_common.splits.load import data_root
from vmr_common.splits.registry import ENTRIES
from vmr_common.splits.sources import GZIPPED, found_path, place_of, require_files
from vmr_common.splits.text_files import read_durations
from vmr_common.types import Query
from vmr_common.values import video_stem
from vmr_search import building
from vmr_search.engine.moment_index import Filter
from vmr_search.engine.scan.scan_index import ScanIndex
from vmr_search.folder import CorpusIndex, is_index, open_index, require_writable
from vmr_search.hits import Hit
from vmr_search.questions import Question, Questions, checked_questions
from vmr_search.search import MOST_LETTERS, Search
from vmr_train.cli.requests import known_durations, named_split
from vmr_train.cli.results import moment_table
from vmr_train.clock import format_clock
from vmr_train.device import select_device
from vmr_train.feature_files import open_features
from vmr_train.predict import progress_bar
from vmr_train.splits import load
from vmr_train.unknown_words import UNKNOWN, UnknownWords

logger = logging.getLogger(__name__)
_MOST_COMPARED = 2000  # ids that a missing one is compared with


def maintain(given: Namespace) -> None:
    """Removes, compacts and verifies as the options say."""
    with open_index(given.out) as index:
        if given.remove:
            index.engine.remove(given.remove)
            echo(f"{counted(len(set(given.remove)), 'video')} removed")
        if given.compact:
            if isinstance(index.engine, ScanIndex):
                index.engine.compact(given.shard_videos)
            else:
                index.engine.compact()
        if given.verify:
            index.verify()
            echo("every byte is as it was written")
        echo(_summary(index))


def build(given: Namespace) -> None:
    """Builds an index or adds to it."""
    folder = Path(given.out)
    require_writable(folder)
    exists = is_index(folder)
    if given.add and not exists:
        raise UserError(f"{folder}: no index to add to")
    if not exists and given.checkpoint is None:
        raise UserError("--checkpoint is needed to build an index")
    device = str(select_device(given.device))
    own = None if given.checkpoint is None else load_retriever(Path(given.checkpoint), {}, device)
    index = open_index(folder, device=device, retriever=own) if exists else None
    retriever = _cfmr(index) if index is not None else own
    assert retriever is not None
    encoder = retriever.encoder
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
    new = set(wanted if index is None else building.absent(index, wanted))
    there = [video for video in wanted if video not in new]
    how: dict[str, Any] = {
        "videos": wanted,
        "batch": given.shard_videos,
        "report": lambda count: logger.info("%s videos encoded, and in the index", f"{count:,}"),
        "allow_other_features": given.allow_other_features,
    }
    if index is None:
        dtype = given.dtype or "float16"
        index = building.build(folder, retriever, store, durations, dtype=dtype, **how)
    else:
        _require_same_type(index, given.dtype)
        if not given.add:
            _require_resumable(index, store)
        building.extend(index, store, durations, replace=given.replace, **how)
        echo(_added(len(new), there, given))
    search = shlex.join(["cfmr-search", word_of(folder)])
    echo(f"{_summary(index)}\nnext  {search} {_example(encoder, root)}")


def _cfmr(index: CorpusIndex) -> CFMRRetriever:
    """The model of an index.

    Raises:
        UserError: if it is none of CFMR.
    """
    if index.facts.retriever != NAME:
        raise UserError(
            f"{index.folder}: made by the retriever {quoted(index.facts.retriever)}, expected {NAME}; the command "
            "vmr-search takes an index of any"
        )
    return cast(CFMRRetriever, index.retriever)


def _require_same_type(index: CorpusIndex, dtype: str | None) -> None:
    if isinstance(index.engine, ScanIndex) and dtype not in (None, index.engine.manifest.dtype):
        held = index.engine.manifest.dtype
        raise UserError(f"{index.folder}: holds {held} vectors, --dtype asks for {dtype}")


def _added(count: int, there: Sequence[str], given: Namespace) -> str:
    """A line on the videos that were added to an index, and on those that it held already."""
    line = f"{counted(count, 'video')} added"
    if not there:
        return line
    named = listed([quoted(video, 60) for video in there], 3)
    were, are, them = ("was", "is", "it") if len(there) == 1 else ("were", "are", "them")
    kept = f"kept, {'' if given.add else '--add '}--replace encodes {them} again"
    became = "replaced" if given.replace else kept
    return f"{line}; {len(there):,} {were} there already ({named}) and {are} {became}"


def _videos_of(split: str, encoder: Encoder, root: Path) -> list[str]:
    return list(dict.fromkeys(query.video for query in _queries_of(split, encoder, root)))


def _with_features(videos: list[str], store: FeatureStore) -> list[str]:
    lacking = [video for video in videos if video not in store]
    if lacking:
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


def _require_resumable(index: CorpusIndex, store: FeatureStore) -> None:
    foreign = next((video for video in index.engine.videos() if video not in store), None)
    if foreign is not None:
        raise UserError(
            f"{index.folder}: holds an index of other videos ({quoted(foreign)} is not in {store.name}); "
            "pass --add to add to it, or choose another folder"
        )


def _summary(index: CorpusIndex) -> str:
    line = f"{index.folder}: {counted(len(index.engine), 'video')}"
    if not isinstance(index.engine, ScanIndex):
        return line
    manifest = index.engine.manifest
    rows = sum(entry.rows for entry in manifest.shards) // max(1, sum(one.videos for one in manifest.shards))
    shards, size = counted(len(manifest.shards), "shard"), index.engine.bytes() / 1e6
    return f"{line}, {rows} proposals each, {shards}, {size:,.1f} MB {manifest.dtype}"


def opened_index(given: Namespace) -> CorpusIndex:
    """The index to search, made by the model of ``--checkpoint`` where that is given."""
    own = None if given.checkpoint is None else load_retriever(Path(given.checkpoint), {}, "cpu")
    index = open_index(given.index, device=str(select_device(given.device)), retriever=own)
    _cfmr(index)
    return index


def measure_recall(given: Namespace, index: CorpusIndex) -> None:
    """Prints the recall over the collection for the queries of a split."""
    encoder = _cfmr(index).encoder
    root = data_root(given.data_root, encoder.checkpoint.data_root)
    scores = measure(index, encoder, _queries_of(given.measure, encoder, root), nms=given.nms)
    echo(json.dumps(dataclasses.asdict(scores)) if given.json else scores.text())


def answer(given: Namespace, index: CorpusIndex) -> None:
    """Checks all questions, then answers them batch by batch."""
    search, where = Search(index.engine, index.retriever, ordered=False), _where(given, index)
    with contextlib.ExitStack() as stack:
        asked = stack.enter_context(_questions(given, _cfmr(index).encoder))
        bar: tqdm[Question] = stack.enter_context(
            progress_bar((), title="search", total=asked.count, unit="query")
        )
        while batch := asked.next(QUERIES_AT_ONCE):
            texts = [question["query"] for question in batch if "reason" not in question]
            answers = iter(search.many(texts, given.k, where=where, nms=given.nms))
            found = [() if "reason" in question else next(answers).hits for question in batch]
            if not _print(batch, found, given.json):
                raise BrokenPipeError
            bar.update(len(batch))


def _where(given: Namespace, index: CorpusIndex) -> Filter:
    for video in given.video or ():
        if video not in index.engine:
            near = _alike(video, index.engine.videos())
            raise UserError(f"{index.folder}: holds no video {quoted(video)} ({near})")
    return Filter(videos=None if given.video is None else frozenset(given.video))


def _alike(video: str, names: Sequence[str]) -> str:
    """The ids that are most like one that is missing, whatever its folder and ending; else how many there are."""
    wanted = video_stem(video).casefold()
    begin = (name for name in names if name[:1].casefold() == wanted[:1])
    alike = {name.casefold(): name for name in itertools.islice(begin, _MOST_COMPARED)}
    if near := difflib.get_close_matches(wanted, alike, 2):
        return f"similar: {', '.join(quoted(alike[name]) for name in near)}"
    example = f", for example {quoted(names[0])}" if names else ""
    return f"{len(names):,} in all{example}"


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

    def why(text: str) -> str | None:
        if len(text) > MOST_LETTERS:
            return f"it has more than {MOST_LETTERS:,} letters"
        return None if encoder.knows(text, unknown) else UNKNOWN

    def unsearchable(texts: Sequence[str]) -> list[str | None]:
        return list(map(why, texts))

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
    moments = [{name: getattr(hit, name) for name in ("video", "start", "end", "score")} for hit in found]
    return json.dumps({**question, "moments": moments}, ensure_ascii=False)


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
