"""Which directions the frames of a video cover."""

from __future__ import annotations

import jax
import numpy as np
import numpy.typing as npt
from jax import Array
from jax.typing import ArrayLike

from carjax.circular.angles import floating
from carjax.circular.density import Density, on_grid


@jax.jit
def coverage_map(density: Density, weights: ArrayLike) -> Array:
    """The mean of many densities on a grid: which directions the frames of a video cover.

    Args:
        density: batch [N].
        weights: float [N]; weights of the frames, with sum 1, as from `time_weights`.

    Returns:
        float [360]; density per radian at 0, 1, … degrees, its mean 1/2π.

    Example:
        >>> from carjax import circular
        >>> frames = circular.from_single(np.deg2rad([0.0, 90.0]), 200.0)
        >>> covered = coverage_map(frames, time_weights([0.0, 1.0]))
        >>> bool(covered[90] > covered[45])
        True
    """
    return floating(weights) @ on_grid(density)


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
