"""Tables as people write them: CSV, with or without a byte order mark."""

from __future__ import annotations

import csv
import os
import pathlib
from collections.abc import Iterable, Sequence

from carjax.errors import CarjaxError

Rows = list[dict[str, str]]


def read(path: str | os.PathLike[str], needed: Sequence[str]) -> tuple[tuple[str, ...], Rows]:
    """Reads a table.

    Args:
        path: a CSV file with a header, UTF-8.
        needed: columns that it must have.

    Returns:
        (its columns, its rows: column → text without blanks around it, '' where a row is short).

    Raises:
        CarjaxError: no such file, not a table, or a missing column.
    """
    table = pathlib.Path(path)
    if not table.is_file():
        raise CarjaxError(f"{table}: no such file")
    try:
        with table.open(newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f, restval="")
            columns = tuple(reader.fieldnames or ())
            rows = [{name: (row[name] or "").strip() for name in columns} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CarjaxError(f"{table}: not a CSV table in UTF-8 ({error})") from None
    if not columns:
        raise CarjaxError(f"{table}: is empty; expected a header with column {', '.join(needed)}")
    require(table, columns, needed)
    return columns, rows


def require(path: str | os.PathLike[str], columns: Sequence[str], needed: Iterable[str]) -> None:
    """Raises a CarjaxError that names the columns which a table lacks, if it lacks any."""
    missing = [name for name in needed if name not in columns]
    if missing:
        raise CarjaxError(f"{path}: no column {', '.join(missing)}; it has: {', '.join(columns)}")
