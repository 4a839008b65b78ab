"""Which directions the frames of a video cover."""

from __future__ import annotations

import jax
from jax import Array
from jax.typing import ArrayLike

from carjax.circular.angles import floating
from carjax.circular.density import Density, on_grid


@jax.jit
def coverage_map(density: Density, weights: ArrayLike) -> Array:
    """The mean of many densities on a grid: which directions the frames of a video cover.

    Args:
        density: batch [N].
        weights: float [N]; weights of the frames, with sum 1: the time that each stands for.

    Returns:
        float [360]; density per radian at 0, 1, … degrees, its mean 1/2π.

    Example:
        >>> import jax.numpy as jnp
        >>> from carjax import circular
        >>> frames = circular.from_single(jnp.deg2rad(jnp.array([0.0, 90.0])), 200.0)
        >>> covered = coverage_map(frames, [0.5, 0.5])
        >>> bool(covered[90] > covered[45])
        True
    """
    return floating(weights) @ on_grid(density)
