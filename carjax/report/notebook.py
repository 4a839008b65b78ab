"""What notebooks show of scores and selections: tables as HTML, charts as SVG, pandas frames.

Nothing here is needed to run carjax; pandas is imported only by the functions that return it.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from carjax import files
from carjax.attributes import VIEWS, Categorical, Schema
from carjax.errors import CarjaxError
from carjax.report.polar import coverage_polar
from carjax.report.timelines import azimuth_timeline, timeline
from carjax.selection.result import VIEW_PREFIX
from carjax.table import certainty
from carjax.wording import clock, degrees, label, percent

if TYPE_CHECKING:
    import pandas

    from carjax.scoring import FrameScores
    from carjax.selection import Selection
    from carjax.table import ScoreTable

_ROWS = 8
_HEADING, _GAP = 34.0, 16.0
# The report's light colours: a saved chart must be readable wherever it is shown.
_STYLE = """
svg { --card: #fff; --page: #f4f6f9; --sunk: #e9edf2; --rule: #d5dce4; --text: #17212c;
  --muted: #4f5d6c; --accent: #1459c7; --mark: #b8400a; --glass: #b9c6d4; background: #fff;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
.heading { fill: #17212c; font-size: 17px; font-weight: 600; text-anchor: start; }
"""


class Figure:
    """A chart that a notebook shows, and that can be saved as an SVG file.

    Args:
        svg: a whole `<svg>` element with its style.
    """

    def __init__(self, svg: str):
        self.svg = svg

    def _repr_svg_(self) -> str:
        return self.svg

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the SVG file."""
        files.write(path, self.svg)


def figure(parts: Sequence[tuple[str, str]], columns: int = 1) -> Figure:
    """Joins charts of `report.timelines` and `report.polar` to one figure.

    Args:
        parts: heading and `<svg>` element of each.
        columns: how many stand side by side.
    """
    sizes = [[float(v) for v in _VIEW_BOX.search(svg).group(1).split()] for _, svg in parts]  # type: ignore[union-attr]
    width = max(size[2] for size in sizes)
    body, y = "", _GAP
    for start in range(0, len(parts), columns):
        row = list(zip(parts[start : start + columns], sizes[start : start + columns], strict=True))
        for column, ((heading, svg), size) in enumerate(row):
            x = _GAP + column * (width + 2 * _GAP)
            place = f'<svg x="{x:g}" y="{y + _HEADING:g}" width="{size[2]:g}" height="{size[3]:g}" '
            body += f'<text class="heading" x="{x:g}" y="{y + 18:g}">{html.escape(heading)}</text>'
            body += svg.replace("<svg ", place, 1)
        y += _HEADING + max(size[3] for _, size in row) + _GAP
    across = min(columns, len(parts)) * (width + 2 * _GAP)
    return Figure(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across:g} {y:g}" '
        f'width="{across:g}" height="{y:g}"><style>{_STYLE}{_chart_style()}</style>{body}</svg>'
    )


# --- scores -------------------------------------------------------------------------------------


def scores_html(scores: FrameScores) -> str:
    """A table of the first frames: what is most probable, and how certain that is."""
    rows = np.flatnonzero(np.asarray(scores.mask))
    headings = ["frame", *(f"{name} (entropy)" for name in scores.probs)]
    if scores.azimuth is not None:
        headings += ["azimuth", "view"]
    headings += ["car", "sharpness"]
    body = []
    views = np.asarray(scores.view_probs)
    direction = _direction(scores)
    for row in rows[:_ROWS]:
        cells = [str(row)]
        for name, probs in scores.probs.items():
            best = percent(float(np.max(np.asarray(probs)[row])))
            cells.append(f"{best} ({float(np.asarray(scores.entropy[name])[row]):.2f})")
        if direction is not None:
            azimuth = direction[0]
            view = VIEWS[int(np.argmax(views[row]))]
            cells += [
                degrees(azimuth[row]) if np.isfinite(azimuth[row]) else "",
                f"{view} {percent(float(views[row].max()))}",
            ]
        cells.append(percent(float(np.asarray(scores.car_probability)[row])))
        cells.append(f"{float(np.asarray(scores.sharpness)[row]):.2f}")
        body.append(cells)
    more = f"{len(rows)} frames" + (f", the first {_ROWS}" if len(rows) > _ROWS else "")
    return _table(f"FrameScores: {more}", headings, body)


def scores_frame(scores: FrameScores, schema: Schema | None) -> pandas.DataFrame:
    """The rows of `FrameScores.to_pandas`."""
    pd = _pandas()
    rows = np.flatnonzero(np.asarray(scores.mask))
    direction = _direction(scores)
    if direction is not None:
        direction = direction[0][rows], direction[1][rows]
    columns = _columns(scores, rows, schema or (), direction)
    return pd.DataFrame(columns, index=pd.Index(rows, name="frame"))


def table_frame(table: ScoreTable) -> pandas.DataFrame:
    """The rows of `ScoreTable.to_pandas`."""
    pd = _pandas()
    direction = None if table.angular is None else (table.azimuth_deg, table.kappa)
    columns = _columns(table, np.arange(len(table)), table.schema, direction)
    index = pd.Index(table.frame, name="frame")
    return pd.DataFrame({"time_s": table.time_s, **columns}, index=index)


def _columns(
    scored: FrameScores | ScoreTable,
    rows: np.ndarray,
    schema: Schema,
    direction: tuple[np.ndarray, np.ndarray] | None,
) -> dict[str, np.ndarray]:
    """Columns of these rows; classes that the schema does not have are indices.

    Args:
        scored: of N frames.
        rows: int [n].
        schema: names the classes.
        direction: azimuth in degrees and κ of these rows, float [n]; None without one.
    """
    classes = {a.name: a.classes for a in schema if isinstance(a, Categorical)}
    columns: dict[str, Any] = {}
    for name, probs in scored.probs.items():
        p = np.asarray(probs)[rows]
        best = np.argmax(p, axis=1)
        columns[name] = np.array(classes[name], object)[best] if name in classes else best
        columns[f"{name}_probability"] = p[np.arange(len(p)), best]
        columns[f"{name}_entropy"] = np.asarray(scored.entropy[name])[rows]
    if direction is not None:
        views = np.asarray(scored.view_probs)[rows]
        columns["azimuth_deg"], columns["kappa"] = direction
        columns["view"] = np.array(VIEWS, object)[np.argmax(views, axis=1)]
        columns["view_probability"] = views.max(axis=1)
    columns["car_probability"] = np.asarray(scored.car_probability)[rows]
    columns["sharpness"] = np.asarray(scored.sharpness)[rows]
    for i, side in enumerate(("left", "top", "right", "bottom")):
        columns[f"box_{side}"] = np.asarray(scored.box)[rows, i]
    return columns


def scores_figure(scores: FrameScores, time_s: np.ndarray | None) -> Figure:
    """The charts of `FrameScores.plot`."""
    rows = np.flatnonzero(np.asarray(scores.mask))
    if not rows.size:
        raise ValueError("there is no frame to plot")
    times = np.arange(len(rows), dtype=float) if time_s is None else np.asarray(time_s, float)
    parts = []
    for name, probs in scores.probs.items():
        entropy = np.asarray(scores.entropy[name], float)[rows]
        sure = certainty(entropy, probs.shape[1])
        parts.append((label(name), timeline(times, sure, name=name)))
    direction = _direction(scores)
    if direction is not None:
        sure = np.asarray(scores.view_probs)[rows].max(axis=1)
        chart = azimuth_timeline(times, direction[0][rows], sure)
        parts.append(("Direction", chart))
    return figure(parts, columns=2)


def _direction(scores: FrameScores) -> tuple[np.ndarray, np.ndarray] | None:
    """Azimuth in degrees and κ of every frame, float32 [N]; None without a direction."""
    if scores.azimuth is None:
        return None
    from carjax.scoring import peaks

    azimuth_deg, kappa, _ = peaks.main_peak(scores.azimuth)
    return azimuth_deg, kappa


# --- selections ---------------------------------------------------------------------------------


def selection_rows(selection: Selection) -> list[dict[str, Any]]:
    """One row per photo, wanted views without one included."""
    rows: list[dict[str, Any]] = []
    for name, choice in selection.attributes.items():
        rows.append(
            {
                "photo": name,
                "value": choice.value or choice.reason,
                "probability": choice.probability,
                "certainty": choice.certainty,
                "frame": choice.frame,
                "time_s": choice.time_s,
                "content": choice.content,
            }
        )
    views: Mapping[str, Any] = selection.orientation.views if selection.orientation else {}
    for name, view in views.items():
        row: dict[str, Any] = {"photo": VIEW_PREFIX + name, "value": "no frame fills it"}
        if view is not None:
            row |= {
                "value": name,
                "probability": view.probability,
                "azimuth_deg": view.azimuth_deg,
                "kappa": view.kappa,
                "frame": view.frame,
                "time_s": view.time_s,
                "content": view.content,
            }
        rows.append(row)
    return rows


def selection_html(selection: Selection) -> str:
    """A table of the photos."""
    body = []
    for row in selection_rows(selection):
        sure = row.get("certainty", row.get("probability"))
        angle = f" ({degrees(row['azimuth_deg'])})" if "azimuth_deg" in row else ""
        body.append(
            [
                row["photo"],
                f"{row['value']}{angle}",
                "" if sure is None else percent(sure),
                "" if row.get("frame") is None else str(row["frame"]),
                "" if row.get("time_s") is None else clock(row["time_s"]),
            ]
        )
    found = sum(1 for row in body if row[3])
    caption = f"Selection: {found} of {len(body)} photos"
    return _table(caption, ["photo", "shows", "certainty", "frame", "time"], body)


def selection_frame(selection: Selection) -> pandas.DataFrame:
    """The rows of `Selection.to_pandas`."""
    pd = _pandas()
    columns = [
        "value", "probability", "certainty", "azimuth_deg", "kappa", "frame", "time_s", "content",
    ]  # fmt: skip
    frame = pd.DataFrame(selection_rows(selection), columns=["photo", *columns])
    return frame.set_index("photo").astype({"frame": "Int64"})


def selection_figure(selection: Selection) -> Figure:
    """The chart of `Selection.plot`."""
    if selection.orientation is None:
        raise ValueError("a selection without directions has no coverage map to plot")
    azimuths = {
        name: None if view is None else view.azimuth_deg
        for name, view in selection.orientation.views.items()
    }
    return figure([("Coverage", coverage_polar(selection.orientation.coverage, azimuths))])


# --- helpers ------------------------------------------------------------------------------------

_VIEW_BOX = re.compile(r'viewBox="([^"]*)"')


def _chart_style() -> str:
    """The part of the report's style sheet that colours its charts."""
    from carjax.report.page import STYLE

    start = STYLE.index("/* Charts */")
    return STYLE[start : STYLE.index("\nfooter {", start)]


def _table(caption: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(text)}</th>" for text in headings)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return (
        f"<table><caption>{html.escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _pandas() -> Any:
    try:
        import pandas
    except ImportError:
        raise CarjaxError("to_pandas needs pandas: pip install pandas") from None
    return pandas
