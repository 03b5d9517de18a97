"""Finds the moments of a sentence in all videos of an index."""

from __future__ import annotations

import contextlib
import json
import logging
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmr_common.cli.entrypoint import echo, free_text
from vmr_common.cli.numbers import overlap, real, seconds, whole
from vmr_common.errors import UserError, quoted
from vmr_video.answers import files
from vmr_video.answers.answer import plain

if TYPE_CHECKING:
    from vmr_search.hits import Results
    from vmr_search.search import Search
    from vmr_video.answers import Answer

logger = logging.getLogger(__name__)

ABOUT = (
    "Finds the moments of a sentence, or of a file of them, in all videos of an index. With --ground a trained method "
    "looks into the videos that are found; without, the windows of the index are the answer."
)
_AT_ONCE = 32  # sentences that share a scan
_MOST_K = 1000


def add(parser: ArgumentParser) -> None:
    """Sets the options."""
    option = parser.add_argument
    option("index", type=Path, metavar="INDEX", help="folder of the index")
    option("query", nargs="?", metavar="SENTENCE", help="the sentence (behind -- if it begins with a dash)")
    option(
        "--queries",
        metavar="FILE",
        help="JSON lines, or a list, with query (and qid) each, or a .txt of a sentence a line",
    )
    option("-k", type=whole(1, _MOST_K), default=10, help="moments of each sentence (default 10)")
    option("--json", action="store_true", help="print JSON lines, as vmr-score reads them")
    add_filters(parser.add_argument_group("where it is looked for"))
    add_opening(parser.add_argument_group("how it is looked for"))
    files.add_options(parser)


def add_filters(group: Any) -> None:
    """Options of a `Filter`."""
    option = group.add_argument
    option("--video", nargs="+", type=free_text, metavar="ID", help="in these videos only")
    option(
        "--after",
        type=_time,
        default=0.0,
        metavar="S",
        help="moments that end after this second of their video",
    )
    option("--before", type=_time, metavar="S", help="moments that begin before this second")
    option("--shortest", type=_time, default=0.0, metavar="S", help="moments of at least so many seconds")
    option("--longest", type=_time, metavar="S", help="moments of at most so many seconds")
    option("--least-score", type=real(-1e9, 1e9), metavar="X", help="moments of at least this score")
    option("--per-video", type=whole(1, _MOST_K), metavar="N", help="moments of one video at the most")
    option("--nms", type=overlap, default=0.5, help="largest overlap of two moments of a video (default 0.5)")


def add_opening(group: Any) -> None:
    """Options of `vmr_search.open`."""
    option = group.add_argument
    option("--videos", nargs="+", type=Path, metavar="DIR", help="video files, and folders with them")
    add_stages(group)


def add_stages(group: Any) -> None:
    """Options of `vmr_search.open` that say how a sentence is searched for."""
    option = group.add_argument
    option(
        "--ground",
        type=Path,
        metavar="CHECKPOINT",
        help="a trained method that finds the moment in each video",
    )
    option(
        "--features",
        nargs="+",
        help="its features of the videos (default: those that the index keeps)",
    )
    option("--weight", type=overlap, metavar="W", help="its share in the score, 0 to 1 (default 0.25)")
    option(
        "--look-into",
        type=whole(1, _MOST_K),
        default=20,
        metavar="N",
        help="videos that it looks into (default 20)",
    )
    option(
        "--exact",
        action="store_true",
        help="score every video, where the engine else scores the likely ones",
    )
    about = 'search for "B after A", or before, as one sentence (default: for both parts, in this order)'
    option("--as-one", action="store_true", help=about)
    option("--device", default="cpu", help="where models compute: cpu (default), cuda, ...")


def opened(options: Namespace) -> Search:
    """The search that options say.

    Raises:
        UserError: as `vmr_search.open`.
    """
    from vmr_search.opening import open as open_search

    return open_search(
        options.index,
        videos=options.videos,
        ground=options.ground,
        features=options.features,
        weight=options.weight,
        ordered=not options.as_one,
        device=options.device,
    )


def _time(text: str) -> float:
    return 0.0 if text in ("0", "0.0") else seconds(text)


def run(options: Namespace) -> None:
    """Searches, prints, and writes what is asked for.

    Raises:
        UserError: if options do not fit together, a sentence cannot be searched for, or a file cannot be written.
    """
    _check(options)
    search = opened(options)
    with contextlib.closing(search.engine):
        if not len(search.engine):
            logger.warning("%s: holds no video yet; vmr-search index puts them there", options.index)
        kept: list[Results] = []
        for number, (question, results) in enumerate(_answers(options, search)):
            if options.json:
                echo(json.dumps(row(question, results), ensure_ascii=False))
            else:
                echo(*([""] if number else []), _table(question, results))
            if results is not None and _writes(options):
                kept.append(results)
        if _writes(options):
            title = kept[0].text if len(kept) == 1 else f"{len(kept)} sentences"
            lines = files.write(options, answers_of(kept), title=title, k=options.k)
            if not options.json:
                echo("", *lines)


def _writes(options: Namespace) -> bool:
    return bool(options.page or options.cut or options.export)


def _check(options: Namespace) -> None:
    if (options.query is None) == (options.queries is None):
        raise UserError(
            'give one sentence, or --queries with a file, for example: vmr-search search INDEX "a dog jumps"'
        )
    if _writes(options) and not options.videos:
        raise UserError("--page, --cut and --export need the video files: --videos DIR")
    for name in ("features", "weight"):
        if getattr(options, name) is not None and options.ground is None:
            raise UserError(f"--{name} is for --ground")
    files.check(options)


def filter_of(options: Namespace, search: Search) -> Any:
    """The filter that options say.

    Raises:
        UserError: naming a video that the index does not hold.
    """
    from vmr_search.engine.moment_index import Filter

    for video in options.video or ():
        if video not in search.engine:
            raise UserError(
                f"--video {quoted(video)}: not in {options.index} (ids are names of files without the ending)"
            )
    return Filter(
        videos=None if options.video is None else frozenset(options.video),
        after=options.after,
        before=float("inf") if options.before is None else options.before,
        shortest=options.shortest,
        longest=float("inf") if options.longest is None else options.longest,
    )


def _answers(options: Namespace, search: Search) -> Iterator[tuple[Mapping[str, Any], Results | None]]:
    """Every question with its answer, or None where it has none."""
    settings: dict[str, Any] = {
        "where": filter_of(options, search),
        "least_score": options.least_score,
        "videos": options.look_into,
        "nms": options.nms,
        "per_video": options.per_video,
        "exact": options.exact,
    }
    if options.query is not None:
        yield {"query": options.query}, search(options.query, options.k, **settings)
        return
    from tqdm import tqdm

    from vmr_search.questions import checked_questions

    with (
        checked_questions(options.queries, search.retriever.unsearchable) as asked,
        tqdm(total=asked.count, desc="search", unit="query", leave=False, disable=None, delay=2) as bar,
    ):
        while batch := asked.next(_AT_ONCE):
            texts = [question["query"] for question in batch if "reason" not in question]
            found = iter(search.many(texts, options.k, **settings))
            for question in batch:
                yield question, None if "reason" in question else next(found)
            bar.update(len(batch))


def row(question: Mapping[str, Any], results: Results | None) -> dict[str, Any]:
    """A question and its answer as a line of predictions over a corpus."""
    moments = [[hit.video, hit.start, hit.end, hit.score] for hit in results or ()]
    note = {"note": results.note} if results is not None and results.note else {}
    return {**question, **note, "pred_corpus_windows": moments}


def _table(question: Mapping[str, Any], results: Results | None) -> str:
    return f"{plain(question['query'])}\n{question['reason']}" if results is None else repr(results)


def answers_of(found: Sequence[Results]) -> list[Answer]:
    """Answers to watch: for each sentence one of each video whose file is known, the video of the best moment first."""
    import numpy as np

    from vmr_video.answers import Answer
    from vmr_video.media import probe

    answers, infos = [], {}
    for results in found:
        by_video: dict[str, list[Any]] = {}
        for hit in results:
            if hit.file is not None:
                by_video.setdefault(hit.video, []).append(hit)
        for video, hits in by_video.items():
            if video not in infos:
                infos[video] = probe(hits[0].file)
            moments = np.array([[hit.start, hit.end] for hit in hits])
            scores = np.array([hit.score for hit in hits])
            answers.append(Answer(infos[video], results.text, moments, scores, results.note))
    return answers
