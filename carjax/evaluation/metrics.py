"""Metrics of labelled predictions: the one place of them for training, evaluation and benchmarks.

Predictions are first reduced to a few numbers per image (`classified`, `directed`); a metric is a
function of those rows. So a bootstrap, which evaluates a metric a thousand times on resampled rows,
never touches a distribution again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from carjax import certainty, circular, localise
from carjax.attributes import VIEWS

# An azimuth that is off by more is nearly the opposite one.
FLIP_DEG = 150.0
# Densities are evaluated in chunks of this many rows, to bound memory.
_ROWS = 256


class Classified(NamedTuple):
    """What is kept of N class predictions.

    Attributes:
        label: int [N]; true class.
        predicted: int [N]; most probable class.
        confidence: float64 [N]; its probability.
        certainty: float64 [N]; 1 − H/log K.
        nll: float64 [N]; −log of the true class's probability, in nats.
        brier: float64 [N]; Σ_k (p_k − [k is true])².
    """

    label: np.ndarray
    predicted: np.ndarray
    confidence: np.ndarray
    certainty: np.ndarray
    nll: np.ndarray
    brier: np.ndarray


class Directed(NamedTuple):
    """What is kept of N azimuth densities.

    Attributes:
        azimuth_deg: float64 [N]; true azimuth in degrees.
        predicted_deg: float64 [N]; direction of the main component, degrees in [0, 360).
        error_deg: float64 [N]; the absolute difference of the two, in [0, 180].
        entropy: float64 [N]; of the density, in nats.
        loglik: float64 [N]; log-density at the truth, in nats per radian.
        hdr_mass: float64 [N]; mass of the directions likelier than the truth.
    """

    azimuth_deg: np.ndarray
    predicted_deg: np.ndarray
    error_deg: np.ndarray
    entropy: np.ndarray
    loglik: np.ndarray
    hdr_mass: np.ndarray


Rows = TypeVar("Rows", bound=Classified | Directed)


def classified(probs: npt.ArrayLike, labels: npt.ArrayLike) -> Classified:
    """Reduces class probabilities [N, K] and true classes int [N] to rows.

    Raises:
        ValueError: the shapes or labels do not fit, or there is no row.
    """
    p, label = np.asarray(probs, np.float64), np.asarray(labels)
    nll, brier = certainty.log_losses(p, label), certainty.brier_losses(p, label)
    entropy = certainty.entropy_from_probs(p)
    sure = certainty.normalized_certainty(entropy, p.shape[1])
    return Classified(label, p.argmax(1), p.max(1), np.asarray(sure, np.float64), nll, brier)


def directed(density: circular.Density, azimuth_deg: npt.ArrayLike) -> Directed:
    """Reduces azimuth densities of batch [N] and true azimuths [N] in degrees to rows."""
    truth = np.asarray(azimuth_deg, np.float64)
    predicted = circular.azimuth_deg(density)
    error = jnp.abs(circular.angular_difference_deg(predicted, truth))
    entropy, loglik, mass = _statistics(density, np.deg2rad(truth).astype(np.float32))
    columns = (truth, predicted, error, entropy, loglik, mass)
    return Directed(*(np.asarray(x, np.float64) for x in columns))


@jax.jit
def _statistics(
    density: circular.Density, angle: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    def one(x: tuple[circular.Density, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        return circular.entropy(x[0]), circular.log_prob(*x), circular.hdr_mass(*x)

    return jax.lax.map(one, (density, angle), batch_size=_ROWS)


def take(rows: Rows, index: np.ndarray) -> Rows:
    """Returns the rows that an index, or a mask, selects."""
    return type(rows)(*(column[index] for column in rows))


def _balanced_accuracy(rows: Classified) -> float:
    """The mean recall over the classes that occur (Brodersen et al., ICPR 2010)."""
    count = np.bincount(rows.label)
    hits = np.bincount(rows.label, weights=rows.label == rows.predicted)
    return float((hits[count > 0] / count[count > 0]).mean())


def _coverage(mass: float) -> Callable[[Directed], float]:
    return lambda rows: float((rows.hdr_mass <= mass).mean())


CATEGORICAL_METRICS: Mapping[str, Callable[[Classified], float]] = {
    "accuracy": lambda rows: float((rows.predicted == rows.label).mean()),
    "balanced_accuracy": _balanced_accuracy,
    "nll": lambda rows: float(rows.nll.mean()),
    "brier": lambda rows: float(rows.brier.mean()),
    "ece": lambda rows: certainty.calibration_error(rows.confidence, rows.predicted == rows.label),
    # Ordered by 1 − H/log K, the certainty that photos are chosen by.
    "aurc": lambda rows: certainty.aurc(rows.certainty, rows.predicted != rows.label),
}

# Acc of π/6 and MedErr: Tulsiani and Malik, "Viewpoints and Keypoints", CVPR 2015; MAAD and the
# log-likelihood: Prokudin et al., "Deep Directional Statistics", ECCV 2018.
ANGULAR_METRICS: Mapping[str, Callable[[Directed], float]] = {
    "mederr_deg": lambda rows: float(np.median(rows.error_deg)),
    "maad_deg": lambda rows: float(rows.error_deg.mean()),
    "acc_pi_6": lambda rows: float((rows.error_deg <= 30.0).mean()),
    "acc_pi_18": lambda rows: float((rows.error_deg <= 10.0).mean()),
    "flip_rate": lambda rows: float((rows.error_deg > FLIP_DEG).mean()),
    "loglik_nats_per_rad": lambda rows: float(rows.loglik.mean()),
    "coverage50": _coverage(0.50),
    "coverage80": _coverage(0.80),
    "coverage95": _coverage(0.95),
}

BOX_METRICS = ("iou", "recall_50")
# Of these less is better.
LOWER_IS_BETTER = ("nll", "brier", "ece", "aurc", "mederr_deg", "maad_deg", "flip_rate")


def categorical_metrics(log_probs: npt.ArrayLike, labels: npt.ArrayLike) -> dict[str, float]:
    """Accuracy, balanced accuracy, NLL in nats, Brier score, ECE and AURC.

    Args:
        log_probs: float [N, K].
        labels: int [N].

    Example:
        >>> m = categorical_metrics(np.log([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]))
        >>> m["accuracy"], round(m["nll"], 3)
        (1.0, 0.164)
    """
    rows = classified(np.exp(np.asarray(log_probs, np.float64)), labels)
    return {name: metric(rows) for name, metric in CATEGORICAL_METRICS.items()}


def angular_metrics(density: circular.Density, azimuth_deg: npt.ArrayLike) -> dict[str, float]:
    """Errors of the main direction, and how well the density held the truth.

    Args:
        density: batch [N].
        azimuth_deg: float [N]; true azimuths in degrees.

    Returns:
        Median and mean absolute error in degrees, shares within 30° and 10° and beyond 150°
        (flips), mean log-density in nats per radian, and the shares of truths inside the
        highest-density regions of 50, 80 and 95% mass.

    Example:
        >>> density = circular.from_single(jnp.zeros(2), 100.0)
        >>> m = angular_metrics(density, [3.0, 350.0])
        >>> round(m["mederr_deg"], 3), m["acc_pi_18"], m["coverage50"]
        (6.5, 1.0, 0.5)
    """
    rows = directed(density, azimuth_deg)
    return {name: metric(rows) for name, metric in ANGULAR_METRICS.items()}


def box_metrics(boxes: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Mean IoU, and recall at an IoU of 0.5, of boxes [N, 4] against targets [N, 4]."""
    overlap = np.asarray(localise.iou(jnp.asarray(boxes), jnp.asarray(targets)))
    return {"iou": float(overlap.mean()), "recall_50": float((overlap > 0.5).mean())}


def summarise(
    rows: Rows,
    metrics: Mapping[str, Callable[[Rows], float]],
    models: npt.ArrayLike | None = None,
    samples: int = 1000,
) -> dict[str, Any]:
    """Every metric of some rows, with its 95% bootstrap interval.

    Args:
        rows: N of them, N ≥ 0.
        metrics: `CATEGORICAL_METRICS` or `ANGULAR_METRICS`.
        models: str [N]; the car model of each row: whole models are drawn, a row without a name by
            itself. None: rows are independent.
        samples: resamples of the bootstrap.

    Returns:
        {'n', metric …, 'ci95': {metric: [low, high] …}}; without a row every value is None, and of
        one row, or one car model, every interval is: how far others differ cannot be told.
    """
    n = len(rows[0])
    if not n:
        return {"n": 0, **dict.fromkeys(metrics), "ci95": dict.fromkeys(metrics)}

    def values(index: np.ndarray) -> list[float]:
        resampled = take(rows, index)
        return [metric(resampled) for metric in metrics.values()]

    names = np.full(n, "") if models is None else np.asarray(models, str)
    groups = np.where(names == "", np.char.add(" ", np.arange(n).astype(str)), names)
    intervals: dict[str, Any] = dict.fromkeys(metrics)
    if len(np.unique(groups)) > 1:
        found = certainty.bootstrap_intervals(np.arange(n), values, groups, samples=samples)
        intervals = dict(zip(metrics, found.tolist(), strict=True))
    return {"n": n, **{name: metric(rows) for name, metric in metrics.items()}, "ci95": intervals}


def confusion(rows: Classified, classes: int) -> np.ndarray:
    """Counts int [K, K]: row = true class, column = predicted class."""
    pairs = rows.label.astype(int) * classes + rows.predicted.astype(int)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def view_bin(azimuth_deg: npt.ArrayLike) -> np.ndarray:
    """Returns which of the `VIEWS`, centred on 0, 45, … degrees, each azimuth is of, int [N].

    Example:
        >>> view_bin([0.0, 22.4, 22.6, 350.0, -50.0]).tolist()
        [0, 0, 1, 0, 7]
    """
    turns = np.asarray(azimuth_deg, np.float64) / (360.0 / len(VIEWS))
    return np.floor(turns + 0.5).astype(int) % len(VIEWS)
