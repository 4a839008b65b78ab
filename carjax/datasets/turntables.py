"""Turntables: pictures of cars that turn, one folder each, with a true azimuth per picture."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from carjax.datasets import csv_table
from carjax.datasets.photos import LABEL_TABLE

# The pictures are taken as so many a second.
FPS = 4.0


class Turntable(NamedTuple):
    """The pictures of one car that turns, N of them in order.

    Attributes:
        files: paths below the folder of turntables.
        azimuth_deg: float64 [N]; true azimuths in degrees.
        truth: attribute → name of the car's class, as in the first row of the table.
    """

    files: tuple[str, ...]
    azimuth_deg: np.ndarray
    truth: Mapping[str, str]


def read(folder: pathlib.Path) -> dict[str, Turntable]:
    """Reads the labels of a folder of turntables.

    Args:
        folder: holds `NAME/PICTURE` and `labels.csv`, whose column `file` has these paths, and
            `make` the brand.

    Returns:
        Name → its turntable, in the order of names.

    Raises:
        CarjaxError: the table is missing or lacks a column, or an azimuth is not a number.
    """
    table = csv_table.read(folder / LABEL_TABLE, ["file", "make", "azimuth_deg"])
    azimuth_deg = np.array([table.number(i, "azimuth_deg") for i in range(len(table.rows))])
    name_of = [row["file"].split("/")[0] for row in table.rows]
    found = {}
    for name in sorted({*name_of}):
        at = [i for i, other in enumerate(name_of) if other == name]
        rows = [table.rows[i] for i in at]
        truth = {"brand": rows[0]["make"], **rows[0]}
        found[name] = Turntable(tuple(row["file"] for row in rows), azimuth_deg[at], truth)
    return found
