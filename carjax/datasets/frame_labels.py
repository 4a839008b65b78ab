"""Labels of videos: a CSV table of sources and times, and the scored frames that they belong to.

    source,time_s,azimuth_deg,brand
    walks/a.mp4,0.0,12.5,Audi
    walks/a.mp4,0.125,,
    walks/b.mp4,3.5,180,

Each label goes to the scored frame that is nearest in time.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from carjax.datasets import csv_table
from carjax.datasets.sequence_batches import AZIMUTH
from carjax.errors import CarjaxError


class LabelRow(NamedTuple):
    """One row of the table: its line, its time, and the text of each label, '' if unknown."""

    line: int
    time_s: float
    values: dict[str, str]


@dataclasses.dataclass(frozen=True)
class FrameLabels:
    """What a table says.

    Attributes:
        path: of the table.
        names: the columns that are labels.
        classes: column of the labels → its classes, sorted; `azimuth_deg` is not among them.
        rows: source → its rows.
    """

    path: pathlib.Path
    names: tuple[str, ...]
    classes: dict[str, tuple[str, ...]]
    rows: Mapping[str, Sequence[LabelRow]]

    def check_sources(self, found: Collection[str], scores: str | os.PathLike[str]) -> None:
        """Raises a CarjaxError if a source is not among those found in a file of scores."""
        for source, rows in self.rows.items():
            if source not in found:
                line = rows[0].line
                raise CarjaxError(f"{self.path}: line {line}: {source!r} is not in {scores}")

    def at(self, source: str, time_s: np.ndarray) -> tuple[dict[str, np.ndarray], int]:
        """Returns the labels of the frames of one source.

        Args:
            source: one of `rows`.
            time_s: float [T], increasing; of its frames.

        Returns:
            ('azimuth_deg' → float32 degrees [T], NaN where unknown; any other column → int32 index
            into `classes` [T], −1 where unknown), and how many labels no frame is near to.

        Raises:
            CarjaxError: no label is near a frame.
        """
        rows = self.rows[source]
        matched = match(time_s, np.array([row.time_s for row in rows]))
        near = [(i, row) for i, row in zip(matched.tolist(), rows, strict=True) if i >= 0]
        if not near:
            raise CarjaxError(
                f"{self.path}: no label of {source!r} is near the time of a scored frame"
            )
        labels = {
            name: np.full(len(time_s), np.nan, np.float32)
            if name == AZIMUTH
            else np.full(len(time_s), -1, np.int32)
            for name in self.names
        }
        # The nearest comes last, and stays.
        for i, row in sorted(near, key=lambda pair: -abs(time_s[pair[0]] - pair[1].time_s)):
            for name, text in row.values.items():
                if text:
                    known = float(text) if name == AZIMUTH else self.classes[name].index(text)
                    labels[name][i] = known
        return labels, len(rows) - len(near)


def read(path: str | os.PathLike[str]) -> FrameLabels:
    """Reads a table of labels.

    Args:
        path: a CSV file, UTF-8: `source` as in the scores, `time_s` in seconds, and any of
            `azimuth_deg` and categorical attributes, by whatever name. A blank field is unknown. A
            label belongs to the nearest scored frame, if it is within half of the source's usual
            (median) step from it; of several the nearest counts.

    Raises:
        CarjaxError: it is missing, unreadable or empty; a column is missing, or a number is none.
    """
    table = csv_table.read(path, ["source", "time_s"])
    names = tuple(name for name in table.columns if name and name not in ("source", "time_s"))
    if not names:
        raise CarjaxError(f"{path}: no column of labels beside source and time_s")
    if not table.rows:
        raise CarjaxError(f"{path}: has a header, and no row below it")
    by_source: dict[str, list[LabelRow]] = {}
    for i, row in enumerate(table.rows):
        if AZIMUTH in names and row[AZIMUTH]:
            table.number(i, AZIMUTH)
        values = {name: row[name] for name in names}
        own = LabelRow(table.lines[i], table.number(i, "time_s"), values)
        by_source.setdefault(row["source"], []).append(own)
    rows = [row for own in by_source.values() for row in own]
    classes = {
        name: tuple(sorted({row.values[name] for row in rows} - {""}))
        for name in names
        if name != AZIMUTH
    }
    return FrameLabels(table.path, names, classes, by_source)


def match(time_s: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Returns the nearest frame of each moment, int [M], −1 where it is too far away.

    Args:
        time_s: float [T], increasing.
        at: float [M].
    """
    # Between two frames the nearer one; a moment in the middle belongs to the earlier one.
    nearest = np.searchsorted((time_s[1:] + time_s[:-1]) / 2, at)
    reach = float(np.median(np.diff(time_s))) / 2 if len(time_s) > 1 else 0.0
    # Times that were written with six decimals still match.
    return np.where(np.abs(time_s[nearest] - at) <= reach + 1e-6, nearest, -1)
