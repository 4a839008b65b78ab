"""Strokes on an image: text, bars, scrims; uint8 [H, W, 3] RGB, painted in place.

OpenCV 5 draws text with antialiased outlines (its built-in variable font, Rubik), a string in
about 10 µs, so that no glyph needs to be kept.
"""

from __future__ import annotations

import functools
from typing import Literal

import cv2
import numpy as np

from carjax.annotate.layout import Rect

Colour = tuple[int, int, int]

# The report's colours in the dark.
PAGE: Colour = (14, 20, 27)
SUNK: Colour = (34, 45, 57)
RULE: Colour = (51, 64, 78)
TEXT: Colour = (233, 238, 244)
MUTED: Colour = (165, 179, 194)
BLUE: Colour = (120, 180, 255)
SOFT_BLUE: Colour = (66, 98, 140)
RED: Colour = (255, 99, 88)

REGULAR, STRONG = 400, 600


@functools.cache
def _face() -> cv2.FontFace:
    return cv2.FontFace("sans")


@functools.lru_cache(maxsize=4096)
def text_width(text: str, size: int, weight: int = REGULAR) -> int:
    """The width of a line of text in pixels."""
    return int(cv2.getTextSize((1, 1), text, (0, 0), _face(), size, weight)[2])


def fitted(text: str, size: int, width: int, weight: int = REGULAR) -> str:
    """The text, cut with an ellipsis where it is wider than that."""
    if text_width(text, size, weight) <= width:
        return text
    while text and text_width(text + "…", size, weight) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def write(
    image: np.ndarray,
    x: float,
    y: float,
    text: str,
    size: int,
    colour: Colour = TEXT,
    weight: int = REGULAR,
    align: Literal["left", "middle", "right"] = "left",
) -> None:
    """Writes one line of text with its baseline at y."""
    if align != "left":
        x -= text_width(text, size, weight) / (2 if align == "middle" else 1)
    cv2.putText(image, text, (round(x), round(y)), colour, _face(), size, weight)


def clear(image: np.ndarray, rect: Rect) -> None:
    """Paints a rectangle in the page's colour."""
    image[rect.rows, rect.columns] = PAGE


def bar(image: np.ndarray, rect: Rect, share: float, colour: Colour) -> None:
    """A horizontal bar, filled to a share in [0, 1]; its end is exact to a fraction of a pixel."""
    area = image[rect.rows, rect.columns]
    end = min(max(share, 0.0), 1.0) * rect.w
    whole = int(end)
    area[:, :whole] = colour
    area[:, whole:] = SUNK
    if whole < rect.w:
        part = end - whole
        area[:, whole] = [
            round(part * a + (1 - part) * b) for a, b in zip(colour, SUNK, strict=True)
        ]


def scrim(image: np.ndarray, rect: Rect, strength: float = 0.62) -> None:
    """Darkens a strip, so that text on it can be read."""
    area = image[rect.rows, rect.columns]
    cv2.convertScaleAbs(area, area, 1 - strength, 0)


def points(xy: np.ndarray) -> np.ndarray:
    """Coordinates [N, 2] as OpenCV's fixed-point numbers with `SHIFT` bits behind the point."""
    return np.rint(np.asarray(xy) * (1 << SHIFT)).astype(np.int32).reshape(-1, 1, 2)


SHIFT = 4


def stroke(
    image: np.ndarray, xy: np.ndarray, colour: Colour, thickness: int, closed: bool = False
) -> None:
    """An antialiased line through points [N, 2]."""
    cv2.polylines(image, [points(xy)], closed, colour, thickness, cv2.LINE_AA, SHIFT)


def fill(image: np.ndarray, xy: np.ndarray, colour: Colour) -> None:
    """An antialiased polygon with corners [N, 2]."""
    cv2.fillPoly(image, [points(xy)], colour, cv2.LINE_AA, SHIFT)
