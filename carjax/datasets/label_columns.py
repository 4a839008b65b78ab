"""Columns of labels: what they are called, and from text to class indices and degrees."""

from __future__ import annotations

import collections
import math
from collections.abc import Collection, Iterable, Sequence

import numpy as np

from carjax.attributes import Attribute, Categorical, class_name
from carjax.datasets import csv_table

# What the car's tables call an attribute, where it is not the attribute's own name.
COLUMNS = {"brand": "make", "orientation": "azimuth_deg"}
# Who names the model, for splits by model.
MODEL_COLUMNS = ("class_name", "model")
# A hundred turns.
_MOST_DEG = 36000.0


def column_of(attribute: Attribute, header: Collection[str]) -> str:
    """The column of an attribute's labels: its own name, or what the car's tables call it."""
    name = attribute.name
    return name if name in header else COLUMNS.get(name, name)


def model_column(header: Collection[str]) -> str | None:
    """The column that names the model of a photo's car; None if there is none."""
    return next((name for name in MODEL_COLUMNS if name in header), None)


def read_column(
    table: csv_table.Table, attribute: Attribute
) -> tuple[np.ndarray, collections.Counter[str]]:
    """Reads the labels of an attribute from a table that has its column.

    Returns:
        (as `encode_labels`, as `foreign_classes`).

    Raises:
        CarjaxError: a label is no angle; the line names where.
    """
    column = column_of(attribute, table.columns)
    values = [row[column] for row in table.rows]
    try:
        return encode_labels(attribute, values), foreign_classes(attribute, values)
    except ValueError:
        for i, value in enumerate(values):
            try:
                encode_labels(attribute, [value])
            except ValueError as error:
                raise table.fault(i, f"{column}: {error}") from None
        raise


def encode_labels(attribute: Attribute, values: Sequence[str | float]) -> np.ndarray:
    """Returns class indices int32 [N] (−1: no class of the attribute), or degrees float32 [N].

    A class 42 may be written 42.0.

    Raises:
        ValueError: an angle is not a number.

    Example:
        >>> encode_labels(Categorical("doors", ("2", "4")), ["4", "", "3"])
        array([ 1, -1, -1], dtype=int32)
    """
    if isinstance(attribute, Categorical):
        index = {c: i for i, c in enumerate(attribute.classes)}
        return np.array([index.get(class_name(v, index), -1) for v in values], np.int32)
    return np.array([_degrees(value) for value in values], np.float32)


def _degrees(value: str | float) -> float:
    if value == "":
        return math.nan
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    # More turns are a slip, and float32 has no fraction left for them.
    if not abs(number) <= _MOST_DEG:
        raise ValueError(f"{value!r} is not an angle in degrees")
    return number


def foreign_classes(
    attribute: Attribute, values: Iterable[str | float]
) -> collections.Counter[str]:
    """Counts the labels that are no class of the attribute; none of an angle, nor the empty one.

    Example:
        >>> foreign_classes(Categorical("doors", ("2", "4")), ["4", "", "3", "3"])
        Counter({'3': 2})
        >>> foreign_classes(Categorical("doors", ("2", "4")), [0.0])
        Counter({'0.0': 1})
    """
    if not isinstance(attribute, Categorical):
        return collections.Counter()
    known = {*attribute.classes}
    given = (value for value in values if value != "")
    return collections.Counter(str(v) for v in given if class_name(v, known) not in known)
