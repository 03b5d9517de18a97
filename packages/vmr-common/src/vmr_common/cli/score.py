"""``vmr-score``: evaluates a prediction file by one or several of the field's protocols."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vmr_common import evaluation as protocols
from vmr_common.cli import query_options, score_corpus
from vmr_common.cli.entrypoint import Parser, command, echo
from vmr_common.cli.numbers import overlap, real, several, whole
from vmr_common.cli.score_remarks import remarks
from vmr_common.cli.shared import refuse_source
from vmr_common.errors import UserError, counted, quoted
from vmr_common.evaluation import prediction_files, submissions
from vmr_common.evaluation.baselines import ConstantWindowBaseline, baseline_scores
from vmr_common.evaluation.corpus import PROTOCOLS
from vmr_common.evaluation.paired import format_differences, paired_differences
from vmr_common.splits.load import Split, data_root, load_split, training_split
from vmr_common.splits.outside import outside_of, said_outside
from vmr_common.types import Prediction, Query

_DESCRIPTION = """
Scores predictions (our JSON lines, QVHighlights or Ego4D submissions, .npz arrays, answers of video language models as
JSON or as samples of lmms-eval) against a split.
Prints one table per protocol, with random windows ("chance") and the best constant windows of the training
split ("bias") beside the system. Missing queries count as misses unless the protocol says otherwise.
Annotation files are looked for under --data-root, then in the current folder.
"""


_Row = tuple[str, list[Prediction]]
"""A system's name and predictions."""


_WITHOUT: dict[str, tuple[type[protocols.Protocol], ...]] = {
    "thresholds": (protocols.ClipLabels, protocols.Glance),
    "ranks": (protocols.ClipLabels, protocols.Glance, protocols.QVHighlights),
}
"""Protocols to which an option says nothing."""


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="vmr-score", description=_DESCRIPTION)
    add = parser.add_argument
    add("predictions", help="prediction file")
    query_options.add_options(parser)
    query_options.add_data_root(parser)
    of_corpora = f"of a corpus of videos: {', '.join(PROTOCOLS)}"
    add(
        "--protocol",
        action="append",
        help=f"one of {', '.join(protocols.names())}; may be repeated; {of_corpora}",
    )
    add("--graded", metavar="FILE", help="vcmr: also score by the moments that this file calls right")
    add("--corpus", metavar="FILE", help="vcmr: ids of all videos (default: those of the split)")
    add(
        "--thresholds",
        type=several(real(0, 1, above=True)),
        help="overlaps beside those of the protocol, such as 0.3,0.9 (mAP stays the mean over 0.5 to 0.95)",
    )
    add("--ranks", type=several(whole(1, 1_000)), help="n of R@n, such as 1,5,10 (default: the protocol's)")
    add("--nms", type=overlap, help="suppression threshold of proposal-map, 0 to 1 (default 0.5)")
    add("--drop-zero-length", action="store_true", help="leave out queries whose targets are all empty")
    add("--train-annotations", help="annotation file whose targets choose the bias row")
    add("--no-baselines", action="store_true", help="no chance and bias rows")
    add("--ignore-unknown", action="store_true", help="skip predictions for queries that the split lacks")
    add("--compare", help="second prediction file: paired difference with a bootstrap interval")
    add("--json", action="store_true", help="print JSON instead of tables (fractions, not percent)")
    add("--export-qvhighlights", metavar="FILE", help="also write a checked QVHighlights submission")
    add("--export-ego4d", metavar="FILE", help="also write a checked Ego4D submission")
    add(
        "--fill-missing",
        action="store_true",
        help="submissions: window [0, 0] with score 0, a miss, for queries without a window; highlight scores of 0",
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``vmr-score``; returns the exit status (see `vmr_common.cli.entrypoint`)."""
    options = _parser().parse_args(argv)
    options.data_root = data_root(options.data_root)
    if (options.split is None) == (options.annotations is None):
        raise UserError("give either --split NAME or --annotations FILE")
    of_a_corpus = score_corpus.asked_for(options)
    split = query_options.chosen_split(options, options.split, count=False)
    assert split is not None
    if of_a_corpus:
        score_corpus.run(options, split)
        return
    training = None if options.no_baselines else _training_queries(options)
    usual = protocols.suiting(split.protocol, split.queries)
    rule_sets = [_configured(name, options) for name in dict.fromkeys(options.protocol or [usual])]
    names = ", ".join(rules.name for rules in rule_sets)
    if options.nms is not None and all(rules.nms is None for rules in rule_sets):
        raise UserError(f"--nms: no suppression in {names} (in proposal-map)")
    for option, without in _WITHOUT.items():
        if getattr(options, option) and all(isinstance(rules, without) for rules in rule_sets):
            raise UserError(f"--{option}: {names} has none to choose")
    systems = [_read(options.predictions, split.queries, options)]
    if options.compare:
        systems.append(_read(options.compare, split.queries, options))
        if systems[0][0] == systems[1][0]:
            systems = [(options.predictions, systems[0][1]), (options.compare, systems[1][1])]
    exported = _export(options, systems[0][1], split.queries)
    if exported and _hidden(split):
        results: list[_Result] = []
        notes = [f"nothing was scored: {_hidden(split)}"]
    else:
        results, notes = _scored(split, systems, rule_sets, training, compare=bool(options.compare))
    notes = [*exported, *notes]
    if options.json:
        report = {"split": split.name, "notes": notes, "results": [result.to_dict() for result in results]}
        echo(json.dumps(report, indent=2))
    else:
        echo(*(["\n\n".join(result.to_text() for result in results)] if results else []), *notes)


@dataclass(frozen=True)
class _Result:
    """All rows of one protocol, and the paired differences where asked for."""

    rows: list[tuple[str, protocols.Scores]]
    differences: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        row: dict[str, Any] = {
            "protocol": self.rows[0][1].protocol,
            "compare": self.rows[0][1].compare,
            "systems": [{"system": label, **scores.to_dict()} for label, scores in self.rows],
        }
        if self.differences:
            row["differences"] = {
                key: {
                    "first": found.first,
                    "second": found.second,
                    "difference": found.difference,
                    "interval_95": [found.low, found.high],
                }
                for key, found in self.differences.items()
            }
        return row

    def to_text(self) -> str:
        text = protocols.format_table(self.rows)
        if self.differences:
            shown = self.rows[0][1].shown or tuple(self.differences)
            chosen = {key: self.differences[key] for key in shown if key in self.differences}
            text += "\n\n" + format_differences(chosen, (self.rows[0][0], self.rows[1][0]))
        return text


def _hidden(split: Split) -> str:
    """Why predictions for a split cannot be scored, or nothing."""
    if protocols.measurable(split.queries) or any(query.saliency is not None for query in split.queries):
        return ""
    return f"the truth of {split.name} is hidden, none of its {len(split.queries):,} queries has a moment"


def _scored(
    split: Split,
    systems: list[_Row],
    rule_sets: list[protocols.Protocol],
    training: tuple[list[Query], str] | None,
    *,
    compare: bool,
) -> tuple[list[_Result], list[str]]:
    """The table of each protocol, and remarks on them."""
    if why := _hidden(split):
        raise UserError(f"{why} (--export-qvhighlights FILE or --export-ego4d FILE writes a submission)")
    results = [_evaluate(rules, split, systems, compare=compare) for rules in rule_sets]
    outside = outside_of(split)
    notes = [said_outside(split, outside)] if 2 * len(outside) > len(split.queries) else []
    keys = [key for result in results for key in result.rows[0][1].values]
    notes += [note for label, found in systems for note in remarks(label, found, split, rule_sets, keys)]
    if training is not None:
        bias, note = _bias(*training)
        for rules, result in zip(rule_sets, results, strict=True):
            rows = baseline_scores(rules, split.queries, bias, split=split.name)
            own = result.rows[0][1].values.keys()  # clip scores have no row of windows beside them
            result.rows.extend(row for row in rows if own & row[1].values.keys())
            if not isinstance(rules, protocols.ClipLabels) and note not in notes:
                notes.append(note)
    return results, notes


def _evaluate(protocol: protocols.Protocol, split: Split, rows: list[_Row], *, compare: bool) -> _Result:
    scored = [
        (label, protocol.score(split.queries, predictions, split=split.name)) for label, predictions in rows
    ]
    differences = {}
    if compare:
        first, second = (protocol.per_query(split.queries, predictions) for _, predictions in rows)
        differences = paired_differences(first, second, [query.video for query in split.queries])
    return _Result(scored, differences)


def _configured(name: str, options: argparse.Namespace) -> protocols.Protocol:
    if name not in protocols.names():
        raise UserError(
            f"unknown protocol {quoted(name)}; known: {', '.join([*protocols.names(), *PROTOCOLS])}"
        )
    chosen = protocols.protocol(name)
    given = {key: getattr(options, key) for key in ("ranks", "drop_zero_length")}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value}
    if options.ranks:  # a mean overlap that is that of the first window alone stays so
        every = chosen.miou_ranks == chosen.ranks
        changes["miou_ranks"] = tuple(n for n in options.ranks if every or n in chosen.miou_ranks)
    if options.thresholds:
        changes["thresholds"] = tuple(sorted({*chosen.thresholds, *options.thresholds}))
    if options.nms is not None and chosen.nms is not None:
        changes["nms"] = options.nms
    return replace(chosen, **changes)


def _training_queries(options: argparse.Namespace) -> tuple[list[Query], str]:
    """Training queries with a target, and where they come from; none for annotations without a companion."""
    queries: list[Query] = []
    name = ""
    if options.train_annotations:
        split = query_options.own_split(options, options.train_annotations, count=False)
        queries, name = split.queries, split.name
    elif options.split:
        with contextlib.suppress(UserError):  # it, or its files, may not be there
            split = load_split(training_split(options.split), options.data_root, count=False)
            queries, name = split.queries, split.name
    return [query for query in queries if len(query.moments)], name


def _bias(train: list[Query], name: str) -> tuple[ConstantWindowBaseline | None, str]:
    """The constant windows of training queries (of the split `name`) where there are any, and a note on them."""
    if not train:
        why = f"no training query of {name} has a moment" if name else "for want of training targets"
        return None, f"bias: left out, {why}{'' if name else ' (--train-annotations FILE gives some)'}"
    bias = ConstantWindowBaseline.fit(train)
    return bias, f"bias: first window {bias.describe()}, chosen on {name} ({len(train):,} queries)"


def _read(path: str, queries: list[Query], options: argparse.Namespace) -> _Row:
    predictions = prediction_files.read_any(path, queries)
    if options.ignore_unknown:
        known = {query.id for query in queries}
        predictions = [prediction for prediction in predictions if prediction.query in known]
    if not predictions:
        raise UserError(f"{path}: holds no prediction" + " for the split" * options.ignore_unknown)
    folder, name = Path(path).parent.name, Path(path).name
    label = name.split(".")[0] or name
    return (f"{folder}/{label}" if folder and label == "predictions" else label), predictions


def _export(options: argparse.Namespace, predictions: list[Prediction], queries: list[Query]) -> list[str]:
    """Writes the submissions that are asked for; a line about each."""
    made = []
    for path, write in (
        (options.export_qvhighlights, submissions.write_qvhighlights),
        (options.export_ego4d, submissions.write_ego4d),
    ):
        if path:
            read = [options.annotations, options.train_annotations, options.durations]
            refuse_source(path, "submission", read, options.data_root)
            refuse_source(path, "submission", [options.predictions, options.compare], Path())
            remarks = write(path, predictions, queries, fill=options.fill_missing)
            made.append(f"{path}: " + "; ".join([f"written, {counted(len(queries), 'query')}", *remarks]))
    return made


if __name__ == "__main__":
    sys.exit(main())
