"""Find the main car: a small head on the same frozen features gives one box per frame.

Every cell of the feature grid says how likely it lies at the main car's centre and how far the
car's four edges are from it (as FCOS does, Tian et al., ICCV 2019, with one winner per image). A
second look at the neighbourhood of the first box, at the same input size, sharpens the box of a
small car.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from carjax import crops
from carjax.backbones import registry
from carjax.features import Features

# Windows and crops lie on a grid of so many steps across the frame, see `snap`.
STEPS = 4096
# Cells whose box overlaps the winner's by this much take part in the average.
_AGREE_IOU = 0.5


@dataclasses.dataclass(frozen=True)
class LocaliseSpec:
    """The static description of the car box.

    Attributes:
        input_size: side of the backbone's input for each look.
        looks: 1, or 2 to look again around the first box.
        context: the second look shows the first box grown by this factor.
        channels: width of the head.
        margin: the scored crop is the box grown by this fraction of its sides on each side.
    """

    input_size: int = 160
    looks: int = 2
    context: float = 1.8
    channels: int = 64
    margin: float = 0.0


class CarBoxHead(nn.Module):
    """Per cell of the grid: a logit for the car's centre, and the distances to its edges."""

    channels: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, features: Features, *, train: bool = False) -> tuple[jax.Array, jax.Array]:
        """Maps Features of B windows to centre logits and boxes.

        Returns:
            (logits float32 [B, g·g], boxes float32 [B, g·g, 4]): left, top, right, bottom as
            fractions of the window; a box may reach beyond it.
        """
        grid = nn.LayerNorm(name="norm_grid")(features.grid.astype(jnp.float32))
        pooled = nn.LayerNorm(name="norm_pooled")(features.pooled.astype(jnp.float32))
        grid = nn.Dropout(self.dropout, deterministic=not train)(grid)
        x = nn.Dense(self.channels, name="project")(grid)
        x = nn.gelu(x + nn.Dense(self.channels, name="context")(pooled)[:, None, None, :])
        for i, dilation in enumerate((1, 2, 3)):
            y = nn.Dense(self.channels, name=f"conv_{i}")(neighbours(x, dilation))
            x = x + nn.gelu(nn.LayerNorm(name=f"norm_{i}")(y))
        out = nn.Dense(5, name="out")(x)
        batch, height, width, _ = out.shape
        out = out.reshape(batch, height * width, 5)
        y, x = jnp.mgrid[0:height, 0:width]
        centre_x = (x.reshape(-1) + 0.5) / width
        centre_y = (y.reshape(-1) + 0.5) / height
        distance = nn.softplus(out[..., 1:])
        boxes = jnp.stack(
            [
                centre_x - distance[..., 0],
                centre_y - distance[..., 1],
                centre_x + distance[..., 2],
                centre_y + distance[..., 3],
            ],
            axis=-1,
        )
        return out[..., 0], boxes


def neighbours(x: jax.Array, dilation: int) -> jax.Array:
    """Joins each cell with its eight neighbours at a distance: [B, H, W, C] → [B, H, W, 9·C].

    A 3×3 convolution is then one matrix product, which XLA differentiates fast on CPU too.
    """
    height, width = x.shape[1:3]
    d = dilation
    padded = jnp.pad(x, ((0, 0), (d, d), (d, d), (0, 0)))
    shifts = [(i, j) for i in (0, d, 2 * d) for j in (0, d, 2 * d)]
    return jnp.concatenate([padded[:, i : i + height, j : j + width] for i, j in shifts], axis=-1)


def iou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Intersection over union of boxes [..., 4] (left, top, right, bottom), broadcast.

    Example:
        >>> round(float(iou(jnp.array([0.0, 0, 2, 1]), jnp.array([1.0, 0, 3, 1]))), 6)
        0.333333
    """
    low = jnp.maximum(a[..., :2], b[..., :2])
    high = jnp.minimum(a[..., 2:], b[..., 2:])
    both = jnp.prod(jnp.maximum(high - low, 0.0), axis=-1)
    area_a = jnp.prod(jnp.maximum(a[..., 2:] - a[..., :2], 0.0), axis=-1)
    area_b = jnp.prod(jnp.maximum(b[..., 2:] - b[..., :2], 0.0), axis=-1)
    return both / jnp.maximum(area_a + area_b - both, 1e-9)


def best_box(logits: jax.Array, boxes: jax.Array) -> jax.Array:
    """Joins the cells of one window: the winner's box, averaged with the cells that agree.

    Args:
        logits: float [n].
        boxes: float [n, 4].

    Returns:
        float32 [4].
    """
    winner = boxes[jnp.argmax(logits)]
    weight = jax.nn.softmax(logits) * (iou(boxes, winner) > _AGREE_IOU)
    weight = weight.at[jnp.argmax(logits)].add(1e-6)
    return (weight[:, None] * boxes).sum(0) / weight.sum()


class Found(NamedTuple):
    """The main car of every frame.

    Attributes:
        box: float32 [B, 4]; left, top, right, bottom in pixels, inside the frame.
        features: of the last look, float32.
    """

    box: jax.Array
    features: Features


def find(
    params: Mapping[str, Any],
    backbone: nn.Module,
    backbone_params: Mapping[str, Any],
    frames: jax.Array,
    spec: LocaliseSpec,
    valid: jax.Array | None = None,
) -> Found:
    """Finds the main car in every frame.

    Args:
        params: of `CarBoxHead`.
        backbone: its module, and …
        backbone_params: … its parameters.
        frames: uint8 [B, H, W, 3].
        spec: the static description.
        valid: float [B, 2]; height and width of each frame inside its canvas (default: all of it).

    Returns:
        Its box, and the features of the last look.

    Raises:
        ValueError: `spec` asks for no look.
    """
    if spec.looks < 1:
        raise ValueError(f"the car box needs at least one look, not {spec.looks}")
    head = CarBoxHead(spec.channels)
    valid = crops.frame_sizes(frames) if valid is None else valid
    window = crops.whole_boxes(valid)
    size = jnp.tile(window[:, 2:], (1, 2))
    box = window
    for look in range(spec.looks):
        if look:
            window = snap(grow(box, spec.context, size), size)
        inputs = crops.crop_and_resize(frames, window, spec.input_size, valid=valid)
        inputs = registry.normalize(str(backbone.name), inputs)
        features: Any = backbone.apply({"params": backbone_params}, inputs)
        cells: Any = head.apply({"params": params}, features)
        relative = jax.vmap(best_box)(*cells)
        origin = jnp.tile(window[:, :2], (1, 2))
        extent = jnp.tile(window[:, 2:] - window[:, :2], (1, 2))
        box = jnp.clip(origin + relative * extent, 0.0, size)
        # A box is never thinner than two pixels, so that every crop has content.
        half = jnp.maximum((box[:, 2:] - box[:, :2]) / 2, 1.0)
        centre = jnp.clip((box[:, :2] + box[:, 2:]) / 2, half, size[:, :2] - half)
        box = jnp.clip(jnp.concatenate([centre - half, centre + half], axis=-1), 0.0, size)
    return Found(box, features)


def snap(box: jax.Array, size: jax.Array) -> jax.Array:
    """Moves boxes [B, 4] onto a grid of `STEPS` steps across frames of `size` (W, H, W, H).

    The last bits of a box differ between batches of different sizes. What is cut out by it would
    magnify that a hundredfold; on the grid it is the same, except where a box lies between two
    steps by those last bits.
    """
    return jnp.round(box / size * STEPS) / STEPS * size


def grow(box: jax.Array, factor: float, size: jax.Array) -> jax.Array:
    """Grows boxes [B, 4] about their centres and clips them to frames of `size` (W, H, W, H)."""
    centre = (box[:, :2] + box[:, 2:]) / 2
    half = (box[:, 2:] - box[:, :2]) / 2 * factor
    return jnp.clip(jnp.concatenate([centre - half, centre + half], axis=-1), 0.0, size)
