"""``vmr-shapes``: generates the embedded data set; ``render`` writes its videos, ``truth`` all right answers."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from vmr_common.cli.entrypoint import Parser, command, echo, free_text
from vmr_common.cli.numbers import whole
from vmr_common.cli.query_options import add_data_root
from vmr_common.splits.load import data_root
from vmr_shapes.spec import LONG, SHORT, SPLITS, ShapesSpec

_LONG = "the one of videos of 10 to 20 minutes, shapes-long"


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``vmr-shapes``."""
    given = list(sys.argv[1:] if argv is None else argv)
    if given[:1] == ["render"]:
        _render(given[1:])
    elif given[:1] == ["truth"]:
        _truth(given[1:])
    else:
        _generate(given)


def _generate(argv: Sequence[str]) -> None:
    parser = Parser(
        prog="vmr-shapes",
        description="Generates the embedded data set Shapes (also done on first use).",
        epilog="vmr-shapes render --out DIR writes its videos as files, vmr-shapes truth --out FILE every moment that "
        "satisfies a sentence: see vmr-shapes render --help, vmr-shapes truth --help.",
    )
    add_data_root(parser)
    parser.add_argument("--long", action="store_true", help=_LONG)
    parser.add_argument("--folder", help="where (default: shapes or shapes-long under the data root)")
    arguments = parser.parse_args(argv)
    from vmr_shapes.generate import ensure

    name, spec = ("shapes-long", LONG) if arguments.long else ("shapes", SHORT)
    folder = Path(arguments.folder) if arguments.folder else data_root(arguments.data_root) / name
    echo(f"Shapes is in {ensure(folder, spec)}")


def _render(argv: Sequence[str]) -> None:
    about = "Writes the videos of Shapes as files: H.264 in MP4, which every browser plays. Files that stand stay."
    parser = Parser(prog="vmr-shapes render", description=about)
    parser.add_argument("--out", required=True, help="folder of the files, <video>.mp4 or .mkv")
    parser.add_argument("--long", action="store_true", help=_LONG)
    parser.add_argument("--folder", help="a folder of Shapes data of another specification")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--split", choices=SPLITS, default="test", help="its videos (default: test)")
    which.add_argument(
        "--videos", nargs="+", type=free_text, metavar="ID", help="these videos, such as test-0003"
    )
    coded = parser.add_mutually_exclusive_group()
    lossless = "exact pixels: FFV1 in Matroska, which few browsers play"
    coded.add_argument("--lossless", action="store_true", help=lossless)
    coded.add_argument("--crf", type=whole(1, 51), help="quality of H.264, 1 (best) to 51 (default: 3)")
    larger = "pixels a side that each pixel becomes (default: 8)"
    parser.add_argument("--scale", type=whole(1, 16), default=8, help=larger)
    arguments = parser.parse_args(argv)
    from vmr_shapes.video_files import CRF, Form, chosen, write_videos

    spec = _spec(arguments)
    videos = chosen(spec, arguments.split, arguments.videos)
    crf = CRF if arguments.crf is None else arguments.crf
    form = Form(lossless=arguments.lossless, crf=crf, scale=arguments.scale)
    paths = write_videos(Path(arguments.out), spec, videos, form)
    echo(f"{len(paths)} video{'s' * (len(paths) != 1)} in {arguments.out}")


def _truth(argv: Sequence[str]) -> None:
    about = "Writes every moment of a corpus of Shapes videos that satisfies each sentence of a split, as JSON lines."
    parser = Parser(prog="vmr-shapes truth", description=about)
    parser.add_argument(
        "--out", required=True, help='the file, {"qid": ..., "relevant": [["video", start, end], ...]}'
    )
    parser.add_argument("--long", action="store_true", help=_LONG)
    parser.add_argument("--folder", help="a folder of Shapes data of another specification")
    parser.add_argument("--split", choices=SPLITS, default="test", help="whose sentences (default: test)")
    corpus = "splits whose videos make the corpus (default: all)"
    parser.add_argument("--corpus", nargs="+", choices=SPLITS, default=SPLITS, help=corpus)
    arguments = parser.parse_args(argv)
    from vmr_shapes.truth import write_truth

    spec = _spec(arguments)
    count = write_truth(Path(arguments.out), spec, arguments.split, arguments.corpus)
    echo(f"graded truth of {count} sentences in {arguments.out}")


def _spec(arguments: Namespace) -> ShapesSpec:
    from vmr_shapes.generate import read_spec

    return read_spec(arguments.folder) if arguments.folder else LONG if arguments.long else SHORT
