"""MATLAB files (version 5 to 7) as plain Python: structs as dicts, cells as lists."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import numpy as np

from carjax.datasets.builders.encoded import Fault
from carjax.errors import one_line


def load(path: pathlib.Path, variable: str) -> Any:
    """Reads one variable; MATLAB keeps a struct array of one element as the struct itself.

    Raises:
        Fault: the file is missing, broken, or has no such variable.
    """
    import scipy.io

    if not path.is_file():
        raise Fault("no such file")
    try:
        content = scipy.io.loadmat(str(path), simplify_cells=True)
    except Exception as error:  # a broken file makes the parser raise whatever it stumbles over
        raise Fault(f"not a readable MATLAB file ({one_line(error)})") from None
    if variable not in content:
        raise Fault(f"has no variable {variable!r}")
    return content[variable]


def items(value: Any) -> list[Any]:
    """Returns the elements of a struct array or cell array, also of none or one.

    Example:
        >>> items({"a": 1}), items(np.zeros((0, 0)))
        ([{'a': 1}], [])
    """
    whole = isinstance(value, list) or (isinstance(value, np.ndarray) and value.ndim > 0)
    return list(value) if whole else [value]


def strings(value: Any) -> list[str]:
    """Returns a cell array of strings; an empty cell is an empty string."""
    return [cell.strip() if isinstance(cell, str) else "" for cell in items(value)]


def number(struct: Any, field: str) -> float:
    """Returns a scalar field of a struct; NaN where it is missing or empty.

    Example:
        >>> number({"azimuth": 90}, "azimuth"), number({}, "azimuth")
        (90.0, nan)
    """
    value = struct.get(field) if isinstance(struct, dict) else None
    try:
        flat = np.asarray(value, np.float64).ravel()
    except (TypeError, ValueError):
        return math.nan
    return float(flat[0]) if flat.size else math.nan


def box(values: Any) -> tuple[float, float, float, float]:
    """Returns edges from MATLAB's [x1 y1 x2 y2], which counts pixels from 1 and includes both ends.

    Raises:
        Fault: not four numbers.

    Example:
        >>> box([1, 1, 640, 480])
        (0.0, 0.0, 640.0, 480.0)
    """
    try:
        x1, y1, x2, y2 = (float(v) for v in np.asarray(values, np.float64).ravel())
    except (TypeError, ValueError):
        raise Fault(f"a box is four numbers, not {values!r}") from None
    return x1 - 1.0, y1 - 1.0, x2, y2
