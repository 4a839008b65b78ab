"""Encoded pictures as frames: one file, or bytes from an archive or a table."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from carjax import pictures
from carjax.errors import CarjaxError
from carjax.sources.base import Item, Sample, Source

# Photos come in any number of sizes. All are padded to one of these, so that there are three
# programs; 4:3, a phone's, needs no padding.
LANDSCAPE, PORTRAIT, SQUARE = (480, 640), (640, 480), (640, 640)


def read(source: Source) -> Iterator[Item]:
    """Yields the one frame of an image file."""
    yield sample(source.name, 0, source.read_bytes())


def sample(name: str, frame: int, data: bytes) -> Sample:
    """Returns a picture as a frame.

    Raises:
        CarjaxError: see `decode`.
    """
    image = decode(data)
    height, width = image.shape[:2]
    fits = (c for c in (LANDSCAPE, PORTRAIT) if height <= c[0] and width <= c[1])
    return Sample(name, frame, 0.0, image, next(fits, SQUARE))


def decode(data: bytes, shape: tuple[int, int] | None = None) -> np.ndarray:
    """Decodes a picture for scoring: upright as its EXIF says, no side above 640 pixels.

    A large JPEG is decoded at a half, a quarter or an eighth of its size, as the coefficients
    allow, so that phone photos take a fraction of the time.

    Args:
        data: a JPEG, PNG, WebP, BMP, TIFF or AVIF file.
        shape: squash it to this height and width, whatever its own; scoring squashes the car's
            crop to a square in any case.

    Returns:
        uint8 [H, W, 3], RGB.

    Raises:
        CarjaxError: it cannot be decoded, or is cut short.
    """
    if not data:
        raise CarjaxError("the file is empty")
    flags = cv2.IMREAD_COLOR
    # Of a JPEG alone, only which can be decoded at less than its size.
    longest, whole = (
        pictures.scan_jpeg(data) if pictures.is_jpeg(data) else (0, pictures.is_whole(data))
    )
    if not whole:
        raise CarjaxError("the image is cut short; copy it again")
    for factor, reduced in (
        (8, cv2.IMREAD_REDUCED_COLOR_8),
        (4, cv2.IMREAD_REDUCED_COLOR_4),
        (2, cv2.IMREAD_REDUCED_COLOR_2),
    ):
        if longest >= factor * max(SQUARE):
            flags = reduced
            break
    image = pictures.decoded(data, flags)
    if image is None:
        raise CarjaxError("not an image that can be decoded; give JPEG, PNG or WebP")
    return pictures.resized(image, *shape) if shape else pictures.shrunk(image, max(SQUARE))
