"""The main peak of azimuth densities on the host, where no device has to be waited for."""

from __future__ import annotations

import numpy as np
from scipy.special import i0e, i1e, logsumexp

from carjax.circular import Density
from carjax.grids import concentration, wrapped_deg


def main_peak(density: Density) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The main peak as one von Mises component and a floor, which a table holds of a mixture.

    A component counts to the peak of the main one (see `circular.mean_direction`) by how high it
    stands in that direction, g_k = exp(κ_k (cos(μ − μ_k) − 1)). The peak has the weight
    W = Σ w_k g_k, the direction μ of the main component, and the concentration of the mean
    resultant length Σ w_k g_k A(κ_k) cos(μ − μ_k) / W. One component alone is its own peak.

    In NumPy: a device would be waited for until it has scored the frames that were sent after
    these.

    Args:
        density: of N frames on the host, K components.

    Returns:
        (azimuth in degrees in [0, 360), κ, mass elsewhere), float32 [N] each; of a frame that has a
        component which is no number, all are NaN.

    Example:
        >>> two = Density(np.array([[0.7, 0.3]]), np.array([[0.0, 3.0]]), np.full((1, 2), 50.0),
        ...               np.zeros(1))
        >>> azimuth_deg, kappa, floor = main_peak(two)
        >>> print(f"{azimuth_deg[0]:.0f} {kappa[0]:.1f} {floor[0]:.2f}")
        0 50.0 0.30
    """
    weights, mu, kappa, floor = (np.asarray(x) for x in density)
    if mu.shape[1] == 1:
        return wrapped_deg(np.rad2deg(mu[:, 0])), kappa[:, 0], floor
    weights, mu, kappa = (x.astype(np.float64) for x in (weights, mu, kappa))
    apart = mu[:, :, None] - mu[:, None, :]  # [N, direction, component]
    with np.errstate(divide="ignore"):  # a component may have no weight
        log_scale = np.log(weights) - np.log(i0e(kappa))
    height = logsumexp(log_scale[:, None] + kappa[:, None] * (np.cos(apart) - 1.0), axis=2)
    main = np.take_along_axis(mu, height.argmax(axis=1)[:, None], axis=1)
    main[np.isnan(height).any(axis=1)] = np.nan
    cosine = np.cos(main - mu)
    share = weights * np.exp(kappa * (cosine - 1.0))
    weight = share.sum(axis=1)
    # Padding has no weight at all.
    length = (share * i1e(kappa) / i0e(kappa) * cosine).sum(axis=1) / np.maximum(weight, 1e-30)
    found = (
        wrapped_deg(np.rad2deg(main[:, 0])),
        concentration(length),
        1.0 - (1.0 - floor) * np.minimum(weight, 1.0),
    )
    return tuple(x.astype(np.float32) for x in found)  # type: ignore[return-value]
