"""Markup of inline SVG charts: each function returns a piece of it as a string.

Charts set geometry only; colours come from the classes of `style.css`, so that one chart serves
light mode, dark mode and paper. Coordinates are rounded to a tenth of a unit. All text is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from carjax.wording import percent


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
        f'aria-label="certainty {html.escape(percent(filled))}">'
        f'<rect class="track" width="100" height="6"/>'
        f'<rect class="fill" width="{number(100 * filled)}" height="6"/></svg>'
    )


def circle(kind: str, x: float, y: float, radius: float, title: str) -> str:
    """A circle; `title` is its tooltip, "" for none."""
    start = f'<circle class="{kind}" cx="{number(x)}" cy="{number(y)}" r="{number(radius)}"'
    return f"{start}><title>{html.escape(title)}</title></circle>" if title else f"{start}/>"


def path_data(points: Iterable[Iterable[float]]) -> str:
    """The `d` of a `<path>`: straight lines between points, x and y in SVG units each."""
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)


def number(value: float) -> str:
    """A coordinate to one decimal, without trailing zeros or a minus zero."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
