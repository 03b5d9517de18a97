"""Measures what a search finds: recall of moments and videos of the corpus, and the time that it takes."""

from __future__ import annotations

import json
import shlex
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vmr_common.cli import query_options
from vmr_common.cli.entrypoint import echo, option_words, word_of
from vmr_common.cli.numbers import overlap, whole
from vmr_common.errors import UserError, counted
from vmr_search.cli.search import add_stages

if TYPE_CHECKING:
    from vmr_common.evaluation.corpus import CorpusPrediction
    from vmr_common.splits.load import Split
    from vmr_search.evaluating import Answers, Truth
    from vmr_search.search import Search

ABOUT = (
    "Asks every sentence of a split of the whole corpus, and says how often the moment and the video are among the "
    "first, beside chance: by the annotated moment alone, and by every moment that satisfies the sentence where the "
    "data set knows them (Shapes) or --graded names them. With --ground also for the videos that a method looked into."
)
_MOST = 1000


def add(parser: ArgumentParser) -> None:
    """Sets the options."""
    option = parser.add_argument
    option("index", type=Path, metavar="INDEX", help="folder of the index")
    query_options.add_options(parser.add_argument_group("queries"))
    query_options.add_data_root(parser)
    option(
        "--graded",
        metavar="FILE",
        help="moments that satisfy each sentence (JSON lines, see docs/metrics.md)",
    )
    add_stages(parser.add_argument_group("how it is looked for"))
    option(
        "--curve",
        nargs="+",
        type=whole(1, _MOST),
        metavar="K",
        help="recall and seconds for several numbers of videos that it looks into",
    )
    option("--times", action="store_true", help="seconds of a query, of the processor and on the wall")
    option("--against-exact", action="store_true", help="what an approximate search finds of the exact one")
    option("--nms", type=overlap, default=0.5, help="largest overlap of two moments of a video (default 0.5)")
    option(
        "--out",
        type=Path,
        metavar="FILE",
        help="write the answers, as vmr-score --protocol vcmr reads them, and beside them the videos",
    )
    option("--json", action="store_true", help="print JSON (fractions, not percent)")


def run(options: Namespace) -> None:
    """Measures and prints.

    Raises:
        UserError: if options do not fit together, or the index, queries, truth or checkpoint cannot be read.
    """
    _check(options)
    from vmr_common.splits.load import data_root
    from vmr_common.splits.sources import found_path
    from vmr_search.folder import open_index
    from vmr_search.opening import search_of

    options.data_root = data_root(options.data_root)
    split = query_options.chosen_split(options, options.split, count=False)
    assert split is not None
    with open_index(options.index, device=options.device) as index:
        given = options.features and [found_path(one, options.data_root) for one in options.features]
        search = search_of(
            index,
            ground=options.ground,
            features=given,
            weight=options.weight,
            ordered=not options.as_one,
            device=options.device,
        )
        if not len(search.engine):
            raise UserError(f"{options.index}: holds no video")
        report = _report(options, split, search) | {"engine": index.facts.engine}
    if options.json:
        echo(json.dumps(report, indent=2))
    else:
        echo(*_lines(report), *(_next(options) if options.out else []))


def _check(options: Namespace) -> None:
    if (options.split is None) == (options.annotations is None):
        raise UserError("give either --split NAME or --annotations FILE")
    for name in ("features", "weight", "curve"):
        if getattr(options, name) is not None and options.ground is None:
            raise UserError(f"--{name} is for --ground")


def _report(options: Namespace, split: Split, search: Search) -> dict[str, Any]:
    """All that is measured."""
    from tqdm import tqdm

    from vmr_common.cli.score_corpus import scored, tables
    from vmr_common.evaluation.corpus import PROTOCOLS
    from vmr_common.evaluation.corpus_files import write_corpus_predictions
    from vmr_common.io import write_text
    from vmr_search import evaluating

    queries, videos = split.queries, search.engine.videos()
    graded, notes = _graded(options, split, videos)
    numbers = sorted({options.look_into, *(options.curve or ())}) if options.ground else []
    with tqdm(total=len(queries), desc="search", unit="query", leave=False, disable=None, delay=2) as bar:
        found = evaluating.answers_of(
            search, queries, numbers, nms=options.nms, exact=options.exact, progress=bar.update
        )
    name = search.retriever.name
    systems = {name: found.retrieved}
    if options.ground:
        method = search.grounder.method.package  # type: ignore[union-attr]
        systems[f"{name} + {method}"] = found.grounded[options.look_into]
    rules, durations = PROTOCOLS["vcmr"], search.engine.durations()
    rows = scored(rules, queries, systems, graded, videos, durations, split=split.name)
    notes += _left_out(options, queries, videos, found)
    report: dict[str, Any] = {
        "split": split.name,
        "videos": len(videos),
        "systems": [{"system": label, **scores.to_dict()} for label, scores in rows],
        "table": tables(rows),
        "notes": notes,
    }
    if options.ground:
        report["looked_into"], report["weight"] = options.look_into, search.grounder.weight  # type: ignore[union-attr]
    if options.times and not options.curve:
        times = evaluating.times_of(search, queries, videos=options.look_into, exact=options.exact)
        report["seconds"] = times.quantiles()
    if options.curve:
        truths = {"": None} if graded is None else {"": None, ", graded": graded}
        report["curve"] = [
            _point(options, search, queries, number, found.grounded[number], truths, videos)
            for number in options.curve
        ]
    if options.against_exact:
        report["against_exact"] = evaluating.against_exact(search, queries, nms=options.nms)
    if options.out:
        write_corpus_predictions(options.out, systems[list(systems)[-1]])
        write_text(_corpus_file(options.out), json.dumps(durations, indent=0))
    return report


def _corpus_file(out: Path) -> Path:
    """The file of the videos of the corpus and their seconds, without which the answers cannot be scored."""
    return out.with_suffix(".videos.json")


def _next(options: Namespace) -> list[str]:
    """The answers that were written, and the command that reads them."""
    lines = ["", f"answers     {options.out}, videos in {_corpus_file(options.out)}"]
    if options.split is not None:
        words = ["vmr-score", word_of(options.out), *option_words("--split", options.split)]
        words += ["--protocol", "vcmr", "--corpus", word_of(_corpus_file(options.out))]
        lines.append(f"next        {shlex.join(words)}")
    return lines


def _graded(options: Namespace, split: Split, videos: Sequence[str]) -> tuple[Truth | None, list[str]]:
    """Graded truth where a file or the data set knows it, and a note."""
    from vmr_common.evaluation.corpus_files import read_truth
    from vmr_common.splits.sources import found_path
    from vmr_search.evaluating import known_truth

    if options.graded:
        return read_truth(found_path(options.graded, options.data_root)), []
    if options.split is None:
        return None, []
    try:
        ids = [query.id for query in split.queries]
        return known_truth(options.split, options.data_root, ids, videos), []
    except UserError as error:
        return None, [f"graded truth: left out, {error}"]


def _left_out(options: Namespace, queries: Sequence[Any], videos: Sequence[str], found: Answers) -> list[str]:
    """Remarks on what was left out of the figures, or counts as a miss, and why."""
    notes, known = [], set(videos)
    if outside := sum(query.video not in known for query in queries):
        notes.append(
            f"{counted(outside, 'query')} of videos that are not in {options.index}: left "
            "out by the annotated moment"
        )
    if found.unsearchable:
        first, why = next(iter(found.unsearchable.items()))
        notes.append(f"{counted(len(found.unsearchable), 'query')} missed: {why} (first: {first})")
    return notes


def _point(
    options: Namespace,
    search: Search,
    queries: Sequence[Any],
    number: int,
    answers: Sequence[CorpusPrediction],
    truths: Mapping[str, Truth | None],
    videos: Sequence[str],
) -> dict[str, Any]:
    """Recall and seconds where the second stage looks into so many videos."""
    from vmr_common.evaluation.corpus import PROTOCOLS, annotated
    from vmr_search import evaluating

    point: dict[str, Any] = {"videos": number}
    for ending, truth in truths.items():
        scores = PROTOCOLS["vcmr"].score(
            queries, answers, annotated(queries) if truth is None else truth, videos
        )
        for key in ("R@1,IoU@0.5", "R@10,IoU@0.5", "R@10,IoU@0.7", "video R@1"):
            point[key + ending] = scores.values[key]
    return point | evaluating.times_of(search, queries, videos=number, exact=options.exact).quantiles()


def _lines(report: Mapping[str, Any]) -> list[str]:
    """The report as text."""
    lines = [report["table"]]
    if "looked_into" in report:
        lines += ["", f"videos looked into: {report['looked_into']}, weight {report['weight']:g}"]
    if "seconds" in report:
        lines += ["", _seconds(report["seconds"])]
    if "curve" in report:
        keys = [key for key in report["curve"][0] if key != "videos"]
        titles = [key.replace("IoU@", "") for key in keys]
        lines += ["", "  ".join(["videos", *titles])]
        for point in report["curve"]:
            cells = [
                (f"{1000 * point[key]:.1f} ms" if " p" in key else f"{100 * point[key]:.2f}").rjust(
                    len(title)
                )
                for key, title in zip(keys, titles, strict=True)
            ]
            lines.append("  ".join([f"{point['videos']:>6}", *cells]))
    if "against_exact" in report:
        shares = report["against_exact"]
        lines += [
            "",
            f"{report['engine']}: {100 * shares['videos']:.2f} % of the exact first ten videos, "
            f"{100 * shares['moments']:.2f} % of the exact first ten moments",
        ]
    return lines + ([""] if report["notes"] else []) + list(report["notes"])


def _seconds(times: Mapping[str, float]) -> str:
    return "a query: " + ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in times.items())
