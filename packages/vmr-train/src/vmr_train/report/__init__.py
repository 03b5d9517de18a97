"""Self-contained HTML report of a run: tables, curves, recall by kind of moment, and drawn queries.

`write_report` writes the page. `save_report` writes it together with ``report.json``, from which (and from
``metrics.jsonl`` and ``predictions.jsonl`` beside it) ``vmr-report`` makes it again without the model.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vmr_common.errors import UserError
from vmr_common.io import read_json, write_text
from vmr_common.predictions import read_predictions
from vmr_train.history import read_rows
from vmr_train.report.data import Curve, FrameOverlay, Report, Shown, choose_queries
from vmr_train.report.json_form import from_json, to_json
from vmr_train.run_files import METRICS, PAGE, PREDICTIONS, REPORT, current

__all__ = [
    "Curve",
    "FrameOverlay",
    "Report",
    "Shown",
    "choose_queries",
    "load_report",
    "read_history",
    "save_report",
    "write_report",
]


def write_report(path: str | Path, report: Report) -> None:
    """Writes the page, atomically.

    Raises:
        UserError: if the file cannot be written.
    """
    from vmr_train.report.page import render  # brings jinja2, which commands without a page need not load

    write_text(path, render(report))


def save_report(folder: str | Path, report: Report) -> None:
    """Writes ``report.html`` and ``report.json`` into a run folder, each atomically.

    The film strips are made once and kept in the JSON file, so that the page can be made again where the
    frames are not at hand. History and predictions are not copied: the run has them in their own files.

    Raises:
        UserError: if a file cannot be written.
    """
    from vmr_train.report.strips import film_strips  # brings Pillow

    shown = choose_queries(report.queries, report.predictions, report.shown, report.seed)
    report = dataclasses.replace(report, strips=film_strips(report, shown), frames=None, draw=None)
    text = json.dumps(to_json(report), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    write_text(Path(folder) / REPORT, text + "\n")
    write_report(Path(folder) / PAGE, report)


def load_report(folder: str | Path) -> Report:
    """The report of a run folder, from ``report.json``, ``metrics.jsonl`` and ``predictions.jsonl``.

    A run that is not finished has no ``report.json``: then only its curves are there, and a warning.

    Raises:
        UserError: if there is neither a report nor a history, or a file is broken.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such run folder")
    metrics, predicted, report = (current(folder, name) for name in (METRICS, PREDICTIONS, REPORT))
    history = read_history(metrics) if metrics.exists() else []
    if not report.exists():
        if not history:
            raise UserError(f"{folder}: not a run folder (neither {REPORT} nor {METRICS} is there)")
        return Report(
            title=folder.resolve().name,
            history=history,
            warnings=[f"Unfinished: the run has no {REPORT} yet, so only its curves are shown."],
        )
    predictions = read_predictions(predicted) if predicted.exists() else []
    where = str(report)
    return from_json(read_json(where), history=history, predictions=predictions, where=where)


def read_history(path: str | Path) -> list[Mapping[str, Any]]:
    """Rows of ``metrics.jsonl``; a last line that is still being written is left out.

    Raises:
        UserError: if the file cannot be read or an earlier line is no row of a training; names the line.
    """
    return list(read_rows(path, unfinished_last=True))
