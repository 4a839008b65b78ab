"""An inverted bottleneck as one function: first stage, depthwise convolution, projection.

The activations between the stages are six times as wide as what goes in and comes out: at 130×130
they are 6.5 MB per image, and on a CPU writing them to memory and reading them back costs several
times the arithmetic. So there large images are computed a tile at a time: strips of rows with the
halo that the depthwise kernel needs, split by channels, small enough for the tile to stay in the
cache of its core. Small maps, of which a whole batch fits, and accelerators take the plain way.

The type of the kernels is that of all activations. `jax.lax.platform_dependent` chooses when the
program is lowered; the results differ by rounding.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from carjax.backbones import layers
from carjax.backbones.layers import Weights


class Caches(NamedTuple):
    """What may be kept in the caches of a core, in bytes.

    Attributes:
        tile: activations; before and after their ReLU6 they share the second level.
        kernel: depthwise kernel; as many activations share the first level with it.
    """

    tile: int = 640 * 1024
    kernel: int = 16 * 1024


CACHES = Caches()
# Images with less activations than this are not worth tiling: matrix products of all images at
# once pack their weights once, and every tiled block adds to the time to compile. Measured.
_SMALL_BYTES = 1_200_000
_CEILING = 6.0  # of ReLU6


def inverted_bottleneck(
    x: jax.Array, first: Weights, depthwise: Weights, project: Weights, *, stride: int
) -> jax.Array:
    """First stage → ReLU6 → depthwise → ReLU6 → projection; all paddings are TensorFlow's SAME.

    Args:
        x: float [B, H, W, I].
        first: a 1×1 expansion, kernel [I, C]; or in the network's first block the stem, a
            convolution of stride 2 with kernel [s, s, I, C].
        depthwise: kernel [k, k, C].
        project: kernel [C, O].
        stride: of the depthwise convolution.

    Returns:
        [B, H', W', O], of the kernels' type; without a residual.
    """
    side = max(x.shape[1:3]) // _first_stride(first)
    small = side * side * project.kernel.shape[0] * x.dtype.itemsize < _SMALL_BYTES
    return jax.lax.platform_dependent(
        x,
        first,
        depthwise,
        project,
        cpu=functools.partial(shifted if small else tiled, stride=stride),
        default=functools.partial(direct, stride=stride),
    )


def _first_stride(first: Weights) -> int:
    return 1 if first.kernel.ndim == 2 else 2


def _first(x: jax.Array, first: Weights) -> jax.Array:
    if first.kernel.ndim == 2:
        return layers.product(x, first.kernel) + first.bias
    return layers.conv(x, first.kernel, first.bias, _first_stride(first), "SAME")


def _staged(
    x: jax.Array,
    first: Weights,
    depthwise: Weights,
    project: Weights,
    convolve: Callable[[jax.Array, jax.Array], jax.Array],
) -> jax.Array:
    x = layers.relu6(_first(x, first))
    x = layers.relu6(convolve(x, depthwise.kernel) + depthwise.bias)
    return layers.product(x, project.kernel) + project.bias


@functools.partial(jax.jit, static_argnames="stride", inline=True)
def direct(
    x: jax.Array, first: Weights, depthwise: Weights, project: Weights, stride: int
) -> jax.Array:
    """The plain way, with XLA's depthwise convolution: for accelerators."""
    convolve = functools.partial(layers.depthwise_conv_direct, stride=stride)
    return _staged(x, first, depthwise, project, convolve)


@functools.partial(jax.jit, static_argnames="stride", inline=True)
def shifted(
    x: jax.Array, first: Weights, depthwise: Weights, project: Weights, stride: int
) -> jax.Array:
    """The whole batch at once, with shifted multiply-adds: for small maps on CPU."""
    convolve = functools.partial(layers.depthwise_conv_shifted, stride=stride)
    return _staged(x, first, depthwise, project, convolve)


class Tiling(NamedTuple):
    """How the activations of an image are split.

    Attributes:
        rows: output rows of a strip.
        strips: how many; the last may reach beyond the image.
        channels: of a tile; they divide the channels there are.
    """

    rows: int
    strips: int
    channels: int


def tiling(
    out_height: int,
    width: int,
    channels: int,
    kernel_size: int,
    stride: int,
    itemsize: int = 4,
    caches: Caches = CACHES,
) -> Tiling:
    """Chooses tiles that fit the caches.

    Args:
        out_height: rows of the output.
        width: padded columns of the activations.
        channels: of the activations.
        kernel_size: of the depthwise convolution.
        stride: of the depthwise convolution.
        itemsize: bytes of a value.
        caches: what they hold.

    Example:
        >>> tiling(65, 131, 96, 3, 2)
        Tiling(rows=6, strips=11, channels=96)
        >>> tiling(33, 37, 288, 5, 1)
        Tiling(rows=17, strips=2, channels=144)
    """
    most = max(1, caches.kernel // (kernel_size**2 * itemsize))
    block = max(c for c in range(1, min(channels, most) + 1) if channels % c == 0)
    in_rows = caches.tile // (width * block * itemsize)
    strips = math.ceil(out_height / max(1, (in_rows - kernel_size) // stride + 1))
    return Tiling(math.ceil(out_height / strips), strips, block)


@functools.partial(jax.jit, static_argnames=("stride", "caches"), inline=True)
def tiled(
    x: jax.Array,
    first: Weights,
    depthwise: Weights,
    project: Weights,
    stride: int,
    caches: Caches = CACHES,
) -> jax.Array:
    """One image after another, a tile of activations at a time: for large maps on CPU."""
    channels, out_channels = project.kernel.shape
    x = x.astype(first.kernel.dtype)
    k, s1 = depthwise.kernel.shape[0], _first_stride(first)
    k1 = 1 if first.kernel.ndim == 2 else first.kernel.shape[0]
    height, width = (-(-n // s1) for n in x.shape[1:3])
    out_height, out_width = -(-height // stride), -(-width // stride)
    if not len(x):  # there is no tile to take
        return jnp.zeros((0, out_height, out_width, out_channels), x.dtype)
    top, bottom = layers.same_padding(height, k, stride)
    left, right = layers.same_padding(width, k, stride)
    rows, strips, block = tiling(
        out_height, width + left + right, channels, k, stride, x.dtype.itemsize, caches
    )
    bottom += (strips * rows - out_height) * stride

    # Activations outside the image are zero, which relu6(first(0)) is not: there the ceiling is 0.
    ceiling = jnp.pad(
        jnp.full((height, width, 1), _CEILING, x.dtype), ((top, bottom), (left, right), (0, 0))
    )
    pad1 = [layers.same_padding(n, k1, s1) for n in x.shape[1:3]]
    x = jnp.pad(
        x,
        (
            (0, 0),
            (pad1[0][0] + s1 * top, pad1[0][1] + s1 * bottom),
            (pad1[1][0] + s1 * left, pad1[1][1] + s1 * right),
            (0, 0),
        ),
    )
    in_rows, in_width = (rows - 1) * stride + k, ceiling.shape[1]
    kernel1 = first.kernel.reshape(-1, channels)
    parts = [slice(at, at + block) for at in range(0, channels, block)]
    weights = [
        (kernel1[:, i], first.bias[i], depthwise.kernel[..., i], depthwise.bias[i]) for i in parts
    ]

    def activations(y: jax.Array, bias: jax.Array, ceiling: jax.Array) -> jax.Array:
        return jnp.minimum(jnp.maximum(y + bias, 0.0), ceiling)

    def strip(index: jax.Array, out: jax.Array) -> jax.Array:
        # Unsigned: of a signed index JAX asks whether it counts from the end.
        index = index.astype(jnp.uint32)
        image, place = index // strips, index % strips
        start = place * (rows * stride)
        zero = jnp.zeros_like(index)
        ceilings = jax.lax.dynamic_slice_in_dim(ceiling, start, in_rows)
        window = (1, s1 * (in_rows - 1) + k1, *x.shape[2:])
        part = jax.lax.dynamic_slice(x, (image, s1 * start, zero, zero), window)[0]
        patches = _patches(part, k1, s1, in_rows, in_width)
        sums = project.bias
        for i, (kernel1, bias1, kernel2, bias2) in zip(parts, weights, strict=True):
            y = layers.product(patches, kernel1).reshape(in_rows, in_width, block)
            # The condition always holds. XLA does not fuse across it, and so computes each
            # activation once and not for every tap of the depthwise kernel that reads it.
            y = jax.lax.cond(index < tiles, activations, lambda y, *_: y, y, bias1, ceilings)
            y = layers.shifted_products(y[None], kernel2, stride, rows, out_width)
            y = y.astype(kernel2.dtype)
            y = layers.relu6(y + bias2).reshape(rows * out_width, block)
            sums = sums + layers.product(y, project.kernel[i])
        sums = sums.reshape(1, rows, out_width, out_channels)
        return jax.lax.dynamic_update_slice(out, sums, (image, place * rows, zero, zero))

    tiles = len(x) * strips
    out = jnp.zeros((len(x), strips * rows, out_width, out_channels), x.dtype)
    return jax.lax.fori_loop(0, tiles, strip, out)[:, :out_height]


def _patches(x: jax.Array, k: int, stride: int, rows: int, columns: int) -> jax.Array:
    """The k×k neighbourhoods of [H, W, C] as the rows of a matrix [rows · columns, k · k · C]."""
    if k == 1:
        return x.reshape(rows * columns, -1)
    bottom, right = (rows - 1) * stride + 1, (columns - 1) * stride + 1
    shifts = [
        jax.lax.slice(x, (i, j, 0), (i + bottom, j + right, x.shape[2]), (stride, stride, 1))
        for i in range(k)
        for j in range(k)
    ]
    return jnp.concatenate(shifts, axis=-1).reshape(rows * columns, -1)
