"""``vmr-search``: one command whose parts build an index, search it, measure it and show it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from vmr_common.cli.entrypoint import Parser, command

COMMANDS: dict[str, str] = {
    "index": "vmr_search.cli.build_index",
    "search": "vmr_search.cli.search",
    "eval": "vmr_search.cli.evaluate",
    "demo": "vmr_search.cli.demo",
    "serve": "vmr_search.cli.serve",
}
"""Module by command; each has `add(parser)`, which sets the options, and `run(options)`."""


@command
def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``vmr-search``."""
    parser = Parser(prog="vmr-search", description="Searches a corpus of videos by a sentence.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    parsers: dict[str, Parser] = {}
    for name, place in COMMANDS.items():
        module = importlib.import_module(place)
        about = str(module.__doc__).splitlines()[0].rstrip(".")
        made = commands.add_parser(name, help=about[0].lower() + about[1:], description=module.ABOUT)
        module.add(made)
        made.set_defaults(run=module.run)
        parsers[name] = made
    words = list(sys.argv[1:] if argv is None else argv)
    if words and words[0] in parsers:  # by itself, so that options may stand between INDEX and what follows
        options = parsers[words[0]].parse_intermixed_args(words[1:])
    else:
        options = parser.parse_args(words)
    options.run(options)
