"""The circle against mpmath, SciPy and brute-force sums, over the whole range of κ."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from carjax import circular
from carjax.circular import Density
from carjax.selection.eligibility import time_weights

# 0, six decades on both sides of 1, and both sides of each switch between formula and series.
KAPPAS = np.unique(
    np.concatenate([[0.0], np.logspace(-6, 6, 37), [0.0999, 0.1001, 14.99, 15.0, 15.01, 92.0]])
).astype(np.float32)
COMPONENTS = 3


@functools.cache
def exact(kappa):
    """(log I0, A, A', entropy) by mpmath, to 30 digits."""
    with mpmath.workdps(30):
        k = mpmath.mpf(kappa)
        i0 = mpmath.besseli(0, k)
        a = mpmath.besseli(1, k) / i0
        slope = 1 - a / k - a * a if k else mpmath.mpf(1) / 2
        entropy = mpmath.log(2 * mpmath.pi * i0) - k * a
        return tuple(float(x) for x in (mpmath.log(i0), a, slope, entropy))


def column(index):
    return np.array([exact(float(k))[index] for k in KAPPAS])


def over_kappas(function):
    return np.asarray(jax.jit(jax.vmap(function))(jnp.asarray(KAPPAS)), np.float64)


def assert_abs_or_rel(actual, expected, tolerance):
    error = np.abs(actual - expected)
    assert np.all(error <= tolerance * np.maximum(1.0, np.abs(expected))), error.max()


def exact_interval(lo, hi, mu, kappa):
    """The mass on an arc, by mpmath's adaptive quadrature around the mode."""
    with mpmath.workdps(15):
        k = mpmath.mpf(float(kappa))
        sigma = 1 / mpmath.sqrt(max(k, mpmath.mpf("0.1")))
        constant = 2 * mpmath.pi * mpmath.besseli(0, k) * mpmath.exp(-k)

        def centred(d):
            stops = [x * sigma for x in (0, 1, 2, 4, 8) if x * sigma < abs(d)]
            stops.append(min(abs(d), 14 * sigma))
            mass = mpmath.quad(lambda u: mpmath.exp(-2 * k * mpmath.sin(u / 2) ** 2), stops)
            return mpmath.sign(d) * mass / constant

        def cdf(angle):
            d = mpmath.mpf(float(angle)) - mpmath.mpf(float(mu))
            turns = mpmath.nint(d / (2 * mpmath.pi))
            return turns + centred(d - 2 * mpmath.pi * turns)

        return float(cdf(hi) - cdf(lo))


def density_on_fine_grid(weights, mu, kappa, floor):
    """Angles and p(angle) in float64, on a grid that is fine at every component's own scale."""
    points = [np.linspace(-np.pi, np.pi, 20001)]
    for m, k in zip(mu, kappa, strict=True):
        around = np.linspace(-12.0, 12.0, 12001) / math.sqrt(max(k, 0.01))
        points.append(np.mod(m + around[np.abs(around) <= np.pi] + np.pi, 2 * np.pi) - np.pi)
    x = np.unique(np.concatenate(points))
    p = np.full_like(x, floor / (2 * np.pi))
    for w, m, k in zip(weights, mu, kappa, strict=True):
        shape = np.exp(-2 * k * np.sin((x - m) / 2) ** 2)
        p += (1 - floor) * w * shape / (2 * np.pi * scipy.special.i0e(k))
    return x, p


def fine_entropy(weights, mu, kappa, floor):
    x, p = density_on_fine_grid(weights, mu, kappa, floor)
    return np.trapezoid(-scipy.special.xlogy(p, p), x)


def random_densities(count, components=COMPONENTS, seed=0):
    """Float32 densities of every scale at once: near and far components, κ = 0, floors 0 and 1."""
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.full(components, 0.5), count)
    spread = 10 ** rng.uniform(-4, 0.5, (count, 1))
    mu = rng.uniform(-10, 10, (count, 1)) + spread * rng.normal(size=(count, components))
    kappa = 10 ** rng.uniform(-2, 6, (count, components))
    kappa[rng.random(kappa.shape) < 0.1] = 0.0
    floor = rng.choice([0.0, 1e-12, 1e-6, 1e-3, 0.05, 0.5, 0.999, 1.0], count)
    return Density(*(jnp.asarray(x, jnp.float32) for x in (weights, mu, kappa, floor)))


def rows(density):
    """The densities of a batch as float64 tuples."""
    return [tuple(np.asarray(x[i], np.float64) for x in density) for i in range(len(density.floor))]


angles = st.floats(-20.0, 20.0, width=32)
log_kappas = st.floats(-3.0, 6.0)
floors = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.0, 1.0))
properties = settings(max_examples=40, deadline=None)


@st.composite
def densities(draw):
    def several(strategy):
        return jnp.array([draw(strategy) for _ in range(COMPONENTS)], jnp.float32)

    weights = several(st.floats(0.0, 1.0)) + 1e-3
    kappa = 10.0 ** several(log_kappas)
    floor = jnp.float32(draw(floors))
    return Density(weights / weights.sum(), several(angles), kappa, floor)


class TestBessel:
    def test_log_i0(self):
        assert_abs_or_rel(over_kappas(circular.log_i0), column(0), 1e-6)

    @pytest.mark.parametrize("length", [0.0, 0.3, 0.6, 0.95])
    def test_concentration_gradient_is_one_over_that_of_the_length(self, length):
        kappa = circular.concentration(length)
        want = 1.0 / float(jax.grad(circular.mean_resultant_length)(kappa))
        assert float(jax.grad(circular.concentration)(length)) == pytest.approx(want, rel=1e-4)

    def test_concentration_of_half_precision(self):
        assert circular.concentration(jnp.float16(1.0)) > 1e5

    def test_log_i0_gradient_is_the_mean_resultant_length(self):
        assert_abs_or_rel(over_kappas(jax.grad(circular.log_i0)), column(1), 1e-6)

    def test_mean_resultant_length(self):
        assert_abs_or_rel(over_kappas(circular.mean_resultant_length), column(1), 1e-6)

    def test_mean_resultant_length_gradient_in_relative_terms(self):
        gradient = over_kappas(jax.grad(circular.mean_resultant_length))
        np.testing.assert_allclose(gradient, column(2), rtol=1e-4)

    def test_integers_are_accepted(self):
        assert float(circular.log_i0(0)) == pytest.approx(0.0, abs=1e-6)
        assert float(circular.vonmises_entropy(np.int32(0))) == pytest.approx(math.log(2 * np.pi))


class TestVonMisesEntropy:
    def test_against_mpmath(self):
        assert_abs_or_rel(over_kappas(circular.vonmises_entropy), column(3), 1e-5)

    def test_gradient_in_relative_terms(self):
        gradient = over_kappas(jax.grad(circular.vonmises_entropy))
        np.testing.assert_allclose(gradient, -KAPPAS * column(2), rtol=1e-4)
        assert gradient[0] == 0.0

    def test_second_derivative(self):
        def second(kappa):
            with mpmath.workdps(30):
                a = mpmath.besseli(1, kappa) / mpmath.besseli(0, kappa)
                slope = 1 - a / kappa - a * a
                curvature = -slope / kappa + a / kappa**2 - 2 * a * slope
                return float(-slope - kappa * curvature)

        ours = over_kappas(jax.grad(jax.grad(circular.vonmises_entropy)))
        expected = [second(mpmath.mpf(float(k))) if k else -0.5 for k in KAPPAS]
        assert_abs_or_rel(ours, np.array(expected), 1e-4)

    def test_against_scipy(self):
        kappa = np.array([0.01, 0.5, 1.0, 4.0, 30.0, 300.0], np.float32)
        expected = [scipy.stats.vonmises(float(k)).entropy() for k in kappa]
        np.testing.assert_allclose(circular.vonmises_entropy(kappa), expected, atol=1e-5)

    def test_uniform(self):
        assert float(circular.vonmises_entropy(0.0)) == pytest.approx(math.log(2 * np.pi), abs=1e-6)

    @properties
    @given(log_kappas, st.floats(0.01, 2.0))
    def test_falls_as_kappa_rises(self, log_kappa, step):
        low, high = 10.0**log_kappa, 10.0 ** (log_kappa + step)
        rise = float(circular.vonmises_entropy(high)) - float(circular.vonmises_entropy(low))
        assert rise < 1e-6
        if low > 0.1:
            assert rise < 0.0


class TestVonMisesLogProb:
    @pytest.mark.parametrize("kappa", [0.0, 1e-4, 0.3, 2.0, 50.0, 92.0, 1e4, 1e6])
    def test_against_mpmath(self, kappa):
        mu = np.float32(6.1)
        offsets = np.array([0.0, 0.3, -1.0, 3.0, 20.0]) / math.sqrt(max(kappa, 1.0))
        angle = (mu + offsets).astype(np.float32)
        ours = np.asarray(circular.vonmises_log_prob(angle, mu, np.float32(kappa)), np.float64)
        with mpmath.workdps(30):
            norm = mpmath.log(2 * mpmath.pi * mpmath.besseli(0, kappa))
            expected = [
                float(kappa * mpmath.cos(mpmath.mpf(float(a)) - mpmath.mpf(float(mu))) - norm)
                for a in angle
            ]
        assert_abs_or_rel(ours, np.array(expected), 2e-6)

    def test_against_scipy(self):
        angle = np.linspace(-3.0, 3.0, 13, dtype=np.float32)
        kappa = np.float32(7.0)
        expected = scipy.stats.vonmises(7.0, loc=0.5).logpdf(angle.astype(float))
        np.testing.assert_allclose(
            circular.vonmises_log_prob(angle, 0.5, kappa), expected, rtol=1e-5, atol=1e-5
        )

    def test_a_turn_apart_a_sharp_peak_keeps_its_value(self):
        # The plain float32 difference of these two is off by 1e-7, a tenth of a nat at κ = 1e6.
        angle, mu = np.float32(0.004), np.float32(2 * np.pi - 0.004)
        exact_difference = float(angle) - float(mu) + 2 * np.pi
        expected = 1e6 * (math.cos(exact_difference) - 1) + 0.5 * math.log(1e6 / (2 * np.pi))
        assert float(circular.vonmises_log_prob(angle, mu, 1e6)) == pytest.approx(
            expected, abs=1e-4
        )

    def test_gradients(self):
        angle = np.float32(0.25)
        mu = np.float32(0.25) + np.array([0.0, 0.001, -0.02, 2.0, np.pi, 6.2], np.float32)
        mu, kappa = (x.ravel() for x in np.meshgrid(mu, KAPPAS))
        by_mu, by_kappa = jax.vmap(
            jax.grad(circular.vonmises_log_prob, argnums=(1, 2)), in_axes=(None, 0, 0)
        )(angle, mu, kappa)
        d = float(angle) - mu.astype(np.float64)
        mean = np.array([exact(float(k))[1] for k in kappa])
        np.testing.assert_allclose(by_mu, kappa * np.sin(d), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(by_kappa, np.cos(d) - mean, rtol=1e-4, atol=1e-6)

    def test_gradient_of_a_sharp_peak_in_log_kappa(self):
        # κ·(1 − A(κ)) → 1/2: in plain float32 1 − A(1e6) would be off by a tenth.
        gradient = jax.grad(lambda t: circular.vonmises_log_prob(1.0, 1.0, jnp.exp(t)))
        assert float(gradient(math.log(1e6))) == pytest.approx(0.5, abs=1e-4)


class TestVonMisesIntervalProb:
    def test_against_mpmath(self):
        rng = np.random.default_rng(1)
        kappa = np.repeat(KAPPAS[::2], 2)
        sigma = 1 / np.sqrt(np.maximum(kappa, 0.1))
        mu = rng.uniform(-7, 7, len(kappa)).astype(np.float32)
        turns = rng.integers(-1, 2, len(kappa))
        lo = (mu + rng.normal(size=len(kappa)) * sigma + 2 * np.pi * turns).astype(np.float32)
        width = np.where(rng.random(len(kappa)) < 0.5, np.minimum(3 * sigma, 6.28), 6.28)
        hi = (lo + rng.random(len(kappa)) * width).astype(np.float32)
        expected = [exact_interval(*x) for x in zip(lo, hi, mu, kappa, strict=True)]
        ours = circular.vonmises_interval_prob(lo, hi, mu, kappa)
        np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6)

    def test_uniform(self):
        ours = circular.vonmises_interval_prob(np.array([-1.0, 5.0, 0.0]), 6.5, 2.0, 0.0)
        np.testing.assert_allclose(ours, np.array([7.5, 1.5, 6.5]) / (2 * np.pi), atol=1e-6)

    def test_an_arc_across_the_cut(self):
        ours = circular.vonmises_interval_prob(np.pi - 0.2, np.pi + 0.2, np.pi, 25.0)
        inside = circular.vonmises_interval_prob(-0.2, 0.2, 0.0, 25.0)
        expected = np.diff(scipy.stats.vonmises(25.0).cdf([-0.2, 0.2]))[0]
        assert float(ours) == pytest.approx(expected, abs=1e-5)
        assert float(inside) == pytest.approx(expected, abs=1e-5)

    def test_the_empty_and_the_full_arc(self):
        empty = circular.vonmises_interval_prob(1.0, 1.0, 1.0, KAPPAS)
        full = circular.vonmises_interval_prob(-np.pi, np.pi, 1.0, KAPPAS)
        np.testing.assert_array_equal(empty, 0.0)
        np.testing.assert_allclose(full, 1.0, atol=1e-6)

    @pytest.mark.parametrize("kappa", [0.0, 0.5, 8.0, 300.0, 1e5])
    def test_gradients(self, kappa):
        sigma = 1 / math.sqrt(max(kappa, 1.0))
        point = [float(np.float32(x)) for x in (1.0 - 0.3 * sigma, 1.0 + 0.9 * sigma, 1.0, kappa)]
        ours = jax.grad(circular.vonmises_interval_prob, argnums=(0, 1, 2, 3))(*point)
        lo, hi, mu, _ = point

        def pdf(x):
            return math.exp(kappa * (math.cos(x - mu) - 1)) / (2 * np.pi * scipy.special.i0e(kappa))

        x = np.linspace(lo, hi, 4001)
        p = np.exp(kappa * (np.cos(x - mu) - 1)) / (2 * np.pi * scipy.special.i0e(kappa))
        by_kappa = np.trapezoid(p * (np.cos(x - mu) - exact(kappa)[1]), x)
        np.testing.assert_allclose(
            ours, [-pdf(lo), pdf(hi), pdf(lo) - pdf(hi), by_kappa], rtol=3e-4, atol=1e-6
        )

    def test_second_derivative_by_the_end_is_the_slope_of_the_density(self):
        twice = jax.grad(jax.grad(circular.vonmises_interval_prob, argnums=1), argnums=1)
        slope = -4.0 * math.sin(0.5) * scipy.stats.vonmises(4.0).pdf(0.5)
        assert float(twice(-0.2, 0.5, 0.0, 4.0)) == pytest.approx(slope, rel=1e-4)


class TestDensity:
    def test_log_prob_against_float64(self):
        density = random_densities(40)
        angle = density.mu[:, 0] + 0.3 * jax.lax.rsqrt(density.kappa[:, 0] + 1.0)
        ours = np.asarray(circular.log_prob(density, angle))
        for value, a, (weights, mu, kappa, floor) in zip(ours, angle, rows(density), strict=True):
            shape = np.exp(-2 * kappa * np.sin((float(a) - mu) / 2) ** 2)
            p = (1 - floor) * np.sum(weights * shape / (2 * np.pi * scipy.special.i0e(kappa)))
            assert value == pytest.approx(math.log(p + floor / (2 * np.pi)), rel=1e-5, abs=2e-5)

    def test_log_prob_of_one_component_without_floor_is_von_mises(self):
        single = circular.from_single(jnp.float32(0.3), jnp.asarray(KAPPAS))
        expected = circular.vonmises_log_prob(2.5, 0.3, KAPPAS)
        np.testing.assert_allclose(circular.log_prob(single, 2.5), expected, rtol=1e-6)

    def test_log_prob_broadcasts_angles_against_the_batch(self):
        density = random_densities(5)
        angle = jnp.linspace(0.0, 6.0, 4)[:, None]
        assert circular.log_prob(density, angle).shape == (4, 5)

    def test_gradients_are_finite_at_the_borders(self):
        corners = itertools.product(
            (0.0, 1.0, 1e6), (0.0, 2.0, 1e6), (0.0, 0.5, 1.0), (0.0, 0.5, 1.0), (0.0, 3.0)
        )
        first, second, weight, floor, angle = jnp.array(list(corners), jnp.float32).T
        density = Density(
            jnp.stack([weight, 1.0 - weight], axis=-1),
            jnp.broadcast_to(jnp.array([0.0, 3.0]), (len(weight), 2)),
            jnp.stack([first, second], axis=-1),
            floor,
        )

        def everything(density, angle):
            total = circular.log_prob(density, angle) + circular.entropy(density)
            return total + circular.interval_prob(density, 0.0, angle)

        gradients = jax.jit(jax.vmap(jax.grad(everything, argnums=(0, 1))))(density, angle)
        for leaf in jax.tree.leaves(gradients):
            assert np.isfinite(leaf).all()

    @pytest.mark.parametrize("kappa", [0.0, 0.5, 400.0, 1e6])
    def test_hdr_mass_has_the_gradient_of_its_differences(self, kappa):
        density = circular.from_single(jnp.zeros(3), kappa, 0.02)
        angle = jnp.array([0.0, 0.02, 3.0])
        slope = jax.grad(lambda x: circular.hdr_mass(density, x).sum())(angle)
        assert np.isfinite(slope).all()
        of_density = jax.grad(lambda d: circular.hdr_mass(d, angle).sum())(density)
        assert all(np.isfinite(leaf).all() for leaf in of_density)
        if kappa == 400.0:
            # Between mirror images lies the mass; each side of it grows by the density.
            inside = 2 * np.exp(circular.log_prob(density, angle))[1]
            np.testing.assert_allclose(slope[1], inside, rtol=0.1)

    def test_python_numbers_take_the_type_of_the_arrays(self):
        with jax.enable_x64(True):
            density = circular.from_single(jnp.float32(1.0), jnp.float32(5.0))
            assert {leaf.dtype for leaf in density} == {np.dtype(np.float32)}
            for got in (
                circular.log_prob(density, 3.0),
                circular.interval_prob(density, 0.0, 1.0),
                circular.entropy(density),
                circular.mode(density),
                circular.azimuth_deg(density),
                circular.angular_difference_deg(jnp.float32(3.0), 0.0),
            ):
                assert got.dtype == np.float32
            assert circular.log_prob(density, np.float64(3.0)).dtype == np.float64

    def test_entropy_of_one_component_without_floor(self):
        single = circular.from_single(jnp.float32(2.7), jnp.asarray(KAPPAS))
        np.testing.assert_allclose(circular.entropy(single), column(3), rtol=1e-5, atol=1e-5)

    def test_entropy_gradient_of_one_component_without_floor(self):
        gradient = over_kappas(jax.grad(lambda k: circular.entropy(circular.from_single(2.7, k))))
        assert_abs_or_rel(gradient, -KAPPAS * column(2), 1e-4)

    @pytest.mark.parametrize("floor", [1e-9, 1e-4, 0.02, 0.3, 0.95, 1.0])
    def test_entropy_with_a_floor(self, floor):
        floor = np.float32(floor)
        kappa = KAPPAS[::3]
        ours = circular.entropy(circular.from_single(np.float32(-3.0), kappa, floor))
        expected = [fine_entropy([1.0], [-3.0], [float(k)], float(floor)) for k in kappa]
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-5)

    def test_entropy_of_mixtures(self):
        density = random_densities(60)
        expected = [fine_entropy(*row) for row in rows(density)]
        np.testing.assert_allclose(circular.entropy(density), expected, rtol=1e-5, atol=1e-5)

    def test_a_narrow_peak_on_a_wide_hill_is_not_missed(self):
        density = Density(
            jnp.array([0.9, 0.1]), jnp.array([0.0, 0.7]), jnp.array([1.0, 1e6]), jnp.float32(0.0)
        )
        expected = fine_entropy(*(np.asarray(x, np.float64) for x in density))
        assert float(circular.entropy(density)) == pytest.approx(expected, abs=1e-5)

    def test_interval_prob(self):
        density = random_densities(8, seed=4)
        ours = circular.interval_prob(density, 0.5, 4.0)
        for value, (weights, mu, kappa, floor) in zip(ours, rows(density), strict=True):
            parts = [exact_interval(0.5, 4.0, m, k) for m, k in zip(mu, kappa, strict=True)]
            expected = (1 - floor) * np.dot(weights, parts) + floor * 3.5 / (2 * np.pi)
            assert float(value) == pytest.approx(expected, abs=1e-5)

    def test_view_probs(self):
        density = random_densities(2, seed=5)
        ours = np.asarray(circular.view_probs(density))
        for values, (weights, mu, kappa, floor) in zip(ours, rows(density), strict=True):
            for view, value in enumerate(values):
                lo, hi = (np.pi * (2 * view + s) / 8 for s in (-1, 1))
                parts = [exact_interval(lo, hi, m, k) for m, k in zip(mu, kappa, strict=True)]
                expected = (1 - floor) * np.dot(weights, parts) + floor / 8
                assert float(value) == pytest.approx(expected, abs=1e-5)

    def test_view_probs_of_a_peak_between_two_views(self):
        # The border at π/8 is not a float32: its rounding alone would move a mass of 1e-5 here.
        mu = np.float32(math.pi / 8)
        ours = circular.view_probs(circular.from_single(mu, 1e6))
        expected = scipy.stats.norm.cdf((math.pi / 8 - float(mu)) * 1e3)
        assert float(ours[0]) == pytest.approx(expected, abs=2e-6)
        assert float(ours[0] + ours[1]) == pytest.approx(1.0, abs=1e-6)

    def test_four_views(self):
        ours = circular.view_probs(circular.from_single(np.deg2rad(200.0), 500.0), views=4)
        np.testing.assert_allclose(ours, [0.0, 0.0, 1.0, 0.0], atol=1e-6)

    def test_on_grid_against_the_density(self):
        density = circular.from_single(1.234, 40.0, 0.1)
        centres = jnp.deg2rad(jnp.arange(360.0))
        expected = jnp.exp(circular.log_prob(density, centres))
        np.testing.assert_allclose(circular.on_grid(density), expected, atol=2e-3)

    def test_on_grid_puts_a_needle_into_its_cell(self):
        grid = np.asarray(circular.on_grid(circular.from_single(jnp.deg2rad(359.9), 1e6)))
        assert grid.argmax() == 0
        assert grid[0] * 2 * np.pi / 360 == pytest.approx(1.0, abs=1e-5)
        assert grid.mean() * 2 * np.pi == pytest.approx(1.0, abs=1e-5)

    def test_uniform_grid(self):
        np.testing.assert_allclose(
            circular.on_grid(circular.from_single(2.0, 0.0), n=24), 1 / (2 * np.pi), rtol=1e-5
        )

    def test_main_component(self):
        density = Density(
            jnp.array([[0.3, 0.7], [0.6, 0.4]]),
            jnp.array([[1.0, -0.5], [7.0, 2.0]]),
            jnp.array([[3.0, 4.0], [5.0, 6.0]]),
            jnp.zeros(2),
        )
        np.testing.assert_allclose(circular.mean_direction(density), [-0.5, 7 - 2 * np.pi], 1e-5)
        np.testing.assert_allclose(
            circular.azimuth_deg(density), [360 - np.rad2deg(0.5), np.rad2deg(7) - 360], rtol=1e-5
        )

    def test_an_empty_batch(self):
        empty = circular.from_single(jnp.zeros(0), jnp.zeros(0))
        assert circular.entropy(empty).shape == (0,)
        assert circular.hdr_mass(empty, jnp.zeros(0)).shape == (0,)

    def test_a_component_that_is_no_number_has_no_direction(self):
        density = circular.Density(
            jnp.full((2, 2), 0.5), jnp.array([[0.0, 1.0]] * 2),
            jnp.array([[5.0, jnp.nan], [5.0, 5.0]]), jnp.zeros(2),
        )  # fmt: skip
        assert np.isnan(circular.azimuth_deg(density)).tolist() == [True, False]

    def test_azimuth_never_reaches_360(self):
        azimuth = circular.azimuth_deg(circular.from_single(jnp.float32([-1e-9, -0.0, 0.0]), 1.0))
        np.testing.assert_array_equal(azimuth, 0.0)

    def test_is_a_pytree_for_jit_and_vmap(self):
        density = random_densities(6)
        for function in (circular.entropy, circular.view_probs, circular.azimuth_deg):
            per_frame = jax.jit(jax.vmap(function))(density)
            np.testing.assert_allclose(per_frame, function(density), rtol=1e-5, atol=1e-6)

    def test_training_by_log_likelihood_finds_the_distribution(self):
        sample = scipy.stats.vonmises(12.0, loc=2.0).rvs(4000, random_state=0).astype(np.float32)

        @jax.jit
        @jax.value_and_grad
        def loss(theta):
            density = circular.from_single(theta[0], jnp.exp(theta[1]))
            return -circular.log_prob(density, sample).mean()

        theta = jnp.array([1.0, 0.0])
        for _ in range(200):
            theta = theta - jnp.array([0.05, 0.5]) * loss(theta)[1]
        kappa, mu, _ = scipy.stats.vonmises.fit(sample.astype(float), fscale=1)
        np.testing.assert_allclose([theta[0], jnp.exp(theta[1])], [mu, kappa], rtol=1e-3)


class TestDensityProperties:
    @properties
    @given(densities())
    def test_masses_sum_to_one(self, density):
        assert float(circular.view_probs(density).sum()) == pytest.approx(1.0, abs=1e-5)
        grid = np.asarray(circular.on_grid(density), np.float64)
        assert (grid >= 0).all()
        assert grid.mean() * 2 * np.pi == pytest.approx(1.0, abs=1e-5)

    @properties
    @given(densities(), st.integers(-8, 8))
    def test_a_turn_by_one_view_shifts_the_views(self, density, steps):
        assume(float(density.kappa.max()) < 1e3)  # mu + angle is rounded
        turned = density._replace(mu=density.mu + steps * np.float32(np.pi / 4))
        np.testing.assert_allclose(
            circular.view_probs(turned), np.roll(circular.view_probs(density), steps), atol=2e-4
        )
        np.testing.assert_allclose(circular.entropy(turned), circular.entropy(density), atol=2e-4)

    @properties
    @given(densities(), angles)
    def test_mirror(self, density, angle):
        mirrored = circular.mirror(density)
        np.testing.assert_allclose(
            circular.log_prob(mirrored, -angle), circular.log_prob(density, angle), rtol=1e-5
        )
        flipped = np.roll(np.asarray(circular.on_grid(density))[::-1], 1)
        np.testing.assert_allclose(circular.on_grid(mirrored), flipped, atol=1e-3)
        np.testing.assert_allclose(circular.entropy(mirrored), circular.entropy(density), atol=2e-5)

    @properties
    @given(log_kappas, st.floats(0.05, 1.0), floors)
    def test_entropy_of_one_component_falls_with_kappa_and_rises_with_the_floor(
        self, log_kappa, step, floor
    ):
        low, high = (
            float(circular.entropy(circular.from_single(0.4, 10.0**t, floor)))
            for t in (log_kappa, log_kappa + step)
        )
        raised = float(
            circular.entropy(circular.from_single(0.4, 10.0**log_kappa, (1 + floor) / 2))
        )
        assert high <= low + 2e-6
        assert low - 2e-6 <= raised <= math.log(2 * np.pi) + 2e-6

    @properties
    @given(densities(), angles, st.floats(0.0, 3.0, width=32), st.floats(0.0, 3.0, width=32))
    def test_interval_probs_add_up(self, density, lo, first, second):
        middle = np.float32(lo + first)
        hi = np.float32(middle + second)
        parts = circular.interval_prob(density, lo, middle) + circular.interval_prob(
            density, middle, hi
        )
        whole = float(circular.interval_prob(density, lo, hi))
        assert float(parts) == pytest.approx(whole, abs=2e-6)
        assert -1e-6 <= whole <= 1 + 1e-6


class TestCoverage:
    def test_is_the_weighted_mean_of_the_grids(self):
        density = random_densities(7)
        weights = time_weights([0.0, 0.1, 0.5, 0.6, 2.0, 2.1, 5.0])
        expected = sum(
            w * np.asarray(circular.on_grid(jax.tree.map(lambda x, i=i: x[i], density)))
            for i, w in enumerate(weights)
        )
        ours = circular.coverage_map(density, weights)
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-5)
        assert float(ours.mean()) == pytest.approx(1 / (2 * np.pi), abs=1e-5)

    def test_sampling_half_of_the_turn_more_densely_changes_nothing(self):
        even = np.linspace(0.0, 1.0, 241)
        uneven = np.concatenate([np.linspace(0.0, 0.5, 481), np.linspace(0.5, 1.0, 121)[1:]])
        maps = [
            circular.coverage_map(
                circular.from_single(jnp.asarray(2 * np.pi * t, jnp.float32), 50.0),
                time_weights(t),
            )
            for t in (even, uneven)
        ]
        np.testing.assert_allclose(maps[0], maps[1], rtol=5e-3)

    def test_long_videos_fit_in_memory(self):
        density = random_densities(5000, components=1)
        compiled = circular.coverage_map.lower(density, jnp.full(5000, 1 / 5000)).compile()
        grid_bytes = 5000 * 361 * 4
        assert compiled.memory_analysis().temp_size_in_bytes < 6 * grid_bytes


class TestDirections:
    @pytest.mark.parametrize(
        ("a", "b", "expected"),
        [(10, 350, 20), (350, 10, -20), (180, 0, 180), (0, 180, 180), (725, 0, 5), (-540, 0, 180)],
    )
    def test_angular_difference(self, a, b, expected):
        assert float(circular.angular_difference_deg(a, b)) == expected

    @properties
    @given(st.floats(-1000, 1000, width=32), st.floats(-1000, 1000, width=32))
    def test_angular_difference_stays_in_range(self, a, b):
        difference = float(circular.angular_difference_deg(a, b))
        assert -180 < difference <= 180
        assert math.cos(math.radians(difference)) == pytest.approx(
            math.cos(math.radians(a - b)), abs=1e-5
        )

    def test_angular_difference_keeps_small_differences(self):
        assert float(circular.angular_difference_deg(0.0, 1e-6)) == pytest.approx(-1e-6)
        assert float(jax.grad(circular.angular_difference_deg)(350.0, 10.0)) == 1.0

    def test_circular_mean_against_scipy(self):
        angle = np.random.default_rng(3).normal(3.0, 0.8, (4, 50)).astype(np.float32)
        expected = scipy.stats.circmean(angle.astype(float), high=np.pi, low=-np.pi, axis=1)
        np.testing.assert_allclose(circular.circular_mean(angle), expected, atol=1e-5)
        np.testing.assert_allclose(circular.circular_mean(angle.T, axis=0), expected, atol=1e-5)

    def test_circular_mean_with_weights(self):
        weighted = circular.circular_mean(jnp.array([0.0, 1.0]), jnp.array([1.0, 3.0]))
        repeated = circular.circular_mean(jnp.array([0.0, 1.0, 1.0, 1.0]))
        assert float(weighted) == pytest.approx(float(repeated), abs=1e-6)


# --- highest-density regions ---------------------------------------------------------------------


@pytest.mark.parametrize("kappa", [0.3, 4.0, 90.0, 8000.0])
def test_hdr_mass_of_one_component_is_the_mass_between_mirror_images(kappa):
    offset = np.linspace(0.0, 3.1, 40) * min(1.0, 1.3 / math.sqrt(kappa))
    got = circular.hdr_mass(circular.from_single(jnp.full(40, 3.0), kappa), 3.0 + offset)
    want = 1.0 - 2.0 * scipy.stats.vonmises.sf(offset, kappa)
    np.testing.assert_array_less(np.abs(got - want), np.where(want > 0.2, 3e-3, 0.025))


@pytest.mark.parametrize("floor", [0.0, 0.1, 0.3, 0.9])
@pytest.mark.parametrize("kappa", [0.3, 20.0, 200.0, 1000.0])
def test_hdr_mass_above_a_floor_is_right_far_from_the_peak(kappa, floor):
    offset = np.linspace(0.0, 3.14, 200)
    got = circular.hdr_mass(circular.from_single(jnp.full(200, 3.0), kappa, floor), 3.0 + offset)
    peak = 1.0 - 2.0 * scipy.stats.vonmises.sf(offset, kappa)
    want = (1.0 - floor) * peak + floor * offset / np.pi
    bound = np.where(want > 0.2, 5e-3 if floor < 0.9 else 0.015, 0.025)
    np.testing.assert_array_less(np.abs(got - want), bound)


def test_hdr_mass_of_mixtures_is_the_mass_above_the_density_of_the_angle():
    rng = np.random.default_rng(0)
    density = Density(
        jnp.asarray(rng.dirichlet(np.ones(3), 6), jnp.float32),
        jnp.asarray(rng.uniform(-4, 4, (6, 3)), jnp.float32),
        jnp.asarray(10 ** rng.uniform(0, 3, (6, 3)), jnp.float32),
        jnp.array([0.0, 0.01, 0.05, 0.1, 0.5, 0.9]),
    )
    grid = np.linspace(-np.pi, np.pi, 20001)
    p = np.exp(np.asarray(circular.log_prob(jax.tree.map(lambda x: x[:, None], density), grid)))
    angle = np.linspace(-3.0, 3.0, 6)
    level = np.exp(np.asarray(circular.log_prob(density, angle)))
    above = np.where(p > level[:, None], p, 0.0)
    want = np.trapezoid(above, grid, axis=1)
    np.testing.assert_allclose(circular.hdr_mass(density, angle), want, atol=5e-3)


def test_fields_may_be_integers_or_lists():
    plain = circular.from_single(3.0, 2.0, 0.0)
    for mu in (jnp.array([3]), [3], np.array([3], np.int64)):
        odd = circular.Density([1], mu, [2], 0)
        np.testing.assert_allclose(circular.view_probs(odd), circular.view_probs(plain), atol=1e-7)
        np.testing.assert_allclose(circular.on_grid(odd), circular.on_grid(plain), atol=1e-6)
        np.testing.assert_allclose(circular.entropy(odd), circular.entropy(plain), atol=1e-6)
        np.testing.assert_allclose(
            circular.interval_prob(odd, 0, 1), circular.interval_prob(plain, 0, 1), atol=1e-7
        )
