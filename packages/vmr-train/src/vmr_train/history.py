"""Rows of ``metrics.jsonl``, the history of a training: one schema for those who write it and those who read it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from vmr_common.io import read_json_lines
from vmr_common.schema import conform


class Row(TypedDict):
    """The keys of every row, beside its measured values, whose names hold a slash (``train/total``)."""

    kind: str
    """``interval`` or ``epoch``."""
    update: int
    epoch: int
    lr: NotRequired[float | None]
    seconds: NotRequired[float | None]
    grad_norm: NotRequired[float | None]
    selected: NotRequired[bool]


def read_rows(path: str | Path, *, unfinished_last: bool = False) -> Iterator[dict[str, Any]]:
    """The rows of a history, in their order; keys of later versions are let through.

    Args:
        path: The file.
        unfinished_last: Leave out a last line that is still being written.

    Raises:
        UserError: if the file cannot be read, or a row is not as a training writes it; names the line and the key.
    """
    for number, row in read_json_lines(path, unfinished_last=unfinished_last):
        where = f"{path}:{number}"
        conform({key: value for key, value in row.items() if key in Row.__annotations__}, Row, where)
        conform({key: value for key, value in row.items() if "/" in key}, dict[str, float | None], where)
        yield row
