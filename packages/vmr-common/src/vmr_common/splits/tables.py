"""Tables of text whose first line names their columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from vmr_common.errors import UserError, first_repeated
from vmr_common.text_input import TextInput
from vmr_common.values import listed, shown


def separator_of(line: str) -> str | None:
    """What separates the columns that a first line names: a tab, comma or semicolon; None where there is one alone."""
    return next((sign for sign in "\t,;" if sign in line), None)


class Table:
    """An open table: the names of its columns, and its rows, to be read once.

    Quoted cells may hold separators and line feeds. Raises `UserError` for a column that is there twice, a row of
    another length, and for what is no table.
    """

    def __init__(self, source: TextInput) -> None:
        self._above = max(source.number - 1, 0)  # blank lines
        self._path = source.path
        self.where = f"{source.path}:{self._above + 1}"
        # strict, because a quotation mark that is never closed ends the table
        self._reader = csv.reader(
            (line for _, line in source.lines(blank=True)),
            delimiter=separator_of(source.first) or ",",
            strict=True,
            skipinitialspace=True,
        )
        self.names = [name.strip() for name in self._next() or []]
        if (twice := first_repeated(filter(None, self.names))) is not None:
            raise UserError(f"{self.where}: the column {shown(twice)} is there twice")

    def _next(self) -> list[str] | None:
        try:
            return next(self._reader, None)
        except csv.Error as error:
            where = f"{self._path}:{self._above + self._reader.line_num}"
            raise UserError(f"{where}: not a table of separated columns ({error})") from None

    def rows(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Place and cells by column of every row that is not blank."""
        while (row := self._next()) is not None:
            where = f"{self._path}:{self._above + self._reader.line_num}"
            if row and len(row) != len(self.names):
                raise UserError(
                    f"{where}: expected {len(self.names)} fields ({listed(self.names)}), found {len(row)}"
                )
            if row:
                yield where, dict(zip(self.names, row, strict=True))
