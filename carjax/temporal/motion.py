"""How the azimuth moves while a camera walks around a car: a speed that changes, and a drift.

The state is one of N cells of the circle and one of K angular speeds. Between two frames, `step_s`
apart, half of the step's speed changes happen, then the azimuth moves by speed·step_s and drifts,
then the other half happens. Drift and speeds are symmetric, so that a walk is as probable as the
same walk run backwards with its speeds negated.

* Speeds change as a Markov chain in continuous time: P(dt) = exp(Q·dt), exact for every step.
* The azimuth is shifted by linear interpolation between two cells, which keeps its mean and makes
  no mass negative, and blurred by a von Mises kernel on the cells. Interpolation blurs too, by
  f(1 − f) of a squared cell, f being the shift's fraction of a cell. The kernel has what is left of
  the drift: its concentration is the one with which |E exp(ia)| of the whole move is
  exp(−drift²·dt/2), Brownian motion's. So the drift in a second depends neither on the frame rate
  nor on the width of the cells, also where the drift between two frames is below a cell; a kernel
  with κ = 1/(drift²·dt) sampled on the cells would there not move at all. Only where interpolation
  blurs more than the drift, fast speeds drift by more than they should: never with cells of at most
  2·drift·√dt, which is 3° for the defaults at 30 frames a second.

References: Mardia and Jupp, "Directional Statistics" (2000), section 3.5; Norris, "Markov Chains"
(1997), section 2.1; Strang, "On the construction and comparison of difference schemes", SIAM
Journal on Numerical Analysis 5 (1968), for the half steps.
"""

from __future__ import annotations

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.ndimage import map_coordinates
from jax.typing import ArrayLike

# −log |E exp(ia)| of a kernel, tabulated between a kernel that moves 1e-12 of its mass and one
# that is all but uniform.
_SPREAD = (math.log(1e-12), math.log(8.0))
_SPREAD_NODES = 4096


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("drift_deg", "change_rate", "turn_rate", "floor", "correlation_s"),
    meta_fields=("cells", "speeds_deg_s"),
)
@dataclasses.dataclass(frozen=True)
class Motion:
    """The filter's grid and its five rates.

    A pytree: `cells` and `speeds_deg_s` decide shapes and are static, the rates are leaves, so that
    other rates need no new compilation and have gradients.

    Attributes:
        cells: how many cells of equal width the circle has, centred on 0, 360/cells, … degrees:
            72 to 360 (5° to 1°) for photos; at least 3.
        speeds_deg_s: the K angular speeds in degrees a second, ascending and symmetric about 0.
        drift_deg: standard deviation of the azimuth's drift after one second, in degrees; it grows
            with the root of time.
        change_rate: changes to a neighbouring speed per second.
        turn_rate: changes to any speed, all equally probable, per second.
        floor: share of frames whose density says nothing about the azimuth: outliers.
        correlation_s: frames nearer in time than this repeat each other. A frame's log-density
            counts in proportion to the time since the last frame that says something, in full from
            here on.

    The defaults are those of highest likelihood on simulated walks (`benchmarks/temporal_fit.py`).

    Raises:
        ValueError: a field that cannot be; rates are checked where they are plain numbers.

    Example:
        >>> Motion(cells=72, speeds_deg_s=(-20.0, 0.0, 20.0)).drift_deg
        8.27
    """

    cells: int = 180
    speeds_deg_s: tuple[float, ...] = (-60, -32, -18, -10, -5, 0, 5, 10, 18, 32, 60)
    drift_deg: ArrayLike = 8.27
    change_rate: ArrayLike = 0.028
    turn_rate: ArrayLike = 0.0374
    floor: ArrayLike = 0.342
    correlation_s: ArrayLike = 0.374

    def __post_init__(self) -> None:
        if self.cells < 3:
            raise ValueError(f"cells must be at least 3, not {self.cells}")
        speeds = np.asarray(self.speeds_deg_s, float)
        if speeds.ndim != 1 or not len(speeds) or (np.diff(speeds) <= 0.0).any():
            raise ValueError(f"speeds_deg_s must be ascending, not {self.speeds_deg_s}")
        if (speeds != -speeds[::-1]).any():
            raise ValueError(f"speeds_deg_s must be symmetric about 0, not {self.speeds_deg_s}")
        for name in ("drift_deg", "change_rate", "turn_rate", "floor", "correlation_s"):
            value = getattr(self, name)
            # A leaf can be anything, such as a gradient, when JAX rebuilds the tree.
            if not isinstance(value, int | float | np.number):
                continue
            if not (np.isfinite(value) and value >= 0.0):
                raise ValueError(f"{name} must be a finite number from 0, not {value}")
            if name == "floor" and value > 1.0:
                raise ValueError(f"floor is a share, from 0 to 1, not {value}")
        # Hashable, whatever sequence was given.
        object.__setattr__(self, "speeds_deg_s", tuple(speeds.tolist()))

    @property
    def cell_deg(self) -> float:
        """Width of a cell in degrees."""
        return 360.0 / self.cells


# --- speed ---------------------------------------------------------------------------------------


def speed_transition(step_s: ArrayLike, motion: Motion) -> Array:
    """Probabilities P(step_s) = exp(Q·step_s) of a speed given another.

    Q = change_rate/2·(jumps to each neighbour) + turn_rate·(1/K − identity). Both parts are
    symmetric and commute; the first is diagonal in the cosine basis, that of a path of K nodes
    (Strang, "The Discrete Cosine Transform", SIAM Review 41, 1999).

    Args:
        step_s: float [...]; ≥ 0.
        motion: the rates.

    Returns:
        float32 [..., K, K]; symmetric, rows sum to 1.

    Example:
        >>> p = speed_transition(0.5, Motion())
        >>> bool(jnp.allclose(p @ p, speed_transition(1.0, Motion()), atol=1e-6))
        True
    """
    k = len(motion.speeds_deg_s)
    step_s = jnp.asarray(step_s, jnp.float32)[..., None, None]
    order = np.arange(k)
    cosines = np.cos(math.pi * np.outer(order + 0.5, order) / k)
    basis = jnp.asarray(cosines / np.linalg.norm(cosines, axis=0), jnp.float32)
    decay = jnp.asarray(1.0 - np.cos(math.pi * order / k), jnp.float32)
    change_rate, turn_rate = (
        jnp.asarray(x, jnp.float32) for x in (motion.change_rate, motion.turn_rate)
    )
    scaled = basis * jnp.exp(-change_rate * decay * step_s)
    near = jnp.maximum(jnp.matmul(scaled, basis.T, precision=jax.lax.Precision.HIGHEST), 0.0)
    stay = jnp.exp(-turn_rate * step_s)
    return stay * near + (1.0 - stay) / k


# --- azimuth -------------------------------------------------------------------------------------


@functools.cache
def _log_kappa_table(cells: int) -> np.ndarray:
    """log κ of the von Mises kernel on `cells` cells, by the logarithm of its spread, float32."""
    versine = 1.0 - np.cos(2.0 * math.pi * np.arange(cells) / cells)
    kappa = np.geomspace(1e-4, 40.0 / versine[1], 5_000)
    kernel = np.exp(-kappa[:, None] * versine)
    moment = (kernel @ versine) / kernel.sum(axis=1)
    with np.errstate(divide="ignore"):
        log_spread = np.log(-np.log1p(-moment))
    nodes = np.linspace(*_SPREAD, _SPREAD_NODES)
    return np.interp(nodes, log_spread[::-1], np.log(kappa)[::-1]).astype(np.float32)


def _moves(speed: Array, step_s: ArrayLike, motion: Motion) -> tuple[Array, Array]:
    """Splits a move into log von Mises kernel and fraction.

    Returns:
        (log-kernel [..., M, N] around the whole cells of the shift, fraction f [..., M] of the
        next cell), for M speeds [M] and steps [...].
    """
    width = 2.0 * math.pi / motion.cells
    step_s = jnp.asarray(step_s, jnp.float32)[..., None]
    shift = speed / motion.cell_deg * step_s
    whole = jnp.floor(shift)
    fraction = shift - whole
    # log |E exp(ia)| of the interpolation between two cells.
    blur = 0.5 * jnp.log1p(-2.0 * fraction * (1.0 - fraction) * (1.0 - math.cos(width)))
    drift = jnp.deg2rad(jnp.asarray(motion.drift_deg, jnp.float32))
    spread = 0.5 * jnp.square(drift) * step_s + blur
    low, high = _SPREAD
    node = (jnp.log(jnp.maximum(spread, math.exp(low))) - low) / (high - low)
    table = jnp.asarray(_log_kappa_table(motion.cells))
    kappa = jnp.exp(map_coordinates(table, [node * (_SPREAD_NODES - 1)], 1, mode="nearest"))
    # sin((n − whole)·width/2), without a difference of large angles.
    half = jnp.asarray(0.5 * width * np.arange(motion.cells), jnp.float32)
    turn = 0.5 * width * jnp.mod(whole, 2.0 * motion.cells)[..., None]
    sine = jnp.sin(half) * jnp.cos(turn) - jnp.cos(half) * jnp.sin(turn)
    kernel = -2.0 * kappa[..., None] * jnp.square(sine)
    return kernel - jax.nn.logsumexp(kernel, axis=-1, keepdims=True), fraction


def log_move(step_s: ArrayLike, motion: Motion) -> Array:
    """Log-probability of moving by n cells in a step, for every speed.

    Args:
        step_s: float [...]; ≥ 0.
        motion: the grid and the rates.

    Returns:
        float32 [..., K, N]; its exponential sums to 1 over the N cells.

    Example:
        >>> still = Motion(cells=72, speeds_deg_s=(-20.0, 0.0, 20.0), drift_deg=0.0)
        >>> jnp.argmax(log_move(0.5, still), axis=-1).tolist()  # −10°, 0° and 10°, in cells of 5°
        [70, 0, 2]
    """
    kernel, fraction = _moves(jnp.asarray(motion.speeds_deg_s, jnp.float32), step_s, motion)
    tiny = jnp.finfo(jnp.float32).tiny
    near = kernel + jnp.log(1.0 - fraction)[..., None]
    far = jnp.roll(kernel, 1, axis=-1) + jnp.log(jnp.maximum(fraction, tiny))[..., None]
    return jnp.logaddexp(near, far)


def move_spectrum(step_s: ArrayLike, motion: Motion) -> Array:
    """Fourier coefficients of the moves: a step multiplies those of the azimuth's masses.

    Args:
        step_s: float [...]; ≥ 0.
        motion: the grid and the rates.

    Returns:
        complex64 [..., K, N // 2 + 1], `rfft` of the exponential of `log_move`; its conjugate is
        the spectrum of the step back.

    Example:
        >>> move_spectrum(0.1, Motion()).shape
        (11, 91)
    """
    k = len(motion.speeds_deg_s)
    speeds = jnp.asarray(motion.speeds_deg_s[k // 2 :], jnp.float32)
    kernel, fraction = _moves(speeds, step_s, motion)
    kernel, fraction = jnp.exp(kernel), fraction[..., None]
    spectrum = jnp.fft.rfft((1.0 - fraction) * kernel + fraction * jnp.roll(kernel, 1, axis=-1))
    # A negative speed is the mirror image of a positive one.
    mirrored = jnp.conj(spectrum[..., ::-1, :])[..., : k // 2, :]
    return jnp.concatenate([mirrored, spectrum], axis=-2)
