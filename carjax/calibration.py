"""What a head states, corrected by how it fared on photos that it was not trained on.

A correction is a few numbers per head, fitted by maximum likelihood on held-out photos, of car
models that the head knows and of others (`fit_classes`, `fit_direction`), and kept in the model's
spec. `state_classes` and `state_direction` apply it inside the compiled program.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from carjax import circular

# Concentrations stay where the float32 statistics of `circular` are exact.
_MAX_KAPPA = 1e5


@dataclasses.dataclass(frozen=True)
class ClassCalibration:
    """How a softmax head states its probabilities, and when it names no class.

    The stated distribution is softmax(β·log p) with β = exp(sharpness + slope·novelty +
    part_slope·part novelty): an inverse temperature (Guo et al., "On Calibration of Modern Neural
    Networks", ICML 2017) that changes with the image (as in Tomani et al., "Beyond In-Domain
    Scenarios: Robust Density-Aware Calibration", ICML 2023; here by the head's own `novelty` among
    its classes and among their parts: a car model that it never saw may well look like a sedan).

    Attributes:
        sharpness: log β where both are 0.
        slope: change of log β per unit of novelty.
        part_slope: change of log β per unit of novelty among the parts (`heads.HeadSpec.parts`).
        unknown_above: above this novelty the class is none that the head knows; None: never.
    """

    sharpness: float = 0.0
    slope: float = 0.0
    part_slope: float = 0.0
    unknown_above: float | None = None

    def __post_init__(self) -> None:
        """Raises ValueError where a field is no number."""
        _check_numbers(self)


@dataclasses.dataclass(frozen=True)
class DirectionCalibration:
    """How a direction states its density.

    Every component vM(μ, κ) becomes (1 − tail)·vM(μ, body_scale·κ) + tail·vM(μ, tail_scale·κ): most
    errors are about as small as κ says, some are several times larger, and no single κ says both.

    Attributes:
        body_scale: factor on κ for most photos.
        tail_scale: factor on κ for the rest.
        tail: share of the rest, in [0, 1].
        floor: weight of the uniform part, in [0, 1]; None: as the head says.
    """

    body_scale: float = 1.0
    tail_scale: float = 1.0
    tail: float = 0.0
    floor: float | None = None

    def __post_init__(self) -> None:
        """Raises ValueError where a field is no number, or out of its range."""
        _check_numbers(self)
        if min(self.body_scale, self.tail_scale) <= 0:
            raise ValueError("the scales must be above 0")
        if not (0 <= self.tail <= 1 and 0 <= (self.floor or 0.0) <= 1):
            raise ValueError("tail and floor are shares, from 0 to 1")


def _check_numbers(calibration: ClassCalibration | DirectionCalibration) -> None:
    for field in dataclasses.fields(calibration):
        value = getattr(calibration, field.name)
        if value is None and field.default is None:
            continue
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise ValueError(f"{field.name} must be a finite number, not {value!r}")


def novelty(log_probs: jax.Array) -> jax.Array:
    """How unlike what the head knows: one minus the probability of the likeliest class, [...].

    Hendrycks and Gimpel, "A Baseline for Detecting Misclassified and Out-of-Distribution Examples",
    ICLR 2017. `benchmarks/nested.py` compares it with other scores.

    Args:
        log_probs: float [..., K]; of the head itself, before calibration; of its classes, or of
            their parts.
    """
    return -jnp.expm1(jnp.max(log_probs, axis=-1))


def state_classes(
    log_probs: jax.Array, calibration: ClassCalibration, part_novelty: jax.Array | None = None
) -> jax.Array:
    """Returns the stated log-probabilities float32 [..., K].

    Args:
        log_probs: float [..., K]; of the head itself.
        calibration: its numbers.
        part_novelty: float [...]; novelty among the parts; None: 0.

    Example:
        >>> stated = state_classes(jnp.log(jnp.array([0.9, 0.1])), ClassCalibration(np.log(2.0)))
        >>> [f"{p:.3f}" for p in jnp.exp(stated)]
        ['0.988', '0.012']
    """
    log_beta = calibration.sharpness + calibration.slope * novelty(log_probs)
    if part_novelty is not None:
        log_beta = log_beta + calibration.part_slope * part_novelty
    return jax.nn.log_softmax(log_probs * jnp.exp(log_beta)[..., None])


def state_direction(
    density: circular.Density, calibration: DirectionCalibration
) -> circular.Density:
    """Returns the stated density, of twice as many components: K bodies, then K tails."""
    floor = density.floor if calibration.floor is None else calibration.floor
    return _with_tail(
        density, calibration.body_scale, calibration.tail_scale, calibration.tail, floor
    )


def _with_tail(
    density: circular.Density,
    body_scale: jax.Array | float,
    tail_scale: jax.Array | float,
    tail: jax.Array | float,
    floor: jax.Array | float,
) -> circular.Density:
    """Bodies of κ·body_scale, and a share `tail` of the weight on tails of κ·tail_scale."""
    weights, kappa = density.weights, density.kappa
    return circular.Density(
        weights=jnp.concatenate([weights * (1.0 - tail), weights * tail], -1),
        mu=jnp.concatenate([density.mu, density.mu], -1),
        kappa=jnp.minimum(
            jnp.concatenate([kappa * body_scale, kappa * tail_scale], -1), _MAX_KAPPA
        ),
        floor=jnp.broadcast_to(floor, density.floor.shape).astype(density.floor.dtype),
    )


def fit_classes(
    log_probs: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray | None = None,
    part_novelty: np.ndarray | None = None,
) -> ClassCalibration:
    """Fits sharpness and slopes by maximum likelihood.

    Args:
        log_probs: float [N, K]; of a head on photos that it was not trained on.
        labels: int [N]; true classes.
        weights: float [N]; what each photo counts; None: alike.
        part_novelty: float [N]; novelty among the parts; None: its slope stays 0.

    Raises:
        ValueError: there is no photo, labels are not one integer for each, a number is not finite,
            a label is no class, or weights are negative or all 0.
    """
    from scipy.optimize import minimize
    from scipy.special import logsumexp

    if np.ndim(log_probs) != 2:
        raise ValueError(f"log_probs must be [N, K], not of shape {np.shape(log_probs)}")
    labels = np.asarray(labels)
    if labels.shape != (len(log_probs),) or labels.dtype.kind not in "iu":
        got = f"{labels.dtype} {labels.shape}"
        raise ValueError(f"labels must be {len(log_probs)} integers, not {got}")
    if part_novelty is not None and np.shape(part_novelty) != labels.shape:
        raise ValueError(f"part_novelty must be {len(labels)} numbers, one for each label")
    share = _shares(len(log_probs), weights)
    _check_finite(np.exp(log_probs))
    # A probability may be 0; no loss is infinite.
    p = np.maximum(np.asarray(log_probs, np.float64), np.log(1e-12))
    if not ((labels >= 0) & (labels < p.shape[1])).all():
        raise ValueError(f"labels must be from 0 to {p.shape[1] - 1}")
    signs = [np.ones(len(p)), 1.0 - np.exp(p.max(axis=1))]
    if part_novelty is not None:
        _check_finite(part_novelty)
        signs.append(np.asarray(part_novelty, np.float64))
    columns = np.stack(signs, axis=1)

    def loss(x: np.ndarray) -> float:
        q = p * np.exp(columns @ x)[:, None]
        nll = logsumexp(q, axis=1) - q[np.arange(len(q)), labels]
        # A hair of shrinkage, for folds where every photo is right.
        return float(share @ nll + 1e-4 * (x @ x))

    found = minimize(loss, np.zeros(len(signs)), method="Nelder-Mead").x
    return ClassCalibration(*(float(v) for v in found))


def _shares(count: int, weights: np.ndarray | None) -> np.ndarray:
    """What each photo counts, float64 [count], summing to one."""
    if not count:
        raise ValueError("there must be at least one photo to fit a calibration to")
    shares = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    if shares.shape != (count,):
        raise ValueError(f"weights must be {count} numbers, one for each photo")
    _check_finite(shares)
    if shares.min() < 0 or not shares.sum() > 0:
        raise ValueError("weights must not be negative, nor all be 0")
    return shares / shares.sum()


def _check_finite(*arrays: np.ndarray | jax.Array) -> None:
    if not all(np.isfinite(array).all() for array in arrays):
        raise ValueError("a calibration is fitted to finite numbers only")


def fit_direction(
    density: circular.Density, azimuth_deg: np.ndarray, weights: np.ndarray | None = None
) -> DirectionCalibration:
    """Fits the scales, the tail and the floor by maximum likelihood.

    Args:
        density: of batch shape [N]; of a head on photos that it was not trained on.
        azimuth_deg: float [N]; true azimuths in degrees.
        weights: float [N]; what each photo counts; None: alike.

    Raises:
        ValueError: there is no photo, a number is not finite, or weights are negative or all 0.
    """
    from scipy.optimize import minimize
    from scipy.special import expit

    azimuth_deg = np.asarray(azimuth_deg, np.float64)
    if azimuth_deg.shape != density.floor.shape:
        raise ValueError(f"{density.floor.shape} densities and {azimuth_deg.shape} azimuths")
    share = jnp.asarray(_shares(len(azimuth_deg), weights), jnp.float32)
    _check_finite(azimuth_deg, *density)
    angle = jnp.asarray(np.deg2rad(azimuth_deg), jnp.float32)

    @jax.jit
    def loglik(x: jax.Array) -> jax.Array:
        return share @ circular.log_prob(_with_tail(density, *x), angle)

    def numbers(x: np.ndarray) -> np.ndarray:
        body = np.exp(x[0])
        return np.array([body, body * expit(x[1]), 0.5 * expit(x[2]), expit(x[3])])

    best = minimize(
        lambda x: -float(loglik(jnp.asarray(numbers(x), jnp.float32))),
        np.array([0.0, -1.5, 0.0, -4.0]),
        method="Nelder-Mead",
        options={"maxiter": 2000, "fatol": 1e-5, "xatol": 1e-3},
    ).x
    return DirectionCalibration(*(float(v) for v in numbers(best)))
