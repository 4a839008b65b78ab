"""Where a density is highest: the direction of its main component, and its mode."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from carjax.circular.angles import circular_mean, wrapped_difference
from carjax.circular.density import Density, log_prob
from carjax.circular.von_mises import vonmises_log_prob

_MODE_STEPS = 50


def mean_direction(density: Density) -> Array:
    """Direction of the main component, radians [...] in [−π, π].

    The main component is the one in whose direction the whole density is highest: of many equal
    components, as an infinite mixture has them, the one where they crowd. NaN where a component is
    no number.
    """
    if density.mu.shape[-1] == 1:
        return wrapped_difference(density.mu[..., 0], 0.0)[0]
    # The components, for each of their K directions; the floor is the same in all.
    weights, mu, kappa = (x[..., None, :] for x in density[:3])
    height = log_prob(Density(weights, mu, kappa, jnp.zeros_like(density.mu)), density.mu)
    index = jnp.argmax(height, axis=-1, keepdims=True)
    found = jnp.take_along_axis(density.mu, index, axis=-1)[..., 0]
    # Where one component is no number, no direction is the highest.
    found = jnp.where(jnp.isnan(height).any(axis=-1), jnp.nan, found)
    return wrapped_difference(found, 0.0)[0]


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
        >>> from carjax.circular import from_single
        >>> print(f"{azimuth_deg(from_single(jnp.deg2rad(-90.0), 3.0)):.1f}")
        270.0
    """
    degrees = jnp.rad2deg(mean_direction(density))
    degrees = jnp.where(degrees < 0.0, degrees + 360.0, degrees)
    # A tiny negative angle rounds up to a full turn.
    return jnp.where(degrees >= 360.0, 0.0, degrees)
