"""Tables as people write them: CSV, with or without a byte order mark."""

from __future__ import annotations

import csv
import math
import os
import pathlib
from collections.abc import Iterable, Sequence
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


def read(path: str | os.PathLike[str], needed: Sequence[str]) -> Table:
    """Reads a table.

    Args:
        path: a CSV file with a header, UTF-8.
        needed: columns that it must have.

    Raises:
        CarjaxError: no such file, not a table, or a missing column.
    """
    table = pathlib.Path(path)
    if not table.is_file():
        raise CarjaxError(f"{table}: no such file")
    rows, lines = [], []
    try:
        with table.open(newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f, restval="")
            columns = tuple(reader.fieldnames or ())
            for row in reader:
                rows.append({name: (row[name] or "").strip() for name in columns})
                lines.append(reader.line_num)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CarjaxError(f"{table}: not a CSV table in UTF-8 ({error})") from None
    if not columns:
        raise CarjaxError(f"{table}: is empty; expected a header with column {', '.join(needed)}")
    require(table, columns, needed)
    return Table(table, columns, rows, tuple(lines))


def require(path: str | os.PathLike[str], columns: Sequence[str], needed: Iterable[str]) -> None:
    """Raises a CarjaxError that names the columns which a table lacks, if it lacks any."""
    missing = [name for name in needed if name not in columns]
    if missing:
        raise CarjaxError(f"{path}: no column {', '.join(missing)}; it has: {', '.join(columns)}")
