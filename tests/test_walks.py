"""Simulated walks: a camera that could be one, photos from where it stands, honest padding."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carjax.errors import UsageError
from carjax.grids import apart_deg
from carjax.temporal import walks
from carjax.temporal.walks import WalkSpec

DENSE = np.arange(0.0, 360.0, 4.0)
SPARSE = np.array([3.0, 40.0, 41.0, 120.0, 175.0, np.nan])


def many(labels, spec, count=200, seed=0):
    rng = np.random.default_rng(seed)
    return walks.stack([walks.simulate(labels, spec, rng) for _ in range(count)])


specs = st.builds(
    WalkSpec,
    frames=st.integers(1, 60),
    fps=st.floats(1.0, 30.0),
    time_jitter=st.floats(0.0, 0.99),
    speed_deg_s=st.floats(0.1, 200.0),
    speed_change=st.floats(0.0, 2.0),
    turn_rate=st.floats(0.0, 2.0),
    pause_rate=st.floats(0.0, 2.0),
    hurry=st.floats(0.5, 9.0),
    tolerance_deg=st.floats(0.0, 20.0),
    spoilt=st.floats(0.0, 0.9),
    mirrored=st.booleans(),
)


@given(
    spec=specs,
    labels=st.lists(st.floats(-400.0, 400.0), max_size=12),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_walk_keeps_its_word(spec, labels, seed):
    labels = np.array(labels)
    walk = walks.simulate(labels, spec, np.random.default_rng(seed))
    again = walks.simulate(labels, spec, np.random.default_rng(seed))
    for field, twin in zip(walk, again, strict=True):
        assert field.shape == (spec.frames,)
        np.testing.assert_array_equal(field, twin)
    n = int(walk.mask.sum())
    assert walk.mask[:n].all()
    # Times increase, padding repeats the last, and the camera is never too fast.
    gaps = np.diff(walk.time_s[:n].astype(np.float64))
    assert (gaps > 0).all()
    assert (walk.time_s[n:] == walk.time_s[max(n - 1, 0)]).all()
    moved = apart_deg(walk.azimuth_deg[1:n], walk.azimuth_deg[: max(n - 1, 0)])
    assert (moved <= spec.max_speed_deg_s * gaps + 1e-3).all()
    # Every frame shows a photo that was taken from about there, as its view says.
    mirrored, spoilt = walk.view % 2 == 1, walk.view >= 2
    np.testing.assert_array_equal(spoilt, walk.spoilt)
    assert not walk.view[n:].any()
    assert not walk.photo[n:].any()
    if n:
        own = np.where(mirrored, -labels[walk.photo], labels[walk.photo])[:n]
        assert (apart_deg(own, walk.label_deg[:n]) < 1e-3).all()
        assert (apart_deg(own, walk.azimuth_deg[:n]) <= spec.tolerance_deg + 1e-3).all()
    assert spec.mirrored or not mirrored.any()
    for angle in (walk.azimuth_deg, walk.label_deg):
        assert ((angle >= 0) & (angle < 360)).all()


@pytest.mark.parametrize("share", [0.0, 0.2, 0.4])
def test_the_share_of_spoilt_frames_and_the_length_of_their_stretches(share):
    spec = WalkSpec(spoilt=share, spoilt_s=0.5, time_jitter=0.0)
    spoilt = many(DENSE, spec, 300).spoilt
    assert abs(spoilt.mean() - share) < 0.02
    if share:
        # A Markov chain of two states in continuous time, looked at once a frame.
        rates = 1 / 0.5, share / (1 - share) / 0.5
        leave = (1 - share) * (1 - np.exp(-sum(rates) / spec.fps))
        left = (spoilt[:, :-1] & ~spoilt[:, 1:]).sum() / spoilt[:, :-1].sum()
        assert abs(left / leave - 1) < 0.08


def test_sparse_models_give_ragged_walks_of_the_share_of_the_circle_that_they_show():
    spec = WalkSpec(turn_rate=0.0, pause_rate=0.0)
    # 6° about each of 3, 40, 120, 175 and their mirror images; 41 adds 1° to 40's.
    shown = (2 * (6 + 7 + 6 + 6)) / 360
    mask = many(SPARSE, spec, 400).mask
    assert abs(mask.mean() - shown) < 0.02
    assert len(set(mask.sum(1))) > 5
    assert not many([], spec, 3).mask.any()


def test_pauses_turns_and_hurries_happen_as_often_as_asked():
    spec = WalkSpec(time_jitter=0.0, mirrored=False, tolerance_deg=5.0)
    found = many(DENSE, spec, 400)
    assert found.mask.all()
    step = np.diff(found.azimuth_deg.astype(np.float64), axis=1)
    speed = ((step + 180) % 360 - 180) * spec.fps
    paused = np.abs(speed) < 1e-2
    rate = spec.pause_rate * spec.pause_s
    assert abs(paused.mean() - rate / (1 + rate)) < 0.015
    assert abs(np.median(np.abs(speed[~paused])) / spec.speed_deg_s - 1) < 0.12
    assert abs((speed[~paused] > 0).mean() - 0.5) < 0.06
    turned = np.diff(np.sign(np.where(paused, np.nan, speed)), axis=1)
    turns = (np.abs(turned) == 2).sum() / turned.size * spec.fps
    assert abs(turns - spec.turn_rate * (1 - rate / (1 + rate))) < 0.006
    calm = many(DENSE, dataclasses.replace(spec, hurry_rate=0.0), 200)
    fast = (np.abs(speed) > 60).mean()
    still = np.diff(calm.azimuth_deg.astype(np.float64), axis=1)
    assert fast > 2 * (np.abs((still + 180) % 360 - 180) * spec.fps > 60).mean()


def test_the_nearest_photo_is_preferred_and_others_have_their_turn():
    labels = np.array([10.0, 11.0, 12.5])
    choice = walks._choose(np.full(30000, 10.2), labels, 3.0, np.random.default_rng(0))
    share = np.bincount(choice, minlength=3) / 30000
    wanted = np.exp(-0.5 * np.array([0.2, 0.8, 2.3]) ** 2)
    np.testing.assert_allclose(share, wanted / wanted.sum(), atol=0.01)


@pytest.mark.parametrize(
    ("name", "value"), [("frames", 0), ("spoilt", 1.0), ("time_jitter", -0.1), ("turn_rate", -1)]
)
def test_a_parameter_out_of_range_is_named(name, value):
    with pytest.raises(UsageError, match=f"^{name}: must be"):
        WalkSpec(**{name: value})
