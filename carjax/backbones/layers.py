"""Inference-only layers: convolutions with a bias (batch norm is folded in), fast on CPU too.

XLA's CPU backend runs a depthwise convolution as a scalar loop and a 1×1 convolution through the
general path, so there the first is written as shifted multiply-adds and the second as a matrix
product. `jax.lax.platform_dependent` chooses when the program is lowered, not when it is traced,
so that one traced function can still be exported for cpu, cuda and tpu. Both ways are `jit`
functions, inlined: blocks of one shape are then traced once, which halves the time to start.
"""

from __future__ import annotations

import functools
import operator
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

_DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def relu6(x: jax.Array) -> jax.Array:
    """min(max(x, 0), 6); unlike `jax.nn.relu6` no custom derivative, as nothing here trains."""
    return jnp.clip(x, 0.0, 6.0)


def relu(x: jax.Array) -> jax.Array:
    """max(x, 0); unlike `jax.nn.relu` no custom derivative, as nothing here trains."""
    return jnp.maximum(x, 0.0)


def same_padding(size: int, kernel_size: int, stride: int) -> tuple[int, int]:
    """Padding (before, after) that makes the output ⌈size/stride⌉, as TensorFlow's SAME does.

    Example:
        >>> same_padding(260, 3, 2), same_padding(65, 3, 2)
        ((0, 1), (1, 1))
    """
    total = max((-(-size // stride) - 1) * stride + kernel_size - size, 0)
    return total // 2, total - total // 2


@functools.partial(jax.jit, static_argnames="stride", inline=True)
def depthwise_conv_shifted(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Depthwise SAME convolution as a sum of shifted products.

    Args:
        x: float [B, H, W, C].
        kernel: float [k, k, C].
        stride: 1 or 2.

    Returns:
        float [B, ⌈H/stride⌉, ⌈W/stride⌉, C].
    """
    k = kernel.shape[0]
    height, width = x.shape[1], x.shape[2]
    out_height, out_width = -(-height // stride), -(-width // stride)
    pad = [(0, 0), same_padding(height, k, stride), same_padding(width, k, stride), (0, 0)]
    x = jnp.pad(x, pad)
    return shifted_products(x, kernel, stride, out_height, out_width).astype(x.dtype)


def shifted_products(
    x: jax.Array, kernel: jax.Array, stride: int, height: int, width: int
) -> jax.Array:
    """Depthwise convolution of padded activations [B, H, W, C] to float32 [B, height, width, C]."""
    k = kernel.shape[0]

    def term(i: int, j: int) -> jax.Array:
        bottom, right = i + (height - 1) * stride + 1, j + (width - 1) * stride + 1
        window = jax.lax.slice(
            x, (0, i, j, 0), (x.shape[0], bottom, right, x.shape[3]), (1, stride, stride, 1)
        )
        # Summed in float32, as accelerators do.
        return window.astype(jnp.float32) * kernel[i, j].astype(jnp.float32)

    return functools.reduce(operator.add, (term(i, j) for i in range(k) for j in range(k)))


def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Matrix product [..., O] in the kernel's type; accelerators sum in float32."""
    return jnp.matmul(x.astype(kernel.dtype), kernel)


@functools.partial(jax.jit, static_argnames="stride", inline=True)
def depthwise_conv_direct(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Depthwise SAME convolution by `lax.conv_general_dilated`; same arguments and result."""
    return jax.lax.conv_general_dilated(
        x,
        kernel[:, :, None, :],
        (stride, stride),
        "SAME",
        dimension_numbers=_DIMENSIONS,
        feature_group_count=x.shape[-1],
    )


@functools.partial(jax.jit, static_argnames=("stride", "padding"), inline=True)
def conv(x: jax.Array, kernel: jax.Array, bias: jax.Array, stride: int, padding: str) -> jax.Array:
    """Dense convolution with a bias.

    Args:
        x: float [B, H, W, I]; rounded to the kernel's type.
        kernel: float [h, w, I, O].
        bias: [O], of the kernel's type.
        stride: of both axes.
        padding: 'SAME', as TensorFlow pads, or 'VALID'.

    Returns:
        [B, H', W', O], of the kernel's type.
    """
    x = x.astype(kernel.dtype)
    if padding == "VALID" and stride == 1:
        # XLA's fast CPU routine takes SAME paddings only: it is three to five times as fast.
        y = jax.lax.platform_dependent(
            x, kernel, cpu=_conv_cropped, default=functools.partial(_conv, padding="VALID")
        )
    else:
        y = _conv(x, kernel, stride, padding)
    return y + bias


def _conv(x: jax.Array, kernel: jax.Array, stride: int = 1, padding: str = "SAME") -> jax.Array:
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=_DIMENSIONS
    )


def _conv_cropped(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The VALID convolution as the middle of the SAME one."""
    height, width = kernel.shape[:2]
    top, left = (height - 1) // 2, (width - 1) // 2
    rows, columns = x.shape[1] - height + 1, x.shape[2] - width + 1
    return _conv(x, kernel)[:, top : top + rows, left : left + columns]


class Weights(NamedTuple):
    """A convolution's kernel and bias."""

    kernel: jax.Array
    bias: jax.Array


class Parameters(nn.Module):
    """The kernel and the bias, of type `dtype`, for a caller that convolves itself."""

    shape: tuple[int, ...]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self) -> Weights:
        """Returns the kernel of `shape`, and the bias of its last axis."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), self.shape)
        bias = self.param("bias", nn.initializers.zeros, self.shape[-1:])
        return Weights(kernel.astype(self.dtype), bias.astype(self.dtype))


class Conv(nn.Module):
    """A dense convolution with a bias; `kernel_size` is its side, or (height, width)."""

    features: int
    kernel_size: int | tuple[int, int]
    stride: int = 1
    padding: str = "SAME"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, ⌈H/stride⌉, ⌈W/stride⌉, features], or less if VALID."""
        k = self.kernel_size
        height, width = (k, k) if isinstance(k, int) else k
        shape = (height, width, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape).astype(self.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        return conv(x, kernel, bias, self.stride, self.padding)


class PointwiseConv(nn.Module):
    """A 1×1 convolution with a bias, as a matrix product."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps [B, H, W, C] to [B, H, W, features]."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return product(x, kernel.astype(self.dtype)) + bias.astype(self.dtype)
