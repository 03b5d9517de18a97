"""Text files of any origin that are read once, from the start: what they are is told from their first line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, TypeAlias

from vmr_common.boundary import boundary, open_bytes
from vmr_common.errors import UserError
from vmr_common.io import BLANK_LIMIT, LINE_LIMIT, decoded, json_rows, parse_json, text_lines


class TextInput:
    """An open text file or pipe, to be read either as lines or as one JSON document.

    `number` is that of the first line that is not blank, counted from 1; 0 if there is none.
    """

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self._file = path, file
        self.number, self._raw = _first_line(path, file)
        self._value: Any = None
        self._failure: UserError | None = None

    @property
    def first(self) -> str:
        """The first line that is not blank, without white space at its ends; empty if there is none."""
        return decoded(self._raw, f"{self.path}:{self.number}", first=self.number == 1).strip()

    def first_value(self) -> Any:
        """The JSON value of the first line, or None where it is none by itself."""
        if self._value is None and self._failure is None:
            try:
                self._value = parse_json(self.first, f"{self.path}:{self.number}")
            except UserError as error:
                self._failure = error
        return self._value

    def lines(self, *, blank: bool = False) -> Iterator[tuple[int, str]]:
        """Number and text of every line (see `io.text_lines`); of those before the first one none is `blank`."""
        for number, line, _ in text_lines(self._file, self.path, (self.number, self._raw), blank=blank):
            yield number, line

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Number and JSON object of every line that is not blank (see `io.read_json_lines`)."""
        return json_rows(text_lines(self._file, self.path, (self.number, self._raw)), self.path)

    def document(self) -> Any:
        """The value of the whole file, which is one JSON text."""
        with boundary(f"cannot read {self.path}"):
            rest = self._file.read()
        value = self.first_value()
        if rest.strip() or value is None:
            # a first line that ends as a value does is a row of JSON lines: what is wrong with it says most
            failure = self._failure if self._raw.rstrip()[-1:] in b"}]" else None
            data = self._raw + rest
            self._raw = b""
            del rest
            text = decoded(data, str(self.path), first=self.number <= 1)
            del data
            try:
                value = parse_json(text, str(self.path), max(self.number, 1))
            except UserError as error:
                raise failure or error from None
        self._value, self._raw = value, b""
        return value


def _first_line(path: Path, file: IO[bytes]) -> tuple[int, bytes]:
    """Number and bytes of the first line that is not blank; ``(0, b"")`` if there is none."""
    number = 0
    with boundary(f"cannot read {path}"):
        while raw := file.readline(LINE_LIMIT + 1):
            number += 1
            if number > BLANK_LIMIT:
                raise UserError(f"{path}:{number}: more than {BLANK_LIMIT:,} blank lines")
            text = raw.removeprefix(b"\xef\xbb\xbf").lstrip()
            if text:
                # a JSON document may be one line of any length
                return number, raw + file.readline() if text[:1] in b"[{" and not raw.endswith(b"\n") else raw
    return 0, b""


Readable: TypeAlias = str | Path | TextInput
"""A file by its name, or one that is open."""


@contextlib.contextmanager
def opened(path: Readable) -> Iterator[TextInput]:
    """Opens a text file (``.gz`` accepted) or a pipe; one that is open already is handed through."""
    if isinstance(path, TextInput):
        yield path
    else:
        with open_bytes(Path(path)) as file:
            yield TextInput(Path(path), file)
