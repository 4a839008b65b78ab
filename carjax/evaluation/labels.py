"""The label table that `carjax evaluate` reads: any CSV with a column of files."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from carjax.attributes import Schema
from carjax.datasets import csv_table, photos
from carjax.datasets.label_columns import column_of
from carjax.datasets.photos import Photos
from carjax.errors import CarjaxError


@dataclasses.dataclass(frozen=True)
class Labels:
    """A label table.

    Attributes:
        photos: one per row; `labels` holds the evaluated attributes only, `group` the car models.
        missing: attributes of the schema without a column: attribute → column.
        unknown_classes: attribute → {class that the schema does not have: number of rows}.
    """

    photos: Photos
    missing: dict[str, str]
    unknown_classes: dict[str, dict[str, int]]


def read(path: str | os.PathLike[str], images: str | os.PathLike[str], schema: Schema) -> Labels:
    """Reads a label table: `file` and the columns of the attributes; others are ignored.

    A blank field is unknown, and so is a class that the schema does not have; the latter is
    counted. A column has the attribute's own name; those of brand
    and orientation may be `make` and `azimuth_deg`. Where the table has the columns `left`, `top`,
    `right` and `bottom`, that window of each photo is scored, as training reads it.

    Args:
        path: a CSV file with a header, UTF-8.
        images: the folder that `file` is relative to.
        schema: what the model predicts.

    Raises:
        CarjaxError: no such file or folder, not a table, no row, no column to evaluate, a photo
            (or window) with two rows, or an azimuth or side that is not a number.
    """
    table, folder = pathlib.Path(path), pathlib.Path(images)
    given = _read(table)
    columns = given.columns
    if not folder.is_dir():
        raise CarjaxError(f"{folder}: no such folder of images: give --images=DIR")
    wanted = {a.name: column_of(a, columns) for a in schema}
    missing = {name: column for name, column in wanted.items() if column not in columns}
    if len(missing) == len(wanted):
        raise CarjaxError(
            f"{table}: no column to evaluate; expected some of {', '.join(wanted.values())}"
        )
    labelled = photos.of_table(given, folder, tuple(a for a in schema if a.name not in missing))
    unknown = {name: dict(sorted(n.items())) for name, n in labelled.unheard_of.items()}
    return Labels(labelled, missing, unknown)


def read_split(path: str | os.PathLike[str], names: Sequence[str]) -> np.ndarray:
    """Reads which part each file belongs to: a CSV with `file` and one of `split`, `fold`.

    Args:
        path: the CSV file, such as those of `data/splits`.
        names: files of the label table.

    Returns:
        str [N]; '' for a file that the table does not hold.

    Raises:
        CarjaxError: no such file, not a table, a missing column, or no name in common.
    """
    table = pathlib.Path(path)
    given = _read(table)
    column = next((c for c in ("split", "fold") if c in given.columns), None)
    if column is None:
        raise CarjaxError(f"{table}: no column split or fold")
    given.check_unique(["file"])
    parts = {row["file"]: row[column] for row in given.rows}
    found = np.array([parts.get(name, "") for name in names])
    if not (found != "").any():
        raise CarjaxError(f"{table}: holds no file of the label table")
    return found


def _read(path: pathlib.Path) -> csv_table.Table:
    """Reads a CSV that has a column `file` and at least one row."""
    table = csv_table.read(path, ["file"])
    if not table.rows:
        raise CarjaxError(f"{path}: has a header, and no row below it")
    return table
