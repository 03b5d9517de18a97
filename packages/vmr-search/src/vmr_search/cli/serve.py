"""Shows an index in the browser: a page to search and watch, and an interface for programs."""

from __future__ import annotations

import contextlib
from argparse import ArgumentParser, Namespace
from pathlib import Path

from vmr_common.cli.entrypoint import free_text
from vmr_common.cli.numbers import whole
from vmr_search.cli.search import add_opening, opened

ABOUT = (
    "Serves a page on which sentences are typed and found moments play, and an interface for programs (/docs), until "
    "Ctrl-C. Only this machine reaches it unless --host says otherwise; nothing is ever written but short-lived files."
)


def add(parser: ArgumentParser) -> None:
    """Sets the options."""
    option = parser.add_argument
    option("index", type=Path, metavar="INDEX", help="folder of the index")
    option("--host", default="127.0.0.1", help="address to listen at (default 127.0.0.1: this machine alone)")
    option("--port", type=whole(0, 65535), default=8000, help="port (default 8000; 0: any that is free)")
    option("--open", action="store_true", help="open the page in the browser")
    option(
        "--example",
        nargs="+",
        type=free_text,
        default=[],
        metavar="SENTENCE",
        help="sentences that the page offers",
    )
    option(
        "--searches",
        type=whole(1, 64),
        metavar="N",
        help="searches at a time (default: processors, at most 4)",
    )
    add_opening(parser.add_argument_group("what is searched, and how"))


def run(options: Namespace) -> None:
    """Serves until Ctrl-C.

    Raises:
        UserError: if the index, its model or the videos cannot be opened, or nothing can listen there.
    """
    import torch

    from vmr_search.server.running import serve

    torch.set_num_threads(1)  # of each search: several run at a time
    search = opened(options)
    with contextlib.closing(search.engine):
        serve(
            search,
            roots_of(options.videos or []),
            host=options.host,
            port=options.port,
            open_page=options.open,
            examples=options.example,
            searches=options.searches,
            look_into=options.look_into,
            exact=options.exact,
        )


def roots_of(paths: list[Path]) -> list[Path]:
    """The folders outside of which nothing is served: those that were given, and those of files that were."""
    return [path if path.is_dir() else path.parent for path in paths]
