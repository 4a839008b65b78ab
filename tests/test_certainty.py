"""Entropies and calibration metrics against SciPy, slow loops and values worked by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from carjax import certainty, table

properties = settings(max_examples=60, deadline=None)


def random_predictions(n=400, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    probs = scipy.special.softmax(rng.normal(0, 2, (n, classes)), axis=1)
    return probs, rng.integers(classes, size=n)


class TestEntropy:
    def test_against_scipy(self):
        logits = np.random.default_rng(0).normal(0, 20, (50, 7)).astype(np.float32)
        probs = scipy.special.softmax(logits.astype(float), axis=1)
        expected = scipy.stats.entropy(probs, axis=1)
        np.testing.assert_allclose(certainty.entropy_from_logits(logits), expected, atol=1e-5)
        np.testing.assert_allclose(
            certainty.entropy_from_probs(probs.astype(np.float32)), expected, atol=1e-5
        )

    def test_impossible_classes_count_for_nothing(self):
        for impossible in (-np.inf, -1e9, -1e30):
            logits = jnp.array([1.0, 2.0, impossible])
            expected = certainty.entropy_from_logits(jnp.array([1.0, 2.0]))
            assert float(certainty.entropy_from_logits(logits)) == pytest.approx(float(expected))

    def test_gradient_against_the_formula(self):
        logits = np.array([0.5, -1.0, 2.0, 0.0], np.float32)
        p = scipy.special.softmax(logits.astype(float))
        expected = -p * (np.log(p) + scipy.stats.entropy(p))
        ours = jax.grad(certainty.entropy_from_logits)(logits)
        np.testing.assert_allclose(ours, expected, atol=1e-6)

    @pytest.mark.parametrize("low", [-np.inf, -1e9, -200.0])
    def test_gradients_are_finite(self, low):
        for logits in ([0.0, low, low], [3.0, 3.0, low]):
            gradient = jax.grad(certainty.entropy_from_logits)(jnp.array(logits))
            assert np.isfinite(gradient).all()
        assert np.isfinite(jax.grad(certainty.entropy_from_probs)(jnp.array([1.0, 0.0]))).all()

    def test_under_jit_and_vmap(self):
        logits = np.random.default_rng(1).normal(size=(2, 3, 4)).astype(np.float32)
        ours = jax.jit(jax.vmap(jax.vmap(certainty.entropy_from_logits)))(logits)
        np.testing.assert_allclose(ours, certainty.entropy_from_logits(logits), rtol=1e-6)

    @properties
    @given(hnp.arrays(np.float32, 6, elements=st.floats(-50, 50, width=32)))
    def test_range_and_shift(self, logits):
        value = float(certainty.entropy_from_logits(logits))
        assert -1e-6 <= value <= math.log(6) + 1e-5
        shifted = float(certainty.entropy_from_logits(logits + np.float32(8.0)))
        assert shifted == pytest.approx(value, abs=1e-4)


class TestNormalizedCertainty:
    def test_ends_and_middle(self):
        entropy = np.array([0.0, math.log(2), math.log(4)])
        np.testing.assert_allclose(
            certainty.normalized_certainty(entropy, 4), [1.0, 0.5, 0.0], atol=1e-6
        )

    def test_stays_in_range_after_rounding(self):
        assert float(certainty.normalized_certainty(math.log(3) + 1e-6, 3)) == 0.0
        # The host's own.
        entropy = np.array([-1e-6, math.log(3) / 2, math.log(3) + 1e-6])
        np.testing.assert_array_equal(table.certainty(entropy, 3), [1.0, 0.5, 0.0])

    def test_one_class_is_certain(self):
        np.testing.assert_array_equal(certainty.normalized_certainty(np.zeros(3), 1), 1.0)

    def test_no_class(self):
        with pytest.raises(ValueError, match="num_classes must be at least 1"):
            certainty.normalized_certainty(0.0, 0)


def top_class_error(probs, labels, bins=15):
    probs = np.asarray(probs)
    return certainty.calibration_error(probs.max(1), probs.argmax(1) == labels, bins)


def slow_ece(probs, labels, bins):
    total = 0.0
    for b in range(bins):
        inside = [
            (max(p), float(np.argmax(p) == y))
            for p, y in zip(probs, labels, strict=True)
            if b / bins < max(p) <= (b + 1) / bins
        ]
        if inside:
            confidence, accuracy = np.mean(inside, axis=0)
            total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


class TestCalibrationError:
    @pytest.mark.parametrize("bins", [1, 4, 15])
    def test_against_a_slow_loop(self, bins):
        probs, labels = random_predictions()
        expected = slow_ece(probs, labels, bins)
        assert top_class_error(probs, labels, bins) == pytest.approx(expected)

    def test_by_hand(self):
        probs = [[0.8, 0.2], [0.7, 0.3], [0.4, 0.6], [0.1, 0.9]]
        # Two bins: (0.5, 1] holds all: accuracy 3/4, confidence 0.75.
        assert top_class_error(probs, [0, 1, 1, 1], 2) == pytest.approx(0.0)
        # Ten bins: |1 − 0.8|, |0 − 0.7|, |1 − 0.6| and |1 − 0.9|, a quarter each.
        assert top_class_error(probs, [0, 1, 1, 1], 10) == pytest.approx(0.35)

    def test_adaptive_bins_hold_equal_numbers(self):
        probs, labels = random_predictions(n=60)
        order = np.argsort(probs.max(axis=1))
        correct = probs.argmax(axis=1) == labels
        parts = np.array_split(order, 6)
        expected = sum(
            abs(correct[part].mean() - probs[part].max(axis=1).mean()) * len(part) / 60
            for part in parts
        )
        assert certainty.adaptive_ece(probs, labels, 6) == pytest.approx(expected)

    def test_a_sample_on_an_edge_of_adaptive_bins_opens_the_upper_one(self):
        probs = [[0.9, 0.1], [0.6, 0.4]]
        assert certainty.adaptive_ece(probs, [1, 0], bins=2) == pytest.approx(0.65)

    def test_adaptive_bins_do_not_split_ties(self):
        probs = np.array([[0.7, 0.3]] * 10)
        labels = np.array([0] * 7 + [1] * 3)
        assert certainty.adaptive_ece(probs, labels, 5) == pytest.approx(0.0)

    def test_more_bins_than_samples(self):
        assert certainty.adaptive_ece([[0.9, 0.1]], [0], 15) == pytest.approx(0.1)

    def test_labels_drawn_from_the_probabilities_are_calibrated(self):
        probs, _ = random_predictions(n=20000, seed=2)
        rng = np.random.default_rng(3)
        labels = (rng.random((len(probs), 1)) > probs.cumsum(axis=1)[:, :-1]).sum(axis=1)
        for metric in (top_class_error, certainty.adaptive_ece):
            assert metric(probs, labels) < 0.02
            overconfident = scipy.special.softmax(3 * np.log(probs), axis=1)
            assert metric(overconfident, labels) > 0.1

    @pytest.mark.parametrize(
        ("probs", "labels", "message"),
        [
            ([0.5, 0.5], [0, 1], r"probs must be \[N, K\]"),
            (np.zeros((0, 2)), np.zeros(0, int), r"probs must be \[N, K\]"),
            ([[0.5, 0.5]], [0, 1], r"labels must be \[1\]"),
            ([[0.9, 0.9]], [0], "have the sum 1"),
            ([[0.5, 0.5]], [2], "from 0 to 1"),
            ([[0.5, 0.5]], [-1], "from 0 to 1"),
            ([[0.5, 0.5]], [0.0], "from 0 to 1"),
        ],
    )
    def test_bad_input(self, probs, labels, message):
        for metric in (certainty.adaptive_ece, certainty.log_losses, certainty.brier_losses):
            with pytest.raises(ValueError, match=message):
                metric(probs, labels)

    @pytest.mark.parametrize(
        ("confidence", "correct", "message"),
        [
            ([], [], r"must both be \[N\] with N ≥ 1"),
            ([[0.5]], [[True]], r"must both be \[N\] with N ≥ 1"),
            ([0.5], [True, False], r"must both be \[N\] with N ≥ 1"),
            ([1.5], [True], "from 0 to 1"),
            ([-0.5], [True], "from 0 to 1"),
            ([math.nan], [True], "from 0 to 1"),
        ],
    )
    def test_what_is_no_stated_probability(self, confidence, correct, message):
        with pytest.raises(ValueError, match=message):
            certainty.calibration_error(confidence, correct)

    def test_no_bins(self):
        for metric in (top_class_error, certainty.adaptive_ece):
            with pytest.raises(ValueError, match="bins must be at least 1"):
                metric([[1.0]], [0], 0)


def mean_log_loss(probs, labels):
    return certainty.log_losses(probs, labels).mean()


def mean_brier_loss(probs, labels):
    return certainty.brier_losses(probs, labels).mean()


class TestScores:
    def test_negative_log_likelihood_against_a_slow_loop(self):
        probs, labels = random_predictions()
        expected = -np.mean([math.log(p[y]) for p, y in zip(probs, labels, strict=True)])
        assert mean_log_loss(probs, labels) == pytest.approx(expected)

    def test_negative_log_likelihood_of_an_impossible_class_is_finite(self):
        value = mean_log_loss([[1.0, 0.0]], [1])
        assert value == pytest.approx(-math.log(1e-12))

    def test_brier_score_against_a_slow_loop(self):
        probs, labels = random_predictions()
        expected = np.mean(
            [
                sum((p[k] - (k == y)) ** 2 for k in range(len(p)))
                for p, y in zip(probs, labels, strict=True)
            ]
        )
        assert mean_brier_loss(probs, labels) == pytest.approx(expected)

    def test_brier_score_ends(self):
        assert mean_brier_loss([[1.0, 0.0]], [0]) == 0.0
        assert mean_brier_loss([[1.0, 0.0]], [1]) == 2.0


class TestRiskCoverage:
    def test_by_hand(self):
        coverage, risk = certainty.risk_coverage_curve([0.2, 0.9, 0.5, 0.7], [1, 0, 0, 1])
        np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1.0])
        np.testing.assert_allclose(risk, [0, 1 / 2, 1 / 3, 1 / 2])
        assert certainty.aurc([0.2, 0.9, 0.5, 0.7], [1, 0, 0, 1]) == pytest.approx(1 / 3)

    def test_against_a_slow_loop(self):
        rng = np.random.default_rng(0)
        confidence, loss = rng.random(50), rng.exponential(20.0, 50)
        expected = [
            np.mean([x for c, x in zip(confidence, loss, strict=True) if c >= threshold])
            for threshold in sorted(confidence, reverse=True)
        ]
        np.testing.assert_allclose(certainty.risk_coverage_curve(confidence, loss)[1], expected)

    def test_ties_give_the_mean_over_all_orders(self):
        rng = np.random.default_rng(1)
        confidence, loss = np.array([0.9, 0.5, 0.5, 0.5, 0.1]), np.array([0, 1, 0, 0, 1])
        areas = []
        for _ in range(4000):
            order = np.lexsort((rng.random(5), -confidence))
            areas.append(np.mean(np.cumsum(loss[order]) / np.arange(1, 6)))
        assert certainty.aurc(confidence, loss) == pytest.approx(np.mean(areas), abs=5e-3)

    def test_no_information_gives_the_mean_loss(self):
        assert certainty.aurc(np.zeros(8), [0, 1] * 4) == pytest.approx(0.5)

    @properties
    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1)), min_size=1, max_size=20))
    def test_order_and_scale_do_not_matter(self, pairs):
        confidence, loss = np.array(pairs, float).T
        area = certainty.aurc(confidence, loss)
        assert certainty.aurc(confidence[::-1], loss[::-1]) == pytest.approx(area)
        assert certainty.aurc(np.exp(confidence) - 9, loss) == pytest.approx(area)
        assert certainty.aurc(-loss, loss) <= area + 1e-12 <= certainty.aurc(loss, loss) + 2e-12
        assert certainty.risk_coverage_curve(confidence, loss)[1][-1] == pytest.approx(loss.mean())

    @pytest.mark.parametrize(
        ("confidence", "loss"), [([], []), ([1.0], [1.0, 0.0]), ([[1.0]], [[1.0]])]
    )
    def test_bad_shapes(self, confidence, loss):
        with pytest.raises(ValueError, match="must both be"):
            certainty.aurc(confidence, loss)

    def test_nan(self):
        with pytest.raises(ValueError, match="NaN"):
            certainty.aurc([math.nan, 1.0], [0, 1])


def interval(values, statistic, **arguments):
    return certainty.bootstrap_intervals(values, lambda x: [statistic(x)], **arguments)[0].tolist()


class TestBootstrap:
    def test_against_scipy(self):
        values = np.random.default_rng(0).normal(5.0, 2.0, 200)
        low, high = interval(values, np.mean, samples=4000)
        reference = scipy.stats.bootstrap(
            (values,), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(1)
        ).confidence_interval
        assert low == pytest.approx(reference.low, abs=0.03)
        assert high == pytest.approx(reference.high, abs=0.03)

    def test_is_repeatable_and_narrower_with_less_confidence(self):
        values = np.arange(30.0)
        wide = interval(values, np.median)
        assert wide == interval(values, np.median)
        narrow = interval(values, np.median, confidence=0.5)
        assert wide[0] < narrow[0] < narrow[1] < wide[1]

    def test_is_about_the_figure_and_inside_of_what_can_be(self):
        def largest(rows):  # no resample has more
            return rows.max()

        values = np.arange(20.0)
        assert interval(values, largest)[1] == 19.0
        low, high = interval([1.0] * 30 + [0.0], np.mean)
        assert 0.0 < low < 30 / 31 < high == 1.0

    def test_rows_stay_together(self):
        pairs = np.column_stack([np.arange(20.0), 3 * np.arange(20.0)])

        def ratio(rows):
            return rows[:, 1].sum() / rows[:, 0].sum()

        np.testing.assert_allclose(interval(pairs, ratio, samples=50), 3.0)

    @pytest.mark.parametrize(
        ("values", "arguments", "message"),
        [
            ([], {}, "at least one value"),
            (3.0, {}, "at least one value"),
            ([1.0], {"confidence": 1.0}, "between 0 and 1"),
            ([1.0], {"samples": 0}, "samples must be at least 1"),
        ],
    )
    def test_bad_input(self, values, arguments, message):
        with pytest.raises(ValueError, match=message):
            interval(values, np.mean, **arguments)


def test_an_interval_reaches_the_figure_itself_where_every_resample_lies_to_one_side():
    def drawn(rows):
        different = len(np.unique(rows))
        return [different, len(rows) - different]

    (_, most), (least, _) = certainty.bootstrap_intervals(np.arange(40), drawn, samples=200)
    assert (most, least) == (40, 0)


def test_as_many_groups_are_drawn_as_there_are():
    sizes = []
    certainty.bootstrap_intervals(
        np.arange(30), lambda rows: [sizes.append(len(rows)) or 0.0], np.arange(30) // 10, samples=9
    )
    assert set(sizes) == {30}


def test_more_than_certain_is_no_probability():
    for losses in (certainty.log_losses, certainty.brier_losses):
        with pytest.raises(ValueError, match="from 0 to 1"):
            losses([[1.5, 0.0]], [0])


def test_of_a_single_class_a_broken_frame_is_not_certain():
    got = certainty.normalized_certainty(jnp.array([0.0, jnp.nan]), 1)
    np.testing.assert_array_equal(got, [1.0, np.nan])
