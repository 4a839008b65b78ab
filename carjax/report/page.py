"""`report.html`: what was chosen from a video, as one page that opens offline from disk."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import os
import pathlib
import urllib.parse
from collections.abc import Mapping
from typing import Any

import jinja2
import markupsafe
import numpy as np

from carjax import files, pictures, result_folder
from carjax.listing import known, plan
from carjax.report import quality
from carjax.report.polar import coverage_polar
from carjax.report.series import series
from carjax.report.svg import certainty_bar
from carjax.report.timelines import Mark, azimuth_timeline, kappa_timeline, timeline
from carjax.selection.eligibility import car_frames
from carjax.selection.result import photographed
from carjax.table import ScoreTable, certainty
from carjax.wording import clock, label, percent, side

THUMBNAIL_PX = 480
PREVIEW_PX = 200
# The charts can be read out at so many frames: five minutes, if all of 30 a second are scored.
MAX_READ = 9000
_JPEG_QUALITY = 82
_START = 'enliven(document, JSON.parse(document.getElementById("series").textContent));\n'
_FOLDER = pathlib.Path(__file__).parent
STYLE = (_FOLDER / "style.css").read_text(encoding="utf-8")


@dataclasses.dataclass(frozen=True)
class Timeline:
    """One chart over the video's time.

    Attributes:
        name: what `components.js` looks up in the series: an attribute, `direction` or `kappa`.
        heading: its title.
        chart: an `<svg>` element.
        note: one line on its scale.
    """

    name: str
    heading: str
    chart: str
    note: str


def write_report(
    selection: Mapping[str, Any],
    table: ScoreTable,
    photos: Mapping[str, np.ndarray],
    out: str | os.PathLike[str],
    *,
    previews: Mapping[int, np.ndarray] | None = None,
    annotated: str | None = None,
) -> pathlib.Path:
    """Writes `report.html` into a folder.

    The page needs nothing but itself: charts are inline SVG, thumbnails are inside it. It links
    to the full photos by the relative paths of `selection`, which the caller writes beside it.

    Args:
        selection: the content of `selection.json` (`carjax.selection.to_json`).
        table: scores of the same video, for the charts over time.
        photos: relative path as in `selection` → uint8 [H, W, 3] RGB frame.
        out: the folder; made if it does not exist.
        previews: frame → uint8 [H, W, 3] RGB picture of any size, for the alternatives.
        annotated: relative path of the annotated video, if there is one.

    Returns:
        The path of the page, complete when this function returns.

    Raises:
        ValueError: `photos` lacks a photo that `selection` names, or one is not an RGB image.
    """
    page = render(selection, table, photos, previews=previews, annotated=annotated)
    path = pathlib.Path(out) / result_folder.REPORT
    path.parent.mkdir(parents=True, exist_ok=True)
    # A path that is not Unicode has lone surrogates, which UTF-8 cannot hold.
    files.write(path, page.encode("utf-8", "backslashreplace"))
    return path


def render(
    selection: Mapping[str, Any],
    table: ScoreTable,
    photos: Mapping[str, np.ndarray],
    *,
    previews: Mapping[int, np.ndarray] | None = None,
    annotated: str | None = None,
) -> str:
    """The page of `write_report` as a string; arguments and errors as there."""
    video, orientation = selection["video"], selection.get("orientation")
    script = (_FOLDER / "components.js").read_text(encoding="utf-8") + _START
    charted = timelines(selection, table)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"clock": clock, "percent": percent, "label": label, "side": side}
    environment.filters["notice"] = known.notice
    environment.filters["bar"] = lambda value: markupsafe.Markup(certainty_bar(value))
    return environment.get_template("page.html").render(
        style=markupsafe.Markup(STYLE),
        video=video,
        name=pathlib.PurePath(video["path"]).name or video["path"],
        model=selection["model"],
        temporal=selection.get("temporal"),
        smoothed=table.azimuth_density is not None,
        portrait=video["height"] > video["width"],
        attributes=selection["attributes"],
        orientation=orientation,
        polar=markupsafe.Markup(polar(orientation)),
        timelines=charted,
        shaded=any('class="nocar"' in item.chart for item in charted),
        series=_json_script(series(_thinned(table))),
        notes=quality.notes(table, video),
        shots=plan.shots(selection),
        annotated=annotated,
        previews=_previews(selection, previews or {}),
        script=markupsafe.Markup(script),
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii"),
        photos=_photos(selection, photos),
    )


def _photos(
    selection: Mapping[str, Any], photos: Mapping[str, np.ndarray]
) -> dict[str, dict[str, Any]]:
    """Photo path → link, data URI and size of its thumbnail, for every photo that is named."""
    named = photographed(selection)
    missing = [path for path in named if path not in photos]
    if missing:
        raise ValueError(f"photos has no {missing[0]!r}, which the selection names")
    return {path: _thumbnail(path, photos[path]) for path in named}


def _previews(
    selection: Mapping[str, Any], previews: Mapping[int, np.ndarray]
) -> dict[int, dict[str, Any]]:
    """Frame → thumbnail, for every alternative of which there is a picture."""
    frames = {
        other["frame"]: None
        for choice in selection["attributes"].values()
        for other in choice.get("alternatives", ())
    }
    return {
        frame: _thumbnail(f"frame {frame}", previews[frame], PREVIEW_PX)
        for frame in frames
        if frame in previews
    }


def _thinned(table: ScoreTable) -> ScoreTable:
    """At most `MAX_READ` of the frames, evenly: more would make the page heavy."""
    step = -(-len(table) // MAX_READ)
    return table.take(slice(None, None, step))


def _thumbnail(path: str, frame: np.ndarray, side_px: int = THUMBNAIL_PX) -> dict[str, Any]:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or not frame.size:
        raise ValueError(
            f"{path}: a photo must be uint8 [H, W, 3], not {frame.dtype} {list(frame.shape)}"
        )
    small = pictures.shrunk(frame, side_px)
    data = base64.b64encode(pictures.jpeg(small, _JPEG_QUALITY)).decode("ascii")
    return {
        "href": urllib.parse.quote(path),
        "src": f"data:image/jpeg;base64,{data}",
        "width": small.shape[1],
        "height": small.shape[0],
    }


def _json_script(value: Any) -> markupsafe.Markup:
    """JSON that may stand inside a `<script>` element."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return markupsafe.Markup(text.replace("<", "\\u003c"))


def polar(orientation: Mapping[str, Any] | None) -> str:
    """The coverage map of `selection["orientation"]` as SVG; empty where there is none."""
    if orientation is None:
        return ""
    azimuths = {
        name: None if view is None else view["azimuth_deg"]
        for name, view in orientation["views"].items()
    }
    return coverage_polar(orientation["coverage"], azimuths)


def timelines(selection: Mapping[str, Any], table: ScoreTable) -> list[Timeline]:
    """The charts over time, in the schema's order; arguments as of `write_report`."""
    shared: dict[str, Any] = {
        "no_car": ~car_frames(table),
        "end_s": float(selection["video"]["duration_s"]),
    }
    result = []
    for attribute in table.categorical:
        item = selection["attributes"].get(attribute.name)
        if item is None:
            continue
        found = "frame" in item
        chart = timeline(
            table.time_s,
            certainty(table.entropy[attribute.name], len(attribute.classes)),
            name=attribute.name,
            chosen=_mark(item) if found else None,
            alternatives=[_mark(other) for other in item["alternatives"]] if found else (),
            **shared,
        )
        note = f"1 − H/log {len(attribute.classes)}"
        result.append(Timeline(attribute.name, label(attribute.name), chart, note))
    orientation = selection.get("orientation")
    if orientation is not None and table.angular is not None:
        result += _angular_timelines(orientation, table, shared)
    return result


def _angular_timelines(
    orientation: Mapping[str, Any], table: ScoreTable, shared: Mapping[str, Any]
) -> list[Timeline]:
    views = tuple(orientation["views"])
    found = {name: view for name, view in orientation["views"].items() if view is not None}
    azimuth = azimuth_timeline(
        table.time_s,
        table.azimuth_deg,
        np.asarray(table.view_probs).max(axis=1),
        views=views,
        chosen=[
            Mark(v["time_s"], v["azimuth_deg"], f"{label(n)}: {v['azimuth_deg']:.1f}°, {_at(v)}")
            for n, v in found.items()
        ],
        **shared,
    )
    kappa = kappa_timeline(
        table.time_s,
        table.kappa,
        chosen=[
            Mark(v["time_s"], v["kappa"], f"{label(n)}: κ {v['kappa']:.0f}, {_at(v)}")
            for n, v in found.items()
        ],
        **shared,
    )
    stronger = "Stronger: more of the density lies in one 45° bin"
    narrower = "κ of the von Mises density; higher is narrower"
    return [
        Timeline("direction", "Direction", azimuth, stronger),
        Timeline("kappa", "Concentration of the direction", kappa, narrower),
    ]


def _mark(item: Mapping[str, Any]) -> Mark:
    text = f"{item['value'] or item['reason']}, certainty {percent(item['certainty'])}, {_at(item)}"
    return Mark(item["time_s"], item["certainty"], text)


def _at(item: Mapping[str, Any]) -> str:
    return f"at {clock(item['time_s'])}, frame {item['frame']}"
