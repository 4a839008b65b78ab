"""The main car's track: nothing of one car is lost, and another car that passes is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carjax.selection import tracking

seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=100, deadline=None)
RATES = st.sampled_from([1.0, 2.0, 8.0, 30.0])
ASIDE = np.array([0.02, 0.55, 0.22, 0.7])  # a box of a car in the background, away from the middle


def smooth(count, rate, rng):
    """Boxes of one car that the camera circles: centre and size swing, the hand trembles."""
    t = np.arange(count) / rate
    phase, slow = rng.uniform(0, 2 * np.pi, 4), rng.uniform(0.1, 0.5, 4)
    wave = np.sin(2 * np.pi * slow * 0.25 * t[:, None] + phase)
    centre = 0.5 + [0.1, 0.05] * wave[:, :2] + rng.normal(0, 0.005, (count, 2))
    side = [0.6, 0.4] * (1 + 0.25 * wave[:, 2:]) * (1 + rng.normal(0, 0.01, (count, 2)))
    return t, np.hstack([centre - side / 2, centre + side / 2])


def main_car(t, box, colour=None, candidates=None, weights=None):
    candidates = np.ones(len(t), bool) if candidates is None else candidates
    weights = np.ones(len(t)) if weights is None else weights
    return tracking.main_car(t, box, weights, candidates, colour)


@given(seeds, RATES, st.integers(1, 150))
@quick
def test_no_frame_of_one_car_is_lost(seed, rate, count):
    t, box = smooth(count, rate, np.random.default_rng(seed))
    assert main_car(t, box).all()


@given(seeds, st.integers(2, 24))
@quick
def test_a_car_that_passes_is_not_followed(seed, length):
    rng = np.random.default_rng(seed)
    t, box = smooth(120, 8.0, rng)
    start = int(rng.integers(10, 80))
    box[start : start + length] = ASIDE + rng.normal(0, 0.004, (length, 4))
    want = np.ones(120, bool)
    want[start : start + length] = False
    np.testing.assert_array_equal(main_car(t, box), want)


@given(seeds)
@quick
def test_boxes_that_jump_between_two_cars_stay_apart(seed):
    rng = np.random.default_rng(seed)
    t, box = smooth(100, 8.0, rng)
    other = rng.random(100) < 0.3
    other[[0, 1, -1]] = False
    box[other] = ASIDE
    want = ~other if other.sum() > 1 else np.ones(100, bool)  # one alone is a slip
    np.testing.assert_array_equal(main_car(t, box), want)


@given(seeds, st.floats(0.2, 5), st.floats(-100, 100))
@quick
def test_neither_the_clock_nor_a_mirror_matters(seed, weight, shift):
    rng = np.random.default_rng(seed)
    t, box = smooth(60, 8.0, rng)
    box[20:26] = ASIDE
    want = main_car(t, box)
    np.testing.assert_array_equal(main_car(t + shift, box), want)
    np.testing.assert_array_equal(main_car(t, 1 - box[:, [2, 1, 0, 3]] * [1, -1, 1, -1]), want)
    every = np.ones(60, bool)
    np.testing.assert_array_equal(tracking.main_car(t, box, np.full(60, weight), every, None), want)


@pytest.mark.parametrize("frame", [0, 1, 30, 58, 59])
def test_a_slip_of_one_frame_costs_nothing(frame):
    t, box = smooth(60, 8.0, np.random.default_rng(0))
    box[frame] = ASIDE
    assert main_car(t, box).all()


def test_shots_of_one_car_are_all_kept():
    # Wide, near and from the side, one after the other.
    shots = [[0.4, 0.4, 0.6, 0.55], [0.02, 0.05, 0.98, 0.95], [0.6, 0.2, 0.95, 0.5]]
    box = np.repeat(np.array(shots), 20, axis=0)
    colour = np.tile([0.5, 0.1, 0.1], (60, 1)) * np.repeat([1.0, 0.4, 0.7], 20)[:, None]
    assert main_car(np.arange(60) / 8, box, colour).all()


def test_a_shot_of_a_car_of_another_colour_is_another_car():
    box = np.repeat(np.array([[0.2, 0.2, 0.8, 0.8], [0.0, 0.4, 0.2, 0.5]]), [40, 20], axis=0)
    colour = np.repeat(np.array([[0.5, 0.1, 0.1], [0.2, 0.25, 0.5]]), [40, 20], axis=0)
    np.testing.assert_array_equal(main_car(np.arange(60) / 8, box, colour), np.arange(60) < 40)
    assert main_car(np.arange(60) / 8, box).all()


def test_a_car_of_another_colour_that_hides_it_is_not_followed():
    # It passes right in front, in a box of nearly the same place and size.
    t, box = smooth(80, 8.0, np.random.default_rng(5))
    colour = np.tile([0.2, 0.25, 0.5], (80, 1))
    colour[30] = [0.35, 0.3, 0.3]  # half of each
    colour[31:38] = [0.6, 0.35, 0.1]
    want = np.ones(80, bool)
    want[30:38] = False
    np.testing.assert_array_equal(main_car(t, box, colour), want)
    # The same with a black car that hides a white one.
    colour = np.tile([0.8, 0.8, 0.8], (80, 1))
    colour[30:38] = 0.1
    np.testing.assert_array_equal(main_car(t, box, colour), want)


def test_the_sun_coming_out_costs_nothing():
    t, box = smooth(80, 8.0, np.random.default_rng(6))
    colour = np.tile([0.2, 0.25, 0.3], (80, 1)) * np.where(t < 4, 1.0, 2.5)[:, None]
    assert main_car(t, box, colour).all()


def test_a_fast_pan_loses_nothing_but_itself():
    t = np.arange(40) / 8
    box = np.tile([0.3, 0.3, 0.6, 0.6], (40, 1))
    box[20:24] += np.array([[0.1], [0.25], [0.35], [0.15]]) * [1, 0, 1, 0]
    seen = main_car(t, box)
    assert seen[:20].all()
    assert seen[24:].all()


def test_at_one_frame_a_second_the_car_may_be_anywhere_near():
    box = np.array([[0.1, 0.2, 0.6, 0.7], [0.4, 0.2, 0.9, 0.7], [0.2, 0.3, 0.5, 0.6]] * 4)
    assert main_car(np.arange(12.0), box).all()


def test_frames_that_are_no_candidates_are_none_of_the_car():
    t, box = smooth(30, 8.0, np.random.default_rng(3))
    candidates = np.arange(30) % 3 > 0
    box[~candidates] = np.nan
    np.testing.assert_array_equal(main_car(t, box, candidates=candidates), candidates)
    nothing = np.zeros(30, bool)
    np.testing.assert_array_equal(main_car(t, box, candidates=nothing), nothing)


# --- Single rules ---------------------------------------------------------------------------------

MIDDLE = np.array([0.3, 0.3, 0.6, 0.6])


def lost(box, **given_):
    """The frames that show another car, of 8 a second."""
    return np.flatnonzero(~main_car(np.arange(len(box)) / 8, box, **given_)).tolist()


def test_the_way_that_a_car_may_move_does_not_grow_while_another_one_hides_it():
    box = np.tile(MIDDLE, (40, 1))
    box[16:24] = ASIDE
    box[24:28] = [0.6, 0.3, 0.9, 0.6]
    assert lost(box) == [*range(16, 28)]


def test_the_colour_may_change_while_the_car_is_hidden():
    box = np.tile(MIDDLE, (40, 1))
    box[16:24] = ASIDE
    colour = np.full((40, 3), 1 / 3)
    colour[24:] += [0.12, -0.06, -0.06]
    assert lost(box, colour=colour) == [*range(16, 24)]


def test_colours_are_compared_with_the_main_cars_and_not_with_the_last_ones():
    shots = [30, 20, 10]
    box = np.repeat([[0.1, 0.1, 0.5, 0.5], [0.6, 0.6, 0.8, 0.8], [0.1, 0.7, 0.9, 0.95]], shots, 0)
    colour = np.repeat([[0.5, 0.25, 0.25], [0.4, 0.35, 0.25], [0.3, 0.45, 0.25]], shots, 0)
    assert lost(box, colour=colour) == [*range(50, 60)]


def test_the_main_car_is_the_one_seen_for_longest_and_not_in_most_frames():
    index = np.arange(30)
    other = (index % 2 == 1) | ((index > 12) & (index < 24))
    box = np.where(other[:, None], ASIDE, MIDDLE)
    assert other.sum() > 15
    assert lost(box, weights=np.where(other, 0.1, 1.0)) == np.flatnonzero(other).tolist()


@pytest.mark.parametrize("sides", [(0.6, 0.1), (0.1, 0.6)])
def test_a_car_of_far_other_size_in_the_same_place_is_another_one(sides):
    own, other = (0.5 + side / 2 * np.array([-1, -1, 1, 1]) for side in sides)
    box = np.tile(own, (40, 1))
    box[16:22] = other
    assert lost(box) == [*range(16, 22)]
