"""Antialiased crop, mirror and resize of whole image batches.

Separable resampling with a triangle filter as wide as an output pixel (what PIL and `jax.image`
do when shrinking). On CPU every output row is a short dot product over the few input rows that
it needs; on an accelerator the same weights are one dense matrix product per axis.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def _centres_and_width(
    low: jax.Array, high: jax.Array, valid: jax.Array, size: int, blur: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Sampling positions [size] in pixels (the border is repeated), and the filter's half width."""
    scale = (high - low) / size
    centres = jnp.clip(low + (jnp.arange(size) + 0.5) * scale, 0.5, valid - 0.5)
    return centres, jnp.maximum(jnp.abs(scale), 1.0) * blur


def _triangle(
    pixels: jax.Array, centres: jax.Array, width: jax.Array, valid: jax.Array
) -> jax.Array:
    """Normalised triangle weights of pixel positions, [size, pixels]."""
    weights = jnp.maximum(1.0 - jnp.abs(pixels - centres[:, None]) / width, 0.0)
    weights = jnp.where(pixels < valid, weights, 0.0)
    return weights / weights.sum(1, keepdims=True)


def _dense(
    image: jax.Array, centres: jax.Array, width: jax.Array, valid: jax.Array, taps: int
) -> jax.Array:
    """Resamples the first axis of [n, m] by one matrix product; `taps` is not needed."""
    pixels = jnp.arange(image.shape[0]) + 0.5
    return _triangle(pixels[None, :], centres, width, valid) @ image.astype(jnp.float32)


def _banded(
    image: jax.Array, centres: jax.Array, width: jax.Array, valid: jax.Array, taps: int
) -> jax.Array:
    """Resamples the first axis of [n, m] row by row, over `taps` input rows each."""
    taps = min(taps, image.shape[0])
    first = jnp.clip(jnp.ceil(centres - width - 0.5), 0, image.shape[0] - taps).astype(jnp.int32)
    pixels = first[:, None] + jnp.arange(taps) + 0.5
    weights = _triangle(pixels, centres, width, valid)

    def row(start: jax.Array, weight: jax.Array) -> jax.Array:
        return weight @ jax.lax.dynamic_slice_in_dim(image, start, taps).astype(jnp.float32)

    return jax.lax.map(lambda args: row(*args), (first, weights))


def _resample(
    image: jax.Array,
    box: jax.Array,
    valid: jax.Array,
    blur: jax.Array,
    *,
    size: int,
    taps: tuple[int, int],
    axis_op: Callable[..., jax.Array],
) -> jax.Array:
    """Crops one image [H, W, C] to [size, size, C], rows first."""
    height, width, channels = image.shape
    rows = _centres_and_width(box[1], box[3], valid[0], size, blur)
    columns = _centres_and_width(box[0], box[2], valid[1], size, blur)
    x = axis_op(image.reshape(height, width * channels), *rows, valid[0], taps[0])
    x = x.reshape(size, width, channels).transpose(1, 0, 2).reshape(width, size * channels)
    x = axis_op(x, *columns, valid[1], taps[1])
    return x.reshape(size, size, channels).transpose(1, 0, 2)


def crop_and_resize(
    images: jax.Array | np.ndarray,
    boxes: ArrayLike,
    size: int,
    *,
    valid: ArrayLike | None = None,
    blur: ArrayLike | None = None,
    reach: float = 1.0,
) -> jax.Array:
    """Cuts one box out of every image and squashes it to a square, antialiased.

    Args:
        images: uint8 or float [B, H, W, C].
        boxes: float [B, 4]; left, top, right, bottom in pixels, edges at 0 and W or H. A box may
            reach beyond the image (its border pixels are repeated); left > right mirrors it.
        size: side of the square output in pixels.
        valid: float [B, 2]; height and width of each image inside its zero-padded canvas
            (default: all of it).
        blur: float [B]; factor ≥ 1 on the width of the resampling filter (default: 1).
        reach: at least the largest blur times the largest box side over the image's. On CPU it
            bounds the work: where a box and its blur reach further, what lies beyond is left out.

    Returns:
        float32 [B, size, size, C], in the range of the input.

    Example:
        >>> import numpy as np
        >>> frames = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)
        >>> boxes = np.array([[0, 0, 4, 4], [6, 0, 2, 4]], np.float32)
        >>> crops = crop_and_resize(frames, boxes, 4)
        >>> bool(np.allclose(crops[1], frames[1, :, :1:-1]))
        True
    """
    batch, height, width, _ = images.shape
    if valid is None:
        valid = frame_sizes(images)
    if blur is None:
        blur = jnp.ones((batch,), jnp.float32)

    def taps(n: int) -> int:
        return math.ceil(2 * max(reach * n / size, reach)) + 1

    resample = functools.partial(_resample, size=size, taps=(taps(height), taps(width)))

    def banded(*args: jax.Array) -> jax.Array:
        # One image after another: batched, the short dot products would become slow gathers.
        return jax.lax.map(lambda one: resample(*one, axis_op=_banded), args)

    def dense(*args: jax.Array) -> jax.Array:
        return jax.vmap(functools.partial(resample, axis_op=_dense))(*args)

    return jax.lax.platform_dependent(
        jnp.asarray(images),
        jnp.asarray(boxes, jnp.float32),
        jnp.asarray(valid),
        jnp.asarray(blur),
        cpu=banded,
        default=dense,
    )


def frame_sizes(images: jax.Array | np.ndarray) -> jax.Array:
    """Returns the height and width of images [B, H, W, C], float32 [B, 2]."""
    batch, height, width, _ = images.shape
    return jnp.broadcast_to(jnp.array([height, width], jnp.float32), (batch, 2))


def whole_boxes(valid: jax.Array) -> jax.Array:
    """Returns the boxes [B, 4] of whole images of those heights and widths, float [B, 2]."""
    return jnp.concatenate([jnp.zeros_like(valid), valid[:, ::-1]], axis=-1)
