"""Charts as inline SVG: pure functions from numbers to one `<svg>` element as a string.

The functions set geometry only; colours come from the classes of `style.css`, so that one chart
serves light mode, dark mode and paper. Coordinates are rounded to a tenth of a unit, and lines
of more than 600 points are thinned. Values that are not finite are left out. All text is escaped.
"""

from __future__ import annotations

import dataclasses
import html
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from carjax.attributes import VIEWS
from carjax.wording import clock, degrees, label, percent

MAX_POINTS = 600
UNIFORM = 1 / (2 * math.pi)  # the density of a video that shows every side equally long

# Polar plot, in SVG units: the car lies inside `_INNER`, the density between `_INNER` and `_RIM`.
_SIZE, _INNER, _RIM = 400.0, 54.0, 140.0

# Timelines: as wide as a phone, so that the text stays readable when it is scaled to fit.
_WIDTH, _RIGHT, _TOP, _BOTTOM = 440.0, 14.0, 26.0, 40.0
_TIME_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)

# A dot of the azimuth chart is drawn fainter below each of these probabilities of its bin.
_DOT_LEVELS = (0.5, 0.8, 0.95)


@dataclasses.dataclass(frozen=True)
class Mark:
    """A moment to point out in a timeline.

    Attributes:
        time_s: its time in seconds.
        value: its height, in the units of the chart's vertical axis.
        text: what a tooltip says of it.
    """

    time_s: float
    value: float
    text: str


def certainty_bar(value: float) -> str:
    """A horizontal bar filled to a certainty.

    Args:
        value: certainty in [0, 1]; values outside are clipped.

    Returns:
        An `<svg>` element.

    Example:
        >>> certainty_bar(0.5).count("<rect")
        2
    """
    filled = min(max(float(value), 0.0), 1.0)
    return (
        f'<svg class="bar" viewBox="0 0 100 6" preserveAspectRatio="none" role="img" '
        f'aria-label="certainty {_text(percent(filled))}">'
        f'<rect class="track" width="100" height="6"/>'
        f'<rect class="fill" width="{_num(100 * filled)}" height="6"/></svg>'
    )


def polar_xy(azimuth_deg: float, radius: float) -> tuple[float, float]:
    """Where the camera of an azimuth stands around a car that is seen from above, nose up.

    Azimuth 0 (the front faces the camera) is at the top, 90 (the car's left side is seen) at the
    left: azimuth grows counter-clockwise.

    Args:
        azimuth_deg: azimuth in degrees.
        radius: distance from the centre of the plot, in SVG units.

    Returns:
        x to the right and y downwards, in SVG units.

    Example:
        >>> polar_xy(90, 100)
        (100.0, 200.0)
    """
    angle = math.radians(azimuth_deg)
    return _SIZE / 2 - radius * math.sin(angle), _SIZE / 2 - radius * math.cos(angle)


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
    curve = [polar_xy(a, r) for a, r in enumerate(polar_radius(density, top))]
    even = float(polar_radius(UNIFORM, top))
    centre = _num(_SIZE / 2)

    parts = [f'<circle class="ground" cx="{centre}" cy="{centre}" r="{_num(_RIM)}"/>']
    parts += [_spoke(a) for a in range(0, 360, 45)]
    parts.append(f'<path class="density" d="{_path(curve)}Z"/>')
    parts.append(f'<circle class="even" cx="{centre}" cy="{centre}" r="{_num(even)}"/>')
    parts.append(f'<circle class="hub" cx="{centre}" cy="{centre}" r="{_num(_INNER - 1)}"/>')
    parts.append(_CAR)
    half = 180 / max(len(views), 1)
    for name, azimuth in views.items():
        middle = 45.0 * VIEWS.index(name)
        state = "missing" if azimuth is None else "found"
        parts.append(
            f'<path class="rim {state}" data-view="{name}" '
            f'd="{_arc(middle - half + 2, middle + half - 2)}"/>'
        )
    for name, azimuth in views.items():
        if azimuth is not None:
            x, y = polar_xy(azimuth, _RIM)
            title = f"{label(name)}: azimuth {azimuth:.1f}°"
            parts.append(_circle("dot", x, y, 5.5, title))
    for i, name in enumerate(VIEWS):
        x, y = polar_xy(45 * i, _RIM + (26 if i % 2 else 30))
        if i % 2:
            parts.append(f'<text x="{_num(x)}" y="{_num(y + 4)}">{45 * i}°</text>')
        else:
            parts.append(
                f'<text x="{_num(x)}" y="{_num(y - 3)}"><tspan class="strong">{name}</tspan>'
                f'<tspan x="{_num(x)}" dy="15">{45 * i}°</tspan></text>'
            )

    found = [name for name, azimuth in views.items() if azimuth is not None]
    said = f"Coverage map. Most of the video shows azimuth {int(density.argmax())}°."
    if views:
        said += f" {len(found)} of {len(views)} views found."
    return (
        f'<svg class="polar" viewBox="0 0 {_num(_SIZE)} {_num(_SIZE)}" role="img" '
        f'aria-label="{_text(said)}">{"".join(parts)}</svg>'
    )


def timeline(
    time_s: ArrayLike,
    certainty: ArrayLike,
    *,
    name: str,
    chosen: Mark | None = None,
    alternatives: Sequence[Mark] = (),
    no_car: ArrayLike | None = None,
    end_s: float = 0.0,
) -> str:
    """A line chart of certainty over the video, with the chosen moment marked.

    Args:
        time_s: [N] times in seconds, increasing; N ≥ 1.
        certainty: [N] certainties in [0, 1].
        name: what the certainty is of, for people who hear the page.
        chosen: the chosen frame.
        alternatives: the next best frames, drawn hollow.
        no_car: bool [N]; frames to shade because they show no car.
        end_s: the length of the video, where the axis ends.

    Returns:
        An `<svg>` element.

    Raises:
        ValueError: the arrays are empty or their lengths differ.

    Example:
        >>> timeline([0, 1], [0.2, 0.9], name="type", chosen=Mark(1, 0.9, "SUV")).count("<title>")
        1
    """
    axes = _Axes.of(time_s, certainty, end_s, height=180, left=44, low=0, high=1)
    parts = [axes.shade(no_car)]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        parts.append(axes.grid(tick, f"{100 * tick:.0f}%" if tick in (0, 0.5, 1) else ""))
    parts += [axes.time_axis(), axes.title("certainty")]
    parts.append(axes.line(area=True))
    parts += [axes.mark(m, "alternative") for m in alternatives]
    said = f"Certainty of {name} over time."
    if chosen is not None:
        where = f"{clock(chosen.time_s)} · {percent(chosen.value)}"
        parts += [axes.stem(chosen), axes.mark(chosen, "chosen"), axes.remark(where)]
        said += f" Chosen: {chosen.text}."
    return axes.svg(said, parts)


def azimuth_timeline(
    time_s: ArrayLike,
    azimuth_deg: ArrayLike,
    probability: ArrayLike,
    *,
    views: Sequence[str] = VIEWS,
    chosen: Sequence[Mark] = (),
    no_car: ArrayLike | None = None,
    end_s: float = 0.0,
) -> str:
    """Azimuth over the video: a dot per frame, stronger where it is more certain.

    Args:
        time_s: [N] times in seconds, increasing; N ≥ 1.
        azimuth_deg: [N] azimuths in degrees.
        probability: [N] mass of each frame's density in its 45-degree bin, in [0, 1].
        views: the views, each a horizontal band of 360 degrees over their number.
        chosen: the photos of the views; their values are azimuths in degrees.
        no_car: bool [N]; frames to shade because they show no car.
        end_s: the length of the video, where the axis ends.

    Returns:
        An `<svg>` element.

    Raises:
        ValueError: the arrays are empty or their lengths differ.

    Example:
        >>> azimuth_timeline([0, 1], [359, 3], [0.9, 0.9]).count('class="band')
        8
    """
    width = 360 / len(views)
    low = -width / 2  # so that the band of the front is in one piece
    azimuth = (np.asarray(azimuth_deg, float) - low) % 360 + low
    sure = np.asarray(probability, float)
    axes = _Axes.of(time_s, azimuth, end_s, height=272, left=118, low=low, high=low + 360)
    if sure.shape != azimuth.shape:
        raise ValueError(f"{len(azimuth)} azimuths but {len(sure)} probabilities")
    parts = []
    for i, view in enumerate(views):
        middle = 45.0 * VIEWS.index(view)
        parts.append(axes.band(middle - width / 2, middle + width / 2, f"band {'odd' * (i % 2)}"))
        parts.append(axes.y_label(middle, f"{label(view).lower()} {degrees(middle)}"))
    parts += [axes.shade(no_car), axes.time_axis(), axes.title("azimuth (degrees)")]
    # One path of zero-length round strokes per level: a tenth of the size of a circle per frame.
    level = np.digitize(sure, _DOT_LEVELS)
    kept = np.flatnonzero(np.isfinite(azimuth) & np.isfinite(sure))
    kept = kept[:: max(1, math.ceil(len(kept) / MAX_POINTS))]
    for k in range(len(_DOT_LEVELS) + 1):
        points = [axes.xy(axes.time_s[i], azimuth[i]) for i in kept if level[i] == k]
        if points:
            strokes = "".join(f"M{_num(x)} {_num(y)}h0" for x, y in points)
            parts.append(f'<path class="dots level{k}" d="{strokes}"/>')
    for mark in chosen:
        placed = dataclasses.replace(mark, value=(mark.value - low) % 360 + low)
        parts.append(axes.mark(placed, "chosen"))
    said = f"Azimuth over time, {len(chosen)} of {len(views)} views chosen."
    return axes.svg(said, parts)


def kappa_timeline(
    time_s: ArrayLike,
    kappa: ArrayLike,
    *,
    chosen: Sequence[Mark] = (),
    no_car: ArrayLike | None = None,
    end_s: float = 0.0,
) -> str:
    """The concentration κ of the azimuth over the video, on a logarithmic axis.

    From κ = 10 on, the axis also gives the standard deviation that κ amounts to, 1/√κ radians
    (Mardia & Jupp, Directional Statistics, 2000, section 3.5.4).

    Args:
        time_s: [N] times in seconds, increasing; N ≥ 1.
        kappa: [N] concentrations ≥ 0; drawn at 0.1 below that.
        chosen: the photos of the views; their values are κ.
        no_car: bool [N]; frames to shade because they show no car.
        end_s: the length of the video, where the axis ends.

    Returns:
        An `<svg>` element.

    Raises:
        ValueError: the arrays are empty or their lengths differ.

    Example:
        >>> "±5.7°" in kappa_timeline([0, 1], [40, 100])
        True
    """
    logs = np.log10(np.maximum(np.asarray(kappa, float), 0.1))
    marks = [dataclasses.replace(m, value=math.log10(max(m.value, 0.1))) for m in chosen]
    reach = [*logs[np.isfinite(logs)].tolist(), *(m.value for m in marks)]
    low = math.floor(min(reach, default=0))
    high = max(math.ceil(max(reach, default=0)), low + 1)
    axes = _Axes.of(time_s, logs, end_s, height=272, left=118, low=low, high=high)
    parts = [axes.shade(no_car)]
    for power in range(low, high + 1):
        value = 10.0**power
        spread = f" ±{math.degrees(1 / math.sqrt(value)):.2g}°" if power >= 1 else ""
        parts.append(axes.grid(power, f"{value:g}{spread}"))
    parts += [axes.time_axis(), axes.title("κ (± spread in degrees)"), axes.line(area=False)]
    parts += [axes.mark(m, "chosen") for m in marks]
    return axes.svg("Concentration κ of the azimuth over time, logarithmic axis.", parts)


# ------------------------------------------------------------------------------ timelines


@dataclasses.dataclass(frozen=True)
class _Axes:
    """The frame of a timeline: maps seconds and values to SVG units and draws the common parts."""

    time_s: np.ndarray
    values: np.ndarray
    end: float
    height: float
    left: float
    low: float
    high: float

    @classmethod
    def of(
        cls,
        time_s: ArrayLike,
        values: ArrayLike,
        end_s: float,
        *,
        height: float,
        left: float,
        low: float,
        high: float,
    ) -> _Axes:
        times, heights = np.asarray(time_s, float), np.asarray(values, float)
        if times.ndim != 1 or not len(times) or times.shape != heights.shape:
            raise ValueError(
                f"a timeline needs as many values as times, at least one; got shapes "
                f"{times.shape} and {heights.shape}"
            )
        end = max(float(times[-1]), end_s)
        return cls(times, heights, end if end > 0 else 1.0, height, left, low, high)

    @property
    def right(self) -> float:
        return _WIDTH - _RIGHT

    @property
    def bottom(self) -> float:
        return self.height - _BOTTOM

    def x(self, time_s: float) -> float:
        return self.left + (self.right - self.left) * min(max(time_s / self.end, 0.0), 1.0)

    def y(self, value: float) -> float:
        share = min(max((value - self.low) / (self.high - self.low), 0.0), 1.0)
        return self.bottom - (self.bottom - _TOP) * share

    def xy(self, time_s: float, value: float) -> tuple[float, float]:
        return self.x(time_s), self.y(value)

    def grid(self, value: float, text: str) -> str:
        y = _num(self.y(value))
        line = f'<path class="grid" d="M{_num(self.left)} {y}H{_num(self.right)}"/>'
        return line + (self.y_label(value, text) if text else "")

    def y_label(self, value: float, text: str) -> str:
        return (
            f'<text class="end" x="{_num(self.left - 8)}" y="{_num(self.y(value) + 4)}">'
            f"{_text(text)}</text>"
        )

    def band(self, low: float, high: float, kind: str) -> str:
        top, bottom = self.y(high), self.y(low)
        return (
            f'<rect class="{kind.strip()}" x="{_num(self.left)}" y="{_num(top)}" '
            f'width="{_num(self.right - self.left)}" height="{_num(bottom - top)}"/>'
        )

    def shade(self, no_car: ArrayLike | None) -> str:
        """Shades runs of frames, each frame reaching half-way to its neighbours."""
        if no_car is None:
            return ""
        flags = np.asarray(no_car, bool)
        if flags.shape != self.time_s.shape:
            raise ValueError(f"{len(self.time_s)} times but {len(flags)} flags in no_car")
        edges = np.concatenate([[0.0], (self.time_s[1:] + self.time_s[:-1]) / 2, [self.end]])
        parts = []
        for absent, run in itertools.groupby(range(len(flags)), key=lambda i: bool(flags[i])):
            frames = list(run)
            if absent:
                left, right = self.x(edges[frames[0]]), self.x(edges[frames[-1] + 1])
                parts.append(
                    f'<rect class="nocar" x="{_num(left)}" y="{_num(_TOP)}" '
                    f'width="{_num(right - left)}" height="{_num(self.bottom - _TOP)}">'
                    "<title>no car recognised in these frames</title></rect>"
                )
        return "".join(parts)

    def time_axis(self) -> str:
        step = next((s for s in _TIME_STEPS if self.end / s <= 6), self.end / 5)
        parts = [
            f'<path class="axis" d="M{_num(self.left)} {_num(self.bottom)}H{_num(self.right)}"/>'
        ]
        for i in range(math.floor(self.end / step + 1e-9) + 1):
            text = clock(i * step)
            x = _num(self.x(i * step))
            parts.append(
                f'<path class="axis" d="M{x} {_num(self.bottom)}v4"/>'
                f'<text x="{x}" y="{_num(self.bottom + 18)}">'
                f"{text if step < 1 else text[:-2]}</text>"
            )
        parts.append(
            f'<text class="end unit" x="{_num(self.right)}" y="{_num(self.height - 5)}">'
            "time (m:ss)</text>"
        )
        return "".join(parts)

    def title(self, text: str) -> str:
        return f'<text class="start unit" x="{_num(self.left)}" y="14">{_text(text)}</text>'

    def remark(self, text: str) -> str:
        return f'<text class="end remark" x="{_num(self.right)}" y="14">{_text(text)}</text>'

    def line(self, *, area: bool) -> str:
        finite = np.isfinite(self.values)
        if not finite.any():
            return ""
        times, values = _thin(self.time_s[finite], self.values[finite])
        points = [self.xy(t, v) for t, v in zip(times, values, strict=True)]
        if len(points) == 1:
            return _circle("single", *points[0], 3, "")
        path = _path(points)
        under = (
            f'<path class="area" d="{path}V{_num(self.bottom)}H{_num(points[0][0])}Z"/>'
            if area
            else ""
        )
        return f'{under}<path class="line" d="{path}"/>'

    def stem(self, mark: Mark) -> str:
        x, y = self.xy(mark.time_s, mark.value)
        return f'<path class="stem" d="M{_num(x)} {_num(y)}V{_num(self.bottom)}"/>'

    def mark(self, mark: Mark, kind: str) -> str:
        return _circle(kind, *self.xy(mark.time_s, mark.value), 5, mark.text)

    def svg(self, said: str, parts: Sequence[str]) -> str:
        # What components.js needs to place its cursor: the plot's edges, its length and range.
        edges = (self.left, _TOP, self.right, self.bottom, self.end, self.low, self.high)
        plot = " ".join(f"{edge:.6g}" for edge in edges)
        return (
            f'<svg class="timeline" viewBox="0 0 {_num(_WIDTH)} {_num(self.height)}" role="img" '
            f'data-plot="{plot}" aria-label="{_text(said)}">{"".join(parts)}</svg>'
        )


def _thin(time_s: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Keeps the lowest and the highest point of each stretch, so that no peak is lost."""
    if len(values) <= MAX_POINTS:
        return time_s, values
    kept: set[int] = set()
    for stretch in np.array_split(np.arange(len(values)), MAX_POINTS // 2):
        kept |= {int(stretch[values[stretch].argmin()]), int(stretch[values[stretch].argmax()])}
    index = sorted(kept)
    return time_s[index], values[index]


# ------------------------------------------------------------------------------ markup


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


def _spoke(azimuth_deg: float) -> str:
    (x0, y0), (x1, y1) = polar_xy(azimuth_deg, _INNER), polar_xy(azimuth_deg, _RIM)
    return f'<path class="grid" d="M{_num(x0)} {_num(y0)}L{_num(x1)} {_num(y1)}"/>'


def _arc(start_deg: float, end_deg: float) -> str:
    """An arc of the rim; azimuth grows counter-clockwise, which is SVG's sweep 0."""
    (x0, y0), (x1, y1) = polar_xy(start_deg, _RIM), polar_xy(end_deg, _RIM)
    large = int(end_deg - start_deg > 180)
    radius = _num(_RIM)
    return f"M{_num(x0)} {_num(y0)}A{radius} {radius} 0 {large} 0 {_num(x1)} {_num(y1)}"


def _circle(kind: str, x: float, y: float, radius: float, title: str) -> str:
    start = f'<circle class="{kind}" cx="{_num(x)}" cy="{_num(y)}" r="{_num(radius)}"'
    return f"{start}><title>{_text(title)}</title></circle>" if title else f"{start}/>"


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{_num(x)} {_num(y)}" for x, y in points)


def _num(value: float) -> str:
    """A coordinate to one decimal, without trailing zeros or a minus zero."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def _text(value: str) -> str:
    return html.escape(value, quote=True)
