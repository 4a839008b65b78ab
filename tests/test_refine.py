"""Coarse-to-fine sampling: which frames are scored next, on score tables that are known in full."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from score_tables import make_table

from carjax import selection
from carjax.attributes import Angular, Categorical
from carjax.selection import refine
from carjax.selection.eligibility import time_weights
from carjax.table import concatenate

DOORS = Categorical("doors", ("3", "5"))
RATE = 30


def walk(seconds=60.0, degrees=360.0, peak_s=20.0, rate=RATE, car=0.9):
    """A steady walk around a car whose doors are seen best at one moment."""
    time_s = np.arange(round(seconds * rate)) / rate
    n = len(time_s)
    azimuth = (degrees * time_s / seconds) % 360
    probability = 0.6 + 0.39 * np.exp(-(((time_s - peak_s) / 3) ** 2))
    probs = np.stack([1 - probability, probability], axis=1)
    return make_table(
        (DOORS, Angular("orientation")),
        time_s=time_s,
        probs={"doors": probs},
        azimuth_deg=azimuth,
        kappa=100.0,
        car_probability=np.full(n, car, np.float32),
    )


def sampled(dense, first, limit, **options):
    """Refines from the frames `first` on until nothing is to be gained."""
    table = dense.take(np.asarray(first))
    while len(table) < limit:
        count = min(12, limit - len(table))
        frames = refine.next_frames(table, dense.time_s, count, **options)
        if not len(frames):
            break
        assert len(frames) <= count
        assert not np.isin(frames, table.frame).any()
        table = concatenate([table, dense.take(frames)])
        assert (np.diff(table.frame) > 0).all()
    return table


def test_the_photos_are_those_of_every_frame_at_a_tenth_of_the_frames():
    dense = walk()
    table = sampled(dense, np.arange(0, len(dense), RATE), refine.budget(60.0, 60))
    assert len(table) <= len(dense) / 6
    fine, every = selection.select_photos(table), selection.select_photos(dense)
    assert fine.orientation.missing == every.orientation.missing == ()
    a, b = fine.attributes["doors"], every.attributes["doors"]
    assert a.value == b.value
    assert a.certainty >= b.certainty - 0.005
    for name, view in fine.orientation.views.items():
        assert view.probability > every.orientation.views[name].probability - 0.01
        off = (view.azimuth_deg - 45 * list(fine.orientation.views).index(name) + 180) % 360 - 180
        assert abs(off) < 6


def test_a_view_that_is_passed_between_two_frames_is_looked_for_where_it_is_passed():
    dense = walk(seconds=12, degrees=90)
    frames = refine.next_frames(
        dense.take(np.array([0, 359])), dense.time_s, 3, attributes=["orientation"]
    )
    # 45 degrees at half of the way.
    assert np.abs(frames - 180).min() <= 3


def test_nothing_is_gained_where_all_is_scored_or_nothing_asked():
    dense = walk(seconds=3)
    assert not len(refine.next_frames(dense, dense.time_s, 12))
    some = dense.take(np.array([0, 40, 89]))
    assert not len(refine.next_frames(some, dense.time_s, 12, attributes=[]))


def test_without_a_car_the_widest_gaps_are_halved():
    dense = walk(seconds=10, car=0.01)
    frames = refine.next_frames(dense.take(np.array([0, 100, 299])), dense.time_s, 3)
    assert frames.tolist() == [50, 150, 200] or np.abs(np.diff(frames)).min() >= 45
    assert len(sampled(dense, [0], 20)) == 20


def test_frames_that_wait_are_not_asked_for_again():
    dense = walk()
    some = dense.take(np.arange(0, len(dense), RATE))
    first = refine.next_frames(some, dense.time_s, 12)
    second = refine.next_frames(some, dense.time_s, 12, waiting=first.tolist())
    assert not np.isin(second, first).any()


def test_frames_that_are_lost_are_not_asked_for_again():
    for dense in (walk(), walk(car=0.01)):
        some = dense.take(np.arange(0, len(dense), RATE))
        first = refine.next_frames(some, dense.time_s, 12)
        assert len(first) == 12
        second = refine.next_frames(some, dense.time_s, 12, lost=first.tolist())
        assert not np.isin(second, first).any()


@given(st.integers(0, 2**32 - 1))
def test_each_widest_gap_is_that_of_all_frames(seed):
    rng = np.random.default_rng(seed)
    times_s = np.cumsum(rng.uniform(0.01, 1.0, rng.integers(1, 40)))
    known = rng.permutation(len(times_s))[: rng.integers(1, len(times_s) + 1)]
    count = int(rng.integers(0, 12))
    chosen = refine._widest_gaps(known, times_s, count)
    assert len(chosen) == min(count, len(times_s) - len(known))
    taken = [*known]
    for _ in chosen:
        farthest = int(np.abs(times_s[:, None] - times_s[taken]).min(axis=1).argmax())
        assert farthest in chosen
        taken.append(farthest)


def test_one_frame_and_scores_that_are_not_finite():
    dense = walk(seconds=2)
    one = dense.take(np.array([0]))
    assert len(refine.next_frames(one, dense.time_s, 4)) <= 4
    broken = dataclasses.replace(
        dense,
        entropy={"doors": np.full(len(dense), np.nan, np.float32)},
        azimuth_deg=np.full(len(dense), np.nan, np.float32),
    ).take(np.arange(0, 60, 10))
    refine.next_frames(broken, dense.time_s, 4)  # says nothing, and fails at nothing


@pytest.mark.parametrize("seconds", [0.0, 0.5, 3.0, 15.0, 60.0, 600.0])
def test_the_budget_is_kept(seconds):
    frames = seconds * RATE
    coarse = round(seconds * refine.coarse_rate(seconds))
    budget = refine.budget(seconds, coarse)
    assert budget >= coarse
    if seconds >= 5:
        assert budget <= frames / 6
    assert budget - coarse <= refine.BUDGET_REFINED


@given(st.integers(0, 2**32 - 1))
def test_uneven_sampling_hardly_moves_the_averages(seed):
    """Denser sampling of a stretch weighs no more: averages and coverage follow time."""
    dense = walk()
    rng = np.random.default_rng(seed)
    start = int(rng.integers(0, len(dense) - 300))
    rows = np.union1d(np.arange(0, len(dense), 15), np.arange(start, start + 300, 2))
    rows = np.union1d(rows, [len(dense) - 1])
    thin = dense.take(rows)
    even, uneven = (
        np.average(t.probs["doors"], axis=0, weights=time_weights(t.time_s)) for t in (dense, thin)
    )
    np.testing.assert_allclose(uneven, even, atol=0.01)
    mean = [time_weights(t.time_s) @ t.view_probs for t in (dense, thin)]
    np.testing.assert_allclose(mean[1], mean[0], atol=0.01)


def test_a_table_is_joined_in_order_of_frame():
    dense = walk(seconds=1)
    joined = concatenate([dense.take(np.arange(1, 30, 2)), dense.take(np.arange(0, 30, 2))])
    assert joined.frame.tolist() == list(range(30))
    np.testing.assert_array_equal(joined.view_probs, dense.view_probs)


def test_a_round_that_is_worth_a_frame_is_filled(monkeypatch):
    dense = walk()
    some = dense.take(np.arange(0, len(dense), RATE))
    best = refine._Model(some, dense.time_s, None, 8).gains().max()
    # Once the best frame is taken, no other one gains as much.
    for share, count in ((0.99, 12), (1.01, 0)):
        monkeypatch.setattr(refine, "MIN_GAIN", share * best)
        assert len(refine.next_frames(some, dense.time_s, 12)) == count


def test_of_equal_frames_those_are_taken_that_cost_least_to_decode():
    dense = walk()
    some = dense.take(np.arange(0, len(dense), RATE))
    index = np.arange(len(dense))
    effort = index // RATE, index % RATE + 1
    free, thrifty = (refine.next_frames(some, dense.time_s, 12, effort=e) for e in (None, effort))

    def decoded(frames):
        return sum(max(effort[1][frames[effort[0][frames] == row]]) for row in {*effort[0][frames]})

    assert decoded(thrifty) < decoded(free)
    # What is nearly as good is as good: the photos do not get worse.
    best, cheap = (
        selection.select_photos(
            sampled(dense, some.frame, refine.budget(60.0, 60), effort=e)
        ).attributes["doors"].certainty
        for e in (None, effort)
    )  # fmt: skip
    assert cheap > best - 0.005


def test_the_shorter_way_between_two_directions_may_lead_over_0():
    got = refine._azimuth_between(np.array([350.0, 10.0]), np.array([0]), np.array([0.5]))[0]
    assert min(got, 360 - got) == pytest.approx(0.0)


def test_little_is_expected_between_frames_too_dark_for_a_photo():
    table = walk(seconds=9, rate=1, degrees=540)
    colour = np.full((9, 3), 0.5, np.float32)
    colour[5:] = 0.01
    table = dataclasses.replace(table, frame=np.arange(9) * 10, car_colour=colour)
    gains = refine._Model(table, np.arange(81) / 10, None, 8).gains()
    assert gains[51:80].max() < 0.2 * gains[:40].max()


def test_what_is_decoded_on_the_way_to_a_frame_costs_nothing_more(monkeypatch):
    class Promised:
        def __init__(self, *rest):
            self.left = np.array([0.0, 0.50, 1.0, 0.52, 0.0])

        def gains(self):
            return self.left.copy()

        def believe(self, index):
            self.left[index] = -1.0

    monkeypatch.setattr(refine, "_Model", Promised)
    effort = np.array([0, 0, 0, 1, 1]), np.array([1, 2, 3, 1, 2])
    got = refine.next_frames(walk(seconds=1), np.arange(5.0), 2, effort=effort)
    assert got.tolist() == [1, 2]


def test_less_is_known_the_farther_a_scored_frame_is():
    table = walk(seconds=11, rate=1).take(np.array([2, 6]))
    left, share, variance = refine._Model(table, np.arange(11.0), None, 8)._place()
    assert set(left) == {0}
    np.testing.assert_allclose(share, [0, 0, 0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1])
    np.testing.assert_allclose(variance, [2, 1, 0, 0.75, 1, 0.75, 0, 1, 2, 3, 4])


def test_a_single_jump_does_not_make_all_uncertain():
    values, time_s = np.array([0.0, 0.1, 0.3, 0.3, 1.3]), np.array([0.0, 1.0, 2.0, 3.0, 5.0])
    assert refine._rate(values, time_s) == pytest.approx(0.04)  # of 0.01, 0.04 and 0.5


def test_a_view_is_worth_what_lies_in_its_bin_and_nothing_elsewhere():
    azimuth, floor = np.array([0.0, 11.25, 23.0]), np.full(3, 0.2)
    got = refine._view_value(azimuth, np.full(3, math.log(1e4)), floor, np.arange(8) * 45.0)
    inside = 0.8 + 0.2 / 8
    np.testing.assert_allclose(got[0], [inside, inside - refine.OFF_CENTRE / 2, 0], atol=1e-3)
    assert got[1, :2].tolist() == [0, 0]
    assert got[1, 2] > 0.3


def test_a_frame_whose_classes_are_no_numbers_is_certain_of_none():
    table = walk(seconds=4, rate=1)
    probs = np.tile(np.float32([0.9, 0.1]), (4, 1))
    probs[1] = np.nan
    entropy = np.array([0.3, np.nan, 0.3, 0.3], np.float32)
    table = dataclasses.replace(table, probs={"doors": probs}, entropy={"doors": entropy})
    got = refine._certainties(table, DOORS, np.ones(4, bool), np.full(4, 0.25))
    np.testing.assert_allclose(got, np.array([1, 0, 1, 1]) * (1 - 0.3 / math.log(2)), rtol=1e-6)
