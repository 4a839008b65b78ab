"""The statistics of the experiment: pure functions of NumPy arrays, seeded where they draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import numpy.typing as npt
import scipy.stats

RESAMPLES = 1000
_Z = NormalDist().inv_cdf(0.975)


def wilson(successes: float, n: int) -> tuple[float, float]:
    """The 95% score interval of a proportion (Wilson, JASA 1927).

    Args:
        successes: how many of the n; half a one for a tie is allowed.
        n: independent trials, n ≥ 1.

    Returns:
        (low, high).

    Raises:
        ValueError: there is no trial, or more successes than trials.

    Example:
        >>> [round(x, 3) for x in wilson(65, 100)]
        [0.553, 0.736]
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials")
    p, z2 = successes / n, _Z * _Z
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # Rounding must not push the interval past a proportion of 0 or 1.
    return max(0.0, min(middle - half, p)), min(1.0, max(middle + half, p))


def multiplicities(groups: npt.ArrayLike, samples: int = RESAMPLES) -> np.ndarray:
    """How often each row enters each resample of a cluster bootstrap.

    Rows of one group (photos of one car model) are not independent, so whole groups are drawn with
    replacement (Davison and Hinkley, Bootstrap Methods, 1997, section 3.8).

    Args:
        groups: [N]; the group of each row.
        samples: how often to resample; the draws are always the same.

    Returns:
        float64 [samples, N].

    Example:
        >>> multiplicities(["a", "a", "b"], samples=3)[:, :2].std(axis=1).tolist()
        [0.0, 0.0, 0.0]
    """
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    count = int(index.max()) + 1
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(count, np.full(count, 1 / count), size=samples)
    return drawn[:, index].astype(np.float64)


def mean_interval(
    values: npt.ArrayLike, groups: npt.ArrayLike, samples: int = RESAMPLES
) -> tuple[float, list[float]]:
    """The mean of rows, and its 95% percentile interval over resampled groups.

    Args:
        values: float [N], N ≥ 1.
        groups: [N]; the group of each row.
        samples: of the bootstrap.

    Returns:
        (mean, [low, high]).

    Example:
        >>> mean_interval([1.0, 1.0], ["a", "b"])
        (1.0, [1.0, 1.0])
    """
    x = np.asarray(values, np.float64)
    times = multiplicities(groups, samples)
    means = times @ x / times.sum(axis=1)
    return float(x.mean()), np.quantile(means, [0.025, 0.975]).tolist()


def partial_rank_correlation(
    x: npt.ArrayLike,
    y: npt.ArrayLike,
    controls: Sequence[npt.ArrayLike] = (),
    *,
    groups: npt.ArrayLike | None = None,
    weights: npt.ArrayLike | None = None,
) -> float:
    """Spearman's partial correlation: of x and y where the controls are equal.

    Every variable is replaced by its ranks; with r_x and r_y the residuals of those of x and y
    after least squares on an intercept and the ranks of the controls, ρ = r_x·r_y / (|r_x| |r_y|)
    (Conover, Practical Nonparametric Statistics, 1999, section 5.4). With groups, each group has an
    intercept of its own: what is left is the correlation inside the groups.

    Args:
        x: float [N].
        y: float [N].
        controls: variables float [N] to hold equal.
        groups: [N]; None means one group.
        weights: float [N], how often each row counts (ranks are of the rows as they are); None: 1.

    Returns:
        ρ in [−1, 1]; NaN where x or y has no variation of its own.

    Example:
        >>> size, bright = np.arange(8.0), np.tile([0.0, 9.0], 4)
        >>> round(partial_rank_correlation(size + bright, size - bright, [size]), 3)
        -1.0
    """
    table = np.stack([scipy.stats.rankdata(v) for v in (x, y, *controls)], axis=1)
    n = len(table)
    w = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    index = np.zeros(n, int) if groups is None else np.unique(groups, return_inverse=True)[1]
    total = np.bincount(index, weights=w)
    for column in range(table.shape[1]):
        sums = np.bincount(index, weights=w * table[:, column])
        table[:, column] -= (sums / np.where(total > 0, total, 1))[index]
    table *= np.sqrt(w)[:, None]
    pair, others = table[:, :2], table[:, 2:]
    before = np.linalg.norm(pair, axis=0)
    if others.shape[1]:
        pair = pair - others @ np.linalg.lstsq(others, pair, rcond=None)[0]
    after = np.linalg.norm(pair, axis=0)
    if (after <= 1e-9 * np.maximum(before, 1)).any():
        return math.nan
    return float(pair[:, 0] @ pair[:, 1] / (after[0] * after[1]))


def angular_mean(
    azimuth_deg: npt.ArrayLike,
    values: npt.ArrayLike,
    at_deg: npt.ArrayLike,
    *,
    kappa: float,
    times: np.ndarray | None = None,
) -> np.ndarray:
    """The mean of values around each direction, weighted by a von Mises kernel.

    m(a) = Σ_i v_i e^{κ(cos(a − a_i) − 1)} / Σ_i e^{κ(cos(a − a_i) − 1)}, the Nadaraya–Watson
    estimate for a circular predictor (Di Marzio et al., Stat. Probab. Lett. 2009).

    Args:
        azimuth_deg: float [N]; where each value was seen.
        values: float [N].
        at_deg: float [M]; where the mean is wanted.
        kappa: of the kernel, whose standard deviation is about 1/√κ radians.
        times: float [S, N]; how often each row enters each of S resamples; None: one, of all rows.

    Returns:
        float64 [M], or [S, M] with `times`.

    Example:
        >>> angular_mean([0.0, 180.0], [1.0, 3.0], [0.0, 90.0], kappa=10.0).round(3).tolist()
        [1.0, 2.0]
    """
    apart = np.deg2rad(np.asarray(at_deg, np.float64)[None] - np.asarray(azimuth_deg)[:, None])
    kernel = np.exp(kappa * (np.cos(apart) - 1))
    v = np.asarray(values, np.float64)
    if times is None:
        return v @ kernel / kernel.sum(axis=0)
    return (times * v) @ kernel / np.maximum(times @ kernel, 1e-300)


def cohen_kappa(first: Sequence[str], second: Sequence[str]) -> float:
    """Agreement of two viewers beyond chance (Cohen, Educ. Psychol. Meas. 1960).

    κ = (p_o − p_e) / (1 − p_e), p_o the share of equal answers and p_e the share that would be
    equal if each answered at random with their own frequencies.

    Returns:
        κ ≤ 1; NaN where chance alone explains everything (p_e = 1).

    Raises:
        ValueError: the two are not of one length ≥ 1.

    Example:
        >>> cohen_kappa(["A", "B", "A", "B"], ["A", "B", "B", "A"])
        0.0
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} answers and {len(second)}: expected as many, at least one")
    answers = sorted({*first, *second})
    table = np.zeros((len(answers), len(answers)))
    for a, b in zip(first, second, strict=True):
        table[answers.index(a), answers.index(b)] += 1 / len(first)
    observed, chance = np.trace(table), float(table.sum(axis=1) @ table.sum(axis=0))
    return float((observed - chance) / (1 - chance)) if chance < 1 - 1e-12 else math.nan
