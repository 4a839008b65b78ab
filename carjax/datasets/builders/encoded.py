"""Encoded photos: whole or cut short, and how large."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib

import cv2
import numpy as np


class Fault(Exception):
    """One photo or annotation cannot be used: it is skipped, counted and told."""


@dataclasses.dataclass(frozen=True)
class Photo:
    """One photo as it lies on disk.

    Attributes:
        encoded: the file's bytes.
        sha256: of them, in hexadecimal.
        width: in pixels as stored (an orientation in EXIF is not applied).
        height: the same.
    """

    encoded: bytes
    sha256: str
    width: int
    height: int


def load(path: pathlib.Path) -> Photo:
    """Reads a photo and makes sure that all of it is there.

    Raises:
        Fault: it is missing, not an image, or cut short.
    """
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise Fault(f"cannot be read ({error.strerror})") from None
    if not encoded:
        raise Fault("an empty file")
    if not is_whole(encoded):
        raise Fault("cut short: the end of the image is missing")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    if image is None:
        raise Fault("not an image that OpenCV can decode")
    height, width = image.shape[:2]
    return Photo(encoded, hashlib.sha256(encoded).hexdigest(), width, height)


def is_whole(encoded: bytes) -> bool:
    """Whether a JPEG or PNG reaches its end marker; decoders fill in what is missing with grey.

    Other formats count as whole. In a JPEG (ITU-T T.81, B.1) segments are skipped by their length
    up to the first scan, so that a thumbnail's end marker is not taken for the photo's.

    Example:
        >>> image = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
        >>> is_whole(image), is_whole(image[:-4])
        (True, False)
    """
    if encoded.startswith(b"\x89PNG"):
        return b"IEND\xaeB`\x82" in encoded
    if not encoded.startswith(b"\xff\xd8"):
        return True
    at = 2
    while at + 4 <= len(encoded) and encoded[at] == 0xFF:
        marker = encoded[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xDA:  # start of scan: inside, FF is always followed by 00 or a marker
            return encoded.find(b"\xff\xd9", at) >= 0
        at += 2 + int.from_bytes(encoded[at + 2 : at + 4], "big")
    return False
