"""Decoded pictures as upright RGB arrays with square pixels."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import Colorspace, VideoReformatter

from carjax.errors import CarjaxError
from carjax.video import hdr


class Orientation(NamedTuple):
    """How a stored picture becomes upright: transposed first, then flipped."""

    transpose: bool
    flip_x: bool
    flip_y: bool
    rotation: int


# Of ITU-T H.273's matrix coefficients.
_UNSPECIFIED = 2
_HD_LINES = 720
_UPRIGHT = Orientation(transpose=False, flip_x=False, flip_y=False, rotation=0)


def shown_size(width: int, height: int, aspect: float, max_side: int | None) -> tuple[int, int]:
    """Width and height of a stored picture as shown, before turning.

    Args:
        width: stored pixels.
        height: stored pixels.
        aspect: a stored pixel's width over its height; one side is stretched, none is shrunk.
        max_side: then both shrink until no side has more pixels; None: they do not.

    Example:
        >>> shown_size(720, 576, 16 / 15, None), shown_size(1920, 1080, 1.0, 640)
        ((768, 576), (640, 360))
    """
    if aspect >= 1:
        width = round(width * aspect)
    else:
        height = round(height / aspect)
    if max_side is not None and max(width, height) > max_side:
        scale = max_side / max(width, height)
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
    return width, height


class Renderer:
    """Turns the decoded frames of one pass into upright RGB images with square pixels.

    Args:
        name: the path, with which an error's line begins.
        aspect: a stored pixel's width over its height.
    """

    def __init__(self, name: str, aspect: float) -> None:
        self._name = name
        self._aspect = aspect
        self._reformatter = VideoReformatter()  # keeps its tables from frame to frame
        self._turned: tuple[int, Orientation] | None = None

    def orientation(self, raw: av.VideoFrame) -> Orientation:
        """How to turn this frame.

        Reading side data makes a reference cycle that keeps the frame's memory until the next
        garbage collection, so it is read again only when the rotation changes.
        """
        if self._turned is None or self._turned[0] != raw.rotation:
            self._turned = raw.rotation, _orientation(raw)
        return self._turned[1]

    def size(self, raw: av.VideoFrame) -> tuple[int, int]:
        """Width and height with square pixels, before turning."""
        return shown_size(raw.width, raw.height, self._aspect, None)

    def render(self, raw: av.VideoFrame, max_side: int | None) -> np.ndarray:
        """The upright image, uint8 [H, W, 3].

        Raises:
            CarjaxError: FFmpeg does not know the colours.
        """
        width, height = shown_size(raw.width, raw.height, self._aspect, max_side)
        smaller = width * height < raw.width * raw.height
        transfer = int(raw.color_trc)
        bright = transfer in (hdr.PQ, hdr.HLG)
        try:
            rgb = self._reformatter.reformat(
                raw,
                width=width,
                height=height,
                format="rgb48le" if bright else "rgb24",
                interpolation="AREA" if smaller else "BILINEAR",
                src_colorspace=_matrix(raw),
            ).to_ndarray()
        except av.FFmpegError as error:
            # Swscale knows a part of the matrices of ITU-T H.273.
            colours = f"{raw.format.name}, matrix {int(raw.colorspace)}"
            raise CarjaxError(
                f"{self._name}: its colours ({colours}) cannot be converted; "
                "convert the video to BT.709"
            ) from error
        return upright(hdr.to_srgb(rgb, transfer) if bright else rgb, self.orientation(raw))


def _matrix(raw: av.VideoFrame) -> Colorspace | None:
    """The matrix of a frame's colours where the file states none; None: what the file says.

    FFmpeg takes BT.601 at any size. From 720 lines on it is BT.709 instead, as Chromium plays such
    videos (media/ffmpeg/ffmpeg_common.cc, AVStreamToVideoDecoderConfig).
    """
    unstated = int(raw.colorspace) == _UNSPECIFIED and raw.height >= _HD_LINES
    return Colorspace.ITU709 if unstated and not raw.format.is_rgb else None


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


def upright(image: np.ndarray, orientation: Orientation) -> np.ndarray:
    """Turns a stored picture, [H, W, 3]."""
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
