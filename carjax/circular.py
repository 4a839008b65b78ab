"""Directions on the circle: the von Mises distribution and the azimuth density built from it.

Angles are in radians unless a name ends in `_deg`. Every function is pure JAX, has no branch on a
value, and is meant for float32: it works under `jit`, `vmap` and `grad` for every concentration κ
from 0 (uniform) to 1e6 (a standard deviation of 0.06°). Two rules make that possible:

* Nothing grows. Bessel functions appear only in the scaled forms I0(κ)·exp(−κ) and I1(κ)·exp(−κ),
  and κ·(cos d − 1) is computed as −2κ·sin²(d/2), which is exact where d is small and κ is large.
* Nothing cancels. Differences of angles keep their rounding error, and 1 − A(κ) and A'(κ) come from
  their asymptotic series where the closed forms would subtract nearly equal numbers.

References: Mardia and Jupp, "Directional Statistics" (2000), sections 3.5.4 and 5.3; Abramowitz and
Stegun, "Handbook of Mathematical Functions" (1964), 9.6.10 and 9.7.1.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array
from jax.scipy.special import i0e, i1e
from jax.typing import ArrayLike

TWO_PI = 2.0 * math.pi
LOG_TWO_PI = math.log(TWO_PI)

# 2π in two parts (Cody and Waite). The first has 8 significant bits, so that turns·part is exact.
_TWO_PI_HEAD = 6.28125
_TWO_PI_TAIL = TWO_PI - _TWO_PI_HEAD

# Where the closed forms of 1 − A and A' give way to series: both sides are then right to 1e-5.
_SMALL_KAPPA = 0.1
_LARGE_KAPPA = 15.0
# 1 − A(κ) = Σ c_n κ^−n for n = 1, 2, …: the series that solves A' = 1 − A/κ − A², with A(∞) = 1.
_ONE_MINUS_A = (1 / 2, 1 / 8, 1 / 8, 25 / 128, 13 / 32, 1073 / 1024, 103 / 32)

# A normal density holds a mass of 4e-8 beyond 5.5 standard deviations; on that reach 12 nodes leave
# an error of 2e-7.
_CDF_REACH = 5.5
_CDF_NODES = 12
# Panel edges of the entropy integral, in standard deviations from each component.
_ENTROPY_EDGES = (-6.5, -4.5, -3.0, -1.5, 0.0, 1.5, 3.0, 4.5, 6.5)
_ENTROPY_NODES = 8
_MODE_STEPS = 50
# Cells of each of these panels in the sum over a highest-density region.
_HDR_CELLS = 16


class Density(NamedTuple):
    """A density over directions: K von Mises components above a uniform floor.

    p(a) = (1 − floor)·Σ_k weights_k·vM(a; mu_k, kappa_k) + floor/2π. A pytree; the leading axes
    `...` are any batch. With K = 1 and floor = 0 it is the plain von Mises distribution.

    Attributes:
        weights: float [..., K]; weights of the components, which sum to 1.
        mu: float [..., K]; directions of the components in radians, in any turn.
        kappa: float [..., K]; concentrations, ≥ 0.
        floor: float [...]; weight of the uniform part, in [0, 1].
    """

    weights: Array
    mu: Array
    kappa: Array
    floor: Array


# --- Bessel functions ----------------------------------------------------------------------------


def _floating(x: ArrayLike) -> Array:
    """Returns `x` as an array of a floating type (integers become the default one)."""
    x = jnp.asarray(x)
    return x.astype(jnp.result_type(float, x))


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """Returns Σ_n coefficients[n]·xⁿ by Horner's rule."""
    total = jnp.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total


@jax.custom_jvp
def _a(kappa: Array) -> Array:
    return i1e(kappa) / i0e(kappa)


@_a.defjvp
def _a_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (kappa,), (tangent,) = primals, tangents
    return _a(kappa), _a_prime(kappa) * tangent


@jax.custom_jvp
def _one_minus_a(kappa: Array) -> Array:
    """1 − A(κ), right in relative terms also where A rounds to 1."""
    inverse = 1.0 / jnp.maximum(kappa, _LARGE_KAPPA)
    series = inverse * _polynomial(_ONE_MINUS_A, inverse)
    return jnp.where(kappa > _LARGE_KAPPA, series, 1.0 - i1e(kappa) / i0e(kappa))


@_one_minus_a.defjvp
def _one_minus_a_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (kappa,), (tangent,) = primals, tangents
    return _one_minus_a(kappa), -_a_prime(kappa) * tangent


def _a_prime(kappa: Array) -> Array:
    """dA/dκ = 1 − A/κ − A² (Mardia and Jupp, A.14), right in relative terms for every κ ≥ 0."""
    is_small, is_large = kappa < _SMALL_KAPPA, kappa > _LARGE_KAPPA
    # Each piece sees only arguments of its own range: `where` alone would pass on a NaN gradient.
    small = jnp.where(is_small, kappa, 0.0)
    middle = jnp.where(is_small | is_large, 1.0, kappa)
    inverse = 1.0 / jnp.where(is_large, kappa, _LARGE_KAPPA)
    near_zero = _polynomial((1 / 2, -3 / 16, 5 / 96, -77 / 6144), small * small)
    a = _a(middle)
    closed = 1.0 - a / middle - a * a
    slopes = tuple(n * c for n, c in enumerate(_ONE_MINUS_A, start=1))
    far = inverse * inverse * _polynomial(slopes, inverse)
    return jnp.where(is_small, near_zero, jnp.where(is_large, far, closed))


@jax.custom_jvp
def _log_i0e(kappa: Array) -> Array:
    """log(I0(κ)·exp(−κ))."""
    return jnp.log(i0e(kappa))


@_log_i0e.defjvp
def _log_i0e_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (kappa,), (tangent,) = primals, tangents
    return _log_i0e(kappa), -_one_minus_a(kappa) * tangent


@jax.custom_jvp
def _vonmises_entropy(kappa: Array) -> Array:
    return LOG_TWO_PI + _log_i0e(kappa) + kappa * _one_minus_a(kappa)


@_vonmises_entropy.defjvp
def _vonmises_entropy_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (kappa,), (tangent,) = primals, tangents
    return _vonmises_entropy(kappa), -kappa * _a_prime(kappa) * tangent


@jax.jit
def log_i0(kappa: ArrayLike) -> Array:
    """Logarithm of the modified Bessel function I0.

    log I0(κ) = κ + log(I0(κ)·exp(−κ)); I0 itself overflows float32 at κ ≈ 92.

    Args:
        kappa: float [...]; ≥ 0.

    Returns:
        float [...]; its gradient is A(κ).

    Example:
        >>> print(f"{log_i0(1000.0):.3f}")
        995.627
    """
    kappa = _floating(kappa)
    return kappa + _log_i0e(kappa)


@jax.jit
def concentration(length: ArrayLike) -> Array:
    """Concentration κ of a von Mises distribution by its mean resultant length: the inverse of A.

    Best and Fisher's piecewise approximation (Mardia and Jupp, 5.3.7 to 5.3.10), then two Newton
    steps on A(κ) = length.

    Args:
        length: float [...] in [0, 1).

    Returns:
        float [...]; ≥ 0, at most 1e6.

    Example:
        >>> print(f"{concentration(mean_resultant_length(2.0)):.4f}")
        2.0000
    """
    length = jnp.clip(_floating(length), 0.0, 1.0 - 5e-7)
    small = 2.0 * length + length**3 + 5.0 / 6.0 * length**5
    middle = -0.4 + 1.39 * length + 0.43 / (1.0 - length)
    large = 1.0 / (length * (length - 1.0) * (length - 3.0) + 1e-30)
    kappa = jnp.where(length < 0.53, small, jnp.where(length < 0.85, middle, large))
    for _ in range(2):
        kappa = kappa - ((1.0 - length) - _one_minus_a(kappa)) / _a_prime(kappa)
        kappa = jnp.clip(kappa, 0.0, 1e6)
    return kappa


@jax.jit
def mean_resultant_length(kappa: ArrayLike) -> Array:
    """Mean resultant length A(κ) = I1(κ)/I0(κ) of a von Mises distribution.

    Mardia and Jupp, 3.5.31.

    Args:
        kappa: float [...]; ≥ 0.

    Returns:
        float [...] in [0, 1]: 0 for the uniform distribution, 1 for a point.

    Example:
        >>> print(f"{mean_resultant_length(2.0):.4f}")
        0.6978
    """
    return _a(_floating(kappa))


# --- von Mises -----------------------------------------------------------------------------------


def _wrapped_difference(a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    """Returns (d, turns) such that a − b = d + 2π·turns, with d in [−π, π].

    d is rounded once only, although a and b may lie on both sides of the cut: at κ = 1e6 the
    rounding of a plain float32 difference near 2π would move a probability by 1e-4.
    """
    a, b = _floating(a), _floating(b)
    difference = a - b
    # What the subtraction lost (Knuth, "The Art of Computer Programming" 2, 4.2.2, theorem B).
    part = difference - a
    lost = (a - (difference - part)) - (b + part)
    turns = jax.lax.stop_gradient(jnp.round(difference / TWO_PI))
    return ((difference - turns * _TWO_PI_HEAD) - turns * _TWO_PI_TAIL) + lost, turns


def _exponent(difference: Array, kappa: Array) -> Array:
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
    kappa = _floating(kappa)
    difference, _ = _wrapped_difference(angle, mu)
    return _exponent(difference, kappa) - _log_i0e(kappa) - LOG_TWO_PI


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
    return _vonmises_entropy(_floating(kappa))


def _gauss_legendre(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of Gauss-Legendre quadrature on [0, 1], float64 [nodes]."""
    x, w = np.polynomial.legendre.leggauss(nodes)
    return 0.5 * (x + 1.0), 0.5 * w


def _arc_sums(difference: Array, kappa: Array) -> tuple[Array, Array]:
    """∫ from 0 to `difference` of exp(κ(cos u − 1))·(1, 1 − cos u) du, for |difference| ≤ π."""
    # κ(1 − cos u) = (2√κ·sin(u/2))²/2: a normal density in the chord. Beyond the reach is no mass.
    chord = 0.5 * _CDF_REACH * jax.lax.rsqrt(jnp.maximum(kappa, 1.0))
    reach = 2.0 * jnp.arcsin(jnp.minimum(chord, 1.0))
    length = jnp.clip(difference, -reach, reach)
    nodes, weights = (jnp.asarray(x, length.dtype) for x in _gauss_legendre(_CDF_NODES))

    def add_node(i: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        versine = 2.0 * jnp.square(jnp.sin(0.5 * nodes[i] * length))
        mass = weights[i] * jnp.exp(-kappa * versine)
        return sums[0] + mass, sums[1] + mass * versine

    # A loop over nodes: XLA would store an axis of them, at 12 times the memory and twice the time.
    zero = jnp.zeros_like(length * kappa)
    mass, moment = jax.lax.fori_loop(0, _CDF_NODES, add_node, (zero, zero))
    return length * mass, length * moment


@jax.custom_jvp
def _centred_cdf(difference: Array, kappa: Array) -> Array:
    """∫ of vM(u; 0, κ) from 0 to `difference`, for a difference in [−π, π]; odd in it."""
    return _arc_sums(difference, kappa)[0] * jnp.exp(-_log_i0e(kappa)) / TWO_PI


@_centred_cdf.defjvp
def _centred_cdf_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    (difference, kappa), (difference_tangent, kappa_tangent) = primals, tangents
    mass, moment = _arc_sums(difference, kappa)
    scale = jnp.exp(-_log_i0e(kappa)) / TWO_PI
    by_difference = scale * jnp.exp(_exponent(difference, kappa))
    by_kappa = scale * (_one_minus_a(kappa) * mass - moment)
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
    kappa = _floating(kappa)
    start, start_turns = _wrapped_difference(lo, mu)
    end, end_turns = _wrapped_difference(hi, mu)
    inside = _centred_cdf(end, kappa) - _centred_cdf(start, kappa)
    return (end_turns - start_turns) + inside


# --- the azimuth density -------------------------------------------------------------------------


def from_single(mu: ArrayLike, kappa: ArrayLike, floor: ArrayLike = 0.0) -> Density:
    """Returns the density of one von Mises component above a floor.

    Args:
        mu: float [...]; mean direction in radians.
        kappa: float [...]; concentration, ≥ 0.
        floor: float [...]; weight of the uniform part, in [0, 1].

    Returns:
        A density with K = 1, its batch the broadcast shape of the arguments.

    Example:
        >>> from_single(jnp.array([0.0, 1.0]), 10.0, 0.05).mu.shape
        (2, 1)
    """
    mu, kappa, floor = jnp.broadcast_arrays(*map(_floating, (mu, kappa, floor)))
    return Density(jnp.ones_like(mu)[..., None], mu[..., None], kappa[..., None], floor)


def mirror(density: Density) -> Density:
    """Returns the density of −a where `density` is that of a: a photo flipped left to right.

    Example:
        >>> float(azimuth_deg(mirror(from_single(jnp.deg2rad(30.0), 5.0))))
        330.0
    """
    return density._replace(mu=-density.mu)


@jax.jit
def log_prob(density: Density, angle: ArrayLike) -> Array:
    """Log-density at an angle, in nats per radian.

    Args:
        density: batch [...].
        angle: float; radians in any turn, broadcast against the batch.

    Returns:
        float, the broadcast shape of batch and angle. Gradients are finite, also where a weight
        or the floor is 0.

    Example:
        >>> print(f"{log_prob(from_single(0.0, 1e4, 1.0), 3.0):.4f}")  # all floor: −log 2π
        -1.8379
    """
    floor = _floating(density.floor)
    components = vonmises_log_prob(_floating(angle)[..., None], density.mu, density.kappa)
    weights = (1.0 - floor)[..., None] * density.weights
    shape = (*components.shape[:-1], 1)
    terms = jnp.concatenate([components, jnp.full(shape, -LOG_TWO_PI, components.dtype)], axis=-1)
    weights = jnp.concatenate(
        [jnp.broadcast_to(weights, components.shape), jnp.broadcast_to(floor[..., None], shape)],
        axis=-1,
    )
    # log Σ w·exp(t), not by log w, which has no gradient at w = 0. The largest term of any weight
    # scales the sum; terms of weight 0 may exceed it, and are capped to keep gradients finite.
    largest = jnp.max(jnp.where(weights > 0.0, terms, -jnp.inf), axis=-1, keepdims=True)
    largest = jax.lax.stop_gradient(largest)
    total = jnp.sum(weights * jnp.exp(jnp.minimum(terms - largest, 30.0)), axis=-1)
    return jnp.log(total) + largest[..., 0]


def _panels(density: Density) -> tuple[Array, Array, Array]:
    """Cuts the circle where the density's components have their scale.

    Returns:
        (directions of the components [..., K], starts and widths of the panels [..., P]), all
        relative to the first component: for K = 1 the edges then carry no rounding.
    """
    mu, _ = _wrapped_difference(density.mu, density.mu[..., :1])
    scale = jax.lax.rsqrt(jnp.maximum(density.kappa, 1e-2))
    steps = jnp.asarray(_ENTROPY_EDGES, mu.dtype)
    offsets = jnp.clip(scale[..., None] * steps, -math.pi, math.pi)
    cuts, _ = _wrapped_difference(mu[..., None] + offsets, 0.0)
    cuts = jnp.clip(cuts, -math.pi, math.pi).reshape(*mu.shape[:-1], -1)
    ends = jnp.full((*mu.shape[:-1], 1), math.pi, mu.dtype)
    # Where the panels lie changes no integral: they carry no gradient.
    edges = jnp.sort(jax.lax.stop_gradient(jnp.concatenate([-ends, cuts, ends], axis=-1)))
    return mu, edges[..., :-1], jnp.diff(edges)


def _mixture(density: Density, mu: Array, start: Array, offsets: Array) -> Array:
    """The density [..., P, M] at M offsets from each of P panel starts, those of `_panels`.

    From the panel's start, whose distance to each component is exact.
    """
    anchor, _ = _wrapped_difference(start[..., :, None], mu[..., None, :])
    difference = anchor[..., :, None, :] + offsets[..., None]
    peaks = jnp.exp(-_log_i0e(density.kappa)) * density.weights / TWO_PI
    components = jnp.exp(_exponent(difference, density.kappa[..., None, None, :]))
    mixture = jnp.sum(peaks[..., None, None, :] * components, axis=-1)
    level = density.floor[..., None, None]
    return (1.0 - level) * mixture + level / TWO_PI


@jax.jit
def entropy(density: Density) -> Array:
    """Differential entropy −∫ p log p of a density, in nats.

    No closed form is known once components or the floor mix, so this is a composite
    Gauss-Legendre sum. The circle is cut at 0, 1.5, 3, 4.5 and 6.5 standard deviations on both
    sides of each component; between two cuts every term is smooth at the panel's own scale. The
    error is below 1e-5 for κ from 0 to 1e6 and a floor from 0 to 1; for K = 1 and a floor of 0
    the value is that of `vonmises_entropy`.

    Args:
        density: batch [...].

    Returns:
        float [...]; at most log 2π = 1.8379, the uniform density's.

    Example:
        >>> print(f"{entropy(from_single(0.0, 100.0)):.4f}")
        -0.8811
        >>> print(f"{entropy(from_single(0.0, 100.0, 0.1)):.4f}")
        -0.3351
    """
    mu, start, width = _panels(density)
    nodes, node_weights = (x.astype(mu.dtype) for x in _gauss_legendre(_ENTROPY_NODES))
    p = _mixture(density, mu, start, width[..., None] * nodes)
    # 0·log 0 = 0, with a finite gradient.
    integrand = -p * jnp.log(jnp.maximum(p, 1e-30))
    return jnp.sum(width * jnp.sum(integrand * node_weights, axis=-1), axis=-1)


@jax.jit
def hdr_mass(density: Density, angle: ArrayLike) -> Array:
    """Mass of the directions that are likelier than a given one.

    It is the mass of the smallest highest-density region that still has the angle on its border
    (Hyndman, "Computing and graphing highest density regions", 1996): the angle lies inside the
    region of mass m if the result is at most m. Over truths drawn from their densities it is
    uniform on [0, 1].

    The sum runs over the panels of `entropy`, each cut into 16, with the density linear in each
    cell; the error is below 3e-3 from a mass of 0.2 on, and below 0.025 nearer to the peak.

    Args:
        density: batch [...].
        angle: float [...]; radians in any turn.

    Returns:
        float [...] in [0, 1]. A density that is flat to rounding has no likelier direction: its
        value means nothing.

    Example:
        >>> print(f"{hdr_mass(from_single(0.0, 400.0), 0.05):.2f}")  # one standard deviation
        0.68
    """
    mu, start, width = _panels(density)
    steps = jnp.linspace(0.0, 1.0, _HDR_CELLS + 1, dtype=mu.dtype)
    p = _mixture(density, mu, start, width[..., None] * steps)
    level = jnp.exp(log_prob(density, angle))[..., None, None]
    above = p - level
    left, right = above[..., :-1], above[..., 1:]
    # A cell across the level counts from where a line through its ends crosses it.
    top = jnp.maximum(left, right)
    crossing = top / jnp.maximum(top - jnp.minimum(left, right), jnp.finfo(p.dtype).tiny)
    whole = jnp.minimum(left, right) >= 0.0
    share = jnp.where(whole, 1.0, jnp.where(top > 0.0, crossing, 0.0))
    mean = level + jnp.where(whole, 0.5 * (left + right), 0.5 * top)
    mass = width * jnp.sum(share * mean, axis=-1) / _HDR_CELLS
    return jnp.clip(jnp.sum(mass, axis=-1), 0.0, 1.0)


@jax.jit
def interval_prob(density: Density, lo: ArrayLike, hi: ArrayLike) -> Array:
    """Probability mass on the arc from `lo` counter-clockwise to `hi`.

    Args:
        density: batch [...].
        lo: float; start of the arc in radians, broadcast against the batch.
        hi: float; end of the arc, lo ≤ hi ≤ lo + 2π: an arc across 0 ends beyond 2π.

    Returns:
        float, the broadcast shape of batch, lo and hi.

    Example:
        >>> print(f"{interval_prob(from_single(0.0, 100.0, 0.5), 0.0, math.pi):.2f}")
        0.50
    """
    lo, hi = _floating(lo), _floating(hi)
    components = vonmises_interval_prob(lo[..., None], hi[..., None], density.mu, density.kappa)
    mixture = jnp.sum(density.weights * components, axis=-1)
    return (1.0 - density.floor) * mixture + density.floor * (hi - lo) / TWO_PI


def _cell_masses(density: Density, n: int) -> Array:
    """Masses [..., n] of n equal cells centred on 0, 2π/n, …; they sum to the sum of weights."""
    edges = (np.arange(n) - 0.5) * (TWO_PI / n)
    dtype = density.mu.dtype
    # An edge in two parts: rounded to float32, it would move the mass of a sharp peak on it.
    head = edges.astype(dtype)
    tail = (edges - head).astype(dtype)
    mu, kappa = density.mu[..., None, :], density.kappa[..., None, :]
    difference, turns = _wrapped_difference(head[:, None], mu)
    cdf = turns + _centred_cdf(difference + tail[:, None], kappa)
    mixture = jnp.sum(density.weights[..., None, :] * cdf, axis=-1)
    # The last cell ends where the first starts, one turn on: nothing is lost or counted twice.
    after = mixture[..., :1] + jnp.sum(density.weights, axis=-1, keepdims=True)
    masses = jnp.diff(jnp.concatenate([mixture, after], axis=-1))
    floor = density.floor[..., None]
    # A difference of rounded numbers can be −1e-7.
    return (1.0 - floor) * jnp.maximum(masses, 0.0) + floor / n


@functools.partial(jax.jit, static_argnames="views")
def view_probs(density: Density, views: int = 8) -> Array:
    """Probability mass in each view: bins of width 2π/views centred on 0, 2π/views, ….

    Args:
        density: batch [...].
        views: the number of bins (static); 8 gives the bins of `attributes.VIEWS`.

    Returns:
        float [..., views]; sums to 1.

    Example:
        >>> int(jnp.argmax(view_probs(from_single(jnp.deg2rad(130.0), 50.0))))
        3
    """
    return _cell_masses(density, views)


@functools.partial(jax.jit, static_argnames="n")
def on_grid(density: Density, n: int = 360) -> Array:
    """The density per radian on n equal cells centred on 0, 360/n, … degrees.

    Each value is the cell's mass over its width, not the density at its centre, so that a peak
    much narrower than a cell still counts in full. One evaluation of the distribution function
    per cell edge; memory is a small multiple of the output.

    Args:
        density: batch [...].
        n: the number of cells (static).

    Returns:
        float [..., n]; its mean is 1/2π.

    Example:
        >>> print(f"{on_grid(from_single(0.5, 1e6)).mean() * TWO_PI:.4f}")
        1.0000
    """
    return _cell_masses(density, n) * (n / TWO_PI)


@functools.partial(jax.jit, static_argnames="n")
def coverage_map(density: Density, weights: ArrayLike, n: int = 360) -> Array:
    """The mean of many densities on a grid: which directions the frames of a video cover.

    Args:
        density: batch [N].
        weights: float [N]; weights of the frames, with sum 1, as from `time_weights`.
        n: the number of cells (static).

    Returns:
        float [n]; density per radian at 0, 360/n, … degrees, its mean 1/2π.

    Example:
        >>> frames = from_single(jnp.deg2rad(jnp.array([0.0, 90.0])), 200.0)
        >>> covered = coverage_map(frames, time_weights([0.0, 1.0]))
        >>> bool(covered[90] > covered[45])
        True
    """
    return _floating(weights) @ on_grid(density, n)


def time_weights(time_s: npt.ArrayLike) -> np.ndarray:
    """Weights of frames by the time each stands for: half the time to each neighbour.

    The trapezoid rule, so that uneven sampling of a video changes no mean over time.

    Args:
        time_s: float [N]; presentation times in seconds, not decreasing.

    Returns:
        float64 [N] with sum 1; equal weights if all times are equal (a single frame has 1).

    Raises:
        ValueError: the times are not one row of finite, non-decreasing numbers.

    Example:
        >>> time_weights([0.0, 1.0, 4.0]).tolist()
        [0.125, 0.5, 0.375]
    """
    times = np.asarray(time_s, np.float64)
    if times.ndim != 1 or times.size == 0:
        raise ValueError(f"time_s must be [N] with N ≥ 1, not of shape {times.shape}")
    gaps = np.diff(times)
    if not np.isfinite(times).all() or (gaps < 0.0).any():
        raise ValueError("time_s must be finite and must not decrease")
    span = times[-1] - times[0]
    if span == 0.0:
        return np.full(times.shape, 1.0 / times.size)
    return (np.append(gaps, 0.0) + np.insert(gaps, 0, 0.0)) / (2.0 * span)


# --- directions ----------------------------------------------------------------------------------


def _main(density: Density, values: Array) -> Array:
    """Returns the entry of `values` [..., K] that belongs to the main component.

    It is the one in whose direction the whole density is highest: of many equal components, as an
    infinite mixture has them, the one where they crowd.
    """
    if density.mu.shape[-1] == 1:
        return values[..., 0]
    # The components, for each of their K directions; the floor is the same in all.
    weights, mu, kappa = (x[..., None, :] for x in density[:3])
    height = log_prob(Density(weights, mu, kappa, jnp.zeros_like(density.mu)), density.mu)
    index = jnp.argmax(height, axis=-1, keepdims=True)
    return jnp.take_along_axis(values, index, axis=-1)[..., 0]


def mean_direction(density: Density) -> Array:
    """Direction of the main component, radians [...] in [−π, π].

    The main component is the one in whose direction the density is highest.
    """
    return _wrapped_difference(_main(density, density.mu), 0.0)[0]


def main_kappa(density: Density) -> Array:
    """Concentration [...] of the main component (see `mean_direction`)."""
    return _main(density, density.kappa)


def main_peak(density: Density) -> Density:
    """The main peak as one von Mises component; what lies elsewhere joins the floor.

    A component counts to the peak of the main one (see `mean_direction`) by how high it stands in
    that direction, g_k = exp(κ_k (cos(μ − μ_k) − 1)). The peak has the weight W = Σ w_k g_k, the
    direction μ of the main component, and the concentration of the mean resultant length
    Σ w_k g_k A(κ_k) cos(μ − μ_k) / W.

    Args:
        density: batch [...], K components.

    Returns:
        A density with K = 1; the same arrays where K is 1 already.

    Example:
        >>> two = Density(jnp.array([0.7, 0.3]), jnp.array([0.0, 3.0]), jnp.full(2, 50.0), 0.0)
        >>> peak = main_peak(two)
        >>> print(f"{main_kappa(peak):.1f} {peak.floor:.2f}")
        50.0 0.30
    """
    return density if density.mu.shape[-1] == 1 else _main_peak(density)


@jax.jit
def _main_peak(density: Density) -> Density:
    mu = mean_direction(density)
    apart, _ = _wrapped_difference(mu[..., None], density.mu)
    share = density.weights * jnp.exp(_exponent(apart, density.kappa))
    weight = share.sum(axis=-1)
    length = jnp.sum(share * _a(density.kappa) * jnp.cos(apart), axis=-1) / weight
    floor = 1.0 - (1.0 - density.floor) * jnp.minimum(weight, 1.0)
    return from_single(mu, concentration(length), floor)


@jax.jit
def mode(density: Density) -> Array:
    """The direction where the density is highest, radians [...] in [−π, π].

    From the direction of the main component, by the fixed point of the density's derivative: the
    mean direction of the components, each weighted by w·κ·vM(a; μ, κ) (the mean shift of Kobayashi
    and Otsu, "Von Mises-Fisher Mean Shift for Clustering on a Hypersphere", ICPR 2010). Every step
    climbs.

    Args:
        density: batch [...].

    Returns:
        float [...]; for K = 1 it is the mean direction.

    Example:
        >>> two = Density(jnp.array([0.5, 0.5]), jnp.array([0.0, 1.0]), jnp.full(2, 2.0), 0.0)
        >>> print(f"{mode(two):.3f}")  # nearer than a standard deviation: one peak between them
        0.500
    """
    start = mean_direction(density)
    if density.mu.shape[-1] == 1:
        return start

    def step(_: Array, angle: Array) -> Array:
        height = vonmises_log_prob(angle[..., None], density.mu, density.kappa)
        # Scaled by the largest: far from every component all heights are tiny.
        height = jnp.exp(height - jnp.max(height, axis=-1, keepdims=True))
        offset, _ = _wrapped_difference(density.mu, angle[..., None])
        return angle + circular_mean(offset, density.weights * density.kappa * height)

    found = jax.lax.fori_loop(0, _MODE_STEPS, step, start)
    return _wrapped_difference(found, 0.0)[0]


@jax.jit
def azimuth_deg(density: Density) -> Array:
    """Direction of the main component (see `mean_direction`), degrees [...] in [0, 360).

    Example:
        >>> print(f"{azimuth_deg(from_single(-math.pi / 2, 3.0)):.1f}")
        270.0
    """
    degrees = jnp.rad2deg(mean_direction(density))
    degrees = jnp.where(degrees < 0.0, degrees + 360.0, degrees)
    # A tiny negative angle rounds up to a full turn.
    return jnp.where(degrees >= 360.0, 0.0, degrees)


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
    difference = _floating(a) - _floating(b)
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
    angle, weights = _floating(angle), _floating(weights)
    sine = jnp.sum(weights * jnp.sin(angle), axis=axis)
    cosine = jnp.sum(weights * jnp.cos(angle), axis=axis)
    return jnp.arctan2(sine, cosine)
