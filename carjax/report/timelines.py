"""Charts over the time of a video: pure functions from numbers to one `<svg>` as a string.

Lines of more than 600 points are thinned. Values that are not finite are left out.
"""

from __future__ import annotations

import dataclasses
import html
import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from carjax.attributes import VIEWS, view_deg
from carjax.report.svg import circle, number, path_data
from carjax.wording import clock, degrees, label, percent

MAX_POINTS = 600

# As wide as a phone, so that the text stays readable when it is scaled to fit.
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
        middle = view_deg(view)
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
            strokes = "".join(f"M{number(x)} {number(y)}h0" for x, y in points)
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
        y = number(self.y(value))
        line = f'<path class="grid" d="M{number(self.left)} {y}H{number(self.right)}"/>'
        return line + (self.y_label(value, text) if text else "")

    def y_label(self, value: float, text: str) -> str:
        return (
            f'<text class="end" x="{number(self.left - 8)}" y="{number(self.y(value) + 4)}">'
            f"{html.escape(text)}</text>"
        )

    def band(self, low: float, high: float, kind: str) -> str:
        top, bottom = self.y(high), self.y(low)
        return (
            f'<rect class="{kind.strip()}" x="{number(self.left)}" y="{number(top)}" '
            f'width="{number(self.right - self.left)}" height="{number(bottom - top)}"/>'
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
                    f'<rect class="nocar" x="{number(left)}" y="{number(_TOP)}" '
                    f'width="{number(right - left)}" height="{number(self.bottom - _TOP)}">'
                    "<title>no car recognised in these frames</title></rect>"
                )
        return "".join(parts)

    def time_axis(self) -> str:
        step = next((s for s in _TIME_STEPS if self.end / s <= 6), self.end / 5)
        left, right, y = (number(v) for v in (self.left, self.right, self.bottom))
        parts = [f'<path class="axis" d="M{left} {y}H{right}"/>']
        for i in range(math.floor(self.end / step + 1e-9) + 1):
            text = clock(i * step)
            x = number(self.x(i * step))
            parts.append(
                f'<path class="axis" d="M{x} {number(self.bottom)}v4"/>'
                f'<text x="{x}" y="{number(self.bottom + 18)}">'
                f"{text if step < 1 else text[:-2]}</text>"
            )
        parts.append(
            f'<text class="end unit" x="{number(self.right)}" y="{number(self.height - 5)}">'
            "time (m:ss)</text>"
        )
        return "".join(parts)

    def title(self, text: str) -> str:
        x = number(self.left)
        return f'<text class="start unit" x="{x}" y="14">{html.escape(text)}</text>'

    def remark(self, text: str) -> str:
        x = number(self.right)
        return f'<text class="end remark" x="{x}" y="14">{html.escape(text)}</text>'

    def line(self, *, area: bool) -> str:
        finite = np.isfinite(self.values)
        if not finite.any():
            return ""
        times, values = _thin(self.time_s[finite], self.values[finite])
        points = [self.xy(t, v) for t, v in zip(times, values, strict=True)]
        if len(points) == 1:
            return circle("single", *points[0], 3, "")
        path = path_data(points)
        under = (
            f'<path class="area" d="{path}V{number(self.bottom)}H{number(points[0][0])}Z"/>'
            if area
            else ""
        )
        return f'{under}<path class="line" d="{path}"/>'

    def stem(self, mark: Mark) -> str:
        x, y = self.xy(mark.time_s, mark.value)
        return f'<path class="stem" d="M{number(x)} {number(y)}V{number(self.bottom)}"/>'

    def mark(self, mark: Mark, kind: str) -> str:
        return circle(kind, *self.xy(mark.time_s, mark.value), 5, mark.text)

    def svg(self, said: str, parts: Sequence[str]) -> str:
        # What components.js needs to place its cursor: the plot's edges, its length and range.
        edges = (self.left, _TOP, self.right, self.bottom, self.end, self.low, self.high)
        plot = " ".join(f"{edge:.6g}" for edge in edges)
        return (
            f'<svg class="timeline" viewBox="0 0 {number(_WIDTH)} {number(self.height)}" '
            f'role="img" data-plot="{plot}" aria-label="{html.escape(said)}">'
            f"{''.join(parts)}</svg>"
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
