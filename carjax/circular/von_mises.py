"""The von Mises distribution: log-density, entropy, and the probability of an arc.

Reference: Mardia and Jupp, "Directional Statistics" (2000), section 3.5.4.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from carjax.circular.angles import LOG_TWO_PI, TWO_PI, alike, floating, wrapped_difference
from carjax.circular.bessel import a_prime, log_i0e, one_minus_a

# A normal density holds a mass of 4e-8 beyond 5.5 standard deviations; on that reach 12 nodes leave
# an error of 2e-7.
_CDF_REACH = 5.5
_CDF_NODES = 12


def exponent(difference: Array, kappa: Array) -> Array:
    """κ·(cos d − 1) without cancellation."""
    return -2.0 * kappa * jnp.square(jnp.sin(0.5 * difference))


@jax.jit
def vonmises_log_prob(angle: ArrayLike, mu: ArrayLike, kappa: ArrayLike) -> Array:
    """Log-density of the von Mises distribution, in nats per radian.

    log vM(a; μ, κ) = κ·cos(a − μ) − log(2π·I0(κ)) (Mardia and Jupp, 3.5.17).

    Args:
        angle: float [...]; where, radians in any turn.
        mu: float [...]; mean direction, radians in any turn.
        kappa: float [...]; concentration, ≥ 0.

    Returns:
        float [...], broadcast over the arguments; its gradients are finite everywhere.

    Example:
        >>> print(f"{vonmises_log_prob(1.0, 3.0, 0.0):.4f}")  # uniform: −log 2π
        -1.8379
    """
    angle, mu, kappa = alike(angle, mu, kappa)
    difference, _ = wrapped_difference(angle, mu)
    return exponent(difference, kappa) - log_i0e(kappa) - LOG_TWO_PI


@jax.custom_jvp
def _vonmises_entropy(kappa: Array) -> Array:
    return LOG_TWO_PI + log_i0e(kappa) + kappa * one_minus_a(kappa)


@_vonmises_entropy.defjvp
def _vonmises_entropy_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (kappa,), (tangent,) = primals, tangents
    return _vonmises_entropy(kappa), -kappa * a_prime(kappa) * tangent


@jax.jit
def vonmises_entropy(kappa: ArrayLike) -> Array:
    """Differential entropy of the von Mises distribution, in nats.

    H(κ) = log(2π·I0(κ)) − κ·A(κ) (Mardia and Jupp, 3.5.23), computed as
    log 2π + log(I0(κ)·exp(−κ)) + κ·(1 − A(κ)); its gradient is −κ·A'(κ).

    Args:
        kappa: float [...]; concentration, ≥ 0.

    Returns:
        float [...]; log 2π = 1.8379 for κ = 0, negative from κ ≈ 17.

    Example:
        >>> print(f"{vonmises_entropy(0.0):.4f} {vonmises_entropy(1e6):.4f}")
        1.8379 -5.4888
    """
    return _vonmises_entropy(floating(kappa))


def gauss_legendre(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss-Legendre quadrature on [0, 1], float64 [nodes]."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    return 0.5 * (x + 1.0), 0.5 * w


def _arc_sums(difference: Array, kappa: Array) -> tuple[Array, Array]:
    """∫ from 0 to `difference` of exp(κ(cos u − 1))·(1, 1 − cos u) du, for |difference| ≤ π."""
    # κ(1 − cos u) = (2√κ·sin(u/2))²/2: a normal density in the chord. Beyond the reach is no mass.
    chord = 0.5 * _CDF_REACH * jax.lax.rsqrt(jnp.maximum(kappa, 1.0))
    reach = 2.0 * jnp.arcsin(jnp.minimum(chord, 1.0))
    length = jnp.clip(difference, -reach, reach)
    nodes, weights = (jnp.asarray(x, length.dtype) for x in gauss_legendre(_CDF_NODES))

    def add_node(i: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        versine = 2.0 * jnp.square(jnp.sin(0.5 * nodes[i] * length))
        mass = weights[i] * jnp.exp(-kappa * versine)
        return sums[0] + mass, sums[1] + mass * versine

    # A loop over nodes: XLA would store an axis of them, at 12 times the memory and twice the time.
    zero = jnp.zeros_like(length * kappa)
    mass, moment = jax.lax.fori_loop(0, _CDF_NODES, add_node, (zero, zero))
    return length * mass, length * moment


@jax.custom_jvp
def centred_cdf(difference: Array, kappa: Array) -> Array:
    """∫ of vM(u; 0, κ) from 0 to `difference`, for a difference in [−π, π]; odd in it."""
    return _arc_sums(difference, kappa)[0] * jnp.exp(-log_i0e(kappa)) / TWO_PI


@centred_cdf.defjvp
def _centred_cdf_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    (difference, kappa), (difference_tangent, kappa_tangent) = primals, tangents
    mass, moment = _arc_sums(difference, kappa)
    scale = jnp.exp(-log_i0e(kappa)) / TWO_PI
    by_difference = scale * jnp.exp(exponent(difference, kappa))
    by_kappa = scale * (one_minus_a(kappa) * mass - moment)
    return scale * mass, by_difference * difference_tangent + by_kappa * kappa_tangent


@jax.jit
def vonmises_interval_prob(lo: ArrayLike, hi: ArrayLike, mu: ArrayLike, kappa: ArrayLike) -> Array:
    """Probability that a von Mises direction lies on the arc from `lo` counter-clockwise to `hi`.

    The distribution function, split at μ, is a Gauss-Legendre sum over the part of the arc that
    holds mass. The error against exact arithmetic is below 1e-5 for κ from 0 to 1e6.

    Args:
        lo: float [...]; start of the arc, radians in any turn.
        hi: float [...]; end of the arc, lo ≤ hi ≤ lo + 2π: an arc across 0 ends beyond 2π.
        mu: float [...]; mean direction, radians in any turn.
        kappa: float [...]; concentration, ≥ 0.

    Returns:
        float [...], broadcast over the arguments, in [0, 1] up to rounding.

    Example:
        >>> print(f"{vonmises_interval_prob(-0.1, 0.1, 0.0, 100.0):.4f}")
        0.6819
    """
    lo, hi, mu, kappa = alike(lo, hi, mu, kappa)
    start, start_turns = wrapped_difference(lo, mu)
    end, end_turns = wrapped_difference(hi, mu)
    inside = centred_cdf(end, kappa) - centred_cdf(start, kappa)
    return (end_turns - start_turns) + inside
