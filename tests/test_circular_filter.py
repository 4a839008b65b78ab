"""The temporal filter against dense sums in float64, against all paths, and against PyRecEst."""

import itertools
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.optimize
import scipy.sparse
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from carjax import circular
from carjax.errors import CarjaxError
from carjax.temporal import circular_filter, streaming
from carjax.temporal.circular_filter import filtered, smooth, smooth_emissions, time_steps
from carjax.temporal.motion import Motion, log_move, move_spectrum, speed_transition
from carjax.temporal.viterbi import viterbi, viterbi_emissions

SMALL = Motion(
    cells=12,
    speeds_deg_s=(-70.0, -20.0, 0.0, 20.0, 70.0),
    drift_deg=20.0,
    change_rate=1.5,
    turn_rate=0.2,
)
TINY = Motion(
    cells=5, speeds_deg_s=(-50.0, 0.0, 50.0), drift_deg=40.0, change_rate=2.0, turn_rate=0.3
)

pytestmark = pytest.mark.usefixtures("quick_compilation")


# --- the definition, in float64 and with full matrices -------------------------------------------


def speed_matrix(step_s, motion):
    k = len(motion.speeds_deg_s)
    rate = np.full((k, k), motion.turn_rate / k)
    for i in range(k - 1):
        rate[i, i + 1] += motion.change_rate / 2
        rate[i + 1, i] += motion.change_rate / 2
    np.fill_diagonal(rate, 0.0)
    np.fill_diagonal(rate, -rate.sum(1))
    return scipy.linalg.expm(rate * step_s)


def azimuth_matrix(speed, step_s, motion):
    """Probabilities of cells (columns) given cells (rows): an interpolated shift, then a drift."""
    n = motion.cells
    angles = 2 * np.pi * np.arange(n) / n
    shift = speed * step_s * n / 360
    whole = int(np.floor(shift))
    fraction = shift - whole
    moves = np.zeros((n, n))
    for a in range(n):
        moves[a, (a + whole) % n] += 1 - fraction
        moves[a, (a + whole + 1) % n] += fraction

    def kernel(kappa):
        p = np.exp(kappa * (np.cos(angles) - 1))
        return p / p.sum()

    length = abs(1 - fraction + fraction * np.exp(1j * angles[1]))
    target = np.exp(-(np.radians(motion.drift_deg) ** 2) * step_s / 2) / length

    def excess(log_kappa):
        return (kernel(np.exp(log_kappa)) * np.cos(angles)).sum() - target

    if excess(9.0) <= 0:
        return moves
    drift = kernel(np.exp(scipy.optimize.brentq(excess, -12.0, 9.0, xtol=1e-12)))
    return moves @ scipy.linalg.circulant(drift)


def transition(step_s, motion):
    """[K·N, K·N]: half of the speed changes, the move, the other half."""
    n = motion.cells
    half = np.kron(speed_matrix(step_s / 2, motion), np.eye(n))
    move = scipy.linalg.block_diag(
        *(azimuth_matrix(v, step_s, motion) for v in motion.speeds_deg_s)
    )
    return half @ move @ half


def dense(log_emission, step_s, motion):
    """Causal and smoothed probabilities [T, K, N] and the log-evidence, by forward-backward."""
    k, n = len(motion.speeds_deg_s), motion.cells
    emission = np.exp(np.tile(np.asarray(log_emission, np.float64), (1, k)))
    moves = [transition(float(step), motion) for step in step_s]
    alpha, beta, evidence = [], [np.ones(k * n)], 0.0
    for t, move in enumerate(moves):
        before = alpha[-1] @ move if t else np.full(k * n, 1 / (k * n))
        alpha.append(before * emission[t])
        evidence += np.log(alpha[-1].sum())
        alpha[-1] = alpha[-1] / alpha[-1].sum()
    for t in reversed(range(1, len(moves))):
        beta.insert(0, moves[t] @ (emission[t] * beta[0]))
        beta[0] = beta[0] / beta[0].sum()
    gamma = np.stack(alpha) * np.stack(beta)
    gamma /= gamma.sum(1, keepdims=True)
    shape = (-1, k, n)
    return np.stack(alpha).reshape(shape), gamma.reshape(shape), evidence


def video(frames, cells, seed=0, spread=2.0):
    """Random emissions and uneven time steps, float32."""
    rng = np.random.default_rng(seed)
    step_s = rng.uniform(0.02, 1.5, frames)
    step_s[0] = 0.0
    emission = rng.normal(0, spread, (frames, cells))
    return jnp.asarray(emission, jnp.float32), jnp.asarray(step_s, jnp.float32)


def masses(found):
    """Masses [T, N] of the cells in float64."""
    density = np.asarray(found.density, np.float64)
    return density * 2 * np.pi / density.shape[-1]


def assert_equal(found, expected, atol=5e-5):
    np.testing.assert_allclose(found.density, expected.density, atol=atol)
    np.testing.assert_allclose(found.speed_deg_s, expected.speed_deg_s, atol=40 * atol)
    np.testing.assert_allclose(found.log_evidence, expected.log_evidence, atol=2 * atol, rtol=1e-6)


# --- motion --------------------------------------------------------------------------------------


spectra = jax.jit(move_spectrum)
speed_changes = jax.jit(speed_transition)


@pytest.mark.parametrize(
    "motion", [SMALL, TINY, Motion(cells=72), Motion(speeds_deg_s=(-9.0, 9.0))]
)
def test_transitions_are_those_of_the_definition(motion):
    steps = np.array([0.0, 0.03, 0.4, 5.0], np.float32)
    found = speed_changes(steps, motion)
    log_moves = np.asarray(jax.jit(log_move)(steps, motion), np.float64)
    np.testing.assert_allclose(spectra(steps, motion), np.fft.rfft(np.exp(log_moves)), atol=5e-5)
    for i, step_s in enumerate(steps.astype(float)):
        np.testing.assert_allclose(found[i], speed_matrix(step_s, motion), atol=2e-6)
        for row, speed in zip(log_moves[i], motion.speeds_deg_s, strict=True):
            expected = azimuth_matrix(speed, step_s, motion)[0]
            np.testing.assert_allclose(np.exp(row), expected, atol=5e-5)


@given(st.floats(0.0, 3.0), st.floats(0.0, 3.0))
def test_speed_changes_of_two_steps_are_those_of_their_sum(first, second):
    motion = Motion()
    two = np.asarray(speed_changes(first, motion)) @ np.asarray(speed_changes(second, motion))
    np.testing.assert_allclose(two, speed_changes(first + second, motion), atol=3e-6)


@pytest.mark.parametrize("cells", [72, 120, 180, 360])
@pytest.mark.parametrize("rate", [2, 8, 30])
def test_drift_in_a_second_depends_neither_on_frame_rate_nor_on_cells(rate, cells):
    motion = Motion(cells=cells, speeds_deg_s=(-12.3, 0.0, 12.3), drift_deg=15.0)
    one_second = np.conj(np.asarray(spectra(1.0 / rate, motion)[:, 1])) ** rate
    expected = np.exp(-(np.radians(15.0) ** 2) / 2)
    np.testing.assert_allclose(np.abs(one_second), expected, rtol=1e-3)
    np.testing.assert_allclose(
        np.degrees(np.angle(one_second)), motion.speeds_deg_s, rtol=0.01, atol=1e-3
    )


@pytest.mark.parametrize("rate", [8, 30])
def test_fast_speeds_drift_no_more_where_cells_are_no_wider_than_stated(rate):
    width_deg = 2 * 8.27 / np.sqrt(rate)
    for cells, exact in ((int(np.ceil(360 / width_deg)), True), (40, False)):
        motion = Motion(cells=cells)
        length = np.abs(np.asarray(spectra(1.0 / rate, motion)[:, 1])) ** rate
        drift = np.degrees(np.sqrt(-2 * np.log(length)))
        assert np.allclose(drift, 8.27, rtol=5e-3) == exact


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cells": 2}, "cells"),
        ({"speeds_deg_s": (0.0, 5.0)}, "symmetric"),
        ({"speeds_deg_s": (5.0, -5.0)}, "ascending"),
        ({"speeds_deg_s": ()}, "ascending"),
        ({"drift_deg": -1.0}, "drift_deg"),
        ({"turn_rate": float("nan")}, "turn_rate"),
        ({"floor": 1.5}, "floor"),
    ],
)
def test_motion_that_cannot_be_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Motion(**fields)


# --- brute force ---------------------------------------------------------------------------------


@pytest.mark.parametrize("motion", [SMALL, TINY])
@pytest.mark.parametrize("seed", range(3))
def test_smoothing_is_the_dense_forward_backward(motion, seed):
    emission, step_s = video(20, motion.cells, seed)
    causal, smoothed, evidence = dense(emission, step_s, motion)
    speeds = np.asarray(motion.speeds_deg_s)
    for found, joint in (
        (smooth_emissions(emission, step_s, motion, causal=True), causal),
        (smooth_emissions(emission, step_s, motion), smoothed),
    ):
        cells = joint.sum(1)
        np.testing.assert_allclose(masses(found), cells, atol=2e-5)
        np.testing.assert_allclose(found.speed_deg_s, joint.sum(2) @ speeds, atol=2e-3)
        np.testing.assert_allclose(found.log_evidence, evidence, atol=1e-3)
        # Of the density that is even within a cell.
        fine = np.linspace(-0.5, 0.5, 101) * 2 * np.pi / motion.cells
        angles = 2 * np.pi * np.arange(motion.cells) / motion.cells
        moment = cells @ np.exp(1j * angles) * np.trapezoid(np.exp(1j * fine).real, dx=0.01)
        np.testing.assert_allclose(
            circular.mean_resultant_length(found.kappa), np.abs(moment), atol=2e-4
        )
        off = np.angle(np.exp(1j * (np.radians(found.mean_deg) - np.angle(moment))))
        np.testing.assert_allclose(off * np.abs(moment), 0.0, atol=1e-4)


def test_evidence_is_the_sum_over_all_paths_and_viterbi_their_maximum():
    motion = TINY
    k, n = len(motion.speeds_deg_s), motion.cells
    for seed in range(4):
        emission, step_s = video(3, n, seed)
        log_emission = np.asarray(emission, np.float64)
        steps = np.asarray(step_s, np.float64)
        with np.errstate(divide="ignore"):
            log_moves = [
                np.log([azimuth_matrix(v, step, motion) for v in motion.speeds_deg_s])
                for step in steps[1:]
            ]
        log_halves = [np.log(speed_matrix(step / 2, motion)) for step in steps[1:]]
        # Speed and cell of a frame, speed of the move, speed and cell of the next frame, …
        names = [range(k), range(n), range(k), range(k), range(n), range(k), range(k), range(n)]
        paths = {}
        for path in itertools.product(*names):
            speed, move, cell = path[0::3], path[2::3], path[1::3]
            log_p = -np.log(k * n) + sum(log_emission[t, cell[t]] for t in range(3))
            for t in range(2):
                log_p += log_halves[t][speed[t], move[t]] + log_halves[t][move[t], speed[t + 1]]
                log_p += log_moves[t][move[t]][cell[t], cell[t + 1]]
            paths[path] = log_p
        evidence = scipy.special.logsumexp(list(paths.values()))
        found = smooth_emissions(emission, step_s, motion)
        np.testing.assert_allclose(found.log_evidence, evidence, atol=1e-4)
        best = viterbi_emissions(emission, step_s, motion)
        np.testing.assert_allclose(best.log_prob, max(paths.values()), atol=2e-4)
        speed = [motion.speeds_deg_s.index(float(v)) for v in best.speed_deg_s]
        cell = np.round(np.asarray(best.azimuth_deg) / 72.0).astype(int)
        state = list(zip(speed, cell.tolist(), strict=True))
        chosen = max(
            paths[(*state[0], first, *state[1], second, *state[2])]
            for first, second in itertools.product(range(k), repeat=2)
        )
        np.testing.assert_allclose(chosen, max(paths.values()), atol=2e-4)


def test_viterbi_of_a_longer_video_is_dense_dynamic_programming():
    motion = SMALL
    k, n = len(motion.speeds_deg_s), motion.cells
    emission, step_s = video(30, n, seed=5)
    steps = np.asarray(step_s, np.float64)
    score = np.full(k * n, -np.log(k * n)) + np.tile(np.asarray(emission[0], np.float64), k)
    for t in range(1, 30):
        half = np.kron(speed_matrix(steps[t] / 2, motion), np.eye(n))
        matrices = [azimuth_matrix(v, steps[t], motion) for v in motion.speeds_deg_s]
        for part in (half, scipy.linalg.block_diag(*matrices), half):
            with np.errstate(divide="ignore"):
                score = (score[:, None] + np.log(part)).max(0)
        score = score + np.tile(np.asarray(emission[t], np.float64), k)
    np.testing.assert_allclose(
        viterbi_emissions(emission, step_s, motion).log_prob, score.max(), atol=2e-3
    )


# --- properties ----------------------------------------------------------------------------------

videos = st.integers(0, 2**31).map(lambda seed: video(12, SMALL.cells, seed))
few = settings(max_examples=20)


@few
@given(videos, st.integers(1, SMALL.cells - 1))
def test_turning_all_densities_by_cells_turns_the_smoothed(given_video, turn):
    emission, step_s = given_video
    plain = smooth_emissions(emission, step_s, SMALL)
    turned = smooth_emissions(jnp.roll(emission, turn, axis=1), step_s, SMALL)
    assert_equal(turned, plain._replace(density=jnp.roll(plain.density, turn, axis=1)))


@few
@given(videos)
def test_a_mirrored_walk_is_smoothed_to_the_mirror_image(given_video):
    emission, step_s = given_video
    plain = smooth_emissions(emission, step_s, SMALL)
    mirrored = smooth_emissions(jnp.roll(emission[:, ::-1], 1, axis=1), step_s, SMALL)
    image = jnp.roll(plain.density[:, ::-1], 1, axis=1)
    assert_equal(mirrored, plain._replace(density=image, speed_deg_s=-plain.speed_deg_s))


@few
@given(videos)
def test_a_walk_run_backwards_is_smoothed_to_itself_with_negated_speeds(given_video):
    emission, step_s = given_video
    plain = smooth_emissions(emission, step_s, SMALL)
    back = jnp.roll(step_s[::-1], 1)
    found = smooth_emissions(emission[::-1], back, SMALL)
    reverse = plain._replace(density=plain.density[::-1], speed_deg_s=-plain.speed_deg_s[::-1])
    assert_equal(found, reverse)


@few
@given(videos)
def test_densities_integrate_to_one(given_video):
    for causal in (False, True):
        density = smooth_emissions(*given_video, SMALL, causal=causal).density
        assert (np.asarray(density) >= 0.0).all()
        np.testing.assert_allclose(density.mean(1) * 2 * np.pi, 1.0, atol=1e-5)


# --- from frames' densities ----------------------------------------------------------------------

RATE = 8


def frames(seed=0, n=24, cars=None):
    """Densities, times and mask of a steady walk; `cars` videos of it, or one."""
    rng = np.random.default_rng(seed)
    shape = (n,) if cars is None else (cars, n)
    time_s = np.cumsum(rng.uniform(0.05, 0.3, shape), axis=-1)
    mu = np.radians(20.0 * time_s + rng.normal(0, 8, shape))
    density = circular.from_single(
        jnp.asarray(mu, jnp.float32), jnp.full(shape, 60.0), jnp.full(shape, 0.02)
    )
    return density, time_s, rng.random(shape) < 0.8


@pytest.mark.slow
def test_many_videos_at_once_are_smoothed_as_one_by_one():
    density, time_s, mask = frames(cars=3)
    together = jax.vmap(smooth)(density, jnp.asarray(time_s, jnp.float32), mask)
    for i in range(3):
        one = smooth(jax.tree.map(lambda x, i=i: x[i], density), time_s[i], mask[i])
        assert_equal(jax.tree.map(lambda x, i=i: x[i], together), one, atol=2e-4)


def first(tree, n):
    return jax.tree.map(lambda x: x[:n] if x.ndim else x, tree)


@pytest.mark.parametrize("end", ["last time", pytest.param("zeros", marks=pytest.mark.slow)])
def test_padding_changes_nothing_whatever_it_holds(end):
    density, time_s, mask = frames()
    padded = jax.tree.map(lambda x: jnp.concatenate([x, jnp.full_like(x[:9], np.nan)]), density)
    times = np.append(time_s, np.full(9, time_s[-1] if end == "last time" else 0.0))
    seen = np.append(mask, np.zeros(9, bool))
    for whole in (smooth, filtered):
        assert_equal(first(whole(padded, times, seen), 24), whole(density, time_s, mask))
    path = first(viterbi(padded, times, seen), 24)
    plain = viterbi(density, time_s, mask)
    np.testing.assert_array_equal(path.azimuth_deg, plain.azimuth_deg)
    np.testing.assert_array_equal(path.speed_deg_s, plain.speed_deg_s)
    np.testing.assert_allclose(path.log_prob, plain.log_prob, rtol=1e-5)


def test_a_masked_frame_says_nothing_and_frames_without_content_have_no_evidence():
    density, time_s, mask = frames()
    kept = smooth(
        jax.tree.map(lambda x: x[mask], density), time_s[mask], motion=Motion(correlation_s=0.0)
    )
    every = smooth(density, time_s, mask, Motion(correlation_s=0.0))
    # A move in two steps is not quite the move in one: the interpolated shift, the half steps.
    np.testing.assert_allclose(every.mean_deg[mask], kept.mean_deg, atol=0.5)
    nothing = smooth(density, time_s, np.zeros(24, bool))
    np.testing.assert_allclose(nothing.density, 1 / (2 * np.pi), rtol=1e-4)
    np.testing.assert_allclose(nothing.log_evidence, 0.0, atol=1e-4)


def test_a_frame_that_is_no_number_says_nothing():
    density, time_s, _ = frames()
    broken = density._replace(mu=density.mu.at[7].set(jnp.nan))
    for whole in (smooth, filtered, viterbi):
        found, expected = whole(broken, time_s), whole(density, time_s, np.arange(24) != 7)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    stream = streaming.Stream(lag=0)
    for i, when in enumerate(time_s.tolist()):
        answer = stream.push(jax.tree.map(lambda x, i=i: x[i], broken), when)
    np.testing.assert_allclose(answer.density, filtered(broken, time_s).density[-1], atol=5e-5)


def test_frames_that_repeat_each_other_count_by_the_time_between_them():
    one = circular.from_single(jnp.float32(1.0), jnp.float32(30.0))
    many = jax.tree.map(lambda x: jnp.repeat(x[None], 6, axis=0), one)
    motion = Motion(correlation_s=1.0)
    steps = time_steps([0.0, 0.25, 0.25, 0.75, 2.75, 3.0])
    mask = jnp.array([True, True, True, False, True, True])
    emission = circular_filter.log_emissions(many, steps, mask, motion)
    weight = emission / circular_filter.log_share(one, motion)
    np.testing.assert_allclose(weight[:, 0], [1.0, 0.25, 0.0, 0.0, 1.0, 0.25], rtol=1e-6)
    free = circular_filter.log_emissions(many, steps, mask, Motion(correlation_s=0.0))
    np.testing.assert_allclose(
        (free / circular_filter.log_share(one, motion))[:, 0], [1, 1, 1, 0, 1, 1]
    )


def test_times_keep_their_precision():
    times = 1e6 + np.arange(5) / 30
    np.testing.assert_allclose(time_steps(times), [0.0, *[1 / 30] * 4], rtol=1e-5)
    assert time_steps(jnp.array([2.0, 1.0, 4.0])).tolist() == [0.0, 0.0, 3.0]


def test_shapes_that_do_not_match_are_named():
    density, time_s, mask = frames()
    with pytest.raises(ValueError, match="one shape"):
        smooth(density, time_s[:-1])
    with pytest.raises(ValueError, match="one shape"):
        filtered(density, time_s, mask[:-1])
    with pytest.raises(ValueError, match="one shape"):
        viterbi(density, time_s[:, None])


def test_new_rates_compile_nothing_and_have_a_gradient():
    density, time_s, _ = frames()
    smooth(density, time_s, motion=Motion())
    compiled = circular_filter._smooth._cache_size()
    smooth(density, time_s, motion=Motion(drift_deg=9.0, floor=0.2, change_rate=3.0))
    assert circular_filter._smooth._cache_size() == compiled

    def evidence(rates):
        return smooth(density, jnp.asarray(time_s), motion=Motion(cells=72, **rates)).log_evidence

    rates = {
        "drift_deg": 9.0, "change_rate": 1.0, "turn_rate": 0.1, "floor": 0.1, "correlation_s": 0.3
    }  # fmt: skip
    slopes = jax.jit(jax.grad(evidence))(rates)
    for name, slope in slopes.items():
        ends = [evidence({**rates, name: rates[name] * factor}) for factor in (0.97, 1.03)]
        np.testing.assert_allclose(
            slope, (ends[1] - ends[0]) / (0.06 * rates[name]), rtol=0.05, atol=0.02
        )


def walk(seed=0, spoilt=0.2):
    """A minute with a pause, a hurry and a turn back; a fifth of the frames are flipped."""
    rng = np.random.default_rng(seed)
    time_s = np.cumsum(rng.uniform(0.5, 1.5, 60 * RATE) / RATE)
    speed = np.select(
        [time_s < 15, time_s < 22, time_s < 30, time_s < 42], [9.0, 0.0, 40.0, 12.0], -10.0
    )
    truth = 350.0 + np.cumsum(speed * np.diff(time_s, prepend=time_s[0]))
    seen = truth + rng.normal(0, 6, len(truth))
    flipped = rng.random(len(truth)) < spoilt
    mu = jnp.asarray(np.radians(seen + 180.0 * flipped), jnp.float32)
    density = circular.from_single(mu, jnp.full(mu.shape, 90.0), jnp.full(mu.shape, 0.02))
    return density, time_s, truth, speed, flipped


def off(found_deg, truth_deg):
    return np.abs((np.asarray(found_deg) - truth_deg + 180) % 360 - 180)


def test_a_walk_with_pause_hurry_and_turn_is_followed_and_flips_are_gone():
    density, time_s, truth, speed, flipped = walk()
    single = off(circular.azimuth_deg(density), truth)
    assert flipped.mean() > 0.15
    for found in (smooth(density, time_s).mean_deg, viterbi(density, time_s).azimuth_deg):
        error = off(found, truth)
        assert (error < 30).all()
        assert np.median(error) < 0.5 * np.median(single)
    smoothed = smooth(density, time_s)
    index = np.mod(np.round(truth / 2).astype(int), 180)
    after = np.log(np.asarray(smoothed.density)[np.arange(len(truth)), index]).mean()
    before = np.asarray(circular.log_prob(density, np.radians(truth))).mean()
    assert after > before + 0.5
    # Away from the changes the speed is right.
    steady = np.all([np.abs(time_s - t) > 2 for t in (0, 15, 22, 30, 42, time_s[-1])], axis=0)
    assert np.abs(np.asarray(smoothed.speed_deg_s) - speed)[steady].mean() < 4.0
    causal = off(filtered(density, time_s).mean_deg, truth)
    assert np.median(causal) < np.median(single)
    assert (causal > 90).mean() < 0.01


@pytest.mark.slow
def test_a_hundred_thousand_frames_neither_overflow_nor_underflow():
    motion = Motion(cells=36, speeds_deg_s=(-10.0, 0.0, 10.0))
    frame = circular.from_single(jnp.float32(1.0), jnp.float32(1e4))
    one = 50.0 * circular_filter.log_share(frame, motion)  # from 150 to −150 nats
    emission = jnp.broadcast_to(one, (100_000, 36))
    found = smooth_emissions(emission, jnp.full(100_000, 1 / 30), motion)
    assert np.isfinite(found.density).all()
    assert np.isfinite(found.log_evidence)
    np.testing.assert_allclose(found.mean_deg, 60.0, atol=0.5)


# --- live ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lag", [0, pytest.param(1, marks=pytest.mark.slow), 7])
def test_a_stream_is_the_offline_smoother_of_the_frames_so_far(lag):
    density, time_s, mask = frames(n=16)
    motion = Motion(cells=72)
    stream = streaming.Stream(lag, motion)
    for t in range(16):
        one = jax.tree.map(lambda x, t=t: x[t], density)
        answer = stream.push(one, time_s[t], mask[t])
        if t < lag:
            assert answer is None
            continue
        # Frames after t are padding.
        whole = first(smooth(density, time_s, mask & (np.arange(16) <= t), motion), t + 1)
        until = filtered(density, time_s, mask & (np.arange(16) <= t - lag), motion)
        np.testing.assert_allclose(answer.density, whole.density[t - lag], atol=2e-5)
        np.testing.assert_allclose(answer.speed_deg_s, whole.speed_deg_s[t - lag], atol=1e-3)
        np.testing.assert_allclose(answer.log_evidence, until.log_evidence, atol=1e-4)
    rest = stream.drain()
    if not lag:
        assert rest is None
        return
    np.testing.assert_allclose(rest.density, whole.density[-lag:], atol=2e-5)
    np.testing.assert_allclose(rest.log_evidence, whole.log_evidence, atol=1e-4)


def test_a_stream_shorter_than_its_lag_is_answered_at_the_end():
    density, time_s, mask = frames(n=16)
    motion = Motion(cells=72)
    stream = streaming.Stream(7, motion)
    for t in range(3):
        one = jax.tree.map(lambda x, t=t: x[t], density)
        assert stream.push(one, time_s[t], mask[t]) is None
    whole = smooth(density, time_s, mask & (np.arange(16) < 3), motion)
    assert_equal(stream.drain(), first(whole, 3))


def test_a_stream_refuses_frames_out_of_order_and_a_negative_lag():
    stream = streaming.Stream(1)
    frame = circular.from_single(0.0, 1.0)
    stream.push(frame, 2.0)
    with pytest.raises(CarjaxError, match="after one at 2"):
        stream.push(frame, 1.0)
    with pytest.raises(ValueError, match="lag"):
        streaming.start(-1, Motion())


# --- PyRecEst ------------------------------------------------------------------------------------


def drift_for(kappa, step_s):
    """The drift whose kernel over `step_s` has this concentration, in degrees."""
    length = scipy.special.i1e(kappa) / scipy.special.i0e(kappa)
    return float(np.degrees(np.sqrt(-2 * np.log(length) / step_s)))


@pytest.mark.slow
def test_pyrecests_forward_backward_gives_the_same():
    """Its hidden Markov smoother, one sparse matrix per step, with speeds."""
    module = pytest.importorskip("pyrecest.filters.discrete_state", reason="extra test-all")
    motion = SMALL
    emission, step_s = video(40, motion.cells, seed=3)
    # Its matrices map from columns to rows.
    moves = [scipy.sparse.csr_matrix(transition(float(s), motion).T) for s in step_s[1:]]
    k, n = len(motion.speeds_deg_s), motion.cells
    theirs = module.discrete_forward_backward_time_varying(
        np.tile(np.asarray(emission, np.float64), (1, k)), moves
    )
    speeds = np.asarray(motion.speeds_deg_s)
    for causal, joint in (
        (True, theirs.filtered_probabilities),
        (False, theirs.smoothed_probabilities),
    ):
        ours = smooth_emissions(emission, step_s, motion, causal=causal)
        joint = joint.reshape(-1, k, n)
        np.testing.assert_allclose(masses(ours), joint.sum(1), atol=2e-5)
        np.testing.assert_allclose(ours.speed_deg_s, joint.sum(2) @ speeds, atol=2e-3)
    np.testing.assert_allclose(ours.log_evidence, theirs.log_marginal_likelihood, atol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*automaticConversion")
def test_without_speeds_it_is_pyrecests_circular_fourier_filter():
    """Its filter on the continuous circle: von Mises drift, von Mises frames."""
    filters = pytest.importorskip("pyrecest.filters", reason="extra test-all")
    distributions = pytest.importorskip("pyrecest.distributions")
    rng = np.random.default_rng(2)
    drift_kappa, frame_kappa, step_s, n = 40.0, 15.0, 0.5, 180
    seen = np.mod(np.cumsum(rng.normal(0, 0.3, 15)), 2 * np.pi)
    noise = distributions.VonMisesDistribution(0.0, drift_kappa)
    frame = distributions.VonMisesDistribution(0.0, frame_kappa)
    theirs = filters.CircularFourierFilter(201, "identity")
    angles = 2 * np.pi * np.arange(n) / n
    expected = []
    for i, z in enumerate(seen):
        if i:
            theirs.predict_identity(noise)
        theirs.update_identity(frame, z)
        expected.append(np.asarray(theirs.filter_state.pdf(angles)))
    length = scipy.special.i1e(drift_kappa) / scipy.special.i0e(drift_kappa)
    drift_deg = float(np.degrees(np.sqrt(-2 * np.log(length) / step_s)))
    motion = Motion(speeds_deg_s=(0.0,), drift_deg=drift_deg, change_rate=0.0, turn_rate=0.0)
    emission = frame_kappa * np.cos(angles - seen[:, None])
    steps = jnp.full(len(seen), step_s).at[0].set(0.0)
    ours = smooth_emissions(jnp.asarray(emission, jnp.float32), steps, motion, causal=True)
    np.testing.assert_allclose(ours.density, expected, atol=1e-4)
    np.testing.assert_allclose(ours.speed_deg_s, 0.0)


def test_times_that_are_none_or_decrease_are_refused():
    density = circular.from_single(jnp.zeros(3), 10.0)
    for times in ([0.0, np.nan, 1.0], [0.0, 2.0, 1.0], jnp.array([0.0, jnp.inf, 1.0])):
        for walk in (smooth, filtered, viterbi):
            with pytest.raises(ValueError, match="must be finite, and must not decrease"):
                walk(density, times)
    stream = streaming.Stream(1)
    with pytest.raises(CarjaxError, match="a frame at nan s"):
        stream.push(jax.tree.map(lambda x: x[0], density), np.nan)


def test_a_drained_stream_answers_no_more():
    stream = streaming.Stream(2)
    one = circular.from_single(0.5, 50.0)
    for i in range(3):
        stream.push(one, i / 8)
    assert stream.drain().mean_deg.shape == (2,)
    assert stream.drain() is None
    with pytest.raises(CarjaxError, match="was drained"):
        stream.push(one, 1.0)


@pytest.mark.slow
def test_in_double_precision_the_filter_is_the_same():
    """A user's process may have turned it on; carjax's own arrays are float32 all the same."""
    code = """
import jax, numpy as np
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
from carjax import circular
from carjax.temporal import circular_filter, streaming, viterbi
seen = circular.from_single(jnp.deg2rad(jnp.array([10.0, 12.0, 194.0, 16.0, 18.0])), 200.0)
times = np.arange(5) / 2
print(circular_filter.smooth(seen, times).mean_deg.round(1).tolist())
print(viterbi.viterbi(seen, times).azimuth_deg.tolist())
stream = streaming.Stream(4)
answers = [stream.push(jax.tree.map(lambda x: x[i], seen), times[i]) for i in range(5)]
print(answers[-1].mean_deg.round(1).tolist())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    whole, path, streamed = map(json.loads, done.stdout.splitlines())
    np.testing.assert_allclose(whole, [10.1, 12.0, 14.0, 16.0, 17.9], atol=0.11)
    assert path == [10.0, 12.0, 14.0, 16.0, 18.0]
    assert abs(streamed - whole[0]) < 0.11


# --- Frames that say nothing ----------------------------------------------------------------------


def test_a_frame_that_says_nothing_does_not_end_a_repetition():
    motion = Motion(correlation_s=0.374)
    since_s, weight = circular_filter.frame_weight(
        jnp.float32(0), jnp.float32(0.3), jnp.bool_(False), motion
    )
    assert (float(since_s), float(weight)) == (pytest.approx(0.3), 0.0)
    _, weight = circular_filter.frame_weight(since_s, jnp.float32(0.3), jnp.bool_(True), motion)
    assert float(weight) == 1.0


def test_a_masked_frame_stands_at_its_own_time_and_padding_at_any():
    density = circular.from_single(jnp.deg2rad(jnp.array([10.0, 0.0, 90.0])), 200.0)
    middle, end = np.array([True, False, True]), np.array([True, True, False])
    for function in (smooth, filtered, viterbi):
        with pytest.raises(ValueError, match="must not decrease"):
            function(density, np.array([0.0, 1e4, 1.0]), middle)
        function(density, np.array([0.0, 1.0, 0.5]), end)
        function(density, np.array([0.0, 1.0, 0.5]), np.zeros(3, bool))
