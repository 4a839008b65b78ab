"""Regions that no export shows: averaged so coarsely that no writing survives.

Plates and faces are not found by themselves: a region is named by hand, and is the same in every
frame of the video.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from carjax.errors import UsageError

# Left, top, width and height as fractions of the frame.
Box = tuple[float, float, float, float]

# A region's longer side keeps this many cells: fewer than the characters of a plate.
_CELLS = 4
# Their colours are rounded to this, so that many frames of one plate do not add up to it again.
_STEP = 16


def parse(text: str) -> Box:
    """Reads `x,y,w,h`: fractions of the frame if all are at most 1, else pixels.

    Raises:
        UsageError: these are not four numbers, or a side is not above 0.

    Example:
        >>> parse("0.1,0.5,0.2,0.1")
        (0.1, 0.5, 0.2, 0.1)
    """
    try:
        x, y, w, h = (float(word) for word in text.split(","))
        if not all(map(math.isfinite, (x, y, w, h))):
            raise ValueError("no number")
    except ValueError:
        raise UsageError(
            f"redact: {text!r} is not x,y,w,h (left, top, width, height; in pixels, or as "
            "fractions of the frame)"
        ) from None
    if w <= 0 or h <= 0:
        raise UsageError(f"redact: {text!r} has no width or no height")
    return x, y, w, h


def fractions(box: Box, width: int, height: int) -> Box:
    """The part of a region that lies in the frame, as fractions of it.

    Args:
        box: as from `parse`.
        width: of the frame in pixels, upright.
        height: of the frame in pixels, upright.

    Raises:
        UsageError: nothing of it lies inside, or some are pixels and some fractions.

    Example:
        >>> fractions((64, 36, 128, 36), 640, 360)
        (0.1, 0.1, 0.2, 0.1)
    """
    if math.isfinite(sum(box)) and max(box) > 1:
        # Else a fraction that is too large would make pixels of all, and nothing would be hidden.
        if not all(float(v).is_integer() for v in box):
            raise UsageError(
                f"redact: {_text(box)} is neither whole pixels nor fractions of the frame, "
                "at most 1 each"
            )
        x, y, w, h = box
        if x >= width or y >= height or x + w <= 0 or y + h <= 0:
            raise UsageError(
                f"redact: {_text(box)} lies outside of the frame, which has {width}×{height} pixels"
            )
        return inside((x / width, y / height, w / width, h / height))
    return inside(box)


def inside(box: Box) -> Box:
    """The part of a region, as fractions, that lies in the frame.

    Raises:
        UsageError: nothing of it does, or it is no region.

    Example:
        >>> inside((0.9, -0.5, 0.2, 1.0))
        (0.9, 0.0, 0.1, 0.5)
    """
    if not all(map(math.isfinite, box)):
        raise UsageError(f"redact: {_text(box)} is no region")
    x, y, w, h = box
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + w, 1.0), min(y + h, 1.0)
    if left >= right or top >= bottom:
        raise UsageError(f"redact: {_text(box)} lies outside of the frame")
    return left, top, round(right - left, 9), round(bottom - top, 9)


def _text(box: Box) -> str:
    return ",".join(f"{v:g}" for v in box)


def blurred(image: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
    """Returns an image without what the regions held; the same object where there are none.

    Args:
        image: uint8 [H, W, 3], of any size.
        boxes: fractions of the frame.

    Example:
        >>> image = np.arange(48 * 48 * 3, dtype=np.uint8).reshape(48, 48, 3)
        >>> len(np.unique(blurred(image, [(0.0, 0.0, 1.0, 1.0)]).reshape(-1, 3), axis=0)) <= 16
        True
    """
    if not boxes:
        return image
    import cv2

    image = image.copy()
    height, width = image.shape[:2]
    for left, top, across, down in boxes:
        # Outwards: a pixel that the region touches is covered.
        x0, x1 = int(left * width), min(width, math.ceil(round((left + across) * width, 6)))
        y0, y1 = int(top * height), min(height, math.ceil(round((top + down) * height, 6)))
        x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
        region = image[y0:y1, x0:x1]
        scale = _CELLS / max(region.shape[:2])
        cells = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
        coarse = cv2.resize(region, cells, interpolation=cv2.INTER_AREA)
        coarse = coarse // _STEP * _STEP + _STEP // 2
        image[y0:y1, x0:x1] = cv2.resize(
            coarse, (x1 - x0, y1 - y0), interpolation=cv2.INTER_NEAREST
        )
    return image
