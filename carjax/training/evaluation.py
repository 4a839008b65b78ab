"""Metrics of held-out predictions: what training logs, and what cross-validation reports."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from carjax import certainty, circular, localise

# The figures of each task, and those of which less is better.
CATEGORICAL_FIGURES = ("accuracy", "balanced_accuracy", "nll", "ece")
ANGULAR_FIGURES = ("median_error_deg", "within_30", "flip_rate", "log_likelihood")
BOX_FIGURES = ("iou", "recall_50")
LOWER_IS_BETTER = ("nll", "ece", "median_error_deg", "flip_rate")


def categorical_metrics(log_probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, mean over classes of recall, NLL in nats, and expected calibration error.

    Args:
        log_probs: float [N, K].
        labels: int [N].

    Example:
        >>> m = categorical_metrics(np.log([[0.9, 0.1], [0.2, 0.8]]), np.array([0, 1]))
        >>> m["accuracy"], round(m["nll"], 3)
        (1.0, 0.164)
    """
    probs = np.exp(log_probs.astype(np.float64))
    correct = log_probs.argmax(1) == labels
    recalls = [correct[labels == k].mean() for k in np.unique(labels)]
    return {
        "accuracy": float(correct.mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "nll": certainty.negative_log_likelihood(probs, labels),
        "ece": certainty.expected_calibration_error(probs, labels),
    }


def angular_metrics(density: circular.Density, azimuth_deg: np.ndarray) -> dict[str, float]:
    """Errors of the main direction, and how likely the density held the truth.

    Args:
        density: batch [N].
        azimuth_deg: float [N]; true azimuths in degrees.

    Returns:
        Median error in degrees, shares within 30° and beyond 150° (flips), and the mean
        log-density in nats per radian.
    """
    error = angular_error_deg(density, azimuth_deg)
    likelihood = circular.log_prob(density, jnp.deg2rad(azimuth_deg))
    return {
        "median_error_deg": float(np.median(error)),
        "within_30": float((error <= 30.0).mean()),
        "flip_rate": float((error > 150.0).mean()),
        "log_likelihood": float(np.asarray(likelihood, np.float64).mean()),
    }


def angular_error_deg(density: circular.Density, azimuth_deg: np.ndarray) -> np.ndarray:
    """Absolute error [N] of the main direction in degrees, in [0, 180]."""
    difference = circular.angular_difference_deg(circular.azimuth_deg(density), azimuth_deg)
    return np.abs(np.asarray(difference))


def box_metrics(boxes: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Mean IoU, and recall at an IoU of 0.5, of boxes [N, 4] against targets [N, 4]."""
    overlap = np.asarray(localise.iou(jnp.asarray(boxes), jnp.asarray(targets)))
    return {"iou": float(overlap.mean()), "recall_50": float((overlap > 0.5).mean())}
