"""What time adds: single frames, the circular filter and sequence models on the same footage."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from carjax import certainty, circular
from carjax.attributes import VIEWS
from carjax.evaluation import metrics
from carjax.experiment import statistics
from carjax.features import Features
from carjax.grids import apart_deg
from carjax.selection import VIEW_THRESHOLD
from carjax.selection.eligibility import time_weights
from carjax.temporal import consensus
from carjax.temporal.consensus import Repetition

SCHEMA_VERSION = 1
WALK, VIDEO = "walk", "video"
# No camera gets as far between two frames.
JUMP_DEG = 60.0


@dataclasses.dataclass(frozen=True)
class Footage:
    """T frames of one car in order of time, with what is known and what was predicted of them.

    Attributes:
        kind: `WALK`, simulated from photos, or `VIDEO`, real.
        source: the car model of a walk, the name of a video.
        time_s: float64 [T]; increasing.
        azimuth_deg: float64 [T]; the true azimuth in degrees, NaN where nobody knows it.
        offset_deg: float64 [T]; how far the photo's label is from the azimuth that a walk shows it
            for; zeros in a video.
        spoilt: bool [T]; frames that are known to be spoilt.
        speaks: bool [T]; frames that show the car.
        density: of each frame alone, a `circular.Density` of batch [T] on the host.
        probs: attribute → float64 [T, K]; of each frame alone.
        labels: attribute → index of the true class.
        features: `backbones.Features` of the T frames, float16; None where no method reads them.
    """

    kind: str
    source: str
    time_s: np.ndarray
    azimuth_deg: np.ndarray
    offset_deg: np.ndarray
    spoilt: np.ndarray
    speaks: np.ndarray
    density: circular.Density
    probs: Mapping[str, np.ndarray]
    labels: Mapping[str, int]
    features: Features | None

    def __len__(self) -> int:
        """The number of frames."""
        return len(self.time_s)

    def take(self, rows: np.ndarray) -> Footage:
        """Some of the frames, in order."""

        def of(tree: Any) -> Any:
            return jax.tree.map(lambda x: np.asarray(x)[rows], tree)

        per_frame = ("time_s", "azimuth_deg", "offset_deg", "spoilt", "speaks")
        more = ("density", "probs", "features")
        own = {name: of(getattr(self, name)) for name in (*per_frame, *more)}
        return dataclasses.replace(self, **own)


class Estimate(NamedTuple):
    """What a method says of the azimuth of T frames.

    Attributes:
        azimuth_deg: float64 [T]; its point estimate.
        loglik: float64 [T]; log-density at the truth in nats per radian, NaN without a truth.
        view_mass: float64 [T, 8]; mass in each bin of `attributes.VIEWS`.
    """

    azimuth_deg: np.ndarray
    loglik: np.ndarray
    view_mass: np.ndarray


def azimuth_figures(
    footage: Sequence[Footage], estimates: Sequence[Estimate], samples: int = statistics.RESAMPLES
) -> dict[str, Any]:
    """Errors and likelihoods over all frames, and the views that are filled rightly and wrongly.

    Args:
        footage: of known azimuth; at least one frame.
        estimates: one per footage.
        samples: resamples of the bootstrap, which draws whole sources.

    Returns:
        {frames, mederr_deg, flip_rate, loglik, views_right, views_wrong (means per footage),
        ci95: the same keys → [low, high]}; None for what a path without a density has not.
    """
    error = np.concatenate(
        [apart_deg(e.azimuth_deg, f.azimuth_deg) for f, e in zip(footage, estimates, strict=True)]
    )
    loglik = np.concatenate([e.loglik for e in estimates])
    filled = np.array([views_filled(f, e) for f, e in zip(footage, estimates, strict=True)])
    of_frame = np.concatenate([[f.source] * len(f) for f in footage])
    of_footage = np.array([f.source for f in footage])
    figures = {
        "mederr_deg": (float(np.median(error)), _median_interval(error, of_frame, samples)),
        "flip_rate": statistics.mean_interval(error > metrics.FLIP_DEG, of_frame, samples),
    }
    if np.isfinite(loglik).all():  # a path has no density
        figures |= {
            "loglik": statistics.mean_interval(loglik, of_frame, samples),
            "views_right": statistics.mean_interval(filled[:, 0], of_footage, samples),
            "views_wrong": statistics.mean_interval(filled[:, 1], of_footage, samples),
        }
    nothing = dict.fromkeys(("loglik", "views_right", "views_wrong"))
    return {
        "frames": len(error),
        **nothing,
        **{key: value for key, (value, _) in figures.items()},
        "ci95": {**nothing, **{key: interval for key, (_, interval) in figures.items()}},
    }


def views_filled(footage: Footage, estimate: Estimate) -> tuple[int, int]:
    """How many of the eight views get a frame that shows them, and how many one that does not.

    A view gets the sound frame with the most mass in its bin, where that is its likeliest bin and
    the mass passes 0.8. Which frames are sound is taken from the truth: to tell them is not what is
    measured here.
    """
    mass = np.where(footage.spoilt[:, None], 0.0, estimate.view_mass)
    shown = metrics.view_bin(footage.azimuth_deg)
    right = wrong = 0
    for view in range(len(VIEWS)):
        rows = np.flatnonzero((mass.argmax(axis=1) == view) & (mass[:, view] > VIEW_THRESHOLD))
        if rows.size:
            best = rows[np.argmax(mass[rows, view])]
            right += shown[best] == view
            wrong += shown[best] != view
    return int(right), int(wrong)


def steadiness(estimate: Estimate) -> dict[str, float]:
    """How steady azimuths are, whether or not the truth is known.

    Returns:
        {median_step_deg: of the change between neighbours, jumps: share of changes above 60°}.
    """
    step = apart_deg(estimate.azimuth_deg[1:], estimate.azimuth_deg[:-1])
    return {
        "median_step_deg": float(np.median(step)),
        "jumps": float((step > JUMP_DEG).mean()),
    }


def class_figures(
    footage: Sequence[Footage], name: str, repetition: Mapping[str, Repetition]
) -> dict[str, dict[str, float]]:
    """How right and how sure frames, and whole videos, are of one attribute.

    Args:
        footage: with a true class of it.
        name: the attribute.
        repetition: way of pooling → its numbers.

    Returns:
        'frames' and each way → {n, accuracy, nll, ece, certainty, agreement: the share of frames
        whose class is the video's}.
    """
    labels = np.array([f.labels[name] for f in footage])
    every = np.concatenate([f.probs[name] for f in footage])
    of_frame = np.concatenate([np.full(len(f), f.labels[name]) for f in footage])
    result = {"frames": _classes(every, of_frame)}
    for way, numbers in repetition.items():
        pooled = np.array(
            [
                consensus.pool(f.probs[name], f.time_s, time_weights(f.time_s), numbers)
                for f in footage
            ]
        )
        agree = [
            float((f.probs[name].argmax(axis=1) == q.argmax()).mean())
            for f, q in zip(footage, pooled, strict=True)
        ]
        result[way] = _classes(pooled, labels) | {"agreement": float(np.mean(agree))}
    return result


def _classes(probs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    rows = metrics.classified(probs / probs.sum(axis=1, keepdims=True), labels)
    return {
        "n": len(labels),
        "accuracy": float((rows.predicted == rows.label).mean()),
        "nll": float(rows.nll.mean()),
        "ece": certainty.calibration_error(rows.confidence, rows.predicted == rows.label),
        "certainty": float(rows.certainty.mean()),
    }


def _median_interval(values: np.ndarray, groups: np.ndarray, samples: int) -> list[float]:
    """The 95% percentile interval of the median over resampled groups."""
    order = np.argsort(values, kind="stable")
    total = np.cumsum(statistics.multiplicities(groups[order], samples), axis=1)
    middle = [np.searchsorted(row, row[-1] / 2) for row in total]
    return np.quantile(values[order[middle]], [0.025, 0.975]).tolist()
