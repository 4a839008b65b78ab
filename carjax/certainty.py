"""How certain a prediction is, and whether that certainty can be trusted.

Entropies are JAX functions for use inside a jitted program. The evaluation metrics are NumPy: they
run once, on the host, over labelled predictions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array
from jax.typing import ArrayLike

# --- entropy (JAX) -------------------------------------------------------------------------------


def entropy_from_logits(logits: ArrayLike) -> Array:
    """Shannon entropy of softmax(logits), in nats.

    Args:
        logits: float [..., K]; may hold −inf (an excluded class), though not only that.

    Returns:
        float [...] in [0, log K]; its gradient is finite.

    Example:
        >>> print(f"{entropy_from_logits(jnp.array([0.0, 0.0, -jnp.inf])):.4f}")
        0.6931
    """
    log_probs = jax.nn.log_softmax(jnp.asarray(logits), axis=-1)
    probs = jnp.exp(log_probs)
    # 0·log 0 = 0; the inner choice keeps −inf out of the gradient.
    return -jnp.sum(probs * jnp.where(probs > 0.0, log_probs, 0.0), axis=-1)


def entropy_from_probs(probs: ArrayLike) -> Array:
    """Shannon entropy −Σ p log p, in nats.

    Args:
        probs: float [..., K]; ≥ 0, sum 1 over the last axis.

    Returns:
        float [...] in [0, log K]. Its gradient is finite: a probability of 0 contributes none.

    Example:
        >>> print(f"{entropy_from_probs(jnp.array([0.25, 0.75, 0.0])):.4f}")
        0.5623
    """
    probs = jnp.asarray(probs)
    return -jnp.sum(probs * jnp.log(jnp.where(probs > 0.0, probs, 1.0)), axis=-1)


def normalized_certainty(entropy: ArrayLike, num_classes: int) -> Array:
    """Certainty 1 − H/log K: 0 for the uniform distribution, 1 for a single sure class.

    Args:
        entropy: float [...]; Shannon entropy in nats.
        num_classes: K ≥ 1 (static); with one class the certainty is 1.

    Returns:
        float [...] in [0, 1].

    Raises:
        ValueError: `num_classes` is below 1.

    Example:
        >>> print(f"{normalized_certainty(math.log(2.0), 4):.2f}")
        0.50
    """
    if num_classes < 1:
        raise ValueError(f"num_classes must be at least 1, not {num_classes}")
    entropy = jnp.asarray(entropy)
    if num_classes == 1:
        return jnp.where(jnp.isnan(entropy), jnp.nan, 1.0)  # a broken frame is not certain
    return jnp.clip(1.0 - entropy / math.log(num_classes), 0.0, 1.0)


# --- evaluation metrics (NumPy) ------------------------------------------------------------------

_LEAST_PROBABILITY = 1e-12


def _predictions(probs: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns float64 [N, K] and int [N], or raises ValueError saying what does not fit."""
    p, y = np.asarray(probs, np.float64), np.asarray(labels)
    if p.ndim != 2 or p.size == 0:
        raise ValueError(f"probs must be [N, K] with N, K ≥ 1, not of shape {p.shape}")
    if not ((p >= 0) & (p <= 1 + 1e-4)).all():
        raise ValueError("probs must be probabilities, from 0 to 1")
    if not np.allclose(p.sum(axis=1), 1, atol=1e-3):
        raise ValueError("the probabilities of each row must have the sum 1")
    if y.shape != p.shape[:1]:
        raise ValueError(f"labels must be [{len(p)}] like probs, not of shape {y.shape}")
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= p.shape[1]:
        raise ValueError(f"labels must be integers from 0 to {p.shape[1] - 1}")
    return p, y


def _confidence(probs: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns the top probability, float64 [N], and whether that class is right, bool [N]."""
    p, y = _predictions(probs, labels)
    return p.max(axis=1), p.argmax(axis=1) == y


def _binned_gap(confidence: np.ndarray, correct: np.ndarray, index: np.ndarray) -> float:
    """Σ over bins of (share of samples)·|accuracy − mean confidence|."""
    gaps = np.bincount(index, weights=correct - confidence)
    return float(np.abs(gaps).sum() / len(confidence))


def calibration_error(confidence: npt.ArrayLike, correct: npt.ArrayLike, bins: int = 15) -> float:
    """Expected calibration error of stated probabilities, over bins of equal width.

    ECE = Σ_b (n_b/N)·|accuracy_b − confidence_b|, bins (i/B, (i + 1)/B] (Guo et al., "On
    Calibration of Modern Neural Networks", ICML 2017, eq. 3).

    Args:
        confidence: float [N]; the probability that was stated, such as that of the top class.
        correct: bool [N]; whether it came true.
        bins: the number B of bins.

    Returns:
        The error in [0, 1]; 0 is calibrated.

    Raises:
        ValueError: the two are not rows of one length N ≥ 1, a probability is none, or `bins` is
            below 1.

    Example:
        >>> round(calibration_error([0.9, 0.9], [True, False]), 3)
        0.4
    """
    stated, true = np.asarray(confidence, np.float64), np.asarray(correct, np.float64)
    if stated.ndim != 1 or stated.size == 0 or stated.shape != true.shape:
        raise ValueError(
            f"confidence and correct must both be [N] with N ≥ 1, not {stated.shape} and "
            f"{true.shape}"
        )
    if not ((stated >= 0) & (stated <= 1 + 1e-4)).all():
        raise ValueError("confidence must be probabilities, from 0 to 1")
    _check_positive("bins", bins)
    return _binned_gap(stated, true, confidence_bins(stated, bins))


def confidence_bins(confidence: npt.ArrayLike, bins: int = 15) -> np.ndarray:
    """Returns the index int [N] of each probability's bin (i/B, (i + 1)/B]; 0 falls into the first.

    Example:
        >>> confidence_bins([0.0, 0.2, 0.21, 1.0], bins=5).tolist()
        [0, 0, 1, 4]
    """
    return np.searchsorted(np.arange(1, bins) / bins, np.asarray(confidence), side="left")


def adaptive_ece(probs: npt.ArrayLike, labels: npt.ArrayLike, bins: int = 15) -> float:
    """Expected calibration error of the top class, over bins of equal mass.

    As `calibration_error`, with bin edges at quantiles of the confidence (Nguyen and
    O'Connor, EMNLP 2015; Nixon et al., "Measuring Calibration in Deep Learning", 2019). Samples
    of equal confidence share a bin, so that the order of the samples does not matter.

    Args:
        probs: float [N, K]; predicted probabilities.
        labels: int [N]; true classes.
        bins: the number of bins.

    Returns:
        The error in [0, 1]; 0 is calibrated.

    Raises:
        ValueError: the shapes or labels do not fit, or `bins` is below 1.

    Example:
        >>> round(adaptive_ece([[0.9, 0.1], [0.6, 0.4]], [0, 0], bins=2), 3)
        0.25
    """
    confidence, correct = _confidence(probs, labels)
    _check_positive("bins", bins)
    ranks = np.arange(1, bins) * len(confidence) // bins
    inner = np.sort(confidence)[ranks]
    return _binned_gap(confidence, correct, np.searchsorted(inner, confidence, side="right"))


def log_losses(probs: npt.ArrayLike, labels: npt.ArrayLike) -> np.ndarray:
    """Negative log-probability of each true class, in nats: its mean is the NLL.

    Args:
        probs: float [N, K]; predicted probabilities.
        labels: int [N]; true classes.

    Returns:
        float64 [N], ≥ 0. A probability below 1e-12 counts as that, so that a mean stays finite.

    Raises:
        ValueError: the shapes or labels do not fit.

    Example:
        >>> log_losses([[0.5, 0.5], [1.0, 0.0]], [1, 0]).mean().round(4).item()
        0.3466
    """
    p, y = _predictions(probs, labels)
    return -np.log(np.maximum(p[np.arange(len(p)), y], _LEAST_PROBABILITY))


def brier_losses(probs: npt.ArrayLike, labels: npt.ArrayLike) -> np.ndarray:
    """Σ_k (p_k − [k is true])² of each sample: its mean is the Brier score (Brier, 1950).

    Args:
        probs: float [N, K]; predicted probabilities.
        labels: int [N]; true classes.

    Returns:
        float64 [N] in [0, 2]; 0 is perfect.

    Raises:
        ValueError: the shapes or labels do not fit.

    Example:
        >>> brier_losses([[0.5, 0.5], [1.0, 0.0]], [1, 0]).tolist()
        [0.5, 0.0]
    """
    p, y = _predictions(probs, labels)
    return ((p - np.eye(p.shape[1])[y]) ** 2).sum(axis=1)


def risk_coverage_curve(
    confidence: npt.ArrayLike, loss: npt.ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """The mean loss on the most confident share of the samples, for every share.

    El-Yaniv and Wiener, "On the Foundations of Noise-free Selective Classification", JMLR 2010.
    Samples of equal confidence enter in every order: each counts with the mean loss of its group.

    Args:
        confidence: float [N]; larger is surer; any monotone score does, such as −entropy.
        loss: float [N]; 1 for a wrong class and 0 for a right one, or an error in degrees.

    Returns:
        (coverage, risk), float64 [N] each: coverage is 1/N, 2/N, …, 1.

    Raises:
        ValueError: the two are not rows of one length N ≥ 1, or hold a NaN.

    Example:
        >>> coverage, risk = risk_coverage_curve([0.9, 0.5], [0, 1])
        >>> coverage.tolist(), risk.tolist()
        ([0.5, 1.0], [0.0, 0.5])
    """
    c, values = np.asarray(confidence, np.float64), np.asarray(loss, np.float64)
    if c.ndim != 1 or c.size == 0 or c.shape != values.shape:
        raise ValueError(
            f"confidence and loss must both be [N] with N ≥ 1, not {c.shape} and {values.shape}"
        )
    if np.isnan(c).any() or np.isnan(values).any():
        raise ValueError("confidence and loss must not hold NaN")
    _, group, sizes = np.unique(-c, return_inverse=True, return_counts=True)
    means = np.bincount(group, weights=values) / sizes
    kept = np.arange(1, c.size + 1)
    return kept / c.size, np.cumsum(np.repeat(means, sizes)) / kept


def aurc(confidence: npt.ArrayLike, loss: npt.ArrayLike) -> float:
    """Area under the risk-coverage curve: the mean of its risks.

    Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks", NeurIPS 2017; the
    mean over all N coverages as in Geifman et al., "Bias-Reduced Uncertainty Estimation for Deep
    Neural Classifiers", ICLR 2019, section 2.

    Args:
        confidence: float [N]; larger is surer.
        loss: float [N]; 1 for a wrong class and 0 for a right one, or an error in degrees.

    Returns:
        The area; smaller is better, and the mean loss is what a random order gives.

    Raises:
        ValueError: the two are not rows of one length N ≥ 1, or hold a NaN.

    Example:
        >>> aurc([0.9, 0.5], [0, 1])
        0.25
    """
    return float(risk_coverage_curve(confidence, loss)[1].mean())


def bootstrap_intervals(
    values: npt.ArrayLike,
    statistics: Callable[[np.ndarray], Sequence[float]],
    groups: npt.ArrayLike | None = None,
    confidence: float = 0.95,
    samples: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """Bootstrap intervals of several statistics, all of the same resamples.

    Percentile intervals (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section
    13.3), moved by what resampling adds on average: to a calibration error it adds noise, so that
    the figure itself could lie below its interval.

    Args:
        values: [N, ...]; rows drawn with replacement. For metrics of several arrays pass
            `np.arange(N)` and let `statistics` index them.
        statistics: maps a resampled [n, ...] to M numbers.
        groups: [N]; rows of one group, such as photos of one car model, are not independent: whole
            groups are drawn (Davison and Hinkley, "Bootstrap Methods", 1997, section 3.8). None:
            every row is its own.
        confidence: the share of resampled statistics inside each interval, in (0, 1).
        samples: how often to resample.
        seed: of the random generator; the same seed gives the same intervals.

    Returns:
        float64 [M, 2]; low and high of each.

    Raises:
        ValueError: there are no values, or `confidence` or `samples` is out of range.

    Example:
        >>> bootstrap_intervals([3.0, 3.0], lambda x: [x.mean(), x.std()]).tolist()
        [[3.0, 3.0], [0.0, 0.0]]
    """
    rows = np.asarray(values)
    if rows.ndim == 0 or len(rows) == 0:
        raise ValueError("a bootstrap needs at least one value")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must lie between 0 and 1, not be {confidence}")
    _check_positive("samples", samples)
    names, group = np.unique(
        np.arange(len(rows)) if groups is None else np.asarray(groups), return_inverse=True
    )
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    generator = np.random.default_rng(seed)
    resampled = []
    for _ in range(samples):
        drawn = generator.integers(len(names), size=len(names))
        resampled.append(statistics(rows[np.concatenate([members[i] for i in drawn])]))
    tail = (1.0 - confidence) / 2.0
    ends = np.quantile(resampled, [tail, 1.0 - tail], axis=0)
    own = np.asarray(statistics(rows), np.float64)
    # Not past what a resample or the rows themselves give: a share stays in [0, 1].
    low = np.minimum(np.min(resampled, axis=0), own)
    high = np.maximum(np.max(resampled, axis=0), own)
    return np.clip(ends + own - np.mean(resampled, axis=0), low, high).T


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}")
