"""Turntables: pictures of cars that turn, one folder each, with a true azimuth per picture."""

from __future__ import annotations

import pathlib

from carjax.datasets import csv_table
from carjax.datasets.photos import LABEL_TABLE

# The pictures are taken as so many a second.
FPS = 4.0


def read(folder: pathlib.Path) -> dict[str, list[dict[str, str]]]:
    """Reads the labels of a folder of turntables.

    Args:
        folder: holds `NAME/PICTURE` and `labels.csv`, whose column `file` has these paths.

    Returns:
        Name → rows of the table, one per picture in order.

    Raises:
        CarjaxError: the table is missing or lacks a column, or an azimuth is not a number.
    """
    table = csv_table.read(folder / LABEL_TABLE, ["file", "make", "azimuth_deg"])
    rows = table.rows
    for i in range(len(rows)):
        table.number(i, "azimuth_deg")
    names = sorted({row["file"].split("/")[0] for row in rows})
    return {name: [r for r in rows if r["file"].split("/")[0] == name] for name in names}
