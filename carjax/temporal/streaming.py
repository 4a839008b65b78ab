"""Smoothing a live video: each frame is answered when `lag` more have come.

The state is a pytree of fixed size: the belief before the oldest frame that waits, and the
emissions of the frames that wait. A new frame costs `lag` steps of the backward pass and one of the
forward pass, and the answer is that of `smooth` on all frames so far.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from carjax.circular import Density
from carjax.errors import CarjaxError
from carjax.temporal.circular_filter import (
    Smoothed,
    backward,
    backward_step,
    forward,
    forward_step,
    frame_weight,
    log_share,
    marginals,
    summary,
    uniform,
)
from carjax.temporal.motion import Motion


class State(NamedTuple):
    """What a stream remembers; a pytree of (lag + 1)·(N + 1) + K·N numbers and a few.

    Attributes:
        belief: float32 [K, N]; causal probabilities of the states of the last frame answered.
        log_emission: float32 [lag + 1, N]; that of the frames that wait, the newest last. Before
            the first frame come imaginary ones that say nothing and take no time.
        step_s: float32 [lag + 1]; seconds from the frame before, for each.
        since_s: float32 []; seconds from the last frame that says something to the newest frame.
        log_evidence: float32 []; of the frames answered.
    """

    belief: Array
    log_emission: Array
    step_s: Array
    since_s: Array
    log_evidence: Array


def start(lag: int, motion: Motion) -> State:
    """The state before the first frame.

    Args:
        lag: how many more frames an answer waits for; 0 gives the causal densities.
        motion: the grid and the rates, the same for every call.

    Raises:
        ValueError: the lag is negative.
    """
    if lag < 0:
        raise ValueError(f"lag must be at least 0, not {lag}")
    return State(
        belief=uniform(motion),
        log_emission=jnp.zeros((lag + 1, motion.cells), jnp.float32),
        step_s=jnp.zeros(lag + 1, jnp.float32),
        since_s=jnp.float32(math.inf),
        log_evidence=jnp.float32(0.0),
    )


@jax.jit
def push(
    state: State, density: Density, step_s: Array, informs: Array, motion: Motion
) -> tuple[State, Smoothed]:
    """Takes a frame, and answers the one `lag` frames before it.

    Args:
        state: from `start` or the push before.
        density: the frame's density, without a batch.
        step_s: float []; seconds from the frame before; 0 for the first.
        informs: bool []; whether the frame says something.
        motion: the grid and the rates.

    Returns:
        (new state, the answer without a time axis: `smooth` of all frames so far, read `lag` frames
        back, with the evidence up to there). The first `lag` answers are of no frame.
    """
    step_s, log = jnp.asarray(step_s, jnp.float32), log_share(density, motion)
    informs = informs & jnp.isfinite(log).all()
    since_s, weight = frame_weight(state.since_s, step_s, informs, motion)
    newest = jnp.where(informs, weight * log, 0.0)
    waiting = jnp.concatenate([state.log_emission[1:], newest[None]])
    steps = jnp.append(state.step_s[1:], step_s)
    belief, gain = forward_step(state.belief, waiting[0], steps[0], motion)

    def before(message: Array, frame: tuple[Array, Array]) -> tuple[Array, None]:
        return backward_step(message, *frame, motion), None

    later = (waiting[1:], steps[1:])
    message, _ = jax.lax.scan(before, uniform(motion), later, reverse=True)
    state = State(belief, waiting, steps, since_s, state.log_evidence + gain)
    cells, speeds = marginals(belief * message)
    return state, summary(cells, speeds, state.log_evidence, motion)


@jax.jit
def drain(state: State, motion: Motion) -> Smoothed:
    """Answers the `lag` frames that still wait at the end: `smooth` of all frames, its last rows.

    Of a video with fewer frames than the lag the first rows are of no frame.
    """
    waiting, steps = state.log_emission[1:], state.step_s[1:]
    beliefs, gain = forward(state.belief, waiting, steps, motion)
    log_evidence = state.log_evidence + jnp.sum(gain)
    cells, speeds = backward(beliefs, waiting, steps, motion)
    return summary(cells, speeds, log_evidence, motion)


class Stream:
    """A live video: `push` its frames, then `drain`; holds the `State` and counts the frames.

    Example:
        >>> from carjax import circular
        >>> stream = Stream(lag=1)
        >>> stream.push(circular.from_single(0.10, 200.0), 0.0) is None
        True
        >>> answer = stream.push(circular.from_single(0.14, 200.0), 0.5)  # of the first frame
        >>> print(f"{answer.mean_deg:.1f}")
        6.1
        >>> stream.drain().mean_deg.shape  # of the second
        (1,)
    """

    def __init__(self, lag: int, motion: Motion | None = None):
        self.motion = Motion() if motion is None else motion
        self.lag = lag
        self.count = 0
        self.drained = False
        self._time_s = 0.0
        self._state = start(lag, self.motion)
        self._push = functools.partial(push, motion=self.motion)

    def push(self, density: Density, time_s: float, informs: bool = True) -> Smoothed | None:
        """Takes a frame; returns the answer for the frame `lag` before it, None before there is.

        Args:
            density: the frame's density, without a batch.
            time_s: its presentation time in seconds, finite.
            informs: False for a frame that says nothing, as one without a car.

        Raises:
            CarjaxError: the time lies before the last frame's, or the stream was drained.
        """
        if self.drained:
            raise CarjaxError("the stream was drained: make another for the next video")
        # Of one type always, or the next frame compiles anew.
        step_s = np.float32(time_s - self._time_s if self.count else 0.0)
        if not (step_s >= 0.0 and math.isfinite(time_s)):
            raise CarjaxError(f"a frame at {time_s} s came after one at {self._time_s} s")
        self._state, answer = self._push(self._state, density, step_s, informs)
        self._time_s = time_s
        self.count += 1
        return answer if self.count > self.lag else None

    def drain(self) -> Smoothed | None:
        """Answers the frames that still wait, [min(count, lag)]; None if there are none (more)."""
        waiting = 0 if self.drained else min(self.count, self.lag)
        self.drained = True
        if not waiting:
            return None
        rows = drain(self._state, self.motion)
        last = [x if x.ndim == 0 else x[-waiting:] for x in rows]
        return Smoothed(*last)
