"""The azimuth density: von Mises components above a uniform floor, and the masses under it."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from carjax.circular.angles import LOG_TWO_PI, TWO_PI, alike, wrapped_difference
from carjax.circular.bessel import log_i0e
from carjax.circular.von_mises import (
    centred_cdf,
    exponent,
    gauss_legendre,
    vonmises_interval_prob,
    vonmises_log_prob,
)

# Panel edges of the entropy integral, in standard deviations from each component.
_ENTROPY_EDGES = (-6.5, -4.5, -3.0, -1.5, 0.0, 1.5, 3.0, 4.5, 6.5)
_ENTROPY_NODES = 8
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
    mu, kappa, floor = jnp.broadcast_arrays(*alike(mu, kappa, floor))
    return Density(jnp.ones_like(mu)[..., None], mu[..., None], kappa[..., None], floor)


def _floating(density: Density) -> Density:
    """The density with fields of one floating type, of integers or of lists."""
    return Density(*alike(*density))


def mirror(density: Density) -> Density:
    """Returns the density of −a where `density` is that of a: a photo flipped left to right.

    Example:
        >>> mirror(from_single(jnp.array(0.5), 5.0)).mu.tolist()
        [-0.5]
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
    density = _floating(density)
    floor = density.floor
    components = vonmises_log_prob(jnp.asarray(angle)[..., None], density.mu, density.kappa)
    weights = (1.0 - floor)[..., None] * density.weights
    shape = (*components.shape[:-1], 1)
    terms = jnp.concatenate([components, jnp.full(shape, -LOG_TWO_PI, components.dtype)], axis=-1)
    weights = jnp.concatenate(
        [jnp.broadcast_to(weights, components.shape), jnp.broadcast_to(floor[..., None], shape)],
        axis=-1,
    )
    return _log_sum(weights, terms)


def _log_sum(weights: Array, terms: Array) -> Array:
    """log Σ weights·exp(terms) over the last axis, not by log weights: no gradient at 0."""
    # The largest term of any weight scales the sum; terms of weight 0 may exceed it, and are capped
    # to keep gradients finite.
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
    mu, _ = wrapped_difference(density.mu, density.mu[..., :1])
    scale = jax.lax.rsqrt(jnp.maximum(density.kappa, 1e-2))
    steps = jnp.asarray(_ENTROPY_EDGES, mu.dtype)
    offsets = jnp.clip(scale[..., None] * steps, -math.pi, math.pi)
    cuts, _ = wrapped_difference(mu[..., None] + offsets, 0.0)
    cuts = jnp.clip(cuts, -math.pi, math.pi)
    cuts = cuts.reshape(*mu.shape[:-1], mu.shape[-1] * len(_ENTROPY_EDGES))
    ends = jnp.full((*mu.shape[:-1], 1), math.pi, mu.dtype)
    # Where the panels lie changes no integral: they carry no gradient.
    edges = jnp.sort(jax.lax.stop_gradient(jnp.concatenate([-ends, cuts, ends], axis=-1)))
    return mu, edges[..., :-1], jnp.diff(edges)


def _mixture(density: Density, mu: Array, start: Array, offsets: Array) -> Array:
    """The density [..., P, M] at M offsets from each of P panel starts, those of `_panels`.

    From the panel's start, whose distance to each component is exact.
    """
    anchor, _ = wrapped_difference(start[..., :, None], mu[..., None, :])
    difference = anchor[..., :, None, :] + offsets[..., None]
    peaks = jnp.exp(-log_i0e(density.kappa)) * density.weights / TWO_PI
    components = jnp.exp(exponent(difference, density.kappa[..., None, None, :]))
    mixture = jnp.sum(peaks[..., None, None, :] * components, axis=-1)
    level = density.floor[..., None, None]
    return (1.0 - level) * mixture + level / TWO_PI


def _log_components(density: Density, mu: Array, start: Array, offsets: Array) -> Array:
    """The log of what `_mixture` has without the floor, also where that is below any float."""
    anchor, _ = wrapped_difference(start[..., :, None], mu[..., None, :])
    difference = anchor[..., :, None, :] + offsets[..., None]
    kappa, weights = (x[..., None, None, :] for x in (density.kappa, density.weights))
    return _log_sum(weights, exponent(difference, kappa) - log_i0e(kappa) - LOG_TWO_PI)


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
    density = _floating(density)
    mu, start, width = _panels(density)
    nodes, node_weights = (x.astype(mu.dtype) for x in gauss_legendre(_ENTROPY_NODES))
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

    The sum runs over the panels of `entropy`, each cut into 16; in each cell the density is linear,
    and so is its logarithm without the floor, by which directions are compared. The error is below
    0.025 near to the top of a component, and below 5e-3 elsewhere if the floor is at most 0.3
    (below 0.015 for any floor: opposite to the component the cells are wide).

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
    density = _floating(density)
    mu, start, width = _panels(density)
    steps = jnp.linspace(0.0, 1.0, _HDR_CELLS + 1, dtype=mu.dtype)
    offsets = width[..., None] * steps
    p = _mixture(density, mu, start, offsets)
    level = jnp.exp(log_prob(density, angle))[..., None, None]
    # The floor changes no order, and far from a peak it would swallow the components' differences.
    peaks = density._replace(floor=jnp.zeros_like(density.floor))
    above = _log_components(density, mu, start, offsets) - log_prob(peaks, angle)[..., None, None]
    left, right = above[..., :-1], above[..., 1:]
    # A cell across the level counts from where a line through its ends crosses it.
    top, bottom = jnp.maximum(left, right), jnp.minimum(left, right)
    whole = bottom >= 0.0
    across = ~whole & (top > 0.0)
    # Elsewhere nothing is divided by zero, so that gradients are finite.
    drop = jnp.where(across, jnp.maximum(top - bottom, jnp.finfo(p.dtype).tiny), 1.0)
    share = jnp.where(whole, 1.0, jnp.where(across, top, 0.0) / drop)
    low, high = jnp.minimum(p[..., :-1], p[..., 1:]), jnp.maximum(p[..., :-1], p[..., 1:])
    mean = 0.5 * (high + jnp.where(whole, low, level))
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
    density = _floating(density)
    lo, hi, _ = alike(lo, hi, density.mu)
    components = vonmises_interval_prob(lo[..., None], hi[..., None], density.mu, density.kappa)
    mixture = jnp.sum(density.weights * components, axis=-1)
    return (1.0 - density.floor) * mixture + density.floor * (hi - lo) / TWO_PI


def _cell_masses(density: Density, n: int) -> Array:
    """Masses [..., n] of n equal cells centred on 0, 2π/n, …; they sum to the sum of weights."""
    density = _floating(density)
    edges = (np.arange(n) - 0.5) * (TWO_PI / n)
    dtype = density.mu.dtype
    # An edge in two parts: rounded to float32, it would move the mass of a sharp peak on it.
    head = edges.astype(dtype)
    tail = (edges - head).astype(dtype)
    mu, kappa = density.mu[..., None, :], density.kappa[..., None, :]
    difference, turns = wrapped_difference(head[:, None], mu)
    cdf = turns + centred_cdf(difference + tail[:, None], kappa)
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
