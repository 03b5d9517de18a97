"""The page, the cuts and the markers of a command's answers, as its options ask for them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from vmr_common.errors import UserError, quoted

if TYPE_CHECKING:
    from vmr_video.answers.answer import Answer

Kind = Literal["edl", "fcpxml", "csv"]
"""Forms of markers."""
_KINDS: tuple[Kind, ...] = get_args(Kind)


def add_options(parser: ArgumentParser) -> None:
    """The options ``--page``, ``--cut``, ``--cut-exact`` and ``--export``."""
    add = parser.add_argument
    add("--page", metavar="HTML", help="write a page that plays the moments")
    add("--cut", metavar="DIR", help="write the moments as files of their own")
    add(
        "--cut-exact",
        action="store_true",
        help="encode the cuts anew, to the frame (copies begin at key frames)",
    )
    add(
        "--export", metavar="KIND", help="write markers for editors: edl, fcpxml, csv, or a path that ends so"
    )


def check(options: Namespace) -> None:
    """Raises `UserError` for options that do not fit together."""
    if options.cut_exact and options.cut is None:
        raise UserError("--cut-exact is for --cut")
    if options.export is not None:
        marker_file(options.export)


def write(options: Namespace, answers: Sequence[Answer], *, title: str, k: int) -> list[str]:
    """Writes what the options ask for, cuts of the first k moments each; returns a line for each file.

    Raises:
        UserError: if one cannot be written, or a moment cannot be cut.
    """
    lines, markers = [], []
    if options.export is not None:  # first: an edit list may be impossible, and nothing is written then
        from vmr_video.answers.editors import export

        path, kind = marker_file(options.export)
        export(path, answers, kind)
        markers.append(f"markers     {path}")
    if options.page is not None:
        from vmr_video.answers.page import write_page

        write_page(options.page, answers, title=title)
        lines.append(f"page        {options.page}")
    if options.cut is not None:
        from vmr_video.answers.cut import cut_moments

        cuts = cut_moments(options.cut, answers, exact=options.cut_exact, k=k)
        lines += [f"{'' if number else 'cut':<12}{path}" for number, path in enumerate(dict.fromkeys(cuts))]
    return lines + markers


def marker_file(wanted: str, what: str = "--export") -> tuple[Path, Kind]:
    """The file that ``--export`` names, and its kind; a kind alone is ``moments.<kind>`` in the current folder.

    Raises:
        UserError: if the kind is not known; begins with `what`.

    Example:
        >>> marker_file("edl"), marker_file("list.CSV")
        ((PosixPath('moments.edl'), 'edl'), (PosixPath('list.CSV'), 'csv'))
    """
    alone = wanted.lower() in _KINDS
    kind = wanted.lower() if alone else Path(wanted).suffix[1:].lower()
    if kind not in _KINDS:
        raise UserError(
            f"{what}: found {quoted(wanted, 60)}, expected {', '.join(_KINDS)}, or a path that ends so"
        )
    return Path(f"moments.{kind}") if alone else Path(wanted), kind
