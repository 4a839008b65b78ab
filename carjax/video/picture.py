"""Decoded pictures as upright RGB arrays with square pixels."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import VideoReformatter


class Orientation(NamedTuple):
    """How a stored picture becomes upright: transposed first, then flipped."""

    transpose: bool
    flip_x: bool
    flip_y: bool
    rotation: int


_UPRIGHT = Orientation(transpose=False, flip_x=False, flip_y=False, rotation=0)


class Renderer:
    """Turns the decoded frames of one pass into upright RGB images with square pixels."""

    def __init__(self, aspect: float) -> None:
        self._aspect = aspect
        self._reformatter = VideoReformatter()  # keeps its tables from frame to frame
        self._turned: tuple[int, Orientation] | None = None

    def orientation(self, raw: av.VideoFrame) -> Orientation:
        """How to turn this frame.

        Reading side data makes a reference cycle that keeps the frame's memory until the next
        garbage collection, so it is read again only when the rotation changes.
        """
        rotation = getattr(raw, "rotation", 0)  # PyAV 14.1
        if self._turned is None or self._turned[0] != rotation:
            self._turned = rotation, _orientation(raw)
        return self._turned[1]

    def size(self, raw: av.VideoFrame) -> tuple[int, int]:
        """Width and height with square pixels, before turning; a side is only ever stretched."""
        if self._aspect >= 1:
            return round(raw.width * self._aspect), raw.height
        return raw.width, round(raw.height / self._aspect)

    def render(self, raw: av.VideoFrame, max_side: int | None) -> np.ndarray:
        """The upright image, uint8 [H, W, 3]."""
        width, height = self.size(raw)
        if max_side is not None and max(width, height) > max_side:
            scale = max_side / max(width, height)
            width, height = max(1, round(width * scale)), max(1, round(height * scale))
        smaller = width * height < raw.width * raw.height
        rgb = self._reformatter.reformat(
            raw,
            width=width,
            height=height,
            format="rgb24",
            interpolation="AREA" if smaller else "BILINEAR",
        )
        return _upright(rgb.to_ndarray(), self.orientation(raw))


def _orientation(raw: av.VideoFrame) -> Orientation:
    """Reads the display matrix, rounded to right angles; phones mirror and turn with it.

    The matrix (a b u; c d v; x y w) maps a stored point (p, q), y downwards, to
    (a·p + c·q, b·p + d·q) as shown: ISO/IEC 14496-12, 6.2.2, and FFmpeg's libavutil/display.h.
    """
    data: Any = raw.side_data.get("DISPLAYMATRIX")
    if data is None:
        return _UPRIGHT
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
    rotation = round(math.degrees(math.atan2(b, a)) / 90) * 90 % 360
    if abs(b) > abs(a):
        return Orientation(True, c < 0, b < 0, rotation)
    return Orientation(False, a < 0, d < 0, rotation)


def _upright(image: np.ndarray, orientation: Orientation) -> np.ndarray:
    if orientation == _UPRIGHT:
        return image
    import cv2  # only turned videos need it, and it takes its time to load

    if orientation.transpose:
        image = cv2.transpose(image)
    if orientation.flip_x or orientation.flip_y:
        image = cv2.flip(
            image, -1 if orientation.flip_x and orientation.flip_y else int(orientation.flip_x)
        )
    return image
