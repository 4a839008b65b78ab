"""Azimuth densities on a grid of cells around the circle: what is read off them.

Cell n of N is centred on n·360/N degrees; inside it the density is what the cell's value says.
Host code on NumPy arrays.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt


def difference_deg(a: npt.ArrayLike, b: npt.ArrayLike) -> np.ndarray:
    """Signed difference a − b of angles in degrees, float64 [...] in [−180, 180).

    Example:
        >>> difference_deg([10.0, 90.0], [350.0, 100.0]).tolist()
        [20.0, -10.0]
    """
    apart = np.asarray(a, np.float64) - np.asarray(b, np.float64)
    return (apart + 180.0) % 360.0 - 180.0


def apart_deg(a: npt.ArrayLike, b: npt.ArrayLike) -> np.ndarray:
    """Absolute difference of angles in degrees, float64 [...] in [0, 180].

    Example:
        >>> apart_deg([350.0, 90.0], [10.0, 80.0]).tolist()
        [20.0, 10.0]
    """
    return np.abs(difference_deg(a, b))


def wrapped_deg(degrees: npt.ArrayLike) -> np.ndarray:
    """Angles of any turn in degrees, float32 [...] in [0, 360).

    Example:
        >>> wrapped_deg([-1e-9, 450.0]).tolist()
        [0.0, 90.0]
    """
    wrapped = np.asarray(np.asarray(degrees, np.float64) % 360.0, np.float32)
    return np.where(wrapped >= 360.0, np.float32(0.0), wrapped)  # a tiny negative one rounds up


def bin_masses(density: npt.ArrayLike, bins: int = 8) -> np.ndarray:
    """Mass in bins of equal width, the first centred on 0 degrees, float64 [..., bins].

    A cell that an edge of a bin cuts is shared by its parts.

    Args:
        density: float [..., N]; per radian.
        bins: how many.

    Example:
        >>> bin_masses(np.full(180, 1 / (2 * np.pi)), 4).round(4).tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    d = np.asarray(density, np.float64)
    cells = d.shape[-1]
    # Rounding must not push a mass past 1.
    return np.clip(d @ _shares(cells, bins) * (2 * np.pi / cells), 0.0, 1.0)


@functools.cache
def _shares(cells: int, bins: int) -> np.ndarray:
    """Which share of each cell lies in each bin, float64 [cells, bins]."""
    # In units of a cell, from the lower edge of the first bin, so that no bin is torn apart.
    width = cells / bins
    low = (np.arange(cells) - 0.5 + width / 2) % cells
    shares = np.zeros((cells, bins))
    for k in range(bins):
        for turn in (0, cells):  # a cell at the end of the circle reaches into its beginning
            inside = np.minimum(low + 1, k * width + width + turn) - np.maximum(
                low, k * width + turn
            )
            shares[:, k] += np.clip(inside, 0, 1)
    return shares


def log_density(density: npt.ArrayLike, azimuth_deg: npt.ArrayLike) -> np.ndarray:
    """Log-density at one direction each, linear between the cells' centres, float64 [T].

    Linear in the logarithm, because a certain frame's density falls by orders of magnitude from one
    cell to the next.

    Args:
        density: float [T, N]; per radian.
        azimuth_deg: float [T]; NaN gives NaN.

    Example:
        >>> log_density([[1.0, 0.5, 1.0, 0.5]], [45.0]).round(3).tolist()
        [-0.347]
    """
    log = np.log(np.maximum(np.asarray(density, np.float64), 1e-300))
    truth = np.asarray(azimuth_deg, np.float64)
    rows, cells = np.arange(len(log)), log.shape[1]
    at = np.nan_to_num(truth) % 360.0 / 360.0 * cells
    left = np.floor(at).astype(int)
    share = at - left
    value = (1 - share) * log[rows, left % cells] + share * log[rows, (left + 1) % cells]
    return np.where(np.isnan(truth), np.nan, value)


def entropy(density: npt.ArrayLike) -> np.ndarray:
    """Differential entropy in nats, float64 [...].

    Example:
        >>> entropy(np.full(72, 1 / (2 * np.pi))).round(4).tolist()
        1.8379
    """
    d = np.asarray(density, np.float64)
    mass = d * (2 * np.pi / d.shape[-1])
    return -(mass * np.log(np.maximum(d, 1e-300))).sum(axis=-1)


def concentration(length: npt.ArrayLike) -> np.ndarray:
    """`circular.concentration` in NumPy: κ by the mean resultant length, the inverse of A.

    Args:
        length: float [...]; what lies outside of [0, 1) is taken for its nearest end.

    Returns:
        float64 [...]; ≥ 0, at most 1e6.

    Example:
        >>> concentration([0.0, 0.6978]).round(3).tolist()
        [0.0, 2.0]
    """
    # A fifth of a second that the commands and the page do not spend when they start.
    from scipy.special import i0e, i1e

    r = np.clip(np.asarray(length, np.float64), 0.0, 1.0 - 5e-7)
    small = 2.0 * r + r**3 + 5.0 / 6.0 * r**5
    middle = -0.4 + 1.39 * r + 0.43 / (1.0 - r)
    large = 1.0 / (r * (r - 1.0) * (r - 3.0) + 1e-30)
    kappa = np.where(r < 0.53, small, np.where(r < 0.85, middle, large))
    for _ in range(2):
        kappa = np.clip(kappa, 1e-9, 1e6)
        a = i1e(kappa) / i0e(kappa)
        kappa = kappa - (a - r) / (1.0 - a / kappa - a * a)
    return np.clip(kappa, 0.0, 1e6)


def resampled(density: npt.ArrayLike, cells: int = 360) -> np.ndarray:
    """The density on another grid, linear between the cells' centres, float64 [..., cells].

    The mass stays one.

    Example:
        >>> resampled([0.1, 0.2, 0.1, 0.237], 8).shape
        (8,)
    """
    d = np.asarray(density, np.float64)
    at = np.arange(cells) * (d.shape[-1] / cells)
    left = np.floor(at).astype(int)
    share = at - left
    out = (1 - share) * d[..., left] + share * d[..., (left + 1) % d.shape[-1]]
    return out / (out.sum(axis=-1, keepdims=True) * (2 * np.pi / cells))
