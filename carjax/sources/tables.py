"""Parquet files with a column of encoded pictures."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from carjax.errors import CarjaxError, first_line
from carjax.sources import stills
from carjax.sources.base import Item, Problem, Source

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_AT_ONCE = 16
# Where several columns hold bytes, the picture is in the one that says so.
_NAMES = re.compile(r"image|img|photo|picture|jpe?g|png|webp", re.IGNORECASE)


def read(source: Source) -> Iterator[Item]:
    """Yields a frame per row; `frame` is the row's number in the file.

    The column is binary, or, as Hugging Face's data sets write it, a struct with a binary field
    `bytes`. A row whose picture is missing or cannot be decoded is a problem of its own.

    Raises:
        CarjaxError: it is not Parquet, or no column, or more than one, can be the pictures.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with source.local() as path:
        try:
            with pq.ParquetFile(path) as file:
                column, field = image_column(file.schema_arrow)
                row = 0
                for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[column]):
                    for value in batch.column(0):
                        yield _row(source.name, row, value, field)
                        row += 1
        except pa.ArrowException as error:
            raise CarjaxError(f"cannot be read as Parquet: {first_line(error)}") from None


def image_column(schema: pa.Schema) -> tuple[str, str | None]:
    """Returns the column of encoded pictures, and the field of it that holds the bytes.

    Raises:
        CarjaxError: none can be it, or more than one.
    """
    import pyarrow.types as kinds

    def binary(kind: pa.DataType) -> bool:
        return kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind)

    found: dict[str, str | None] = {}
    for field in schema:
        if binary(field.type):
            found[field.name] = None
        elif kinds.is_struct(field.type):
            inner = field.type.get_field_index("bytes")
            if inner >= 0 and binary(field.type.field(inner).type):
                found[field.name] = "bytes"
    named = [name for name in found if _NAMES.search(name)]
    chosen = named if len(named) == 1 else list(found)
    if len(chosen) != 1:
        what = "no column" if not found else f"more than one column ({', '.join(found)})"
        raise CarjaxError(f"{what} of encoded pictures; one binary column is needed")
    return chosen[0], found[chosen[0]]


def _row(name: str, row: int, value: pa.Scalar, field: str | None) -> Item:
    data = value.as_py()
    if field is not None and data is not None:
        data = data[field]
    try:
        if data is None:
            raise CarjaxError("no picture")
        return stills.sample(name, row, data)
    except CarjaxError as error:
        return Problem(name, f"row {row}: {error}")
