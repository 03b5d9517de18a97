"""Tables of text whose first line names their columns."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator

from vmr_common.errors import UserError, first_repeated, some_of
from vmr_common.text_input import TextInput
from vmr_common.values import parsed_number, shown


def separator_of(line: str) -> str | None:
    """What separates the columns that a first line names: a tab, comma or semicolon; None where there is one alone."""
    return next((sign for sign in "\t,;" if sign in line), None)


class Table:
    """An open table: the names of its columns, and its rows, to be read once.

    Quoted cells may hold separators and line feeds. Names are read as spreadsheets write those in `known` (``Start
    Time`` is ``start_time``), rows without any text are blank, and between semicolons numbers may have a decimal
    comma. Raises `UserError` for a column that is there twice, a row of another length, and for what is no table.
    """

    def __init__(self, source: TextInput, known: Collection[str] = ()) -> None:
        self._above = max(source.number - 1, 0)  # blank lines
        self._path = source.path
        self.where = f"{source.path}:{self._above + 1}"
        self._separator = separator_of(source.first) or ","
        # strict, because a quotation mark that is never closed ends the table
        self._reader = csv.reader(
            (line for _, line in source.lines(blank=True)),
            delimiter=self._separator,
            strict=True,
            skipinitialspace=True,
        )
        names = (name.strip() for name in self._next() or [])
        plain = ((name, "_".join(name.lower().split())) for name in names)
        self.names = [usual if name not in known and usual in known else name for name, usual in plain]
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
            if not any(map(str.strip, row)):
                continue
            if len(row) != len(self.names):
                raise UserError(
                    f"{where}: expected {len(self.names)} fields ({some_of(self.names)}), found {len(row)}"
                )
            yield where, dict(zip(self.names, row, strict=True))

    def number(self, text: str, where: str, column: str) -> float:
        """The finite number of a cell; anything else is a `UserError`."""
        comma = self._separator == ";" and text.count(",") == 1 and "." not in text
        return parsed_number(text.replace(",", ".") if comma else text, where, column)
