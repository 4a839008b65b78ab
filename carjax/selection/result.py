"""What was chosen from a video: the choices, the frames they take, and `selection.json`.

Pure functions; the only file is the JSON Schema that ships with the package.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources
import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from carjax.listing.known import Known

if TYPE_CHECKING:
    import pandas

    from carjax.report.notebook import Figure

SCHEMA_VERSION = 1
# Of the names of photos that show a view: `view_front`.
VIEW_PREFIX = "view_"


@dataclasses.dataclass(frozen=True)
class Alternative:
    """Another frame that shows an attribute well.

    Attributes:
        frame: 0-based index in presentation order.
        time_s: presentation time in seconds.
        value: the frame's class.
        probability: the frame's probability of that class.
        entropy: the frame's Shannon entropy in nats.
        certainty: 1 − entropy / log K, in [0, 1].
    """

    frame: int
    time_s: float
    value: str
    probability: float
    entropy: float
    certainty: float


@dataclasses.dataclass(frozen=True)
class AttributeChoice:
    """The frame that shows a categorical attribute best; all None but `reason` if there is none.

    Where the class is none that the head knows, `value` is None and `reason` says so, and the best
    frame is given all the same, with the numbers of the known class that is nearest.

    Attributes:
        value: the class, or None.
        probability: the chosen frame's probability of that class.
        entropy: the chosen frame's Shannon entropy in nats.
        certainty: 1 − entropy / log K of the chosen frame, in [0, 1].
        frame: 0-based index in presentation order.
        time_s: presentation time in seconds.
        video_probability: probability of the class after all frames.
        alternatives: the next best frames, best first, distinct in time.
        reason: why there is no value; None if there is one.
        content: what the chosen frame shows of the car, 'whole' or 'part'; None if not known.
        known: what the seller states, against the video; None if nothing was stated.
        nearest: where there is no value, the known class that the numbers are of; else None.
    """

    value: str | None
    probability: float | None = None
    entropy: float | None = None
    certainty: float | None = None
    frame: int | None = None
    time_s: float | None = None
    video_probability: float | None = None
    alternatives: tuple[Alternative, ...] = ()
    reason: str | None = None
    content: str | None = None
    known: Known | None = None
    nearest: str | None = None


@dataclasses.dataclass(frozen=True)
class ViewChoice:
    """The frame that fills a view.

    Attributes:
        azimuth_deg: mean direction in degrees [0, 360).
        kappa: concentration of the von Mises component.
        probability: mass of the frame's density inside the view's bin.
        frame: 0-based index in presentation order.
        time_s: presentation time in seconds.
        content: what the frame shows of the car, 'whole' or 'part'; None if not known.
    """

    azimuth_deg: float
    kappa: float
    probability: float
    frame: int
    time_s: float
    content: str | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class OrientationChoice:
    """The views around the object and the angles that the video covers.

    Compares by identity, as arrays have no single answer.

    Attributes:
        views: name → frame, or None where no frame fills the view; in order of azimuth.
        missing: the names with None.
        order: the frames chosen, sorted by azimuth from 0 to 360 degrees.
        coverage: float64 [360]; time-weighted mean density per radian at 0, 1, …, 359 degrees, mean
            1/(2π).
    """

    views: dict[str, ViewChoice | None]
    missing: tuple[str, ...]
    order: tuple[int, ...]
    coverage: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class Selection:
    """What was chosen from one video. Compares by identity.

    Attributes:
        attributes: name of a categorical attribute → choice; only those asked for.
        orientation: the views; None if not asked for or not in the schema.
    """

    attributes: dict[str, AttributeChoice]
    orientation: OrientationChoice | None

    def _repr_html_(self) -> str:
        from carjax.report import notebook

        return notebook.selection_html(self)

    def to_pandas(self) -> pandas.DataFrame:
        """Returns a pandas frame with a row per photo (needs pandas)."""
        from carjax.report import notebook

        return notebook.selection_frame(self)

    def plot(self) -> Figure:
        """Returns the coverage map with the photos' directions, as a notebook shows it.

        Raises:
            ValueError: the selection has no directions.
        """
        from carjax.report import notebook

        return notebook.selection_figure(self)


def chosen_frames(selection: Selection) -> dict[str, int]:
    """Returns the photos to write: name without ending ('type', 'view_front') → frame index."""
    frames = {
        name: choice.frame
        for name, choice in selection.attributes.items()
        if choice.frame is not None
    }
    if selection.orientation is not None:
        for name, view in selection.orientation.views.items():
            if view is not None:
                frames[VIEW_PREFIX + name] = view.frame
    return frames


def alternative_frames(selection: Selection) -> set[int]:
    """Returns the frames of all alternatives."""
    return {other.frame for c in selection.attributes.values() for other in c.alternatives}


def views_of(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the views of a `selection.json`: name → choice, or None; {} without directions."""
    return (content.get("orientation") or {"views": {}})["views"]


def photographed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the photos of a `selection.json`: path → the choice that it shows.

    Example:
        >>> view = {"frame": 3, "photo": "photos/view_front.jpg"}
        >>> content = {"attributes": {}, "orientation": {"views": {"front": view, "rear": None}}}
        >>> photographed(content) == {"photos/view_front.jpg": view}
        True
    """
    choices = [*content["attributes"].values(), *views_of(content).values()]
    return {choice["photo"]: choice for choice in choices if choice and choice.get("photo")}


def to_json(
    selection: Selection,
    *,
    video: Mapping[str, Any],
    model: Mapping[str, Any],
    photos: Mapping[str, str] | None = None,
    temporal: str | None = None,
) -> dict[str, Any]:
    """Returns the content of `selection.json`, as `schema()` describes it.

    Args:
        selection: what was chosen.
        video: path, frames, duration_s, width, height, scored_frames.
        model: backbone, bundle, version.
        photos: name as in `chosen_frames` → path relative to the JSON file; names left out are at
            'photos/<name>.jpg'.
        temporal: what neighbouring frames were used for: 'none', 'filter' or 'model'; None: the
            result does not say.

    Returns:
        Dicts, lists, strings, and finite Python numbers.

    Raises:
        ValueError: a number is not finite.
    """
    paths = {name: f"photos/{name}.jpg" for name in chosen_frames(selection)} | dict(photos or {})
    result: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "video": dict(video),
        **({} if temporal is None else {"temporal": temporal}),
        "attributes": {
            name: _attribute_json(choice, paths.get(name))
            for name, choice in selection.attributes.items()
        },
    }
    orientation = selection.orientation
    if orientation is not None:
        result["orientation"] = {
            "views": {
                name: None
                if view is None
                else dataclasses.asdict(view) | {"photo": paths[VIEW_PREFIX + name]}
                for name, view in orientation.views.items()
            },
            "missing": orientation.missing,
            "order": orientation.order,
            "coverage": orientation.coverage.round(7),
        }
    result["model"] = dict(model)
    return _plain(result)


def as_text(content: Mapping[str, Any]) -> str:
    """The text of `selection.json`."""
    return json.dumps(content, indent=1, allow_nan=False)


def _attribute_json(choice: AttributeChoice, photo: str | None) -> dict[str, Any]:
    if choice.frame is None:
        return {"value": None, "reason": choice.reason}
    fields = dataclasses.asdict(choice)
    for name in ("reason", "known", "nearest"):
        if fields[name] is None:
            del fields[name]
    return fields | {"photo": photo}


def _plain(value: Any) -> Any:
    """The same value in JSON's own types."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"selection.json cannot hold the number {value}")
    return value


@functools.cache
def _schema_text() -> str:
    path = importlib.resources.files("carjax") / "assets" / "selection.schema.json"
    return path.read_text(encoding="utf-8")


def schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of `selection.json`.

    Example:
        >>> schema()["properties"]["schema_version"]["const"]
        1
    """
    return json.loads(_schema_text())
