"""Which shots are still missing: what to film again, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from carjax.attributes import view_deg
from carjax.wording import percent, side

# A view that has at least this share of an even coverage was passed, if not well.
_PASSED = 0.5
# Below this certainty even the best frame does not show an attribute well.
_CLEAR = 0.5


def shots(content: Mapping[str, Any]) -> list[str]:
    """Returns one line for each shot to film again; none where nothing is missing.

    Args:
        content: of `selection.json`.

    Example:
        >>> shots({"attributes": {}, "orientation": {
        ...     "views": {"front": None}, "coverage": [0.0] * 360}})
        ['film the front: the video does not show it']
    """
    lines = []
    orientation = content.get("orientation")
    if orientation is not None:
        for name, view in orientation["views"].items():
            if view is None and not passes(orientation, name):
                lines.append(f"film the {side(name)}: the video does not show it")
            elif view is None:
                lines.append(
                    f"film the {side(name)} again, slowly: the video passes it, but no frame "
                    "shows it sharply and clearly enough"
                )
            elif view.get("content") == "part":
                lines.append(
                    f"film the {side(name)} from further away: no frame shows the whole car"
                )
    for name, choice in content["attributes"].items():
        if "frame" not in choice:
            lines.append(f"film what shows the {name}: {choice['reason']}")
        elif choice.get("content") == "part":
            lines.append(
                f"film what shows the {name} from further away: the photo shows only a part"
            )
        elif choice["value"] is None or "known" in choice:
            continue  # film as one may, the model does not know it better, or the seller does
        elif choice["certainty"] < _CLEAR:
            lines.append(
                f"film what shows the {name} more clearly: the best frame has a certainty of "
                f"{percent(choice['certainty'])}"
            )
    return lines


def passes(orientation: Mapping[str, Any], view: str) -> bool:
    """Whether the video looks at a side of the car, be it with a sound frame or not.

    Args:
        orientation: of `selection.json`.
        view: one of its views.
    """
    half = 180 // len(orientation["views"])
    middle = round(view_deg(view))
    cells = np.arange(middle - half, middle + half + 1) % 360
    share = np.asarray(orientation["coverage"], float)[cells].mean() * 2 * np.pi
    return bool(share >= _PASSED)
