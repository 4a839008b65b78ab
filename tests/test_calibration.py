"""Calibration: fits recover what was done to a distribution, and are applied as fitted."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from carjax import calibration, certainty, circular, heads
from carjax.attributes import Categorical
from carjax.features import Features

RNG = np.random.default_rng(0)
DOORS = Categorical("doors", ("2", "3", "4", "5"))


@pytest.fixture
def features():
    grid = RNG.standard_normal((3, 6, 6, 5)).astype(np.float32)
    return Features(RNG.standard_normal((3, 7)).astype(np.float32), grid)


def drawn(count, stated, part_novelty=None):
    """What a head states, and labels drawn from what it should state."""
    log_probs = log_softmax(RNG.normal(0, 2, (count, 4)), axis=1)
    true = np.exp(
        calibration.state_classes(jnp.asarray(log_probs), stated, part_novelty), dtype=np.float64
    )
    labels = (RNG.random((count, 1)) > true.cumsum(1)).sum(1).clip(0, 3)
    return log_probs, labels, true


def test_what_goes_with_the_photos_is_of_their_number():
    log_probs, labels = np.log(np.full((4, 2), 0.5)), np.zeros(4, int)
    with pytest.raises(ValueError, match=r"log_probs must be \[N, K\]"):
        calibration.fit_classes(log_probs[:, 0], labels)
    with pytest.raises(ValueError, match="weights must be 4 numbers"):
        calibration.fit_classes(log_probs, labels, np.ones(3))
    with pytest.raises(ValueError, match="part_novelty must be 4 numbers"):
        calibration.fit_classes(log_probs, labels, part_novelty=np.zeros((4, 1)))


def test_labels_are_one_integer_for_each_photo():
    log_probs = np.log(np.full((2, 2), 0.5))
    for labels in ([0], [0.0, 1.0], [[0], [1]]):
        with pytest.raises(ValueError, match="labels must be 2 integers"):
            calibration.fit_classes(log_probs, labels)
    with pytest.raises(ValueError, match=r"\(3,\) densities and \(2,\) azimuths"):
        calibration.fit_direction(circular.from_single(jnp.zeros(3), 5.0), [1.0, 2.0])


def test_fitted_classes_recover_what_was_done_to_them():
    log_probs, labels, true = drawn(40_000, calibration.ClassCalibration(0.9, -1.2))
    fitted = calibration.fit_classes(log_probs, labels)
    assert fitted.sharpness == pytest.approx(0.9, abs=0.1)
    assert fitted.slope == pytest.approx(-1.2, abs=0.3)
    stated = np.exp(calibration.state_classes(jnp.asarray(log_probs), fitted))
    np.testing.assert_allclose(stated, true, atol=0.03)
    for probs, least, most in ((stated, 0.0, 0.01), (np.exp(log_probs), 0.03, 1.0)):
        error = certainty.calibration_error(probs.max(1), probs.argmax(1) == labels)
        assert least <= error < most


def test_a_fit_tells_novelty_of_classes_from_novelty_of_parts():
    part_novelty = RNG.random(40_000)
    log_probs, labels, true = drawn(
        40_000, calibration.ClassCalibration(0.9, -0.6, -1.5), part_novelty
    )
    fitted = calibration.fit_classes(log_probs, labels, part_novelty=part_novelty)
    assert fitted.slope == pytest.approx(-0.6, abs=0.3)
    assert fitted.part_slope == pytest.approx(-1.5, abs=0.2)
    stated = calibration.state_classes(jnp.asarray(log_probs), fitted, jnp.asarray(part_novelty))
    np.testing.assert_allclose(np.exp(stated), true, atol=0.03)


@given(st.floats(-2, 2), st.floats(-2, 2), st.floats(-2, 2), st.floats(0, 1))
def test_stated_classes_by_hand(sharpness, slope, part_slope, part_novelty):
    log_probs = log_softmax(np.array([1.0, -0.5, 0.3, 2.0], np.float32))
    fitted = calibration.ClassCalibration(sharpness, slope, part_slope)
    stated = calibration.state_classes(jnp.asarray(log_probs), fitted, jnp.asarray(part_novelty))
    novel = 1 - np.exp(log_probs[3])
    log_beta = sharpness + slope * novel + part_slope * part_novelty
    np.testing.assert_allclose(
        stated, log_softmax(log_probs * np.exp(log_beta)), rtol=1e-4, atol=1e-5
    )


def test_weights_choose_whose_calibration_it_is():
    sides = [drawn(4000, calibration.ClassCalibration(s)) for s in (1.0, -1.0)]
    log_probs, labels = (np.concatenate([side[i] for side in sides]) for i in (0, 1))
    fitted = calibration.fit_classes(log_probs, labels, np.repeat([1.0, 0.0], 4000))
    assert fitted.sharpness == pytest.approx(1.0, abs=0.2)
    assert fitted.slope == pytest.approx(0.0, abs=0.5)


def heavy_tailed(count):
    """Errors of which a fifth are four times as wide as κ says, and 3% are anywhere."""
    kappa = RNG.uniform(100, 600, count)
    scale = np.where(RNG.random(count) < 0.2, 1 / 16, 1.0)
    error = scipy.stats.vonmises.rvs(kappa * scale, random_state=RNG)
    error = np.where(RNG.random(count) < 0.03, RNG.uniform(-np.pi, np.pi, count), error)
    mu = RNG.uniform(-np.pi, np.pi, count)
    return circular.from_single(
        jnp.asarray(mu, jnp.float32), jnp.asarray(kappa, jnp.float32), 0.001
    ), np.rad2deg(mu + error)


def test_a_fitted_direction_covers_what_it_says():
    density, azimuth = heavy_tailed(20_000)
    fitted = calibration.fit_direction(density, azimuth)
    assert fitted.body_scale == pytest.approx(1.0, rel=0.15)
    assert fitted.tail_scale == pytest.approx(1 / 16, rel=0.4)
    assert fitted.tail == pytest.approx(0.2, abs=0.06)
    assert fitted.floor == pytest.approx(0.03, abs=0.015)
    stated = calibration.state_direction(density, fitted)
    truth = jnp.asarray(np.deg2rad(azimuth), jnp.float32)
    gain = circular.log_prob(stated, truth).mean() - circular.log_prob(density, truth).mean()
    assert gain > 0.1
    mass = np.asarray(circular.hdr_mass(*jax.tree.map(lambda x: x[:2000], (stated, truth))))
    assert np.mean(mass <= 0.95) == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (calibration.ClassCalibration, {"sharpness": "big"}),
        (calibration.ClassCalibration, {"slope": np.nan}),
        (calibration.DirectionCalibration, {"body_scale": -1.0}),
        (calibration.DirectionCalibration, {"tail": 7}),
        (calibration.DirectionCalibration, {"floor": -0.1}),
        (calibration.DirectionCalibration, {"tail_scale": None}),
    ],
)
def test_numbers_that_no_fit_gives_are_refused(kind, fields):
    with pytest.raises(ValueError, match=r"must be|shares"):
        kind(**fields)


def test_a_calibration_without_numbers_changes_nothing():
    density = circular.from_single(jnp.array([0.5]), jnp.array([40.0]), jnp.array([0.3]))
    stated = calibration.state_direction(density, calibration.DirectionCalibration())
    at = jnp.linspace(-3.0, 3.0, 50)[:, None]
    np.testing.assert_allclose(
        circular.log_prob(stated, at), circular.log_prob(density, at), atol=1e-6
    )


def test_nothing_is_fitted_to_nothing_or_to_what_is_no_number():
    density = circular.from_single(jnp.zeros(3), jnp.full(3, 9.0))
    log_probs = np.log(np.full((3, 2), 0.5))
    for bad in (slice(0, 0), [np.nan, 0.0, 0.0]):
        empty = isinstance(bad, slice)
        azimuth = np.zeros(3)[bad] if empty else np.array(bad)
        own = jax.tree.map(lambda x, s=bad: x[s], density) if empty else density
        with pytest.raises(ValueError, match=r"at least one photo|finite numbers"):
            calibration.fit_direction(own, azimuth)
        rows = log_probs[bad] if empty else log_probs + np.array(bad)[:, None]
        with pytest.raises(ValueError, match=r"at least one photo|finite numbers"):
            calibration.fit_classes(rows, np.zeros(len(rows), int))


@pytest.mark.parametrize("bad", [[np.nan, 1, 1], [-1.0, 1, 1], [0.0, 0, 0]])
def test_weights_that_cannot_be_are_refused(bad):
    density = circular.from_single(jnp.zeros(3), jnp.full(3, 9.0))
    log_probs = np.log(np.full((3, 2), 0.5))
    with pytest.raises(ValueError, match=r"finite numbers|weights"):
        calibration.fit_direction(density, np.zeros(3), np.array(bad))
    with pytest.raises(ValueError, match=r"finite numbers|weights"):
        calibration.fit_classes(log_probs, np.zeros(3, int), np.array(bad))


def test_what_a_fit_reads_is_checked():
    log_probs = np.log(np.full((3, 2), 0.5))
    with pytest.raises(ValueError, match="finite numbers"):
        calibration.fit_classes(log_probs, np.zeros(3, int), part_novelty=np.array([np.nan, 0, 0]))
    for label in (-1, 2):
        with pytest.raises(ValueError, match="from 0 to 1"):
            calibration.fit_classes(log_probs, np.array([0, 0, label]))
    floor = circular.from_single(jnp.zeros(3), jnp.full(3, 9.0), jnp.array([0.1, jnp.nan, 0.1]))
    with pytest.raises(ValueError, match="finite numbers"):
        calibration.fit_direction(floor, np.zeros(3))


def test_a_true_class_of_probability_zero_does_not_end_the_fit():
    rng = np.random.default_rng(0)
    p = rng.uniform(0.55, 0.95, 400)
    label = (rng.random(400) > p).astype(int)
    log_probs = np.log(np.stack([p, 1 - p], axis=1)) * 3  # too sure
    log_probs -= np.log(np.exp(log_probs).sum(axis=1, keepdims=True))
    plain = calibration.fit_classes(log_probs, label)
    with np.errstate(divide="ignore"):
        sure = np.log(np.array([[1.0, 0.0]]))
    with_one = calibration.fit_classes(np.append(log_probs, sure, 0), np.append(label, 1))
    assert plain.sharpness < -0.5
    assert with_one.sharpness < -0.5


def test_a_stated_direction_is_the_mixture_by_hand():
    density = circular.from_single(jnp.array([0.5]), jnp.array([40.0]), jnp.array([0.3]))
    stated = calibration.state_direction(
        density, calibration.DirectionCalibration(0.5, 0.1, 0.25, 0.02)
    )
    at = 0.8
    want = 0.98 * (
        0.75 * scipy.stats.vonmises.pdf(at, 20.0, loc=0.5)
        + 0.25 * scipy.stats.vonmises.pdf(at, 4.0, loc=0.5)
    ) + 0.02 / (2 * np.pi)
    assert float(circular.log_prob(stated, at)[0]) == pytest.approx(np.log(want), abs=1e-4)


def test_an_ensemble_states_the_mean_of_its_members():
    logits = RNG.normal(0, 2, (3, 6, 4)).astype(np.float32)
    got = heads.combine(jnp.asarray(logits), heads.HeadSpec(DOORS, members=3))
    members = softmax(logits.astype(np.float64), axis=2)
    mean = members.mean(0)
    np.testing.assert_allclose(np.exp(got.logits), mean, rtol=1e-5)
    entropies = scipy.stats.entropy(members, axis=2).mean(0)
    want = scipy.stats.entropy(mean, axis=1) - entropies
    np.testing.assert_allclose(got.disagreement, want, atol=1e-5)
    np.testing.assert_allclose(got.novelty, 1 - mean.max(1), atol=1e-5)


def test_novelty_of_parts_is_the_first_member_s():
    logits = RNG.normal(0, 2, (2, 6, 5)).astype(np.float32)
    got = heads.combine(
        jnp.asarray(logits), heads.HeadSpec(DOORS, members=2, parts=(0, 0, 1, 2, 3))
    )
    want = 1 - softmax(logits[0].astype(np.float64), axis=1).max(1)
    np.testing.assert_allclose(got.part_novelty, want, atol=1e-5)
    assert (got.part_novelty > got.novelty).any()


def test_novelty_is_the_heads_and_not_its_calibrations():
    logits = jnp.asarray(RNG.normal(0, 2, (2, 6, 4)), jnp.float32)
    plain = heads.combine(logits, heads.HeadSpec(DOORS, members=2))
    sharper = calibration.ClassCalibration(0.7, -0.2, -0.4)
    stated = heads.combine(logits, heads.HeadSpec(DOORS, members=2, calibration=sharper))
    assert not np.allclose(stated.logits, plain.logits, atol=0.1)
    np.testing.assert_array_equal(stated.novelty, plain.novelty)


def test_a_head_of_one_member_disagrees_with_nobody():
    logits = jnp.asarray(RNG.normal(0, 2, (1, 6, 4)), jnp.float32)
    got = heads.combine(logits, heads.HeadSpec(DOORS))
    np.testing.assert_allclose(got.disagreement, 0.0, atol=1e-6)


def test_calibrated_heads_of_classes_state_it(features):
    given_ = calibration.ClassCalibration(0.7, -0.2, -0.4)
    plain = heads.HeadSpec(DOORS, grid=2, channels=3, hidden=4)
    params = heads.create(plain).init(jax.random.key(0), features)
    a = heads.create(plain).apply(params, features)
    b = heads.create(dataclasses.replace(plain, calibration=given_)).apply(params, features)
    want = calibration.state_classes(a.logits, given_, a.part_novelty)
    np.testing.assert_allclose(b.logits, want, atol=1e-5)


def test_a_floor_of_nothing_is_a_floor():
    density = circular.from_single(jnp.array([0.5]), jnp.array([40.0]), jnp.array([0.3]))
    stated = calibration.state_direction(density, calibration.DirectionCalibration(floor=0.0))
    np.testing.assert_array_equal(stated.floor, [0.0])


def test_no_stated_concentration_is_beyond_what_is_exact():
    density = circular.from_single(jnp.array([0.5]), jnp.array([9e4]))
    stated = calibration.state_direction(density, calibration.DirectionCalibration(4.0, 0.5, 0.1))
    np.testing.assert_allclose(stated.kappa, [[1e5, 4.5e4]])


def test_weights_choose_whose_direction_it_is():
    kappa, rng = 200.0, np.random.default_rng(1)
    error = [scipy.stats.vonmises.rvs(kappa * s, size=4000, random_state=rng) for s in (1.0, 0.1)]
    density = circular.from_single(jnp.zeros(8000), kappa, 0.001)
    azimuth = np.rad2deg(np.concatenate(error))
    for weights, scale in (([1.0, 0.0], 1.0), ([0.0, 1.0], 0.1)):
        fitted = calibration.fit_direction(density, azimuth, np.repeat(weights, 4000))
        mean = (1 - fitted.tail) * fitted.body_scale + fitted.tail * fitted.tail_scale
        assert mean == pytest.approx(scale, rel=0.25)


def test_a_fit_to_photos_that_are_all_right_stays_modest():
    log_probs = np.log(np.tile([0.8, 0.1, 0.1], (50, 1)))
    fitted = calibration.fit_classes(log_probs, np.zeros(50, int))
    assert fitted.sharpness == pytest.approx(1.6, abs=0.4)  # without the shrinkage: 3.2
