"""``vmr-report``: makes the report of a run again from the files in its folder."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from vmr_common.cli.entrypoint import Parser, command, echo
from vmr_common.cli.numbers import whole
from vmr_train.report import load_report, write_report
from vmr_train.report.data import MOST_SHOWN
from vmr_train.run_files import METRICS, PAGE, PREDICTIONS, REPORT


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="vmr-report",
        description=f"Make {PAGE} of a run again from {REPORT}, {METRICS} and {PREDICTIONS}.",
    )
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="such as runs/rgn/shapes")
    parser.add_argument("--out", type=Path, metavar="FILE", help=f"the page (default: RUN_FOLDER/{PAGE})")
    parser.add_argument(
        "--queries",
        type=whole(0, MOST_SHOWN),
        metavar="N",
        help="queries to draw (default: as saved); those not drawn before lack film strip and curve",
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; prints the path of the page."""
    options = _parser().parse_args(argv)
    report = load_report(options.run)
    if options.queries is not None:
        report = dataclasses.replace(report, shown=options.queries)
    path = options.out or options.run / PAGE
    write_report(path, report)
    echo(str(path))
