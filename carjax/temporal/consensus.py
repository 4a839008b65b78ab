"""One class for a whole video, from frames that repeat each other.

Frames of one video are no independent witnesses: neighbours show nearly the same picture, and all
of them the same car. Multiplying their distributions as if they were makes any video certain of
anything; taking their mean forgets that ten frames do tell more than one. In between lies the
product raised to the share of the frames that are worth counting, the effective sample size over
the number of frames. How much frames repeat each other is fitted to videos with known classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

_START = {"shared": 0.7, "time_s": 0.7, "floor": 0.05}
# A camera shows another side after seconds: what lasts longer than that lasts as long as the video,
# and must not be taken for evidence that a longer video adds. And no two frames of a video are new
# to each other at once.
_TIME_S = (0.25, 2.0)
# Simulated walks show different cars of one model; the frames of a video show one and the same car,
# and have at least as much in common.
_SHARED = (0.5, 1.0)


@dataclasses.dataclass(frozen=True)
class Repetition:
    """How much the frames of one video repeat each other's errors.

    The evidence of two frames |Δ| seconds apart has the correlation
    shared + (1 − shared)·exp(−|Δ| / time_s).

    Attributes:
        shared: correlation of frames however far apart, in [0, 1]: they show the same car. 1 makes
            the consensus the geometric mean of the frames.
        time_s: how long the rest of it lasts, in seconds, > 0.
        floor: share ε of frames that are not to be believed, in [0, 1), 0 only where no p is 0:
            each distribution counts as (1 − ε)·p + ε/K, so that no frame can say more than
            log((1 − ε)·K/ε + 1).
    """

    shared: float = 1.0
    time_s: float = 1.0
    floor: float = 1e-3

    def __post_init__(self) -> None:
        """Raises a ValueError for what cannot be."""
        if not (0.0 <= self.shared <= 1.0 and self.time_s > 0.0 and 0.0 <= self.floor < 1.0):
            raise ValueError(f"shared is in [0, 1], time_s above 0, floor in [0, 1), not {self}")


# Of the car's attributes, as `benchmarks/temporal_fit.py` found them.
FITTED: Mapping[str, Repetition] = {
    "type": Repetition(shared=0.5, time_s=0.659, floor=0.0001),
    "brand": Repetition(shared=0.756, time_s=0.25, floor=0.0001),
    "doors": Repetition(shared=0.5, time_s=0.25, floor=0.0411),
    "seats": Repetition(shared=0.5, time_s=1.77, floor=0.0001),
}


class Video(NamedTuple):
    """A video with a known class, to fit on.

    Attributes:
        probs: float [N, K]; of its frames.
        time_s: float [N]; increasing, in seconds.
        weights: float [N]; what each frame counts, not negative, not all zero.
        label: the index of the true class.
    """

    probs: np.ndarray
    time_s: np.ndarray
    weights: np.ndarray
    label: int


def effective_sample_size(time_s: np.ndarray, weights: np.ndarray, repetition: Repetition) -> float:
    """Returns how many independent frames a weighted mean over correlated ones is worth.

    n_eff = (Σ w)² / Σ_st w_s w_t R_st, the variance of one frame over that of the weighted mean
    (Kish, Survey Sampling, 1965, for weights; Geyer, "Practical Markov Chain Monte Carlo",
    Statistical Science 1992, for correlation in time).

    Args:
        time_s: float [N]; increasing.
        weights: float [N]; not negative, not all zero.
        repetition: gives R.

    Returns:
        A number in [1, N].

    Raises:
        ValueError: a time or a weight is none, times decrease, or all weights are 0.

    Example:
        >>> always_alike = Repetition(shared=1.0)
        >>> effective_sample_size(np.arange(4.0), np.ones(4), always_alike)
        1.0
        >>> never_alike = Repetition(shared=0.0, time_s=1e-9)
        >>> effective_sample_size(np.arange(4.0), np.ones(4), never_alike)
        4.0
    """
    w = np.asarray(weights, np.float64)
    _check(np.asarray(time_s, np.float64), w)
    w = w / w.sum()
    decay = np.exp(-np.diff(np.asarray(time_s, np.float64)) / repetition.time_s)
    # Of the double sum over s < t only the inner one is kept: it decays from frame to frame.
    before, twice = 0.0, 0.0
    for fade, last, own in zip(decay.tolist(), w[:-1].tolist(), w[1:].tolist(), strict=True):
        before = fade * (before + last)
        twice += own * before
    lasting = float((w**2).sum()) + 2 * twice
    return 1.0 / (repetition.shared + (1 - repetition.shared) * lasting)


def _check(time_s: np.ndarray, weights: np.ndarray) -> None:
    """NaN compares as false."""
    if not (np.isfinite(time_s).all() and (np.diff(time_s) >= 0.0).all()):
        raise ValueError("time_s must be finite, and must not decrease")
    if not (len(weights) and (weights >= 0.0).all() and weights.sum() > 0.0):
        raise ValueError("weights must not be negative, nor all be 0")


def pool(
    probs: np.ndarray, time_s: np.ndarray, weights: np.ndarray, repetition: Repetition
) -> np.ndarray:
    """Returns the video's distribution over the classes.

    q_k ∝ exp(n_eff · Σ_t w_t log((1 − ε)·p_tk + ε/K)), w summing to one. Where the frames' log-odds
    are jointly Gaussian and each frame is calibrated, q is calibrated too: their mean m then has
    the variance 2·E[m]/n_eff, and the log-odds of two classes are n_eff·m.

    Args:
        probs: float [N, K]; finite, N ≥ 1.
        time_s: float [N]; increasing, in seconds.
        weights: float [N]; not negative, not all zero.
        repetition: how much the frames repeat each other.

    Returns:
        float64 [K], summing to one.

    Raises:
        ValueError: as `effective_sample_size`.

    Example:
        >>> frames, moments = np.array([[0.8, 0.2], [0.8, 0.2]]), np.array([0.0, 1.0])
        >>> pool(frames, moments, np.ones(2), Repetition(shared=1.0)).round(2).tolist()
        [0.8, 0.2]
        >>> pool(frames, moments, np.ones(2), Repetition(shared=0.0, time_s=0.1)).round(2).tolist()
        [0.94, 0.06]
    """
    p = np.asarray(probs, np.float64)
    believed = (1 - repetition.floor) * p + repetition.floor / p.shape[1]
    size = effective_sample_size(time_s, weights, repetition)
    log = np.average(np.log(believed), axis=0, weights=weights) * size
    pooled = np.exp(log - log.max())
    return pooled / pooled.sum()


def fit(videos: Sequence[Video]) -> Repetition:
    """Fits the repetition of the frames by maximum likelihood of the videos' true classes.

    `shared` is at least 0.5; `time_s` is kept within 0.25 and 2 seconds, `floor` within 1e-4 and
    0.5.

    Args:
        videos: of cars that the head was not trained on; V ≥ 1.

    Raises:
        ValueError: there is no video.
    """
    from scipy.optimize import minimize
    from scipy.special import expit, logit

    if not videos:
        raise ValueError("there must be at least one video to fit a consensus to")

    def at(x: np.ndarray) -> Repetition:
        return Repetition(
            shared=float(np.clip(expit(x[0]), *_SHARED)),
            time_s=float(np.clip(np.exp(x[1]), *_TIME_S)),
            floor=float(np.clip(expit(x[2]), 1e-4, 0.5)),
        )

    def loss(x: np.ndarray) -> float:
        repetition = at(x)
        of_truth = [pool(v.probs, v.time_s, v.weights, repetition)[v.label] for v in videos]
        return -float(np.log(np.maximum(of_truth, 1e-300)).mean())

    start = np.array([logit(_START["shared"]), np.log(_START["time_s"]), logit(_START["floor"])])
    found = minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-2, "fatol": 1e-5})
    return at(found.x)
