"""Angles in radians and degrees: exact differences across a full turn, and means."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

TWO_PI = 2.0 * math.pi
LOG_TWO_PI = math.log(TWO_PI)
# 2π in two parts (Cody and Waite). The first has 8 significant bits, so that turns·part is exact.
_TWO_PI_HEAD = 6.28125
_TWO_PI_TAIL = TWO_PI - _TWO_PI_HEAD


def floating(x: ArrayLike) -> Array:
    """Returns `x` as an array of a floating type (integers become the default one)."""
    return alike(x)[0]


def alike(*values: ArrayLike) -> list[Array]:
    """Returns the values as arrays of one floating type; Python numbers take that of the others."""
    arrays = [jnp.asarray(x) for x in values]
    dtype = jnp.result_type(*arrays)
    if not jnp.issubdtype(dtype, jnp.floating):
        dtype = jnp.result_type(float, dtype)
    return [x.astype(dtype) for x in arrays]


def wrapped_difference(a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    """Returns (d, turns) such that a − b = d + 2π·turns, with d in [−π, π].

    d is rounded once only, although a and b may lie on both sides of the cut: at κ = 1e6 the
    rounding of a plain float32 difference near 2π would move a probability by 1e-4.
    """
    a, b = alike(a, b)
    difference = a - b
    # What the subtraction lost (Knuth, "The Art of Computer Programming" 2, 4.2.2, theorem B).
    part = difference - a
    lost = (a - (difference - part)) - (b + part)
    turns = jax.lax.stop_gradient(jnp.round(difference / TWO_PI))
    return ((difference - turns * _TWO_PI_HEAD) - turns * _TWO_PI_TAIL) + lost, turns


@jax.jit
def angular_difference_deg(a: ArrayLike, b: ArrayLike) -> Array:
    """The signed difference a − b of two angles in degrees, in (−180, 180].

    Args:
        a: float [...]; degrees in any turn.
        b: float [...]; degrees in any turn.

    Returns:
        float [...], broadcast over the arguments.

    Example:
        >>> float(angular_difference_deg(10.0, 350.0))
        20.0
    """
    a, b = alike(a, b)
    difference = a - b
    difference = difference - 360.0 * jax.lax.stop_gradient(jnp.round(difference / 360.0))
    difference = jnp.where(difference <= -180.0, difference + 360.0, difference)
    return jnp.where(difference > 180.0, difference - 360.0, difference)


def circular_mean(angle: ArrayLike, weights: ArrayLike = 1.0, axis: int = -1) -> Array:
    """Weighted mean direction: the angle of Σ w·(cos a, sin a) (Mardia and Jupp, 2.2.4).

    Args:
        angle: float; radians in any turn.
        weights: float; broadcast against `angle`; need not sum to 1.
        axis: the axis that is averaged away.

    Returns:
        float, without `axis`; radians in [−π, π]. Where the directions cancel it means nothing.

    Example:
        >>> print(f"{jnp.rad2deg(circular_mean(jnp.deg2rad(jnp.array([350.0, 20.0])))):.1f}")
        5.0
    """
    angle, weights = alike(angle, weights)
    sine = jnp.sum(weights * jnp.sin(angle), axis=axis)
    cosine = jnp.sum(weights * jnp.cos(angle), axis=axis)
    return jnp.arctan2(sine, cosine)
