"""The views around the coverage map: what the video has shown of each side up to now."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import cv2
import numpy as np

from carjax.annotate import paint
from carjax.annotate.layout import Rect
from carjax.attributes import view_deg
from carjax.report.polar import UNIFORM, polar_radius, polar_xy
from carjax.wording import label

# The cell of each view in a grid of three by three: where the camera stands, the car's nose up.
_CELLS = {
    "front-left": (0, 0),
    "front": (1, 0),
    "front-right": (2, 0),
    "left": (0, 1),
    "right": (2, 1),
    "rear-left": (0, 2),
    "rear": (1, 2),
    "rear-right": (2, 2),
}
_HUB = 0.38
_FAN = 33  # corners of the red fan


@dataclasses.dataclass(frozen=True)
class Ring:
    """Where the parts of the ring stand.

    Attributes:
        views: name → the rectangle of its thumbnail.
        map: the square of the coverage map.
    """

    views: dict[str, Rect]
    map: Rect

    @property
    def centre(self) -> tuple[float, float]:
        """x and y of the car."""
        return self.map.x + self.map.w / 2, self.map.y + self.map.h / 2

    @property
    def radius(self) -> float:
        """Of the rim."""
        return self.map.w / 2 - 9


def arrange(area: Rect, names: Sequence[str], aspect: float) -> Ring:
    """Chooses where the thumbnails and the map stand: three by three, the map in the middle.

    Args:
        area: for all of it.
        names: the views.
        aspect: width over height of a thumbnail.
    """
    width = min(round(area.w * 0.27), round((area.h * 0.22) * aspect))
    height = round(width / aspect)
    side = min(area.w - 2 * (width + 8), area.h - 2 * (height + 6))
    side -= side % 2
    # All stand near the map, not at the ends of a wide or a high area.
    across, down = min(area.w, side + 2 * (width + 28)), min(area.h, side + 2 * (height + 28))
    left, top = area.x + (area.w - across) // 2, area.y + (area.h - down) // 2
    xs = left, left + (across - width) // 2, left + across - width
    ys = top, top + (down - height) // 2, top + down - height
    views = {
        name: Rect(xs[column], ys[row], width, height)
        for name, (column, row) in _CELLS.items()
        if name in names
    }
    middle = Rect(left + (across - side) // 2, top + (down - side) // 2, side, side)
    return Ring(views, middle)


def draw_base(image: np.ndarray, ring: Ring, found: Sequence[str]) -> None:
    """Draws what changes only when a view is found: the ground, the rim, the car from above."""
    paint.clear(image, ring.map)
    (x, y), radius = ring.centre, ring.radius
    _disc(image, (x, y), radius, paint.SUNK)
    for azimuth in range(0, 360, 45):
        spoke = polar_xy(azimuth, [_HUB * radius, radius], (x, y))
        paint.stroke(image, spoke, paint.RULE, 1)
    _disc(image, (x, y), _HUB * radius, paint.PAGE)
    _car(image, (x, y), _HUB * radius * 0.82)
    half = 180 / len(ring.views)
    for name in ring.views:
        middle = view_deg(name)
        arc = np.linspace(middle - half + 3, middle + half - 3, 24)
        seen = name in found
        line = polar_xy(arc, radius + 2, (x, y))
        paint.stroke(image, line, paint.BLUE if seen else paint.RULE, 4 if seen else 2)


def draw_map(
    image: np.ndarray,
    ring: Ring,
    coverage: np.ndarray | None,
    azimuth_deg: float | None,
    kappa: float,
) -> None:
    """Draws the coverage so far as a blue line and the current prediction as a red one.

    Args:
        image: with the base already on it.
        ring: where to draw.
        coverage: float [360]; densities per radian, or None.
        azimuth_deg: the current frame's direction, or None if it shows no car.
        kappa: its concentration; the fan is one standard deviation 1/√κ to either side.
    """
    radius = ring.radius
    area = image[ring.map.rows, ring.map.columns]
    centre = ring.map.w / 2, ring.map.h / 2
    tinted = area.copy()
    if coverage is not None:
        top = max(float(coverage.max()), 2 * UNIFORM)
        radii = polar_radius(coverage, top, inner=_HUB * radius, rim=radius)
        curve = polar_xy(np.arange(360), radii, centre)
        hub = polar_xy(np.arange(360), _HUB * radius, centre)
        cv2.fillPoly(
            tinted, [paint.points(curve), paint.points(hub)], paint.BLUE, cv2.LINE_AA, paint.SHIFT
        )
    if azimuth_deg is not None:
        spread = min(math.degrees(1 / math.sqrt(max(kappa, 1e-3))), 90)
        fan = np.linspace(azimuth_deg - spread, azimuth_deg + spread, _FAN)
        edge = np.concatenate(
            [
                polar_xy(fan, radius, centre),
                polar_xy(fan[::-1], _HUB * radius, centre),
            ]
        )
        paint.fill(tinted, edge, paint.RED)
    cv2.addWeighted(tinted, 0.28, area, 0.72, 0, area)
    if coverage is not None:
        paint.stroke(area, curve, paint.BLUE, 2, closed=True)
    if azimuth_deg is not None:
        needle = polar_xy(azimuth_deg, [_HUB * radius, radius], centre)
        paint.stroke(area, needle, paint.RED, 3)


def draw_view(image: np.ndarray, place: Rect, name: str, photo: np.ndarray | None) -> None:
    """Draws a view's thumbnail, or the room for it."""
    if photo is None:
        image[place.rows, place.columns] = paint.SUNK
        middle = place.x + place.w / 2, place.y + place.h / 2 + 4
        paint.write(image, *middle, label(name), 12, paint.MUTED, align="middle")
        return
    image[place.rows, place.columns] = photo
    paint.scrim(image, Rect(place.x, place.y + place.h - 17, place.w, 17), 0.5)
    paint.write(image, place.x + 6, place.y + place.h - 5, label(name), 11, paint.TEXT)


def _disc(
    image: np.ndarray, centre: tuple[float, float], radius: float, colour: paint.Colour
) -> None:
    x, y, r = (round(v * (1 << paint.SHIFT)) for v in (*centre, radius))
    cv2.circle(image, (x, y), r, colour, -1, cv2.LINE_AA, paint.SHIFT)


def _car(image: np.ndarray, centre: tuple[float, float], half: float) -> None:
    """A car from above, its nose up; `half` is half its length."""

    def at(*xy: tuple[float, float]) -> np.ndarray:
        """Corners on one side, mirrored: x and y as shares of half the length."""
        mirrored = [*xy, *[(-x, y) for x, y in reversed(xy)]]
        return np.array(centre) + half * np.array(mirrored)

    body = at((0.0, -1.0), (0.22, -0.97), (0.36, -0.86), (0.42, -0.6), (0.43, 0.0), (0.42, 0.72))
    tail = at((0.42, 0.7), (0.37, 0.92), (0.25, 0.98), (0.0, 1.0))
    paint.fill(image, body, paint.MUTED)
    paint.fill(image, tail, paint.MUTED)
    paint.fill(image, at((0.0, -0.42), (0.31, -0.34), (0.25, -0.08), (0.0, -0.13)), paint.PAGE)
    paint.fill(image, at((0.0, 0.64), (0.25, 0.58), (0.29, 0.78), (0.0, 0.84)), paint.PAGE)
