"""Random views of a photo: where to look, mirrored or not, how blurred, in which light.

A view is drawn from (seed, file name, view number) alone, so that a cache of features can be
built in any order, by several processes, and again.
"""

from __future__ import annotations

import dataclasses
import hashlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from carjax import crops
from carjax.errors import UsageError
from carjax.table import LUMA


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How strongly views vary; views 0 and 1 are the plain photo and its mirror image.

    Attributes:
        seed: of all random draws.
        crop: each edge moves inwards by up to this fraction of the photo's side …
        margin: … or outwards, where border pixels are repeated.
        zoom_out: with `zoom_out_rate`, the photo is set into a frame up to this many times larger.
        zoom_out_rate: probability of a zoom-out.
        backdrop_rate: probability that what lies beyond the photo shows an enlarged corner of it
            (a tiny corner is a plain colour) in place of its repeated border.
        blur: largest factor on the resampling filter's width; `blur_rate` is its probability.
        blur_rate: probability of a blur.
        brightness: largest exponent (base 2) of the gain on all channels.
        contrast: largest exponent (base 2) of the gain about the mean.
        saturation: largest relative change of saturation.
        tint: largest exponent (base 2) of the gain on one channel.
    """

    seed: int = 0
    crop: float = 0.08
    margin: float = 0.05
    zoom_out: float = 1.0
    zoom_out_rate: float = 0.0
    backdrop_rate: float = 0.0
    blur: float = 3.0
    blur_rate: float = 0.3
    brightness: float = 0.5
    contrast: float = 0.4
    saturation: float = 0.5
    tint: float = 0.12

    def __post_init__(self) -> None:
        """Checks every setting.

        Raises:
            UsageError: one is out of its range.
        """
        rates = {n: (0.0, 1.0) for n in ("zoom_out_rate", "backdrop_rate", "blur_rate")}
        # With edges that may meet in the middle a view would be mirrored, and its label not.
        ranges = {"crop": (0.0, 0.499), "zoom_out": (1.0, 100.0), "blur": (1.0, 100.0)} | rates
        ranges |= dict.fromkeys(
            ("margin", "brightness", "contrast", "saturation", "tint"), (0.0, 10.0)
        )
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise UsageError(f"{name}: must be {low:g} to {high:g}, not {value}")

    @property
    def reach(self) -> float:
        """Bound on how far the resampling filter of a view reaches, for `crop_and_resize`."""
        return self.blur * self.zoom_out * (1.0 + 2.0 * self.margin)


class View(NamedTuple):
    """The parameters of B views, as `render` takes them.

    Attributes:
        box: float32 [B, 4]; window in pixels; left > right where the view is mirrored.
        blur: float32 [B]; factor on the resampling filter's width.
        gain: float32 [B, 3]; per channel.
        contrast: float32 [B]; gain about the mean.
        saturation: float32 [B]; 0 is grey, 1 unchanged.
        backdrop: float32 [B, 4]; the corner that fills what lies beyond the photo; empty (all
            zeros) where the border is repeated.
    """

    box: np.ndarray
    blur: np.ndarray
    gain: np.ndarray
    contrast: np.ndarray
    saturation: np.ndarray
    backdrop: np.ndarray

    def window(self, scale: np.ndarray) -> np.ndarray:
        """The boxes in pixels of other photos, `scale` (x, y) float [B, 2] times as large."""
        return (self.box * np.tile(scale, (1, 2))).astype(np.float32)


def is_mirrored(view: int | np.ndarray) -> bool | np.ndarray:
    """Whether that view of a photo is mirrored: every odd one, so that azimuths are balanced."""
    return view % 2 == 1


def draw(config: Augmentation, names: list[str], valid: np.ndarray, view: int | np.ndarray) -> View:
    """Draws one view of each photo.

    Args:
        config: the strengths.
        names: B file names.
        valid: float [B, 2]; height and width of each photo in pixels.
        view: number of the view, one for all or int [B]; 0 and 1 are plain and mirrored.
    """
    rows = []
    numbers = np.broadcast_to(view, len(names)).tolist()
    for name, (height, width), number in zip(names, valid, numbers, strict=True):
        key = hashlib.sha256(f"{config.seed}/{number}/{name}".encode()).digest()
        rng = np.random.default_rng(np.frombuffer(key[:16], np.uint32))
        left, top, right, bottom = 0.0, 0.0, float(width), float(height)
        blur, gain, contrast, saturation = 1.0, np.ones(3), 1.0, 1.0
        backdrop = np.zeros(4)
        if number > 1:
            edges = rng.uniform(-config.margin, config.crop, 4) * (width, height, width, height)
            left, top = left + edges[0], top + edges[1]
            right, bottom = right - edges[2], bottom - edges[3]
            if rng.random() < config.zoom_out_rate:
                factor = rng.uniform(1.0, config.zoom_out) - 1.0
                at_x, at_y = rng.uniform(0, 1, 2)
                grow_x, grow_y = factor * (right - left), factor * (bottom - top)
                left, right = left - at_x * grow_x, right + (1 - at_x) * grow_x
                top, bottom = top - at_y * grow_y, bottom + (1 - at_y) * grow_y
            if rng.random() < config.blur_rate:
                blur = rng.uniform(1.0, config.blur)
            gain = 2.0 ** (
                rng.uniform(-config.brightness, config.brightness)
                + rng.uniform(-config.tint, config.tint, 3)
            )
            contrast = 2.0 ** rng.uniform(-config.contrast, config.contrast)
            saturation = 1.0 + rng.uniform(-config.saturation, config.saturation)
            if rng.random() < config.backdrop_rate:
                sides = rng.uniform(0.02, 0.3) * np.array([width, height])
                corner = rng.integers(0, 2, 2) * (np.array([width, height]) - sides)
                backdrop = np.concatenate([corner, corner + sides])
        if is_mirrored(number):
            left, right = right, left
        window = (left, top, right, bottom)
        rows.append((window, blur, gain, contrast, saturation, backdrop))
    columns = zip(*rows, strict=True)
    return View(*(np.array(column, np.float32) for column in columns))


def render(
    canvas: jax.Array, valid: jax.Array, view: View, size: int, config: Augmentation
) -> jax.Array:
    """Renders views of photos.

    Args:
        canvas: uint8 [B, S, S, 3].
        valid: float [B, 2]; height and width of each photo inside its canvas.
        view: from `draw`.
        size: side of the output.
        config: what the view was drawn from.

    Returns:
        float32 [B, size, size, 3], in 0..255.
    """
    images = crops.crop_and_resize(
        canvas, view.box, size, valid=valid, blur=view.blur, reach=config.reach
    )
    if config.backdrop_rate:
        corner = crops.crop_and_resize(canvas, view.backdrop, size, valid=valid)
        beyond = _beyond(jnp.asarray(view.box), valid, size)
        beyond &= (jnp.asarray(view.backdrop).sum(1) > 0)[:, None, None]
        images = jnp.where(beyond[..., None], corner, images)
    grey = images @ jnp.asarray(LUMA)
    images = grey[..., None] + (images - grey[..., None]) * _wide(view.saturation)
    mean = images.mean((1, 2, 3), keepdims=True)
    images = mean + (images - mean) * _wide(view.contrast)
    return jnp.clip(images * jnp.asarray(view.gain)[:, None, None, :], 0.0, 255.0)


def _wide(x: np.ndarray) -> jax.Array:
    return jnp.asarray(x)[:, None, None, None]


def _beyond(box: jax.Array, valid: jax.Array, size: int) -> jax.Array:
    """Which pixels of the views lie outside their photos, bool [B, size, size]."""
    at = (jnp.arange(size) + 0.5) / size
    x = box[:, :1] + at * (box[:, 2:3] - box[:, :1])
    y = box[:, 1:2] + at * (box[:, 3:] - box[:, 1:2])
    out_x = (x < 0) | (x > valid[:, 1:])
    out_y = (y < 0) | (y > valid[:, :1])
    return out_y[:, :, None] | out_x[:, None, :]
