"""Markdown that the generated pages of docs/ are made of."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from vmr_common.io import read_text, write_text

ROOT = Path(__file__).parents[1]
ABSENT = "-"  # not run, or not applicable: never an estimate


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, its cells as given."""
    lines = [head, ["---"] * len(head), *rows]
    assert all(len(line) == len(head) for line in lines), "a row is longer or shorter than the head"
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def page(*parts: str, command: str) -> str:
    """A whole page: its parts with an empty line in between, and on top who wrote it."""
    return "\n\n".join([f"<!-- written by `{command}`; change that, not this page -->", *parts]) + "\n"


def replace_between(path: Path, mark: str, text: str) -> None:
    """Replaces what stands between the comments ``<!-- mark -->`` and ``<!-- end of mark -->`` of a file."""
    begin, end = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    before, found, rest = read_text(path).partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{path}: expected the comments {begin} and {end}")
    write_text(path, f"{before}{begin}\n{text}\n{end}{after}")


def giga(flops: float) -> str:
    """FLOPs in units of 10^9, three digits."""
    value = flops / 1e9
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
