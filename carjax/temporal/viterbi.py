"""The most probable walk: azimuth cell and speed of every frame, jointly.

Between two frames a path has one more speed, that of the move between `motion`'s half steps. The
maximum over all paths is exact on the grid (Viterbi, "Error bounds for convolutional codes", IEEE
Transactions on Information Theory 13, 1967).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from carjax.circular import Density
from carjax.temporal.circular_filter import check_frames, log_emissions, time_steps
from carjax.temporal.motion import Motion, log_move, speed_transition


class Path(NamedTuple):
    """The most probable path of one video; a pytree.

    Attributes:
        azimuth_deg: float32 [T]; centre of each frame's cell, degrees in [0, 360).
        speed_deg_s: float32 [T]; each frame's speed, degrees a second.
        log_prob: float32 []; log-probability of path and emissions together: at most the video's
            `log_evidence`, which sums over all paths.
    """

    azimuth_deg: Array
    speed_deg_s: Array
    log_prob: Array


def _log_half(step_s: Array, motion: Motion) -> Array:
    """Log-probabilities [K, K] of the speed changes in half of a step."""
    p = speed_transition(0.5 * step_s, motion)
    return jnp.log(jnp.maximum(p, jnp.finfo(p.dtype).tiny))


def _best_changes(score: Array, log_half: Array) -> Array:
    """max over j of score[j, a] + log_half[j, k], for every k: float32 [K, N]."""
    return jnp.max(score[:, None, :] + log_half[:, :, None], axis=0)


def _best_moves(score: Array, log_kernel: Array) -> Array:
    """max over a of score[k, a] + log_kernel[k, (b − a) mod N], for every b: float32 [K, N]."""
    n = score.shape[1]
    twice = jnp.concatenate([log_kernel, log_kernel], axis=1)

    # A loop over cells stays in cache: seven times as fast as one maximum over [K, N, N].
    def from_cell(a: Array, best: Array) -> Array:
        move = jax.lax.dynamic_slice_in_dim(twice, n - a, n, axis=1)
        return jnp.maximum(best, jax.lax.dynamic_slice_in_dim(score, a, 1, axis=1) + move)

    return jax.lax.fori_loop(0, n, from_cell, jnp.full_like(score, -jnp.inf))


@jax.jit
def viterbi_emissions(log_emission: Array, step_s: Array, motion: Motion) -> Path:
    """The most probable path by the log-likelihoods of the frames.

    K·N² operations and 4·K·N bytes a frame.

    Args:
        log_emission: float32 [T, N]; as for `smooth_emissions`.
        step_s: float32 [T]; as for `smooth_emissions`.
        motion: the grid and the rates.

    Returns:
        The path; of equally probable ones, one.
    """
    k, n = len(motion.speeds_deg_s), motion.cells

    def best(score: Array, frame: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
        emission, step = frame
        log_half = _log_half(step, motion)
        moved = _best_moves(_best_changes(score, log_half), log_move(step, motion))
        after = _best_changes(moved, log_half) + emission
        top = jnp.max(after)
        # Scores before the frame, from which the way back finds its choice.
        return after - top, (score, top)

    def back(state: Array, frame: tuple[Array, Array]) -> tuple[Array, Array]:
        score, step = frame
        speed, cell = state // n, state % n
        log_half = _log_half(step, motion)
        # log_move[k, (cell − a) mod N] for every a, and the change after the move.
        move = jnp.roll(log_move(step, motion)[:, ::-1], cell + 1, axis=-1)
        rest = move + log_half[:, speed, None]
        before = score[:, None, :] + log_half[:, :, None] + rest[None]
        return jnp.argmax(jnp.max(before, axis=1)), state

    start = jnp.full((k, n), -jnp.log(float(k * n)))
    final, (scores, tops) = jax.lax.scan(best, start, (log_emission, step_s))
    _, states = jax.lax.scan(back, jnp.argmax(final), (scores, step_s), reverse=True)
    return Path(
        azimuth_deg=(states % n) * jnp.float32(motion.cell_deg),
        speed_deg_s=jnp.asarray(motion.speeds_deg_s, jnp.float32)[states // n],
        log_prob=jnp.sum(tops),
    )


@jax.jit
def _viterbi(density: Density, step_s: Array, mask: Array, motion: Motion) -> Path:
    return viterbi_emissions(log_emissions(density, step_s, mask, motion), step_s, motion)


def viterbi(
    density: Density, time_s: ArrayLike, mask: ArrayLike | None = None, motion: Motion | None = None
) -> Path:
    """The most probable path of a video; arguments and errors are those of `smooth`.

    Example:
        >>> from carjax import circular
        >>> seen = jnp.deg2rad(jnp.array([10.0, 12.0, 194.0, 16.0, 18.0]))  # one frame is flipped
        >>> viterbi(circular.from_single(seen, 200.0), jnp.arange(5) / 2).azimuth_deg.tolist()
        [10.0, 12.0, 14.0, 16.0, 18.0]
    """
    mask = check_frames(density, time_s, mask)
    return _viterbi(density, time_steps(time_s), mask, Motion() if motion is None else motion)
