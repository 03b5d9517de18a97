"""A file of sentences to search for, checked as a whole before the first one is searched."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NotRequired, TypedDict

from tqdm import tqdm

from vmr_common.errors import UserError, listed, quoted
from vmr_common.io import writing
from vmr_common.schema import conform
from vmr_common.splits.fields import NAMES
from vmr_common.text_input import TextInput, opened
from vmr_common.values import list_of, object_of

logger = logging.getLogger(__name__)
NAMED = 5
"""Questions without an answer that a message names at the most."""

Unsearchable = Callable[[Sequence[str]], list[str | None]]
"""For each sentence why it cannot be searched for, or None: `Retriever.unsearchable`."""

_AT_ONCE = 256
_READ = (
    "read are JSON lines, or a JSON list, of objects with query (and qid), and a .txt of a sentence a line; "
    "annotations of another form become such by vmr-data convert --annotations X --out Y.jsonl"
)


class Question(TypedDict):
    """A line of the file; other keys are passed over. `reason` says why it has no answer, where it has none."""

    query: str
    qid: NotRequired[str | int]
    reason: NotRequired[str]


@contextlib.contextmanager
def checked_questions(path: str, unsearchable: Unsearchable) -> Iterator[Questions]:
    """The questions of a file or pipe, read once; memory does not grow with the number of JSON lines.

    Logs which of them have no answer (those have a `reason`), and how many name a video, which is not used.

    Args:
        path: JSON lines, or a JSON list of objects, with `query` (or another name of `fields.NAMES`) and, where the
            answers shall name it, `qid` or `query_id`; or a ``.txt`` of a sentence a line.
        unsearchable: Is asked once about every sentence, in their order.

    Raises:
        UserError: naming file and line, if one is not a question or holds no sentence, or if none can be searched for.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as kept:
        count, about, silent, named, why = 0, 0, 0, list[str](), ""
        rows = tqdm(_read(path), desc="check", unit="query", leave=False, disable=None)
        with writing(Path(tempfile.gettempdir())):
            while batch := list(itertools.islice(rows, _AT_ONCE)):
                reasons = unsearchable([question["query"] for _, _, question in batch])
                for (number, row, question), reason in zip(batch, reasons, strict=True):
                    about += any(row.get(name) is not None for name in NAMES["video"])
                    if reason is not None:
                        question["reason"], why, silent = reason, why or reason, silent + 1
                        if len(named) < NAMED:
                            name = question.get("qid", f"line {number}")
                            named.append(f"{name} ({quoted(question['query'], 60)})")
                    kept.write(json.dumps(question) + "\n")
                count += len(batch)
            kept.seek(0)
        if not count:
            raise UserError(f"{path}: holds no query")
        which = listed(named + [""] * (silent - len(named)), len(named))
        if silent == count:
            raise UserError(f"{path}: no query can be searched for ({why}): {which}")
        if silent:
            logger.warning(
                "%s: %s of %s queries have no answer (%s): %s", path, f"{silent:,}", f"{count:,}", why, which
            )
        if about:
            logger.info(
                "%s: %s of %s queries name a video, which is not used (the option --video searches in some)",
                path,
                f"{about:,}",
                f"{count:,}",
            )
        yield Questions(count, kept)


class Questions:
    """Checked questions.

    Attributes:
        count: How many there are.
    """

    def __init__(self, count: int, lines: IO[str]) -> None:
        self.count = count
        self._lines = lines

    def next(self, count: int) -> list[Question]:
        """The next `count` questions, fewer at the end."""
        return [json.loads(line) for line in itertools.islice(self._lines, count)]


def _read(path: str) -> Iterator[tuple[int, dict[str, object], Question]]:
    """Number, object and question of every record; an error at the first one says what is read."""
    with opened(path) as source:
        rows = ((number, row, _question(row, f"{path}:{number}")) for number, row in _rows(source, path))
        if source.first:  # what is no text at all is said without more
            try:
                head = next(rows, None)
            except UserError as error:
                raise UserError(f"{error}; {_READ}") from None
            if head is not None:
                yield head
        yield from rows


def _rows(source: TextInput, path: str) -> Iterator[tuple[int, dict[str, object]]]:
    """Number and object of every question."""
    if path.removesuffix(".gz").endswith(".txt"):
        for number, line in source.lines():
            yield number, {"query": line.strip()}
    elif source.first.startswith("["):
        for number, row in enumerate(list_of(source.document(), path, "the file"), 1):
            yield number, object_of(row, f"{path}:{number}")
    else:
        yield from source.rows()


def _question(row: dict[str, object], where: str) -> Question:
    name = next((name for name in NAMES["query"] if name in row), "query")
    text = row.get(name)
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"{where}: key {name!r} must hold a sentence, found {quoted(text)}")
    ids = [row[key] for key in ("qid", "query_id") if key in row]
    if len({str(one) for one in ids}) > 1:
        raise UserError(f"{where}: keys qid and query_id disagree, found {quoted(ids)}")
    return conform({"query": text, **({"qid": ids[0]} if ids else {})}, Question, where)
