"""The last files of a finished run: predictions, scores and the report."""

from __future__ import annotations

import datetime
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch

import vmr_common
from vmr_common.io import write_text
from vmr_common.types import Query, write_predictions
from vmr_train import distributed, run_files
from vmr_train.checkpoint import Meta, Versions
from vmr_train.cli.results import Results
from vmr_train.machine import Machine
from vmr_train.report import Curve, FrameOverlay, Report, choose_queries, read_history, save_report
from vmr_train.report.generated import generated_frames, held_out_queries
from vmr_train.report.seen import Seen, seen_in_training
from vmr_train.run_folder import RunFolder

SHOWN = 40
_SELECTION = {
    "validation": "best epoch on the validation split",
    "last": "last epoch",
    "test": "best epoch on the TEST split",
}


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """The facts about a run in the report's heading.

    Attributes:
        package: The model package.
        command: The command as typed.
        meta: JSON part of the checkpoint of the selected weights.
        describe: Where they come from, see `Description`.
        seconds: Training time.
        parameters: Number of trained numbers.
    """

    package: str
    command: str
    meta: Meta
    describe: Mapping[str, Any]
    seconds: float
    parameters: int


def write_report(
    run: RunFolder,
    results: Results,
    facts: RunFacts,
    data_root: Path,
    *,
    curves: Callable[[Sequence[Query]], Mapping[str, list[Curve]]] | None = None,
    draw: Callable[[Sequence[Query]], FrameOverlay] | None = None,
) -> None:
    """Writes predictions, results, ``run.json`` (its figures, for programs) and the report of a run, on rank 0.

    Call it on every rank.

    Args:
        run: The folder.
        results: Predictions and scores on the test split.
        facts: About the run.
        data_root: Where Shapes can be rendered for film strips.
        curves: Weights over time for the queries that the report draws, or None.
        draw: Prepares what is drawn on the frames of those queries, or None.

    Raises:
        UserError: if a file cannot be written.
    """
    distributed.from_rank_zero(lambda: _write(run, results, facts, data_root, curves, draw))


def _write(
    run: RunFolder,
    results: Results,
    facts: RunFacts,
    data_root: Path,
    curves: Callable[[Sequence[Query]], Mapping[str, list[Curve]]] | None,
    draw: Callable[[Sequence[Query]], FrameOverlay] | None,
) -> None:
    folder = run.final
    write_predictions(folder / run_files.PREDICTIONS, results.predictions)
    write_text(folder / run_files.RESULTS, json.dumps(results.to_dict(), indent=1) + "\n")
    write_text(folder / run_files.FIGURES, json.dumps(figures(facts, results), indent=1) + "\n")
    chosen = [entry.query for entry in choose_queries(results.split.queries, results.predictions, SHOWN)]
    answered = {found.query for found in results.predictions}  # of the others there are no features
    shown = [query for query in chosen if query.id in answered]
    meta = facts.meta
    report = Report(
        title=f"{facts.package} on {results.split.name}",
        facts=_heading(facts, results),
        command=facts.command,
        selected_on_test=meta["selection"]["select"] == "test",
        bias_window="" if results.bias is None else results.bias.describe(),
        tables=results.tables,
        history=read_history(run.metrics),
        queries=results.split.queries,
        predictions=results.predictions,
        bias=results.bias_predictions,
        curves={} if curves is None else curves(shown),
        frames=generated_frames(results.split.name, data_root),
        draw=None if draw is None else draw(shown),
        shown=SHOWN,
        seen=_seen(results, data_root),
        presence=results.presence_text(),
        remarks=results.remarks,
    )
    save_report(folder, report)


class RunFigures(TypedDict):
    """The contents of ``run.json``."""

    package: str
    name: str
    seed: int
    quirks: str
    date: str
    select: str
    epoch: int
    seconds: float
    device: str
    processes: int
    threads: int | None
    precision: str
    parameters: int
    flops_per_query: float | None
    versions: Versions


def figures(facts: RunFacts, results: Results) -> RunFigures:
    """The figures of a run for tables of several runs (``run.json``).

    Args:
        facts: About the run.
        results: Predictions of the test split; FLOPs are given per query.
    """
    meta, config = facts.meta, facts.describe["config"]
    return {
        "package": facts.package,
        "name": config["name"],
        "seed": config["train"]["seed"],
        "quirks": config["quirks"],
        "date": _today(),
        "select": meta["selection"]["select"],
        "epoch": meta["epoch"],
        "seconds": round(facts.seconds, 3),
        "device": meta["versions"]["device"],
        "processes": meta["versions"]["processes"],
        "threads": torch.get_num_threads(),
        "precision": config["train"]["precision"],
        "parameters": facts.parameters,
        "flops_per_query": results.flops_per_query,
        "versions": meta["versions"],
    }


def _today() -> str:
    return datetime.datetime.now().astimezone().strftime("%Y-%m-%d")


def _heading(facts: RunFacts, results: Results) -> dict[str, str]:
    meta, describe = facts.meta, facts.describe
    config = describe["config"]
    return {
        "run": config["name"],
        "trained on": f"{describe['splits']['train']['name']} ({describe['splits']['train']['queries']:,} queries)",
        "weights": f"{_SELECTION[meta['selection']['select']]} (epoch {meta['epoch']})",
        **({"without features": f"{lacking:,}"} if (lacking := results.without_features) else {}),
        "quirks": config["quirks"],
        "training time": f"{facts.seconds:.0f} s on {meta['versions']['device']}",
        **({} if results.machine is None else {"machine": _machine(results.machine)}),
        "parameters": f"{facts.parameters:,}",
        "seed": str(config["train"]["seed"]),
        "date": _today(),
        "versions": f"vmr-common {vmr_common.__version__}, torch {meta['versions']['torch']}, "
        f"Python {platform.python_version()}",
        "split hash": results.split.hash[:12],
        "features hash": describe["features"]["hash"].partition(":")[2][:12],
    }


def _machine(found: Machine) -> str:
    threads = "1 thread" if found["threads"] == 1 else f"{found['threads']} threads"
    return f"{found['device']}, {threads}, {found['cpu']}, {found['kernels']} kernels"


def _seen(results: Results, data_root: Path) -> dict[str, Seen]:
    """The knowledge that training has of each query's sentence, by query id; empty without training queries."""
    if not results.train_queries:
        return {}
    held_out = held_out_queries(results.split.name, data_root)
    return seen_in_training(results.split.queries, results.train_queries, held_out)
