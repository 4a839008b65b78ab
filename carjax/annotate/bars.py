"""The bars of an attribute's class probabilities, averaged up to now."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from carjax.annotate import paint
from carjax.annotate.layout import Rect
from carjax.wording import percent

# More classes than this are too many to tell apart: the five most probable are shown.
MOST = 12
TOP = 5
# This many stand in one column.
_COLUMN = 6
_HEADING = 28


@dataclasses.dataclass(frozen=True)
class Line:
    """One class of the bars.

    Attributes:
        name: the class.
        share: its probability in [0, 1], to a thousandth.
        leads: whether it is the most probable one.
    """

    name: str
    share: float
    leads: bool


def lines(classes: Sequence[str], probs: np.ndarray | None) -> list[Line]:
    """What the bars show: all classes in their order, or the most probable ones of many.

    Args:
        classes: K names.
        probs: float [K], or None before the first frame that shows a car.

    Example:
        >>> [line.name for line in lines(("2", "4"), np.array([0.3, 0.7])) if line.leads]
        ['4']
    """
    if probs is None:
        return [
            Line("" if len(classes) > MOST else n, 0.0, False) for n in classes[: _count(classes)]
        ]
    shown: Sequence[int] = range(len(classes))
    if len(classes) > MOST:
        shown = np.argsort(-probs, kind="stable")[:TOP].tolist()
    best = int(np.argmax(probs))
    return [Line(classes[i], round(float(probs[i]), 3), i == best) for i in shown]


def places(classes: Sequence[str], area: Rect) -> list[Rect]:
    """Where each line stands in the area: a column, or two of them, under the heading."""
    count = _count(classes)
    columns = 1 if count <= _COLUMN or area.h >= _HEADING + 18 * count else 2
    rows = -(-count // columns)
    pitch = min((area.h - _HEADING) / rows, 30)
    width = (area.w - 20 * (columns - 1)) // columns
    return [
        Rect(
            area.x + (i // rows) * (width + 20),
            area.y + _HEADING + round((i % rows) * pitch),
            width,
            int(pitch),
        )
        for i in range(count)
    ]


def heading(image: np.ndarray, area: Rect, text: str) -> None:
    """The attribute's name over its bars."""
    paint.write(image, area.x, area.y + 14, text, 17, paint.TEXT, paint.STRONG)


def draw_line(image: np.ndarray, place: Rect, line: Line, label_width: int) -> None:
    """Draws one class: its name, its bar and its percentage."""
    paint.clear(image, place)
    size = 13 if place.h >= 20 else 12
    colour = paint.TEXT if line.leads else paint.MUTED
    baseline = place.y + place.h / 2 + size * 0.36
    name = paint.fitted(line.name, size, label_width)
    paint.write(image, place.x, baseline, name, size, colour)
    if not line.name:
        return
    left = place.x + label_width + 10
    thick = 8 if place.h >= 22 else 6
    middle = place.y + (place.h - thick) // 2
    track = Rect(left, middle, place.x + place.w - 42 - left, thick)
    paint.bar(image, track, line.share, paint.BLUE if line.leads else paint.SOFT_BLUE)
    paint.write(
        image, place.x + place.w, baseline, percent(line.share), size, colour, align="right"
    )


def label_width(classes: Sequence[str], place: Rect) -> int:
    """The room that the names need: the longest one, at most 55% of the line."""
    size = 13 if place.h >= 20 else 12
    return min(max(paint.text_width(name, size) for name in classes), round(0.55 * place.w))


def _count(classes: Sequence[str]) -> int:
    return len(classes) if len(classes) <= MOST else TOP
