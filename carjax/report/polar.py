"""The coverage map as an inline `<svg>`: azimuths around a car that is seen from above."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from carjax.attributes import VIEWS, view_deg
from carjax.report.svg import circle, number, path_data
from carjax.wording import label

UNIFORM = 1 / (2 * math.pi)  # the density of a video that shows every side equally long

# In SVG units: the car lies inside `_INNER`, the density between `_INNER` and `_RIM`.
_SIZE, _INNER, _RIM = 400.0, 54.0, 140.0

# A car from above, nose up: body, bonnet lines, glass, lights and mirrors.
_CAR = (
    '<g class="car" transform="translate(200 200)">'
    '<path class="body" d="M-17-23l-5 3q-2 1-1 3l6-1zM17-23l5 3q2 1 1 3l-6-1z"/>'
    '<path class="body" d="M-10-43Q0-47 10-43Q17-40 18-31L19-4L18 30Q18 39 12 42Q0 45-12 42'
    'Q-18 39-18 30L-19-4L-18-31Q-17-40-10-43Z"/>'
    '<path class="glass" d="M-14-15Q0-22 14-15L11-3Q0-7-11-3Z"/>'
    '<path class="glass" d="M-11 24Q0 27 11 24L13 33Q0 37-13 33Z"/>'
    '<path class="glass" d="M-15.5-10L-12.5 0V22L-15.5 28ZM15.5-10L12.5 0V22L15.5 28Z"/>'
    '<path class="lamp" d="M-15-36Q-13-40-8-41.5L-9-38ZM15-36Q13-40 8-41.5L9-38Z"/></g>'
)


def polar_xy(
    azimuth_deg: ArrayLike,
    radius: ArrayLike,
    centre: tuple[float, float] = (_SIZE / 2, _SIZE / 2),
) -> np.ndarray:
    """Where the camera of an azimuth stands around a car that is seen from above, nose up.

    Azimuth 0 (the front faces the camera) is at the top, 90 (the car's left side is seen) at the
    left: azimuth grows counter-clockwise.

    Args:
        azimuth_deg: azimuths in degrees, of any shape [...].
        radius: distances from the centre, of a shape that broadcasts with that.
        centre: x and y of the car; by default of the coverage map, in SVG units.

    Returns:
        x to the right and y downwards, float64 [..., 2], in the units of `radius` and `centre`.

    Example:
        >>> polar_xy([0, 90], 100).round(6).tolist()
        [[200.0, 100.0], [100.0, 200.0]]
    """
    angle, reach = np.radians(np.asarray(azimuth_deg, float)), np.asarray(radius, float)
    x, y = centre
    return np.stack([x - reach * np.sin(angle), y - reach * np.cos(angle)], axis=-1)


def polar_radius(
    density: ArrayLike, top: float, *, inner: float = _INNER, rim: float = _RIM
) -> np.ndarray:
    """The radius that draws a density such that equal areas are equal probability.

    With r² = r₀² + (R² − r₀²)·p/top, the area between the inner circle and the curve over an
    interval of azimuth, ∫½(r² − r₀²)da, is proportional to the probability of that interval.

    Args:
        density: density per radian, any shape.
        top: the density drawn at the rim, > 0.
        inner: the radius r₀ of the inner circle.
        rim: the radius R of the rim.

    Returns:
        Radii in the units of `rim`, float64, of the shape of `density`.
    """
    share = np.clip(np.asarray(density, float) / top, 0, 1)
    return np.sqrt(inner**2 + (rim**2 - inner**2) * share)


def coverage_polar(coverage: ArrayLike, azimuths: Mapping[str, float | None] | None = None) -> str:
    """The coverage map: how long the video shows each side of the car.

    The car is seen from above with its nose up; the curve stands where the camera stood. The rim
    is a solid arc where a view was found and a dashed one where it is missing, and a dot at each
    azimuth that was chosen.

    Args:
        coverage: 360 densities per radian at azimuths 0, 1, …, 359 degrees, all ≥ 0; their mean
            is 1/(2π).
        azimuths: view name → azimuth of its photo in degrees, or None where no frame shows the
            view. The names are of `carjax.attributes.VIEWS`; a view's arc is as wide as its
            bin, 360 degrees over the number of views.

    Returns:
        An `<svg>` element.

    Raises:
        ValueError: `coverage` is not 360 finite numbers ≥ 0, or a view has no such name.

    Example:
        >>> svg = coverage_polar([1 / 6.2832] * 360, {"front": 3.0, "rear": None})
        >>> svg.count('class="dot"'), svg.count('class="rim missing"')
        (1, 1)
    """
    density = np.asarray(coverage, float)
    if density.shape != (360,) or not np.isfinite(density).all() or density.min() < 0:
        raise ValueError("coverage must be 360 finite numbers ≥ 0, one per degree of azimuth")
    views = dict(azimuths or {})
    unknown = set(views) - set(VIEWS)
    if unknown:
        raise ValueError(f"no view is named {sorted(unknown)[0]!r}; views: {', '.join(VIEWS)}")

    # At least twice the uniform density, so that a flat map reads as a plain ring inside the rim.
    top = max(float(density.max()), 2 * UNIFORM)
    curve = polar_xy(np.arange(360), polar_radius(density, top))
    even = float(polar_radius(UNIFORM, top))
    centre = number(_SIZE / 2)

    parts = [f'<circle class="ground" cx="{centre}" cy="{centre}" r="{number(_RIM)}"/>']
    parts += [_spoke(a) for a in range(0, 360, 45)]
    parts.append(f'<path class="density" d="{path_data(curve)}Z"/>')
    parts.append(f'<circle class="even" cx="{centre}" cy="{centre}" r="{number(even)}"/>')
    parts.append(f'<circle class="hub" cx="{centre}" cy="{centre}" r="{number(_INNER - 1)}"/>')
    parts.append(_CAR)
    half = 180 / max(len(views), 1)
    for name, azimuth in views.items():
        middle = view_deg(name)
        state = "missing" if azimuth is None else "found"
        parts.append(
            f'<path class="rim {state}" data-view="{name}" '
            f'd="{_arc(middle - half + 2, middle + half - 2)}"/>'
        )
    for name, azimuth in views.items():
        if azimuth is not None:
            x, y = polar_xy(azimuth, _RIM)
            title = f"{label(name)}: azimuth {azimuth:.1f}°"
            parts.append(circle("dot", x, y, 5.5, title))
    for i, name in enumerate(VIEWS):
        x, y = polar_xy(45 * i, _RIM + (26 if i % 2 else 30))
        if i % 2:
            parts.append(f'<text x="{number(x)}" y="{number(y + 4)}">{45 * i}°</text>')
        else:
            parts.append(
                f'<text x="{number(x)}" y="{number(y - 3)}"><tspan class="strong">{name}</tspan>'
                f'<tspan x="{number(x)}" dy="15">{45 * i}°</tspan></text>'
            )

    found = [name for name, azimuth in views.items() if azimuth is not None]
    said = f"Coverage map. Most of the video shows azimuth {int(density.argmax())}°."
    if views:
        said += f" {len(found)} of {len(views)} views found."
    return (
        f'<svg class="polar" viewBox="0 0 {number(_SIZE)} {number(_SIZE)}" role="img" '
        f'aria-label="{html.escape(said)}">{"".join(parts)}</svg>'
    )


def _spoke(azimuth_deg: float) -> str:
    (x0, y0), (x1, y1) = polar_xy(azimuth_deg, _INNER), polar_xy(azimuth_deg, _RIM)
    return f'<path class="grid" d="M{number(x0)} {number(y0)}L{number(x1)} {number(y1)}"/>'


def _arc(start_deg: float, end_deg: float) -> str:
    """An arc of the rim; azimuth grows counter-clockwise, which is SVG's sweep 0."""
    (x0, y0), (x1, y1) = polar_xy(start_deg, _RIM), polar_xy(end_deg, _RIM)
    large = int(end_deg - start_deg > 180)
    radius = number(_RIM)
    return f"M{number(x0)} {number(y0)}A{radius} {radius} 0 {large} 0 {number(x1)} {number(y1)}"
