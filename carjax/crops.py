"""Antialiased crop, mirror and resize of whole image batches, as two matrix products per image."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def _weights(
    low: jax.Array, high: jax.Array, valid: jax.Array, size_in: int, size_out: int, blur: jax.Array
) -> jax.Array:
    """Resampling weights [size_out, size_in] along one axis; positions in pixels, edges at 0."""
    scale = (high - low) / size_out
    # A triangle filter as wide as an output pixel when shrinking: what PIL and jax.image do.
    width = jnp.maximum(jnp.abs(scale), 1.0) * blur
    centres = low + (jnp.arange(size_out) + 0.5) * scale
    # Beyond the image the border is repeated.
    centres = jnp.clip(centres, 0.5, valid - 0.5)
    pixels = jnp.arange(size_in) + 0.5
    weights = jnp.maximum(1.0 - jnp.abs(pixels[None, :] - centres[:, None]) / width, 0.0)
    weights = jnp.where(pixels[None, :] < valid, weights, 0.0)
    return weights / weights.sum(1, keepdims=True)


def crop_and_resize(
    images: jax.Array,
    boxes: jax.Array,
    size: int,
    *,
    valid: jax.Array | None = None,
    blur: jax.Array | None = None,
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
        valid = jnp.broadcast_to(jnp.array([height, width], jnp.float32), (batch, 2))
    if blur is None:
        blur = jnp.ones((batch,), jnp.float32)

    def one(image: jax.Array, box: jax.Array, valid: jax.Array, blur: jax.Array) -> jax.Array:
        rows = _weights(box[1], box[3], valid[0], height, size, blur)
        columns = _weights(box[0], box[2], valid[1], width, size, blur)
        shrunk = jnp.einsum("yh,hwc->ywc", rows, image.astype(jnp.float32))
        return jnp.einsum("xw,ywc->yxc", columns, shrunk)

    return jax.vmap(one)(images, jnp.asarray(boxes, jnp.float32), valid, blur)


def full_boxes(batch: int, height: int, width: int) -> jax.Array:
    """Returns the boxes [B, 4] that cover whole images."""
    return jnp.broadcast_to(jnp.array([0.0, 0.0, width, height], jnp.float32), (batch, 4))
