"""The scores over time as compact JSON: what the charts of the report and the page read out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from carjax.attributes import VIEWS
from carjax.table import ScoreTable, certainty


def series(table: ScoreTable) -> dict[str, Any]:
    """Returns the scores of N frames in JSON's types, to three decimals; null is not finite.

    `frame` and `time_s` are lists of N. `attributes` holds for each categorical attribute its
    `classes`, and lists of N: `label` (index of the most probable class), its `probability`, and
    `certainty` (1 − entropy / log K). With a direction, `azimuth_deg`, `kappa`, and `view` (index
    into `views`) with `view_probability`, the mass of the density in that view's 45 degrees.

    Args:
        table: scores of one video.

    Example:
        >>> from carjax.attributes import Categorical
        >>> doors = ScoreTable(
        ...     schema=(Categorical("doors", ("3", "5")),), frame=np.array([4]),
        ...     time_s=np.array([0.5]), probs={"doors": np.array([[0.2, 0.8]])},
        ...     entropy={"doors": np.array([0.5])}, azimuth_deg=np.zeros(1), kappa=np.zeros(1),
        ...     azimuth_floor=np.zeros(1), azimuth_entropy=np.zeros(1),
        ...     view_probs=np.zeros((1, 8)), car_probability=np.ones(1), box=np.zeros((1, 4)),
        ...     sharpness=np.ones(1),
        ... )
        >>> series(doors)["attributes"]["doors"]
        {'classes': ['3', '5'], 'label': [1], 'probability': [0.8], 'certainty': [0.279]}
    """
    result: dict[str, Any] = {
        "frame": table.frame.tolist(),
        "time_s": _rounded(table.time_s),
        "attributes": {},
    }
    for attribute in table.categorical:
        probs = np.asarray(table.probs[attribute.name], float)
        label = np.argmax(probs, axis=1)
        result["attributes"][attribute.name] = {
            "classes": list(attribute.classes),
            "label": label.tolist(),
            "probability": _rounded(probs[np.arange(len(label)), label]),
            "certainty": _rounded(certainty(table.entropy[attribute.name], len(attribute.classes))),
        }
    if table.angular is not None:
        view = np.argmax(table.view_probs, axis=1)
        result["views"] = list(VIEWS)
        result["azimuth_deg"] = _rounded(table.azimuth_deg)
        result["kappa"] = _rounded(table.kappa)
        result["view"] = view.tolist()
        result["view_probability"] = _rounded(table.view_probs[np.arange(len(view)), view])
    return result


def _rounded(values: ArrayLike) -> list[float | None]:
    """To three decimals; JSON has no number for what is not finite."""
    listed = np.round(np.asarray(values, float), 3).tolist()
    return [value if math.isfinite(value) else None for value in listed]
