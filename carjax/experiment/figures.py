"""The experiment's charts as SVG files: pure functions from `hypothesis.json` to text.

Each is a whole file with its own style, because a Markdown page shows it as an image.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from carjax.report.polar import polar_xy

# One colour per picker, attribute and protocol, told apart by people with colour blindness, too
# (Okabe and Ito, 2008).
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000", "#999")
_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.end{text-anchor:end}.mid{text-anchor:middle}"
    ".tick{font-size:9px;fill:#777}.head{font-weight:600;font-size:13px}.grid{stroke:#ddd;fill:none}.axis{stroke:#888;fill:none}"
    ".line{fill:none;stroke-width:2}.band{opacity:.18}.bar{stroke-width:2}"
    ".accuracy{fill:none;stroke:#333;stroke-width:1.2;stroke-dasharray:4 3}"
)
_COLUMNS = 4
_PANEL_W, _PANEL_H, _LEFT, _TOP, _RIGHT, _BOTTOM = 300.0, 230.0, 46.0, 34.0, 10.0, 42.0
# A polar plot of `polar_xy`: the centre, and the radius of 100%.
_CENTRE, _RIM, _POLAR = 200.0, 140.0, 400.0


def all_figures(content: Mapping[str, Any]) -> dict[str, str]:
    """Returns every chart that the content has the figures for: file name → SVG."""
    photos = content["photos"]
    figures = {"choice.svg": choice(photos), "entropy.svg": entropy(photos)}
    figures["risk_coverage.svg"] = risk_coverage(photos)
    for protocol, run in photos.items():
        figures[f"views_{protocol.split()[0]}.svg"] = views(run, protocol)
    if "pairs" in content:
        figures["pairs.svg"] = win_rates(content["pairs"])
    return figures


def choice(photos: Mapping[str, Any]) -> str:
    """Accuracy of each picker's frame with its interval: a panel per protocol and attribute."""
    panels = []
    for protocol, run in photos.items():
        for name, own in run.items():
            pickers = own["choice"]["pickers"]
            if not pickers:
                continue
            low = min(p["ci95"][0] for p in pickers.values())
            panel = _Panel(f"{name}, {protocol}: accuracy", (0, len(pickers)), (_floor(low), 1.0))
            for i, (picker, figures) in enumerate(pickers.items()):
                panel.interval(i + 0.5, figures["accuracy"], figures["ci95"], _COLOURS[i])
                panel.below(i + 0.5, picker)
            panels.append(panel.text())
    return _grid(panels, "Accuracy of the chosen frame, by who chooses it.")


def entropy(photos: Mapping[str, Any]) -> str:
    """Accuracy against mean certainty in bins of equal mass: a panel per attribute."""
    panels = []
    for name in _attributes(photos):
        panel = _Panel(f"{name}: accuracy", (0, 1), (0, 1))
        panel.across((0, 0.5, 1), "certainty, 1 − H/log K")
        for i, (protocol, run) in enumerate(photos.items()):
            if name in run:
                rows = run[name]["entropy"]["bins"]
                x = [row["certainty"] for row in rows]
                panel.line(x, [row["accuracy"] for row in rows], _COLOURS[i])
                for row in rows:
                    panel.interval(row["certainty"], row["accuracy"], row["ci95"], _COLOURS[i])
                panel.legend(i, protocol, _COLOURS[i])
        panels.append(panel.text())
    return _grid(panels, "Accuracy by certainty, in bins of equal mass.")


def risk_coverage(photos: Mapping[str, Any]) -> str:
    """Share of wrong photos among the surest: a panel per protocol, a line per attribute."""
    panels = []
    curves = [own["entropy"]["risk_coverage"] for run in photos.values() for own in run.values()]
    top = max(max(curve["risk"]) for curve in curves)
    for protocol, run in photos.items():
        panel = _Panel(f"{protocol}: share wrong", (0, 1), (0, _ceiling(top)))
        panel.across((0, 0.5, 1), "share of photos, surest first")
        for i, (name, own) in enumerate(run.items()):
            curve = own["entropy"]["risk_coverage"]
            panel.line(curve["coverage"], curve["risk"], _COLOURS[i])
            panel.legend(i, name, _COLOURS[i], top=True)
        panels.append(panel.text())
    return _grid(panels, "Risk and coverage.")


def views(run: Mapping[str, Any], protocol: str) -> str:
    """Mean certainty (colour, with its band) and accuracy (dashed) over the true azimuth.

    The car is seen from above with its nose up, as in the coverage map of a report; the distance
    from the centre is the value, and the outer circle is 1.
    """
    plots = []
    for i, (name, own) in enumerate(run.items()):
        figures = own["views"]
        if figures["photos"]:
            plots.append(_polar(f"{name}, {protocol}", figures, _COLOURS[i]))
    body = "".join(
        f'<g transform="translate({_POLAR * (k % 2):.0f} {_POLAR * (k // 2):.0f})">{plot}</g>'
        for k, plot in enumerate(plots)
    )
    rows = (len(plots) + 1) // 2
    return _svg(2 * _POLAR, max(rows, 1) * _POLAR, "Certainty by viewpoint.", body)


def win_rates(pairs: Mapping[str, Any]) -> str:
    """How often viewers preferred the chosen frame: a panel per rival, a bar per attribute."""
    table = pairs["win_rate"]
    parts = ["all", *pairs["attributes"]]
    panels = []
    for rival in table["all"]:
        panel = _Panel(f"against {rival}: win rate", (0, len(parts)), (0, 1))
        for i, part in enumerate(parts):
            if rival in table[part]:
                figures = table[part][rival]
                panel.interval(i + 0.5, figures["wins"], figures["ci95"], _COLOURS[i])
            panel.below(i + 0.5, part)
        panel.level(0.5)
        panels.append(panel.text())
    return _grid(panels, "Win rate of the chosen frame in blind pairs.")


def _attributes(photos: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(name for run in photos.values() for name in run))


def _floor(value: float) -> float:
    """The next lower fifth."""
    return max(0.0, float(np.floor(5 * value) / 5))


def _ceiling(value: float) -> float:
    """The next higher fifth."""
    return max(0.2, float(np.ceil(5 * value) / 5))


def _polar(title: str, figures: Mapping[str, Any], colour: str) -> str:
    azimuth = figures["azimuth_deg"]

    def loop(values: Sequence[float]) -> str:
        points = [polar_xy(a, _RIM * v) for a, v in zip(azimuth, values, strict=True)]
        return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z"

    low, high = np.array(figures["certainty_ci95"]).T
    parts = [f'<text class="head mid" x="{_CENTRE}" y="18">{html.escape(title)}</text>']
    for share in (0.25, 0.5, 0.75, 1.0):
        radius = f"{_RIM * share:.1f}"
        parts.append(f'<circle class="grid" cx="{_CENTRE}" cy="{_CENTRE}" r="{radius}"/>')
        above = f"{_CENTRE + _RIM * share - 3:.1f}"
        label = f"{100 * share:.0f}%"
        parts.append(f'<text class="mid tick" x="{_CENTRE}" y="{above}">{label}</text>')
    for degrees, side in ((0, "front"), (90, "left"), (180, "rear"), (270, "right")):
        x, y = polar_xy(degrees, _RIM + 20)
        parts.append(f'<text class="mid" x="{x:.1f}" y="{y + 4:.1f}">{side}</text>')
    parts += [
        # The band is the outer loop with the inner one cut out.
        f'<path class="band" fill="{colour}" fill-rule="evenodd" d="{loop(high)}{loop(low)}"/>',
        f'<path class="line" stroke="{colour}" d="{loop(figures["certainty"])}"/>',
        f'<path class="accuracy" d="{loop(figures["accuracy"])}"/>',
    ]
    return "".join(parts)


def by_share(walks: Mapping[str, Any], keys: Mapping[str, tuple[str, str]]) -> str:
    """Figures of methods by the share of spoilt frames: a panel per figure, a line per method.

    Args:
        walks: share such as '20%' → method → figures; None where a method has none.
        keys: figure → (title, format of a number).
    """
    shares = [float(share.rstrip("%")) for share in walks]
    methods = list(next(iter(walks.values())))
    panels = []
    for key, (title, number) in keys.items():
        lines = {
            name: [own[name][key] for own in walks.values()]
            for name in methods
            if all(own[name][key] is not None for own in walks.values())
        }
        values = [value for line in lines.values() for value in line]
        panel = _Panel(title, (min(shares), max(shares)), (min(0.0, *values), max(values)), number)
        for name, line in lines.items():
            panel.line(shares, line, _COLOURS[methods.index(name) % len(_COLOURS)])
        panel.across(shares, "spoilt frames, percent")
        panels.append(panel.text())
    named = _Panel("", (0, 1), (0, 1), "")
    for row, name in enumerate(methods):
        named.legend(row, name, _COLOURS[row % len(_COLOURS)], top=True)
    return _grid([*panels, named.text()], "Figures by the share of spoilt frames.")


class _Panel:
    """One set of axes; the methods add to it, and `text` gives its markup."""

    def __init__(
        self, title: str, x: tuple[float, float], y: tuple[float, float], number: str = "{:.0%}"
    ) -> None:
        self._x, self._y = x, y
        self._parts = [f'<text class="head" x="{_LEFT}" y="18">{html.escape(title)}</text>']
        bottom = _PANEL_H - _BOTTOM
        for value in np.linspace(*y, 5):
            at = self._at_y(value)
            self._parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{_PANEL_W - _RIGHT}"/>')
            label = number.format(value)
            self._parts.append(f'<text class="end" x="{_LEFT - 6}" y="{at + 4:.1f}">{label}</text>')
        self._parts.append(f'<path class="axis" d="M{_LEFT} {bottom}H{_PANEL_W - _RIGHT}"/>')

    def _at_x(self, value: float) -> float:
        share = (value - self._x[0]) / (self._x[1] - self._x[0])
        return _LEFT + (_PANEL_W - _RIGHT - _LEFT) * min(max(share, 0.0), 1.0)

    def _at_y(self, value: float) -> float:
        share = (value - self._y[0]) / (self._y[1] - self._y[0])
        bottom = _PANEL_H - _BOTTOM
        return bottom - (bottom - _TOP) * min(max(share, 0.0), 1.0)

    def interval(self, x: float, y: float, ci95: Sequence[float], colour: str) -> None:
        """A dot with its interval."""
        low, high = (self._at_y(v) for v in ci95)
        at = self._at_x(x)
        bar = f'<path class="bar" stroke="{colour}" d="M{at:.1f} {low:.1f}V{high:.1f}"/>'
        dot = f'<circle fill="{colour}" cx="{at:.1f}" cy="{self._at_y(y):.1f}" r="3.5"/>'
        self._parts.append(bar + dot)

    def line(self, x: Sequence[float], y: Sequence[float], colour: str) -> None:
        """A line through points."""
        points = (f"{self._at_x(a):.1f} {self._at_y(b):.1f}" for a, b in zip(x, y, strict=True))
        self._parts.append(f'<path class="line" stroke="{colour}" d="M{"L".join(points)}"/>')

    def level(self, value: float) -> None:
        """A dashed line across at a value."""
        at = self._at_y(value)
        self._parts.append(f'<path class="accuracy" d="M{_LEFT} {at:.1f}H{_PANEL_W - _RIGHT}"/>')

    def below(self, x: float, text: str) -> None:
        """A name below the axis."""
        y = _PANEL_H - _BOTTOM + 16
        self._parts.append(
            f'<text class="mid" style="font-size:10px" x="{self._at_x(x):.1f}" y="{y}">'
            f"{html.escape(text)}</text>"
        )

    def across(self, values: Sequence[float], title: str) -> None:
        """Numbers and a title below the axis."""
        for value in values:
            self.below(value, f"{value:g}")
        middle = (_LEFT + _PANEL_W - _RIGHT) / 2
        self._parts.append(
            f'<text class="mid" x="{middle}" y="{_PANEL_H - 8}">{html.escape(title)}</text>'
        )

    def legend(self, row: int, text: str, colour: str, *, top: bool = False) -> None:
        """A line of the legend, in the top left corner or the bottom right one."""
        x, y = _PANEL_W - _RIGHT - 4, _PANEL_H - _BOTTOM - 12 - 15 * row
        if top:
            x, y = _LEFT + 8, _TOP + 14 + 15 * row
        self._parts.append(
            f'<text class="{"start" if top else "end"}" style="fill:{colour}" x="{x}" y="{y}">'
            f"{html.escape(text)}</text>"
        )

    def text(self) -> str:
        """The markup."""
        return "".join(self._parts)


def _grid(panels: Sequence[str], said: str) -> str:
    columns = max(1, min(_COLUMNS, len(panels)))
    body = "".join(
        f'<g transform="translate({_PANEL_W * (i % columns):.0f} {_PANEL_H * (i // columns):.0f})">'
        f"{panel}</g>"
        for i, panel in enumerate(panels)
    )
    rows = max(1, -(-len(panels) // columns))
    return _svg(columns * _PANEL_W, rows * _PANEL_H, said, body)


def _svg(width: float, height: float, said: str, body: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img" aria-label="{html.escape(said)}">'
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>{body}</svg>\n'
    )
