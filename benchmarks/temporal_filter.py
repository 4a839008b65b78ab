"""Times the temporal filter, and PyRecEst's forward-backward pass on the same model.

    pip install -e '.[bench]'
    python benchmarks/temporal_filter.py

Prints seconds for 10,000 frames of uneven rate (11 speeds, warm), for cells of 2° and 1°, the cost
of a frame of a live stream, and the ratio to PyRecEst's hidden Markov smoother, which takes one
sparse matrix over all states. It gets 200 frames of even rate, and its matrix ready made. Other
work on the machine shows in `load_average`: above 1 on 2 cores the seconds are too many, and the
processor's seconds of both cores together say more.
"""

import os
import time

import jax
import jax.numpy as jnp
import machine
import numpy as np
import scipy.linalg
import scipy.sparse
from pyrecest.filters.discrete_state import discrete_forward_backward

from carjax import circular
from carjax.temporal import circular_filter, streaming, viterbi
from carjax.temporal.motion import Motion, log_move, speed_transition

FRAMES = 10_000
PEER_FRAMES = 200
LAG = 16


def walk(frames: int) -> tuple[circular.Density, np.ndarray]:
    """A steady walk at about 30 frames a second, 10°/s; a tenth of the frames are flipped."""
    rng = np.random.default_rng(0)
    time_s = np.cumsum(rng.uniform(0.02, 0.047, frames))
    mu = np.deg2rad(10.0 * time_s + rng.normal(0, 6, frames) + 180.0 * (rng.random(frames) < 0.1))
    mu = jnp.asarray(np.mod(mu, 2 * np.pi), jnp.float32)
    kappa = jnp.full(mu.shape, 90.0, jnp.float32)
    return circular.from_single(mu, kappa, jnp.full(mu.shape, 0.02, jnp.float32)), time_s


def transition(step_s: float, motion: Motion) -> np.ndarray:
    """Probabilities [K·N, K·N] of states (columns) given states (rows), float64."""
    n = motion.cells
    half = np.kron(np.asarray(speed_transition(step_s / 2, motion), np.float64), np.eye(n))
    moves = np.exp(np.asarray(log_move(step_s, motion), np.float64))
    circulants = [[np.roll(move, a) for a in range(n)] for move in moves]
    p = half @ scipy.linalg.block_diag(*circulants) @ half
    return p / p.sum(axis=1, keepdims=True)


def whole_videos() -> dict:
    density, time_s = walk(FRAMES)
    figures = {}
    for cells in (180, 360):
        motion = Motion(cells=cells)
        steps = circular_filter.time_steps(time_s)
        emissions = jax.jit(circular_filter.log_emissions)(
            density, steps, jnp.ones(FRAMES, bool), motion
        )
        calls = {
            "smooth": lambda m=motion: circular_filter.smooth(density, time_s, motion=m),
            "smooth_emissions": lambda m=motion, e=emissions, s=steps: (
                circular_filter.smooth_emissions(e, s, m)
            ),
            "filtered": lambda m=motion: circular_filter.filtered(density, time_s, motion=m),
        }
        taken = {name: min(machine.turns(call, 5)) for name, call in calls.items()}
        # Its work grows with the square of the cells: a tenth of the frames.
        part = jax.tree.map(lambda x: x[: FRAMES // 10], density)
        path = machine.turns(
            lambda m=motion, p=part: viterbi.viterbi(p, time_s[: FRAMES // 10], motion=m), 2
        )
        taken["viterbi"] = 10 * min(path)
        busy = machine.turns(calls["smooth"], 3, clock=time.process_time)
        figures[f"{360 // cells}_deg"] = {
            "seconds": {name: round(s, 3) for name, s in taken.items()},
            "smooth_processor_seconds": round(min(busy), 3),
            "smooth_frames_per_s": round(FRAMES / taken["smooth"]),
        }
    return figures


def live() -> dict:
    density, _ = walk(1)
    motion = Motion()
    frame = jax.tree.map(lambda x: x[0], density)
    state = streaming.start(LAG, motion)
    informs = jnp.asarray(True)
    taken = machine.turns(
        lambda: streaming.push(state, frame, jnp.float32(0.03), informs, motion), 200
    )
    return {"lag": LAG, "ms_per_frame": round(1000 * min(taken), 2)}


def against_pyrecest() -> dict:
    motion, step_s = Motion(), 1 / 30
    density, _ = walk(PEER_FRAMES)
    steps = jnp.full(PEER_FRAMES, step_s).at[0].set(0.0)
    emissions = circular_filter.log_emissions(density, steps, jnp.ones(PEER_FRAMES, bool), motion)
    ours_s = min(
        machine.turns(lambda: circular_filter.smooth_emissions(emissions, steps, motion), 5)
    )
    # Its matrix maps from columns to rows.
    matrix = scipy.sparse.csr_matrix(transition(step_s, motion).T)
    states = np.tile(np.asarray(emissions, np.float64), (1, len(motion.speeds_deg_s)))
    start = time.perf_counter()
    theirs = discrete_forward_backward(states, matrix)
    theirs_s = time.perf_counter() - start
    shape = (PEER_FRAMES, len(motion.speeds_deg_s), motion.cells)
    expected = theirs.smoothed_probabilities.reshape(shape).sum(1)
    ours = circular_filter.smooth_emissions(emissions, steps, motion)
    found = np.asarray(ours.density) * (circular.TWO_PI / motion.cells)
    return {
        "frames": PEER_FRAMES,
        "pyrecest_ms_per_frame": round(1000 * theirs_s / PEER_FRAMES, 3),
        "carjax_ms_per_frame": round(1000 * ours_s / PEER_FRAMES, 3),
        "ratio": round(theirs_s / ours_s, 1),
        "largest_difference_of_a_cell": float(f"{np.abs(found - expected).max():.1e}"),
    }


def main() -> None:
    load = round(os.getloadavg()[0], 1)
    figures = {
        "command": "python benchmarks/temporal_filter.py",
        "frames": FRAMES,
        "load_average": load,
        **whole_videos(),
        "live": live(),
        "pyrecest": against_pyrecest(),
    }
    for name, value in figures.items():
        print(f"{name:12} {value}")
    machine.save("temporal_filter.json", figures)


if __name__ == "__main__":
    main()
