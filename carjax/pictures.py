"""Pictures: decoding, encoding and resizing them, and whether all of a file is there."""

from __future__ import annotations

import struct

import cv2
import numpy as np


def decoded(data: bytes, flags: int = cv2.IMREAD_COLOR) -> np.ndarray | None:
    """Decodes a picture by OpenCV, uint8 [H, W, 3] RGB; None where it cannot be decoded.

    Args:
        data: the file.
        flags: of `cv2.imdecode`, for a picture in colour.

    Example:
        >>> decoded(b"no picture") is None
        True
    """
    if not data:
        return None
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # a header that promises more pixels than OpenCV allows
        return None
    return None if image is None else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def jpeg(image: np.ndarray, quality: int) -> bytes:
    """Encodes uint8 [H, W, 3] RGB as a JPEG, without metadata; quality is from 0 to 100.

    Example:
        >>> jpeg(np.zeros((8, 8, 3), np.uint8), 90)[:2].hex()
        'ffd8'
    """
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_OPTIMIZE, 1]
    return cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes()


def resized(image: np.ndarray, height: int, width: int, *, cubic: bool = False) -> np.ndarray:
    """Resizes [H, W, 3]: antialiased where it shrinks, linear (or cubic) where it grows.

    Example:
        >>> resized(np.zeros((8, 6, 3), np.uint8), 4, 12).shape
        (4, 12, 3)
    """
    if image.shape[:2] == (height, width):
        return image
    smaller = height * width < image.shape[0] * image.shape[1]
    method = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC if cubic else cv2.INTER_LINEAR
    return cv2.resize(image, (width, height), interpolation=method)


def shrunk(image: np.ndarray, longest: int) -> np.ndarray:
    """Fits [H, W, 3] into a square of `longest` pixels, its aspect unchanged; never enlarges.

    Example:
        >>> shrunk(np.zeros((8, 6, 3), np.uint8), 4).shape
        (4, 3, 3)
    """
    side = max(image.shape[:2])
    if side <= longest:
        return image
    height, width = (max(1, round(n * longest / side)) for n in image.shape[:2])
    return resized(image, height, width)


def is_whole(data: bytes) -> bool:
    """Whether a JPEG or PNG reaches its end marker; decoders fill in what is missing with grey.

    Other formats count as whole.

    Example:
        >>> image = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
        >>> is_whole(image), is_whole(image[:-4])
        (True, False)
    """
    if data.startswith(b"\x89PNG"):
        return b"IEND\xaeB`\x82" in data
    return not is_jpeg(data) or scan_jpeg(data)[1]


def is_jpeg(data: bytes) -> bool:
    """Whether a file begins as a JPEG does."""
    return data.startswith(b"\xff\xd8")


def scan_jpeg(data: bytes) -> tuple[int, bool]:
    """Returns a JPEG's longest side, and whether it has an end.

    Segments are skipped up to the scan (ITU-T T.81, annex B), since a thumbnail in them has an end
    of its own; in a scan FF D9 is only the end. Stray bytes between segments are passed over, as
    decoders do.
    """
    at, longest = 2, 0
    while 0 <= (at := data.find(b"\xff", at)) <= len(data) - 4:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # no length follows
            at += 2
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and at + 9 <= len(data):
            longest = max(struct.unpack(">HH", data[at + 5 : at + 9]))
        if marker == 0xDA:
            return longest, data.find(b"\xff\xd9", at) >= 0
        at += 2 + struct.unpack(">H", data[at + 2 : at + 4])[0]
    return longest, False
