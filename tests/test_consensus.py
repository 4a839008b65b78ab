"""The consensus of correlated frames: against dense sums, and calibrated where theory says so."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carjax import certainty
from carjax.temporal import consensus
from carjax.temporal.consensus import Repetition, Video


def correlation(time_s, repetition):
    apart = np.abs(np.subtract.outer(time_s, time_s))
    return repetition.shared + (1 - repetition.shared) * np.exp(-apart / repetition.time_s)


@given(
    gaps=st.lists(st.floats(0.01, 5), min_size=0, max_size=12),
    weights=st.lists(st.floats(0, 10), min_size=13, max_size=13),
    shared=st.floats(0, 1),
    time_s=st.floats(0.01, 10),
)
def test_the_effective_sample_size_is_that_of_the_dense_sum(gaps, weights, shared, time_s):
    moments = np.cumsum([0.0, *gaps])
    w = np.array(weights[: len(moments)]) + 1e-3
    repetition = Repetition(shared, time_s)
    expected = w.sum() ** 2 / (w @ correlation(moments, repetition) @ w)
    found = consensus.effective_sample_size(moments, w, repetition)
    assert found == pytest.approx(expected, rel=1e-9)
    assert 1 - 1e-9 <= found <= len(moments) + 1e-9


def test_a_finer_sampling_of_the_same_video_is_worth_no_more():
    repetition = Repetition(shared=0.2, time_s=0.5)
    coarse, fine = (np.linspace(0, 20, n) for n in (400, 4000))
    sizes = [
        consensus.effective_sample_size(t, np.ones(len(t)), repetition) for t in (coarse, fine)
    ]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.01)


@given(
    probs=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=8),
    shared=st.floats(0, 1),
    floor=st.floats(0, 0.5),
)
def test_pooling_is_symmetric_in_the_classes_and_sums_to_one(probs, shared, floor):
    p = np.stack([probs, 1 - np.array(probs)], axis=1)
    repetition = Repetition(shared, 1.0, floor)
    time_s, w = np.arange(len(p)) / 3.0, np.ones(len(p))
    pooled = consensus.pool(p, time_s, w, repetition)
    assert pooled.sum() == pytest.approx(1)
    np.testing.assert_allclose(pooled[::-1], consensus.pool(p[:, ::-1], time_s, w, repetition))


def gaussian_videos(rng, count, time_s, repetition):
    """Two classes; each frame's log-odds are N(±m, 2m), so every frame alone is calibrated."""
    mean, frames = 0.8, len(time_s)
    root = np.linalg.cholesky(2 * mean * correlation(time_s, repetition) + 1e-9 * np.eye(frames))
    videos = []
    for _ in range(count):
        label = int(rng.integers(2))
        log_odds = (mean if label == 0 else -mean) + root @ rng.normal(size=frames)
        p = 1 / (1 + np.exp(-log_odds))
        videos.append(Video(np.stack([p, 1 - p], 1), time_s, np.ones(frames), label))
    return videos


def stated(videos, repetition):
    probs = np.array([consensus.pool(v.probs, v.time_s, v.weights, repetition) for v in videos])
    return probs, np.array([v.label for v in videos])


def test_what_a_fitted_consensus_states_is_calibrated_and_a_plain_product_is_not():
    rng = np.random.default_rng(0)
    truth = Repetition(shared=0.55, time_s=1.5, floor=0.0)
    time_s = np.cumsum(rng.uniform(0.05, 0.8, 20))
    fitted = consensus.fit(gaussian_videos(rng, 400, time_s, truth))
    videos = gaussian_videos(rng, 3000, time_s, truth)
    # Of videos of one length, only the size tells: what is shared and what lasts add up.
    sizes = [
        consensus.effective_sample_size(time_s, np.ones(20), repetition)
        for repetition in (fitted, truth)
    ]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.25)
    product = Repetition(shared=0.0, time_s=1e-6, floor=0.0)
    mean = Repetition(shared=1.0, floor=0.0)
    ece, nll = {}, {}
    for name, repetition in (("fitted", fitted), ("product", product), ("mean", mean)):
        probs, labels = stated(videos, repetition)
        ece[name] = certainty.calibration_error(probs.max(1), probs.argmax(1) == labels)
        nll[name] = certainty.log_losses(probs, labels).mean()
    assert ece["fitted"] < 0.03
    assert ece["product"] > 0.1
    assert ece["mean"] > 0.05
    assert nll["fitted"] < min(nll["product"], nll["mean"])


def test_a_fifth_of_the_frames_cannot_outvote_the_rest_however_sure_they_are():
    p = np.tile([0.8, 0.2], (20, 1))
    p[::5] = [1e-12, 1.0]
    time_s, w = np.arange(20.0), np.ones(20)
    assert consensus.pool(p, time_s, w, Repetition(0.5, 1.0, floor=0.05)).argmax() == 0
    assert consensus.pool(p, time_s, w, Repetition(0.5, 1.0, floor=0.0)).argmax() == 1


def test_one_frame_states_what_it_stated():
    repetition = Repetition(0.2, 1.0, floor=0.0)
    pooled = consensus.pool(np.array([[0.6, 0.4]]), np.zeros(1), np.ones(1), repetition)
    np.testing.assert_allclose(pooled, [0.6, 0.4])


def test_a_consensus_of_no_video_is_refused():
    with pytest.raises(ValueError, match="at least one video"):
        consensus.fit([])


def test_what_cannot_be_pooled_is_refused():
    probs = np.full((2, 2), 0.5)
    for times, weights, says in (
        ([1.0, 0.0], [1, 1], "must not decrease"),
        ([0.0, np.nan], [1, 1], "must be finite"),
        ([0.0, 1.0], [0, 0], "nor all be 0"),
        ([0.0, 1.0], [1, -1], "must not be negative"),
    ):
        with pytest.raises(ValueError, match=says):
            consensus.pool(probs, np.array(times), np.array(weights), consensus.Repetition())
    for wrong in ({"shared": 1.5}, {"time_s": 0.0}, {"floor": 1.0}, {"shared": np.nan}):
        with pytest.raises(ValueError, match="shared is in"):
            consensus.Repetition(**wrong)


def test_a_frame_of_more_weight_says_more():
    probs = np.array([[0.9, 0.1], [0.4, 0.6]])
    got = consensus.pool(
        probs, np.array([0.0, 1.0]), np.array([1.0, 3.0]), Repetition(1.0, 1.0, 0.0)
    )
    want = np.array([(0.9 * 0.4**3) ** 0.25, (0.1 * 0.6**3) ** 0.25])
    np.testing.assert_allclose(got, want / want.sum())
