"""Where everything stands in an annotated frame: rectangles in pixels, and nothing else.

Landscape videos give a picture of 1280 × 720, or lower for one attribute; portrait ones, of all
attributes, one of 720 × 1280. All sides are even, as H.264 with 4:2:0 chroma needs them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

MARGIN = 28
GAP = 24
# A line of captions over what it names.
CAPTION = 24
WIDE = 16 / 9
# One row per attribute: lower ones could not hold their bars.
_MIN_ROW = 124


class Rect(NamedTuple):
    """A rectangle in pixels: its left and top edge, its width and height."""

    x: int
    y: int
    w: int
    h: int

    @property
    def rows(self) -> slice:
        """Its rows of an image."""
        return slice(self.y, self.y + self.h)

    @property
    def columns(self) -> slice:
        """Its columns of an image."""
        return slice(self.x, self.x + self.w)


@dataclasses.dataclass(frozen=True)
class Panel:
    """Where an attribute stands: the bars of its classes, and its best frame."""

    name: str
    bars: Rect
    photo: Rect


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where everything stands.

    Attributes:
        width: of the picture in pixels, even.
        height: of the picture in pixels, even.
        frame: the current frame of the video.
        panels: the categorical attributes.
        ring: the views around the coverage map; None without directions.
    """

    width: int
    height: int
    frame: Rect
    panels: tuple[Panel, ...]
    ring: Rect | None


def arrange(aspect: float, attributes: Sequence[str], directions: bool) -> Layout:
    """Chooses where everything stands.

    Args:
        aspect: width over height of the video's frames.
        attributes: names of the categorical attributes, in the order of their rows.
        directions: whether to show the views and the coverage map.

    Returns:
        The article's three columns for one attribute; else the grid.

    Example:
        >>> arrange(16 / 9, ("type", "brand", "doors", "seats"), True).frame
        Rect(x=28, y=52, w=480, h=270)
        >>> grid = arrange(9 / 16, ("type", "brand", "doors", "seats"), True)
        >>> grid.width, grid.height
        (720, 1280)
    """
    if len(attributes) == 1 and not directions:
        return _columns(aspect, attributes[0])
    if not attributes:
        return _directions(aspect)
    return (
        _portrait(aspect, attributes, directions)
        if aspect < 1
        else _landscape(aspect, attributes, directions)
    )


def _landscape(aspect: float, attributes: Sequence[str], directions: bool) -> Layout:
    width, left = 1280, 480
    height = _even(max(720, MARGIN + CAPTION + len(attributes) * (_MIN_ROW + GAP) - GAP + MARGIN))
    top = MARGIN + CAPTION
    frame = _fitted(aspect, Rect(MARGIN, top, left, 288))
    ring = None
    if directions:
        below = frame.y + frame.h + 2 * CAPTION + 14
        ring = Rect(MARGIN, below, left, height - MARGIN - below)
    x = MARGIN + left + 36
    panels = _rows(attributes, Rect(x, top, width - MARGIN - x, height - MARGIN - top))
    return Layout(width, height, frame, panels, ring)


def _portrait(aspect: float, attributes: Sequence[str], directions: bool) -> Layout:
    width = 720
    top = MARGIN + CAPTION
    frame = _fitted(aspect, Rect(MARGIN, top, 340 if directions else width - 2 * MARGIN, 520))
    ring = None
    if directions:
        x = MARGIN + frame.w + GAP
        ring = Rect(x, top, width - MARGIN - x, frame.h)
    y = top + frame.h + 2 * CAPTION + 14
    height = _even(max(1280, y + len(attributes) * (_MIN_ROW + GAP) - GAP + MARGIN))
    panels = _rows(attributes, Rect(MARGIN, y, width - 2 * MARGIN, height - MARGIN - y))
    return Layout(width, height, frame, panels, ring)


def _columns(aspect: float, name: str) -> Layout:
    """The article's layout: the current frame, the bars, the best frame so far."""
    width, top = 1280, MARGIN + CAPTION
    frame = _fitted(aspect, Rect(MARGIN, top, 452, 604))
    inner = max(frame.h, 264)
    height = _even(top + inner + CAPTION + 8 + MARGIN)
    photo = Rect(width - MARGIN - frame.w, top, frame.w, frame.h)
    x = MARGIN + frame.w + 32
    bars = Rect(x, top, photo.x - 32 - x, min(inner, 420))
    return Layout(width, height, frame, (Panel(name, bars, photo),), None)


def _directions(aspect: float) -> Layout:
    width, top = 1280, MARGIN + CAPTION
    frame = _fitted(aspect, Rect(MARGIN, top, 600, 604))
    inner = max(frame.h, 460)
    x = MARGIN + frame.w + 40
    ring = Rect(x, top, width - MARGIN - x, inner)
    return Layout(width, _even(top + inner + CAPTION + 8 + MARGIN), frame, (), ring)


def _rows(attributes: Sequence[str], area: Rect) -> tuple[Panel, ...]:
    pitch = (area.h + GAP) / len(attributes)
    height = min(int(pitch) - GAP, 220)
    photo = round(height * WIDE)
    panels = []
    for i, name in enumerate(attributes):
        y = area.y + round(i * pitch)
        panels.append(
            Panel(
                name,
                Rect(area.x, y, area.w - photo - GAP, height),
                Rect(area.x + area.w - photo, y, photo, height),
            )
        )
    return tuple(panels)


def _fitted(aspect: float, area: Rect) -> Rect:
    """The largest rectangle of that aspect at the top left of an area."""
    width = min(area.w, round(area.h * aspect))
    return Rect(area.x, area.y, max(2, width), max(2, round(width / aspect)))


def _even(value: int) -> int:
    return value + value % 2
