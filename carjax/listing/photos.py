"""Photos for a listing: cut to the car, encoded without metadata, named in walking order.

Pure functions on arrays and on the content of `selection.json`; `pipeline` writes the files.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from carjax.attributes import VIEWS
from carjax.errors import CarjaxError, UsageError
from carjax.listing import exif

FORMATS = ("jpg", "png", "webp")
CROPS = {"none": None, "4:3": 4 / 3, "16:9": 16 / 9}
_QUALITY = 95

# Around the car a crop leaves this share of the box's sides free.
MARGIN = 0.08
# A crop is at least this share of the frame's width: a distant car stays a photo, not a stamp.
MIN_SHARE = 0.4


class Area(NamedTuple):
    """A rectangle of a frame in pixels; right and bottom are outside."""

    left: int
    top: int
    right: int
    bottom: int

    def of(self, image: np.ndarray) -> np.ndarray:
        """The part of an image [H, W, 3], as a view."""
        return image[self.top : self.bottom, self.left : self.right]


def parse_crop(text: str) -> str:
    """Checks the shape of a crop: 'none', '4:3' or '16:9'.

    Raises:
        UsageError: it is none of these.
    """
    if text not in CROPS:
        raise UsageError(f"crop is {text!r}; it must be one of: {', '.join(CROPS)}")
    return text


def crop_area(
    box: np.ndarray, width: int, height: int, aspect: float, *, cut: bool = False
) -> Area | None:
    """The smallest rectangle of an aspect that holds the car with a margin.

    Args:
        box: float [4]; left, top, right, bottom of the car, as fractions of the frame.
        width: of the frame in pixels.
        height: of the frame in pixels.
        aspect: width over height of the rectangle.
        cut: where no such rectangle inside the frame holds the car, give the largest one around
            its middle; it cuts the car.

    Returns:
        The rectangle; None where none holds the car, unless `cut`. The margin gives way where the
        frame ends.

    Example:
        >>> crop_area(np.array([0.4, 0.4, 0.6, 0.6]), 1000, 1000, 4 / 3)
        Area(left=300, top=350, right=700, bottom=650)
        >>> crop_area(np.array([0.0, 0.0, 1.0, 1.0]), 1000, 1000, 4 / 3) is None
        True
    """
    left, top, right, bottom = np.asarray(box, float) * [width, height, width, height]
    most = min(width, height * aspect)
    if not cut and (right - left > most + 1 or bottom - top > most / aspect + 1):
        return None
    spare = 1 + 2 * MARGIN
    wanted = max((right - left) * spare, (bottom - top) * spare * aspect, MIN_SHARE * width)
    w = min(wanted, most)
    h = w / aspect
    columns, rows = min(round(w), width), min(round(h), height)
    x = min(max(round((left + right - columns) / 2), 0), width - columns)
    y = min(max(round((top + bottom - rows) / 2), 0), height - rows)
    return Area(x, y, x + columns, y + rows)


def cropped(image: np.ndarray, box: np.ndarray, shape: str) -> np.ndarray:
    """The photo of a frame: cut to the car where a rectangle of that shape holds all of it.

    Args:
        image: [H, W, 3].
        box: float [4]; the car's, as fractions of the frame; not finite where it is not known.
        shape: one of `CROPS`.

    Returns:
        A view of the image, or the image itself.
    """
    aspect = CROPS[shape]
    if aspect is None or not np.isfinite(box).all():
        return image
    area = crop_area(box, image.shape[1], image.shape[0], aspect)
    return image if area is None else area.of(image)


def encode(image: np.ndarray, kind: str, taken: datetime.datetime | None = None) -> bytes:
    """Encodes a photo; of metadata it holds what `exif.build` says, and nothing else.

    Args:
        image: uint8 [H, W, 3] RGB, upright.
        kind: one of `FORMATS`.
        taken: when the frame was taken, with its zone, if that is known.

    Raises:
        CarjaxError: the frame is too large for the format.
    """
    import cv2

    options = {
        "jpg": [cv2.IMWRITE_JPEG_QUALITY, _QUALITY],
        "png": [cv2.IMWRITE_PNG_COMPRESSION, 6],
        "webp": [cv2.IMWRITE_WEBP_QUALITY, _QUALITY],
    }[kind]
    try:
        encoded, data = cv2.imencodeWithMetadata(
            f".{kind}",
            image[..., ::-1],
            [cv2.IMAGE_METADATA_EXIF],
            [np.frombuffer(exif.build(taken), np.uint8)],
            options,
        )
    except cv2.error:
        encoded = False
    if not encoded:
        raise CarjaxError(
            f"a frame of {image.shape[1]}×{image.shape[0]} cannot be written as {kind}"
        )
    return data.tobytes()


def listing_names(content: Mapping[str, Any]) -> dict[str, str]:
    """Names for a listing that sort in walking order: the views from the front on, then the rest.

    Args:
        content: of `selection.json`.

    Returns:
        Path of a photo as in `content` → name such as '01_front.jpg'. The numbers run without a
        gap; a frame that serves several attributes is named once for each.

    Example:
        >>> views = {"front": {"photo": "photos/view_front.jpg"}, "left": None}
        >>> listing_names({"attributes": {"type": {"photo": "photos/type.jpg"}},
        ...                "orientation": {"views": views}})
        {'photos/view_front.jpg': '01_front.jpg', 'photos/type.jpg': '02_type.jpg'}
    """
    found = [
        (name, view["photo"])
        for name, view in content.get("orientation", {"views": {}})["views"].items()
        if view is not None
    ]
    found.sort(key=lambda item: VIEWS.index(item[0]))
    found += [
        (name, choice["photo"])
        for name, choice in content["attributes"].items()
        if choice.get("photo")
    ]
    return {
        path: f"{number:02d}_{name}.{path.rpartition('.')[2]}"
        for number, (name, path) in enumerate(found, 1)
    }
