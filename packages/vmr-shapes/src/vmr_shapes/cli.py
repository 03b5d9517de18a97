"""``vmr-shapes``: generates the embedded data set, which also happens on first use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from vmr_common.cli.entrypoint import Parser, command, echo
from vmr_common.cli.query_options import add_data_root
from vmr_common.splits.load import data_root
from vmr_shapes.spec import LONG, SHORT


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``vmr-shapes``."""
    parser = Parser(
        prog="vmr-shapes", description="Generates the embedded data set Shapes (also done on first use)."
    )
    add_data_root(parser)
    about = "the one of videos of 10 to 20 minutes, shapes-long"
    parser.add_argument("--long", action="store_true", help=about)
    parser.add_argument("--folder", help="where (default: shapes or shapes-long under the data root)")
    arguments = parser.parse_args(argv)
    from vmr_shapes.generate import ensure

    name, spec = ("shapes-long", LONG) if arguments.long else ("shapes", SHORT)
    folder = Path(arguments.folder) if arguments.folder else data_root(arguments.data_root) / name
    echo(f"Shapes is in {ensure(folder, spec)}")
