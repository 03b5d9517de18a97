"""Results for people: moments on the terminal, scores beside chance and bias there and in the report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from vmr_common.evaluation import Protocol, Scores, format_table, measurable, protocol
from vmr_common.evaluation.baselines import ConstantWindowBaseline, baseline_scores
from vmr_common.splits.load import Split
from vmr_common.types import Prediction, Query, rank_scores
from vmr_train.clock import format_clock
from vmr_train.machine import Machine
from vmr_train.presence import Calibration, Separation
from vmr_train.report.intervals import protocol_estimates
from vmr_train.report.timelines import score_texts

TableRows = list[tuple[str, Scores]]


@dataclass(frozen=True)
class Results:
    """Predictions for a split, scored.

    Attributes:
        split: What was predicted.
        predictions: Of the model.
        bias: The constant windows chosen on the training queries, or None without such.
        bias_predictions: Theirs, for the same queries.
        tables: Per protocol: its name and the rows model, chance, bias, further baselines.
        flops_per_query: FLOPs of a prediction (see `vmr_train.flops`), or None where they were not counted.
        machine: Computed the predictions, or None where it is not known.
        train_queries: Of the training split, or None without such.
        presence: How well the model tells which sentences are in a video, or None where that was not measured.
        calibration: Makes probabilities of that in answers, or None where these have none.
        remarks: Why a row or a table that one would look for is not there.
        without_features: Queries whose videos have no features, which count as misses.
    """

    split: Split
    predictions: list[Prediction]
    bias: ConstantWindowBaseline | None
    bias_predictions: list[Prediction] | None
    tables: list[tuple[str, TableRows]]
    flops_per_query: float | None = None
    machine: Machine | None = None
    train_queries: Sequence[Query] | None = None
    presence: Separation | None = None
    calibration: Calibration | None = None
    remarks: Sequence[str] = ()
    without_features: int = 0

    def text(self) -> str:
        """All tables for the terminal, and how well the model tells which sentences are in a video."""
        return "\n\n".join(
            filter(
                None,
                [
                    *(format_table(rows) for _, rows in self.tables),
                    "\n".join(filter(None, [*self.remarks, self.features_text()])),
                    self.presence_text(),
                ],
            )
        )

    def features_text(self) -> str:
        """A line that counts the queries whose videos have no features, which are misses; empty where all have."""
        if not self.without_features:
            return ""
        count = f"{self.without_features:,} {'query' if self.without_features == 1 else 'queries'}"
        return (
            f"{count} without prediction, because there are no features of the video (data.features.missing)"
        )

    def presence_text(self) -> str:
        """Lines on how well the model tells which sentences are in a video; empty where that was not measured."""
        if self.presence is None:
            return ""
        known = self.calibration
        if known is not None and known.figures.works:
            return self.presence.text()
        why = (
            "there was no validation"
            if known is None
            else f"{known.split} had AUROC {known.figures.auroc:.2f}"
        )
        return f"{self.presence.text()}\n          answers have no presence: {why}"

    def to_dict(self) -> list[dict[str, Any]]:
        """All rows as JSON can hold them; those of the model have 95 % intervals and name the machine too."""
        every = []
        for _, rows in self.tables:
            own, *baselines = ({"name": name, **scores.to_dict()} for name, scores in rows)
            intervals = protocol_estimates(own["protocol"], self.split.queries, self.predictions)
            own["intervals"] = {key: [found.low, found.high] for key, found in intervals.items()}
            if self.without_features:
                own["num_without_features"] = self.without_features
            if self.machine is not None:
                own["machine"] = self.machine
            if self.presence is not None:
                own["presence"] = self.presence.to_dict()
            every += [own, *baselines]
        return every


def rules_for(protocols: Sequence[str], split: Split) -> tuple[list[Protocol], str]:
    """The protocols that measure a split, and in words why these are others than those named.

    Queries with glances alone are measured by the protocol ``glance``, and queries with neither by none.

    Raises:
        UserError: for an unknown protocol.

    Example:
        >>> from vmr_common.splits.irregular import Report
        >>> query = Query(id="1", video="v", text="a dog runs", duration=30.0, glance=4.0)
        >>> rules, why = rules_for(["strict"], Split("mine", [query], Report("", 1, 1), "strict"))
        >>> [one.name for one in rules], why
        (['glance'], 'no recall: mine has glances and no moments')
    """
    named = [protocol(name) for name in protocols]
    by = measurable(split.queries)
    if by == "moments":
        return named, ""
    if by == "glance":
        return [protocol("glance")], f"no recall: {split.name} has glances and no moments"
    return [], f"no table: {split.name} has neither moments nor glances, so that nothing can be measured"


def score_all(
    name: str,
    split: Split,
    predictions: Sequence[Prediction],
    protocols: Sequence[str],
    train_queries: Sequence[Query] | None,
    baselines: Mapping[str, Sequence[Prediction]] = MappingProxyType({}),
) -> Results:
    """Scores predictions by several protocols, with the baselines in the same tables.

    Args:
        name: Label of the model's row.
        split: The evaluated queries.
        predictions: Of the model; queries without one count as misses.
        protocols: Names; of a split without moments see `rules_for`.
        train_queries: Choose the constant windows of the bias row; None leaves the row out, as do queries without
            moments, which a remark says.
        baselines: Further rows: predictions for the same queries, by name.

    Raises:
        UserError: for an unknown protocol, or predictions that do not fit the split.
    """
    rules_of_split, why = rules_for(protocols, split)
    remarks = [why] if why else []
    located = measurable(train_queries or ()) == "moments"
    bias = ConstantWindowBaseline.fit(train_queries) if train_queries and located else None
    if train_queries and not located and rules_of_split:
        remarks.append("no bias row: the training queries have no moments, which would choose its windows")
    constant = None if bias is None else _constant(bias, split.queries)
    tables = []
    for rules in rules_of_split:
        own = rules.score(split.queries, predictions, split=split.name)
        rows = [(name, own), *baseline_scores(rules, split.queries, bias, split=split.name)]
        rows += [
            (label, rules.score(split.queries, found, split=split.name)) for label, found in baselines.items()
        ]
        tables.append((rules.name, rows))
    return Results(split, list(predictions), bias, constant, tables, remarks=remarks)


def _constant(bias: ConstantWindowBaseline, queries: Sequence[Query]) -> list[Prediction]:
    """The constant windows for every query, with scores that only say the order."""
    windows = bias.windows_of([query.duration for query in queries])
    scores = rank_scores(windows.shape[1])
    return [
        Prediction(query=query.id, video=query.video, text=query.text, moments=moments, scores=scores)
        for query, moments in zip(queries, windows, strict=True)
    ]


def ranked_moments(prediction: Prediction) -> str:
    """The moments of one query as a table: rank, start, end, score."""
    pairs = zip(prediction.moments, score_texts(prediction.scores), strict=True)
    rows = [
        (str(rank), format_clock(start), format_clock(end), score)
        for rank, ((start, end), score) in enumerate(pairs, 1)
    ]
    columns = {"rank": ">4", "start": ">8", "end": ">8", "score": ">8"}
    return moment_table(f"{prediction.video}  {prediction.text}", columns, rows)


def moment_table(title: str, columns: Mapping[str, str], rows: Iterable[Sequence[str]]) -> str:
    """The moments that were found for a sentence, as a table for the terminal.

    Args:
        title: The line above it.
        columns: How wide each column is, as in a format string (``>8``: 8 characters, aligned to the right), by name.
        rows: One cell per column each.
    """
    line = "  ".join(f"{{:{width}}}" for width in columns.values())
    return "\n".join([title, *(line.format(*cells) for cells in (columns, *rows))])
