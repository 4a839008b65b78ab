"""Encoded photos: whole or cut short, and how large."""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib

import cv2

from carjax import pictures


class Fault(Exception):
    """One photo or annotation cannot be used: it is skipped, counted and told."""


@dataclasses.dataclass(frozen=True)
class Photo:
    """One photo as it lies on disk.

    Attributes:
        encoded: the file's bytes.
        sha256: of them, in hexadecimal.
        width: in pixels; as stored, or as shown: see `load`.
        height: the same.
    """

    encoded: bytes
    sha256: str
    width: int
    height: int


def load(path: pathlib.Path, *, upright: bool = False) -> Photo:
    """Reads a photo and makes sure that all of it is there.

    Args:
        path: of its file.
        upright: its size is that of the photo turned as its EXIF asks for.

    Raises:
        Fault: it is missing, not an image, or cut short.
    """
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise Fault(f"cannot be read ({error.strerror})") from None
    if not encoded:
        raise Fault("an empty file")
    if not pictures.is_whole(encoded):
        raise Fault("cut short: the end of the image is missing")
    flags = cv2.IMREAD_COLOR | (0 if upright else cv2.IMREAD_IGNORE_ORIENTATION)
    image = pictures.decoded(encoded, flags)
    if image is None:
        raise Fault("not an image that OpenCV can decode")
    height, width = image.shape[:2]
    return Photo(encoded, hashlib.sha256(encoded).hexdigest(), width, height)
