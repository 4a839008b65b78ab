"""Another frame for a chosen photo: the next best ones, and the selection with one of them.

Pure functions on a score table and the content of `selection.json`. A photo is named as its file
is: an attribute, or `view_` and a view.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from carjax import grids
from carjax.attributes import Categorical, view_deg
from carjax.errors import UsageError
from carjax.selection.categorical import alternative_at, distinct, min_gap_s
from carjax.selection.eligibility import (
    content_of,
    eligible_frames,
    sound_classes,
    whole_frames,
    whole_if_any,
)
from carjax.selection.result import VIEW_PREFIX, views_of
from carjax.selection.views import (
    VIEW_THRESHOLD,
    choice_at,
    frames_of_view,
    sound_directions,
    view_masses,
)
from carjax.table import ScoreTable

# A view passes in a second or two: its frames may be nearer to each other than an attribute's.
VIEW_GAP_S = 0.25


def photo_names(content: Mapping[str, Any]) -> list[str]:
    """Returns every photo that the selection has or lacks: attributes, then views."""
    return [*content["attributes"], *(VIEW_PREFIX + name for name in views_of(content))]


def next_best(
    table: ScoreTable, content: Mapping[str, Any], photo: str, limit: int = 5
) -> list[dict[str, Any]]:
    """Returns the best frames besides the chosen one, best first, distinct from it in time.

    For an attribute they agree with the value that was chosen and are ordered by entropy (or, where
    the seller stated the value, by its probability), as `select_photos` chooses. For a
    view it is their most probable one; those that fill it come first, from its middle outwards.

    Args:
        table: scores of the video.
        content: of `selection.json`.
        photo: an attribute, or `view_` and a view.
        limit: how many frames, at most.

    Returns:
        For an attribute the fields of `result.Alternative`, for a view those of
        `result.ViewChoice`.

    Raises:
        UsageError: the selection has no such photo.
    """
    chosen = _chosen(content, photo)
    ranked = _ranked(table, content, photo)
    gap = VIEW_GAP_S
    if not photo.startswith(VIEW_PREFIX):
        gap = min_gap_s(content["video"]["duration_s"])
    apart_from = [chosen["time_s"]] if chosen is not None and "frame" in chosen else []
    rows = distinct(ranked, table.time_s, gap, limit, apart_from)
    return [described(table, content, photo, int(table.frame[row])) for row in rows]


def described(
    table: ScoreTable, content: Mapping[str, Any], photo: str, frame: int
) -> dict[str, Any]:
    """Returns a scored frame as `next_best` does.

    Raises:
        UsageError: the frame has no valid score of that attribute.
    """
    row = table.row_of(frame)
    if photo.startswith(VIEW_PREFIX):
        return _described_view(table, content, photo, row)
    return _described(table, photo, row, _column(table, content, photo))


def swapped(
    table: ScoreTable, content: Mapping[str, Any], photo: str, frame: int
) -> dict[str, Any]:
    """Returns the selection with another frame for one photo; every number of it follows.

    Args:
        table: scores of the video.
        content: of `selection.json`.
        photo: an attribute, or `view_` and a view; a view that was missing may be filled.
        frame: a scored frame. For a view it must show that view more than any other.

    Raises:
        UsageError: there is no such photo or no such frame, or it shows another view.
    """
    _chosen(content, photo)
    try:
        row = table.row_of(frame)
    except KeyError:
        raise UsageError(
            f"frame {frame} was not scored; choose one of the timeline's frames"
        ) from None
    result = copy.deepcopy(dict(content))
    if photo.startswith(VIEW_PREFIX):
        new = _described_view(table, content, photo, row)
        return _swap_view(table, result, photo, row, new)
    choice = result["attributes"][photo]
    if "frame" not in choice:
        raise UsageError(f"there is no photo of {photo} to swap: {choice['reason']}")
    value = choice["value"]
    attribute, _ = _probs(table, photo)
    column = attribute.classes.index(value or choice["nearest"])
    new = _described(table, photo, row, column)
    choice |= new | {"value": value, "content": content_of(table, row)}
    choice["alternatives"] = next_best(table, result, photo, limit=3)
    return result


def _swap_view(
    table: ScoreTable, result: dict[str, Any], photo: str, row: int, new: dict[str, Any]
) -> dict[str, Any]:
    orientation = result["orientation"]
    views, name = orientation["views"], photo.removeprefix(VIEW_PREFIX)
    masses = view_masses(table, sound_directions(table), len(views))
    if not masses[row].any():
        raise UsageError(f"frame {new['frame']} has no direction that could be read")
    shown = list(views)[int(np.argmax(masses[row]))]
    if shown != name:
        raise UsageError(f"frame {new['frame']} shows the {shown} rather than the {name}")
    old = views[name] or {"photo": f"photos/{photo}.jpg"}
    views[name] = new | {"photo": old["photo"]}
    found = [view for view in views.values() if view is not None]
    orientation["missing"] = [name for name, view in views.items() if view is None]
    orientation["order"] = [v["frame"] for v in sorted(found, key=lambda v: v["azimuth_deg"])]
    return result


def _chosen(content: Mapping[str, Any], photo: str) -> Mapping[str, Any] | None:
    if photo not in photo_names(content):
        raise UsageError(
            f"there is no photo {photo!r}; there are: {', '.join(photo_names(content))}"
        )
    if photo.startswith(VIEW_PREFIX):
        return content["orientation"]["views"][photo.removeprefix(VIEW_PREFIX)]
    return content["attributes"][photo]


def _ranked(table: ScoreTable, content: Mapping[str, Any], photo: str) -> np.ndarray:
    """Rows that may serve, best first."""
    eligible = eligible_frames(table)
    whole = whole_frames(table)
    if photo.startswith(VIEW_PREFIX):
        views = list(content["orientation"]["views"])
        name = photo.removeprefix(VIEW_PREFIX)
        column = views.index(name)
        eligible = eligible & sound_directions(table)
        masses = view_masses(table, eligible, len(views))
        index = frames_of_view(masses, column, 0.0, eligible, whole)
        off = grids.apart_deg(table.azimuth_deg[index], view_deg(name))
        return index[np.lexsort((off, masses[index, column] <= VIEW_THRESHOLD))]
    candidates = whole_if_any(eligible, whole)
    _, probs = _probs(table, photo)
    candidates = candidates & sound_classes(table, photo)
    order, shown = table.entropy[photo], _column(table, content, photo)
    if shown is not None:
        if "known" in content["attributes"][photo]:  # a stated value is not argued with
            order = -probs[:, shown]
        else:
            candidates &= np.argmax(probs, axis=1) == shown
    index = np.flatnonzero(candidates)
    return index[np.argsort(order[index], kind="stable")]


def _described_view(
    table: ScoreTable, content: Mapping[str, Any], photo: str, row: int
) -> dict[str, Any]:
    views = list(content["orientation"]["views"])
    masses = view_masses(table, sound_directions(table), len(views))
    view = views.index(photo.removeprefix(VIEW_PREFIX))
    return dataclasses.asdict(choice_at(table, masses, row, view))


def _described(table: ScoreTable, photo: str, row: int, column: int | None) -> dict[str, Any]:
    """A frame for an attribute, with the numbers of a class; None: of the frame's own one."""
    attribute, probs = _probs(table, photo)
    label = int(np.argmax(probs[row])) if column is None else column
    if not sound_classes(table, photo)[row]:
        raise UsageError(f"frame {table.frame[row]} has no valid score of {photo}")
    return dataclasses.asdict(alternative_at(table, attribute, row, label))


def _column(table: ScoreTable, content: Mapping[str, Any], photo: str) -> int | None:
    """The class that frames are to show; None where each frame shows its own."""
    attribute, _ = _probs(table, photo)
    choice = content["attributes"][photo]
    if choice["value"] is not None:
        return attribute.classes.index(choice["value"])
    if "known" in choice or "frame" not in choice:
        return None
    return attribute.classes.index(choice["nearest"])


def _probs(table: ScoreTable, name: str) -> tuple[Categorical, np.ndarray]:
    attribute = next(a for a in table.categorical if a.name == name)
    return attribute, np.asarray(table.probs[name], np.float64)
