"""Forward-backward smoothing of the azimuth of a walk on a circular grid.

A frame's density over azimuth, from a prior that knows nothing, is its likelihood up to a factor.
The hidden state is the azimuth's cell and the angular speed, and moves as `motion` says; the
forward pass gives the causal (filtered) density of each frame, the backward pass adds the frames
after it (Rabiner, "A tutorial on hidden Markov models", Proceedings of the IEEE 77, 1989). Both are
one `lax.scan` each, the moves are products in the Fourier domain of the circle.

Everything is float32 and scaled in every step: 1e5 frames neither overflow nor underflow. A state
whose probability before a frame is seen is below 1e-10 counts as 1e-10: that is the rounding of
the Fourier transform, and keeps each frame possible. Memory is 4·K·N bytes per frame (8 KB on the
default grid).
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from carjax import circular
from carjax.circular import Density
from carjax.temporal.motion import Motion, move_spectrum, speed_transition

# The least probability of a state before its frame is seen: the Fourier transform's rounding.
_LEAST = 1e-10


class Smoothed(NamedTuple):
    """What is known about the azimuth of each frame. A pytree; `...` is any batch of videos.

    Attributes:
        density: float32 [..., T, N]; density per radian on cells centred on 0, 360/N, … degrees;
            its mean is 1/2π.
        mean_deg: float32 [..., T]; its mean direction, degrees in [0, 360).
        kappa: float32 [..., T]; the concentration of the von Mises with its mean resultant length.
        speed_deg_s: float32 [..., T]; mean angular speed in degrees a second.
        log_evidence: float32 [...]; log-probability of the video's emissions. From densities it is
            the gain in nats over frames that know nothing about one another or the azimuth, which
            have 0; it compares rates, but not values of `correlation_s`, which changes the data.
    """

    density: Array
    mean_deg: Array
    kappa: Array
    speed_deg_s: Array
    log_evidence: Array


# --- emissions -----------------------------------------------------------------------------------


def time_steps(time_s: ArrayLike) -> Array:
    """Seconds from the frame before, float32 [T] from times [T]; 0 for the first.

    A time before its predecessor's counts as the same. NumPy's times are subtracted in their own
    precision.

    Example:
        >>> time_steps([1.0, 1.5, 1.5]).tolist()
        [0.0, 0.5, 0.0]
    """
    xp = jnp if isinstance(time_s, Array) else np
    times = xp.asarray(time_s)
    steps = xp.maximum(xp.diff(times, prepend=times[:1]), 0.0)
    return jnp.asarray(steps, jnp.float32)


def log_share(density: Density, motion: Motion) -> Array:
    """Log-likelihood of a frame in each cell, relative to a frame that says nothing.

    log((1 − floor)·2π·p + floor), p being the density's mean in the cell.

    Args:
        density: batch [...].
        motion: gives the cells and the floor.

    Returns:
        float32 [..., N].
    """
    ratio = circular.on_grid(density, motion.cells) * circular.TWO_PI
    floor = jnp.asarray(motion.floor, jnp.float32)
    share = (1.0 - floor) * ratio.astype(jnp.float32) + floor
    return jnp.log(jnp.maximum(share, jnp.finfo(jnp.float32).tiny))


def frame_weight(
    since_s: Array, step_s: Array, informs: Array, motion: Motion
) -> tuple[Array, Array]:
    """Weight of a frame's log-density by the time since the last frame that says something.

    Args:
        since_s: float []; that time for the frame before, before it was seen; infinite at first.
        step_s: float []; seconds from the frame before.
        informs: bool []; whether this frame says something.
        motion: gives `correlation_s`.

    Returns:
        (`since_s` for the frame after, weight in [0, 1]).
    """
    since_s = since_s + step_s
    correlation_s = jnp.asarray(motion.correlation_s, jnp.float32)
    whole = since_s >= correlation_s
    # An infinite time is kept out of the branch not taken, whose gradient would be NaN.
    part = jnp.where(whole, 0.0, since_s) / jnp.where(correlation_s > 0.0, correlation_s, 1.0)
    weight = jnp.where(whole, 1.0, part)
    return jnp.where(informs, 0.0, since_s), jnp.where(informs, weight, 0.0)


def log_emissions(density: Density, step_s: Array, mask: Array, motion: Motion) -> Array:
    """Log-likelihoods of a video's frames in each cell, repetitions discounted.

    Args:
        density: batch [T].
        step_s: float [T]; see `time_steps`.
        mask: bool [T]; False: the frame says nothing. Nor does one whose density is not finite,
            which gradients do not survive.
        motion: gives cells, floor and correlation.

    Returns:
        float32 [T, N]; 0 for a frame that says nothing.
    """
    log = log_share(density, motion)
    informs = mask & jnp.isfinite(log).all(axis=-1)

    def weigh(since_s: Array, frame: tuple[Array, Array]) -> tuple[Array, Array]:
        return frame_weight(since_s, *frame, motion)

    _, weight = jax.lax.scan(weigh, jnp.float32(math.inf), (step_s, informs))
    return jnp.where(informs[:, None], weight[:, None] * log, 0.0)


# --- messages ------------------------------------------------------------------------------------


def uniform(motion: Motion) -> Array:
    """The belief that knows nothing, float32 [K, N]."""
    k = len(motion.speeds_deg_s)
    return jnp.full((k, motion.cells), 1.0 / (k * motion.cells), jnp.float32)


def _moved(belief: Array, step_s: Array, motion: Motion, back: bool) -> Array:
    """The belief [K, N] a step later, or the message a step before where `back`."""
    half = speed_transition(0.5 * step_s, motion)
    mix = functools.partial(jnp.matmul, half, precision=jax.lax.Precision.HIGHEST)
    spectrum = move_spectrum(step_s, motion)
    spectrum = jnp.conj(spectrum) if back else spectrum
    moved = jnp.fft.irfft(jnp.fft.rfft(mix(belief)) * spectrum, n=motion.cells)
    return jnp.maximum(mix(moved), _LEAST)


def forward_step(
    belief: Array, log_emission: Array, step_s: Array, motion: Motion
) -> tuple[Array, Array]:
    """One frame of the forward pass.

    Args:
        belief: float32 [K, N]; probabilities of the states after the frame before.
        log_emission: float32 [N]; the frame's log-likelihoods.
        step_s: float32 []; seconds between the two frames.
        motion: the grid and the rates.

    Returns:
        (probabilities of the states after this frame, log-probability of the frame).
    """
    top = jnp.max(log_emission)
    joint = _moved(belief, step_s, motion, back=False) * jnp.exp(log_emission - top)
    total = jnp.sum(joint)
    return joint / total, jnp.log(total) + top


def backward_step(message: Array, log_emission: Array, step_s: Array, motion: Motion) -> Array:
    """One frame of the backward pass.

    Args:
        message: float32 [K, N]; likelihood, to a factor, of all frames after this one by its state.
        log_emission: float32 [N]; this frame's log-likelihoods.
        step_s: float32 []; seconds between this frame and the one before.
        motion: the grid and the rates.

    Returns:
        float32 [K, N]; the message for the frame before; sums to 1.
    """
    seen = message * jnp.exp(log_emission - jnp.max(log_emission))
    before = _moved(seen / jnp.sum(seen), step_s, motion, back=True)
    return before / jnp.sum(before)


def forward(
    belief: Array, log_emission: Array, step_s: Array, motion: Motion
) -> tuple[Array, Array]:
    """The forward pass from a belief: ([T, K, N] causal probabilities, [T] log-evidence)."""

    def step(belief: Array, frame: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        belief, log_evidence = forward_step(belief, *frame, motion)
        return belief, (belief, log_evidence)

    return jax.lax.scan(step, belief, (log_emission, step_s))[1]


def marginals(joint: Array) -> tuple[Array, Array]:
    """Sums of a joint [..., K, N] over speeds and over cells, each with total 1."""
    joint = joint / jnp.sum(joint, axis=(-2, -1), keepdims=True)
    return jnp.sum(joint, axis=-2), jnp.sum(joint, axis=-1)


def backward(
    beliefs: Array, log_emission: Array, step_s: Array, motion: Motion
) -> tuple[Array, Array]:
    """The backward pass over causal probabilities [T, K, N]: smoothed marginals [T, N], [T, K]."""

    def step(
        message: Array, frame: tuple[Array, Array, Array]
    ) -> tuple[Array, tuple[Array, Array]]:
        belief, emission, step_s = frame
        return backward_step(message, emission, step_s, motion), marginals(belief * message)

    frames = (beliefs, log_emission, step_s)
    return jax.lax.scan(step, uniform(motion), frames, reverse=True)[1]


def summary(cells: Array, speeds: Array, log_evidence: Array, motion: Motion) -> Smoothed:
    """Describes marginals [..., N] and [..., K]; a cell's mass lies evenly in it."""
    n, half = motion.cells, math.pi / motion.cells
    angles = jnp.asarray(2.0 * half * np.arange(n), jnp.float32)
    sine = jnp.sum(cells * jnp.sin(angles), axis=-1)
    cosine = jnp.sum(cells * jnp.cos(angles), axis=-1)
    length = jnp.hypot(sine, cosine) * (math.sin(half) / half)
    mean_deg = jnp.mod(jnp.rad2deg(jnp.arctan2(sine, cosine)), 360.0)
    return Smoothed(
        density=cells * (n / circular.TWO_PI),
        # A tiny negative angle rounds up to a full turn.
        mean_deg=jnp.where(mean_deg >= 360.0, 0.0, mean_deg),
        kappa=circular.concentration(length),
        speed_deg_s=jnp.sum(speeds * jnp.asarray(motion.speeds_deg_s, jnp.float32), axis=-1),
        log_evidence=log_evidence,
    )


# --- whole videos --------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames="causal")
def smooth_emissions(
    log_emission: Array, step_s: Array, motion: Motion, causal: bool = False
) -> Smoothed:
    """Smooths a video by the log-likelihoods of its frames.

    Args:
        log_emission: float32 [T, N]; each frame's log-likelihood in each cell, finite; a row of
            zeros says nothing.
        step_s: float32 [T]; seconds from the frame before, ≥ 0; 0 for the first.
        motion: the grid and the rates.
        causal: whether a frame knows only those before it (static).

    Returns:
        The smoothed densities; the filtered ones where `causal`.

    Example:
        >>> quiet = jnp.zeros((5, 180))
        >>> bool(jnp.abs(smooth_emissions(quiet, jnp.ones(5), Motion()).log_evidence) < 1e-5)
        True
    """
    beliefs, log_evidence = forward(uniform(motion), log_emission, step_s, motion)
    cells, speeds = (
        marginals(beliefs) if causal else backward(beliefs, log_emission, step_s, motion)
    )
    return summary(cells, speeds, jnp.sum(log_evidence), motion)


@functools.partial(jax.jit, static_argnames="causal")
def _smooth(
    density: Density, step_s: Array, mask: Array, motion: Motion, causal: bool = False
) -> Smoothed:
    emissions = log_emissions(density, step_s, mask, motion)
    return smooth_emissions(emissions, step_s, motion, causal)


def check_frames(density: Density, time_s: ArrayLike, mask: ArrayLike | None) -> Array:
    """Returns the mask, all True by default.

    Raises:
        ValueError: density, time and mask are not one row of equally many frames, or the times
            decrease.
    """
    shape = np.shape(time_s)
    mask = jnp.ones(shape, bool) if mask is None else jnp.asarray(mask, bool)
    if len(shape) != 1 or not shape[0] or density.floor.shape != shape or mask.shape != shape:
        raise ValueError(
            f"density, time_s and mask must be of one shape [T], T ≥ 1, not "
            f"{density.floor.shape}, {shape} and {mask.shape}"
        )
    if not isinstance(time_s, jax.core.Tracer) and not isinstance(mask, jax.core.Tracer):
        times = np.asarray(time_s, np.float64)
        # After the last frame that counts there is padding, which may go back in time; a masked
        # frame before it stands at its own.
        counted = times[: np.append(np.flatnonzero(mask), -1).max() + 1]
        if not np.isfinite(times).all() or (np.diff(counted) < 0.0).any():
            raise ValueError("time_s must be finite, and must not decrease")
    return mask


def smooth(
    density: Density, time_s: ArrayLike, mask: ArrayLike | None = None, motion: Motion | None = None
) -> Smoothed:
    """The azimuth of each frame of a video, given all its frames.

    Args:
        density: batch [T]; each frame's calibrated density.
        time_s: float [T]; presentation times in seconds, not decreasing, otherwise free. Padding
            at the end, masked and at the last time, changes nothing.
        mask: bool [T]; frames that count. Default: all.
        motion: the grid and the rates. Default: `Motion()`.

    Returns:
        The smoothed densities. Many videos [V, T]: `jax.vmap(smooth)`.

    Raises:
        ValueError: density, time and mask are not one row of equally many frames, or the times are
            not finite or decrease.

    Example:
        >>> seen = jnp.deg2rad(jnp.array([10.0, 12.0, 194.0, 16.0, 18.0]))  # one frame is flipped
        >>> walk = smooth(circular.from_single(seen, 200.0), jnp.arange(5) / 2)
        >>> walk.mean_deg.round().tolist()
        [10.0, 12.0, 14.0, 16.0, 18.0]
    """
    mask = check_frames(density, time_s, mask)
    return _smooth(density, time_steps(time_s), mask, Motion() if motion is None else motion)


def filtered(
    density: Density, time_s: ArrayLike, mask: ArrayLike | None = None, motion: Motion | None = None
) -> Smoothed:
    """As `smooth`, but each frame knows only itself and those before it."""
    mask = check_frames(density, time_s, mask)
    motion = Motion() if motion is None else motion
    return _smooth(density, time_steps(time_s), mask, motion, causal=True)
