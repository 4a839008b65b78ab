"""Tables as people write them: CSV, with or without a byte order mark."""

from __future__ import annotations

import csv
import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from carjax.errors import CarjaxError

Rows = list[dict[str, str]]


class Table(NamedTuple):
    """A table.

    Attributes:
        path: of its file.
        columns: their names.
        rows: column → text without blanks around it, '' where a row is short.
        lines: the line of the file on which each row ends.
    """

    path: pathlib.Path
    columns: tuple[str, ...]
    rows: Rows
    lines: tuple[int, ...]

    def fault(self, row: int, what: str) -> CarjaxError:
        """Returns the error that says what is wrong with a row, by its index, and where that is."""
        return CarjaxError(f"{self.path}: line {self.lines[row]}: {what}")

    def check_unique(self, columns: Sequence[str]) -> None:
        """Raises a CarjaxError for a row that has the same in all these columns as another one."""
        first: dict[tuple[str, ...], int] = {}
        for i, row in enumerate(self.rows):
            other = first.setdefault(tuple(row[name] for name in columns), i)
            if other != i:
                what = f"{row[columns[0]]!r} has a row already, in line {self.lines[other]}"
                raise self.fault(i, what)

    def number(self, row: int, column: str) -> float:
        """Returns the finite number in a field.

        Raises:
            CarjaxError: it is none.
        """
        text = self.rows[row][column]
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self.fault(row, f"{column} is {text!r}, not a number")
        return number

    def number_or_nan(self, row: int, column: str) -> float:
        """Returns the number in a field as `number` does; NaN where it is blank: unknown."""
        return self.number(row, column) if self.rows[row][column] else math.nan

    def integer(self, row: int, column: str) -> int:
        """Returns the whole number in a field.

        Raises:
            CarjaxError: it is none.
        """
        text = self.rows[row][column]
        try:
            return int(text)
        except ValueError:
            raise self.fault(row, f"{column} is {text!r}, not a whole number") from None


def read(path: str | os.PathLike[str], needed: Sequence[str]) -> Table:
    """Reads a table.

    Args:
        path: a CSV file with a header, UTF-8.
        needed: columns that it must have.

    Raises:
        CarjaxError: no such file, not a table, a missing or repeated column, or a row with more
            fields than the header or with a NUL byte.
    """
    table = pathlib.Path(path)
    if not table.is_file():
        raise CarjaxError(f"{table}: no such file")
    rows, lines = [], []
    try:
        with table.open(newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f, restval="")
            columns = tuple(name.strip() for name in reader.fieldnames or ())
            _check_columns(table, columns, needed)
            reader.fieldnames = columns
            for row in reader:
                # `DictReader` gives what is beyond the header under None.
                surplus = row.pop(None, None)  # type: ignore[call-overload]
                _check_fields(f"{table}: line {reader.line_num}", row, surplus or (), len(columns))
                rows.append({name: value.strip() for name, value in row.items()})
                lines.append(reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CarjaxError(f"{table}: not a CSV table in UTF-8 ({error})") from None
    return Table(table, columns, rows, tuple(lines))


def require(path: str | os.PathLike[str], columns: Sequence[str], needed: Iterable[str]) -> None:
    """Raises a CarjaxError that names the columns which a table lacks, if it lacks any."""
    missing = [name for name in needed if name not in columns]
    if missing:
        hint = ""
        if len(columns) == 1 and any(mark in columns[0] for mark in ";\t|"):
            hint = " (columns must be separated by commas)"
        listed = ", ".join(columns)
        raise CarjaxError(f"{path}: no column {', '.join(missing)}; it has: {listed}{hint}")


def _check_columns(table: pathlib.Path, columns: Sequence[str], needed: Sequence[str]) -> None:
    if not columns:
        raise CarjaxError(f"{table}: is empty; expected a header with column {', '.join(needed)}")
    twice = {name for name in columns if name and columns.count(name) > 1}
    if twice:
        raise CarjaxError(f"{table}: more than one column {', '.join(sorted(twice))}")
    require(table, columns, needed)


def _check_fields(where: str, row: Mapping[str, str], surplus: Sequence[str], columns: int) -> None:
    if any(value.strip() for value in surplus):
        raise CarjaxError(
            f"{where}: {columns + len(surplus)} fields, but the header has {columns}: "
            "a field that holds a comma stands in quotes, and decimals have a point"
        )
    if any("\0" in value for value in row.values()):
        raise CarjaxError(f"{where}: holds a NUL byte; is this a table in UTF-8?")
