"""``vmr-score --protocol vcmr``: the tables of corpus retrieval, by single and by graded truth, beside chance."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from vmr_common.cli.entrypoint import echo
from vmr_common.errors import UserError, quoted
from vmr_common.evaluation.corpus import (
    PROTOCOLS,
    CorpusPrediction,
    CorpusProtocol,
    Truth,
    annotated,
)
from vmr_common.evaluation.corpus_files import read_corpus, read_corpus_predictions, read_truth
from vmr_common.evaluation.scores import Scores, format_table
from vmr_common.splits.load import Split
from vmr_common.splits.sources import found_path
from vmr_common.types import Query

_OTHERS = (
    *("ranks", "nms", "drop_zero_length", "train_annotations", "compare", "fill_missing"),
    *("export_qvhighlights", "export_ego4d"),
)
Rows = list[tuple[str, Scores]]


def asked_for(options: argparse.Namespace) -> bool:
    """True if the protocol is one of corpora.

    Raises:
        UserError: if it is beside others, or an option of the others is given, or one of its own to others.
    """
    chosen = [name for name in options.protocol or () if name in PROTOCOLS]
    if not chosen:
        for option in ("graded", "corpus"):
            if getattr(options, option):
                raise UserError(f"--{option} is for --protocol {' or '.join(PROTOCOLS)}")
        return False
    if len(options.protocol) > 1:
        raise UserError(f"--protocol {chosen[0]} reads predictions of its own form: give it alone")
    for option in _OTHERS:
        if getattr(options, option):
            raise UserError(f"--{option.replace('_', '-')}: not with --protocol {chosen[0]}")
    return True


def run(options: argparse.Namespace, split: Split) -> None:
    """Prints the tables that the options of ``vmr-score`` ask for."""
    rules = PROTOCOLS[options.protocol[0]]
    if options.thresholds:
        rules = replace(rules, thresholds=tuple(sorted({*rules.thresholds, *options.thresholds})))
    predictions, named = read_corpus_predictions(options.predictions)
    if options.ignore_unknown:
        known = {query.id for query in split.queries}
        predictions = [found for found in predictions if found.query in known]
    if not predictions:
        raise UserError(
            f"{options.predictions}: holds no prediction" + " for the split" * options.ignore_unknown
        )
    corpus: dict[str, float | None]
    if options.corpus:
        corpus = read_corpus(found_path(options.corpus, options.data_root))
    else:
        corpus = dict.fromkeys(named or [query.video for query in split.queries])
    durations = {video: seconds for video, seconds in corpus.items() if seconds is not None}
    durations |= {query.video: query.duration for query in split.queries}
    graded = options.graded and read_truth(found_path(options.graded, options.data_root))
    rows = scored(
        rules,
        split.queries,
        {Path(options.predictions).name.split(".")[0]: predictions},
        graded or None,
        corpus,
        None if options.no_baselines else durations,
        split=split.name,
    )
    if options.json:
        systems = [{"system": label, **scores.to_dict()} for label, scores in rows]
        echo(json.dumps({"split": split.name, "videos": len(corpus), "systems": systems}, indent=2))
    else:
        echo(tables(rows))


def scored(
    rules: CorpusProtocol,
    queries: Sequence[Query],
    systems: Mapping[str, Sequence[CorpusPrediction]],
    graded: Truth | None,
    corpus: Iterable[str],
    durations: Mapping[str, float] | None,
    *,
    split: str = "",
) -> Rows:
    """The rows of systems and of chance (with `durations`), by the annotations, and by graded truth where there is one.

    Raises:
        UserError: as `CorpusProtocol.score`.
    """
    videos, rows = list(corpus), []
    truths: dict[str, Truth] = {"": annotated(queries)} | ({", graded": graded} if graded is not None else {})
    if graded is not None and (lacking := [query.id for query in queries if query.id not in graded]):
        raise UserError(
            f"graded truth: lacks {len(lacking):,} of the {len(queries):,} queries (first: {quoted(lacking[0])})"
        )
    for ending, truth in truths.items():
        for name, predictions in systems.items():
            rows.append((name + ending, rules.score(queries, predictions, truth, videos, split=split)))
        if durations is not None:
            rows.append(("chance" + ending, rules.chance(queries, truth, videos, durations, split=split)))
    return rows


def tables(rows: Rows) -> str:
    """The rows as a table of moments and one of videos."""
    moments, videos = [], []
    for label, scores in rows:
        of_videos = tuple(key for key in scores.values if key.startswith("video "))
        moments.append((label, replace(scores, shown=tuple(k for k in scores.values if k not in of_videos))))
        videos.append((label, replace(scores, shown=of_videos)))
    return "\n\n".join((format_table(moments), format_table(videos).partition("\n")[2]))
