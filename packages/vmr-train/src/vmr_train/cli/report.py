"""``vmr-report``: makes the report of a run again from the files in its folder, or compares two runs."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from vmr_common.cli.entrypoint import Parser, command, echo
from vmr_common.cli.numbers import whole
from vmr_common.io import write_text
from vmr_common.splits.load import data_root
from vmr_train.report import Report, load_report, write_report
from vmr_train.report.data import MOST_SHOWN
from vmr_train.report.generated import generated_frames
from vmr_train.report.pictures import OwnFrames, video_addresses
from vmr_train.run_files import METRICS, PAGE, PREDICTIONS, REPORT

COMPARED = "compare.html"


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="vmr-report",
        description=f"Make {PAGE} of a run again from {REPORT}, {METRICS} and {PREDICTIONS}, or compare two runs on "
        "the same test queries.",
    )
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="such as runs/rgn/shapes")
    parser.add_argument(
        "other", type=Path, nargs="?", metavar="OTHER_RUN", help="a second run: compare both on one page"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=f"the page (default: RUN_FOLDER/{PAGE}; of two runs: {COMPARED} in the current folder)",
    )
    parser.add_argument(
        "--queries",
        type=whole(0, MOST_SHOWN),
        metavar="N",
        help="queries to draw (default: as saved); those not drawn before lack a curve",
    )
    parser.add_argument(
        "--frames",
        type=Path,
        metavar="DIR",
        help="film strips of videos that have none yet, from DIR/VIDEO_ID/*.jpg or *.png; names such as 12.50.jpg "
        "are times in seconds, else the pictures are spread evenly over the video",
    )
    parser.add_argument(
        "--videos",
        type=Path,
        metavar="DIR",
        help="play moments from DIR/VIDEO_ID.mp4 (webm, m4v, mov, mkv, ogv); the page links to these files",
    )
    parser.add_argument(
        "--data-root",
        type=Path,
        metavar="DIR",
        help="where Shapes lies, for film strips of its videos (default: $VMR_DATA, else data/)",
    )
    return parser


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point; prints the path of the page."""
    options = _parser().parse_args(argv)
    path: Path = options.out or (Path(COMPARED) if options.other else options.run / PAGE)
    report = _with_pictures(load_report(options.run), options, path)
    if options.other:
        _write_comparison(path, report, load_report(options.other), (str(options.run), str(options.other)))
    else:
        write_report(path, report)
    echo(str(path))


def _with_pictures(report: Report, options: argparse.Namespace, page: Path) -> Report:
    """The report with what the options say about queries, frames and videos."""
    durations = {query.video: query.duration for query in report.queries}
    changes = {}
    if options.queries is not None:
        changes["shown"] = options.queries
    if options.frames is not None:
        frames = OwnFrames(options.frames, durations)
        frames.require(durations)
        changes["frames"] = frames
    elif report.tables and report.tables[0][1]:
        split = report.tables[0][1][0][1].split
        changes["frames"] = generated_frames(split, data_root(options.data_root))
    if options.videos is not None:
        changes["videos"] = video_addresses(options.videos, durations, page)
    return dataclasses.replace(report, **changes)


def _write_comparison(path: Path, first: Report, second: Report, names: tuple[str, str]) -> None:
    # these bring jinja2, which commands without a page need not load
    from vmr_train.report.compare import compare
    from vmr_train.report.compare_page import render_comparison

    write_text(path, render_comparison(first, second, names, compare(first, second, names)))
