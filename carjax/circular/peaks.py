"""Where a density is highest: the direction and the concentration of its main component."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from carjax.circular.angles import circular_mean, wrapped_difference
from carjax.circular.bessel import concentration, mean_resultant_length
from carjax.circular.density import Density, from_single, log_prob
from carjax.circular.von_mises import exponent, vonmises_log_prob

_MODE_STEPS = 50


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
    found = jnp.take_along_axis(values, index, axis=-1)[..., 0]
    # Where one component is no number, no direction is the highest.
    return jnp.where(jnp.isnan(height).any(axis=-1), jnp.nan, found)


def mean_direction(density: Density) -> Array:
    """Direction of the main component, radians [...] in [−π, π].

    The main component is the one in whose direction the density is highest.
    """
    return wrapped_difference(_main(density, density.mu), 0.0)[0]


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
    apart, _ = wrapped_difference(mu[..., None], density.mu)
    share = density.weights * jnp.exp(exponent(apart, density.kappa))
    weight = share.sum(axis=-1)
    length = jnp.sum(share * mean_resultant_length(density.kappa) * jnp.cos(apart), axis=-1)
    floor = 1.0 - (1.0 - density.floor) * jnp.minimum(weight, 1.0)
    return from_single(mu, concentration(length / weight), floor)


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
        offset, _ = wrapped_difference(density.mu, angle[..., None])
        return angle + circular_mean(offset, density.weights * density.kappa * height)

    found = jax.lax.fori_loop(0, _MODE_STEPS, step, start)
    return wrapped_difference(found, 0.0)[0]


@jax.jit
def azimuth_deg(density: Density) -> Array:
    """Direction of the main component (see `mean_direction`), degrees [...] in [0, 360).

    Example:
        >>> print(f"{azimuth_deg(from_single(jnp.deg2rad(-90.0), 3.0)):.1f}")
        270.0
    """
    degrees = jnp.rad2deg(mean_direction(density))
    degrees = jnp.where(degrees < 0.0, degrees + 360.0, degrees)
    # A tiny negative angle rounds up to a full turn.
    return jnp.where(degrees >= 360.0, 0.0, degrees)
