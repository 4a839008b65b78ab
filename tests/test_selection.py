"""The rules of selection against brute force, their symmetries, and blur on real series."""

import csv
import dataclasses
import itertools
import json
import math
import pathlib
import subprocess
import sys

import av
import jax
import jsonschema
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from score_tables import DOORS, bin_masses, make_table

from carjax import scoring, selection
from carjax.attributes import CAR, VIEWS, Categorical
from carjax.errors import NoCarError, UsageError
from carjax.selection import eligibility, select_photos, views
from carjax.temporal import consensus

ROOT = pathlib.Path(__file__).parents[1]
VIDEO = {
    "path": "v.mp4",
    "frames": 180,
    "duration_s": 15.0,
    "width": 640,
    "height": 360,
    "scored_frames": np.int64(180),
}
MODEL = {"backbone": "efficientnet_lite2", "bundle": "car_heads", "version": "0.1.0"}

seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=60, deadline=None)


def random_table(seed, count=None, ties=True):
    """A few frames with everything that can happen to a frame, and many ties."""
    rng = np.random.default_rng(seed)
    count = count or int(rng.integers(1, 25))
    probs = rng.dirichlet(np.full(4, 0.4), count)
    if ties:
        probs = np.round(probs * 4) / 4
        probs[:, 0] += 1 - probs.sum(1)
    kappa = 10 ** rng.uniform(-1, 4, count)
    return make_table(
        probs={"doors": np.clip(probs, 0, 1)},
        azimuth_deg=rng.integers(0, 720, count) / 2,
        kappa=kappa,
        azimuth_floor=rng.choice([0, 0.01, 0.15], count),
        time_s=np.cumsum(rng.choice([0.05, 0.1, 0.5, 2], count)),
        car_probability=rng.choice([0.02, 0.6, 0.99], count, p=[0.2, 0.2, 0.6]),
        sharpness=rng.choice([5.0, 200, 250, 300, 400], count),
        frame=np.cumsum(rng.integers(1, 9, count)),
    )


def row_of(table, frame):
    return int(np.flatnonzero(table.frame == frame)[0])


def walk(count=180, blurred=range(0), seed=0):
    """A turn around a car at 12 frames a second, certain and right but where it is blurred."""
    rng = np.random.default_rng(seed)
    t = np.arange(count) / 12
    azimuth = (340 + 360 * t / t[-1] + rng.normal(0, 2, count)) % 360
    sharpness = 0.52 + 0.02 * np.sin(t) + rng.normal(0, 0.005, count)
    probs = rng.dirichlet([1, 1, 1, 12], count)
    blurred = list(blurred)
    sharpness[blurred] = rng.uniform(0.3, 0.4, len(blurred))
    # A blurred frame is wrong and sure of it: the worst case.
    probs[blurred] = [1, 0, 0, 0]
    azimuth[blurred] = (azimuth[blurred] + 180) % 360
    kappa = np.full(count, 300.0)
    kappa[blurred] = 1e5
    return make_table(
        probs={"doors": probs}, azimuth_deg=azimuth, kappa=kappa, sharpness=sharpness, time_s=t
    )


# ---- Sharpness ----


def blurred_series(bursts, count=180, seed=0):
    rng = np.random.default_rng(seed)
    t = np.arange(count) / 12
    # The level drifts with the side that is seen, and every second frame is coded better.
    level = 0.5 + 0.02 * np.sin(2 * np.pi * t / 15) + np.where(np.arange(count) % 2, 0, 0.01)
    values = level * rng.uniform(0.98, 1.02, count)
    spoilt = np.zeros(count, bool)
    for start, length in bursts:
        spoilt[start : start + length] = True
    values[spoilt] *= rng.uniform(0.5, 0.7, spoilt.sum())
    return t, values, spoilt


@pytest.mark.parametrize(
    "bursts",
    [
        [],
        [(18, 4), (69, 4), (105, 3), (140, 4)],
        [(0, 4), (176, 4)],
        [(30, 12)],  # one second
        [(30, 48)],  # four seconds: longer than the neighbourhood
        [(10, 4), (16, 4), (22, 4), (28, 4)],  # two thirds of two seconds
    ],
)
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_bursts_of_blur_are_found_and_nothing_else(bursts, scale):
    t, values, spoilt = blurred_series(bursts)
    np.testing.assert_array_equal(eligibility.sharp_frames(t, scale * values), ~spoilt)


def test_mild_blur_of_a_textured_side_is_found_though_a_plain_side_is_no_sharper():
    t = np.arange(180) / 12
    values = np.linspace(0.44, 0.56, 180)
    values[150:154] *= 0.8
    assert values[150:154].min() < 0.44
    assert np.flatnonzero(~eligibility.sharp_frames(t, values)).tolist() == [150, 151, 152, 153]


@given(seeds, st.floats(0.2, 1))
@quick
def test_blur_is_found_whatever_is_sampled(seed, share):
    t, values, spoilt = blurred_series([(18, 4), (69, 4), (105, 3), (140, 4)], seed=seed)
    kept = np.random.default_rng(seed).random(len(t)) < share
    np.testing.assert_array_equal(eligibility.sharp_frames(t[kept], values[kept]), ~spoilt[kept])


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40), st.sampled_from([2.0**-9, 2.0**9]))
@quick
def test_sharpness_is_relative_and_never_leaves_a_video_without_a_frame(values, scale):
    t, values = np.arange(len(values)) / 8, np.array(values)
    sharp = eligibility.sharp_frames(t, values)
    assert sharp[np.argmax(values)]
    np.testing.assert_array_equal(sharp, eligibility.sharp_frames(t, values * scale))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_spoilt_frames_of_the_sample_are_found(stride):
    sharpness = jax.jit(scoring.sharpness)
    with open(ROOT / "data/prius_walkaround.csv", newline="") as file:
        spoilt = np.array([row["degraded"] == "1" for row in csv.DictReader(file)])
    times, values = [], []
    with av.open(str(ROOT / "data/prius_walkaround.mp4")) as container:
        for i, frame in enumerate(container.decode(video=0)):
            if i % stride == 0:
                grey = frame.to_ndarray(format="gray").astype(np.float32)
                times.append(frame.time)
                values.append(float(sharpness(grey)))
    sharp = eligibility.sharp_frames(np.array(times), np.array(values))
    np.testing.assert_array_equal(sharp, ~spoilt[::stride])


def test_eligible_frames_show_a_sharp_car_that_is_not_tiny():
    table = make_table(
        count=40,
        car_probability=np.where(np.arange(40) == 3, 0.02, 0.9),
        sharpness=np.where(np.arange(40) == 5, 10.0, 300.0),
    )
    table.box[7] = [0.5, 0.5, 0.55, 0.55]
    table.box[8] = [0.5, 0.5, 0.5, 0.9]
    table.box[9] = [0.5, 0.5, 0.7, 0.7]  # a ninth of the area: a car further away
    table.sharpness[11] = np.nan
    table.box[12, 0] = np.nan
    table.car_probability[13] = np.nan
    unfit = np.flatnonzero(~eligibility.eligible_frames(table))
    assert unfit.tolist() == [3, 5, 7, 8, 11, 12, 13]
    assert 3 not in np.flatnonzero(~eligibility.eligible_frames(table, min_car_probability=0.05))


def test_a_sharp_empty_frame_does_not_make_the_car_look_blurred():
    has_car = np.arange(60) >= 40
    table = make_table(
        count=60,
        car_probability=np.where(has_car, 0.9, 0.0),
        sharpness=np.where(has_car, 50.0, 2000.0),
    )
    np.testing.assert_array_equal(eligibility.eligible_frames(table), has_car)


# ---- Attributes ----


def reference_attribute(table, policy, wanted):
    """The rule in plain Python."""
    classes = DOORS.classes
    if policy == "consensus":
        rows = [i for i, ok in enumerate(eligibility.eligible_frames(table)) if ok]
    else:
        rows = [i for i in range(len(table)) if table.car_probability[i] >= 0.15 / 4]
    t = [float(x) for x in table.time_s]
    probs = table.probs["doors"].tolist()
    label = {i: probs[i].index(max(probs[i])) for i in rows}
    mean = []
    for k in range(len(classes)):
        total = weight = 0.0
        for i in rows:
            before = t[i] - t[i - 1] if i else 0
            after = t[i + 1] - t[i] if i + 1 < len(t) else 0
            w = (before + after) / 2 if len(t) > 1 else 1.0
            total += w * math.log(max(probs[i][k], 1e-4))
            weight += w
        mean.append(total / weight)
    pooled = [math.exp(m) / sum(map(math.exp, mean)) for m in mean]
    best = pooled.index(max(pooled))
    if policy == "consensus":
        rows = [i for i in rows if label[i] == best]
    rows.sort(key=lambda i: (table.entropy["doors"][i], i))
    gap = max(1, 0.05 * (t[-1] - t[0]))
    taken = []
    for i in rows:
        if len(taken) < 1 + wanted and all(abs(t[i] - t[j]) >= gap - 1e-6 for j in taken):
            taken.append(i)
    return taken, label, pooled


@given(seeds, st.sampled_from(selection.POLICIES), st.integers(0, 4))
@settings(max_examples=200, deadline=None)
def test_attributes_follow_the_rule(seed, policy, wanted):
    table = random_table(seed)
    assume(eligibility.car_frames(table).any())
    choice = select_photos(
        table, attributes=["doors"], policy=policy, alternatives=wanted
    ).attributes["doors"]
    taken, label, pooled = reference_attribute(table, policy, wanted)
    if not taken:
        assert choice.value is None
        assert choice.frame is None
        assert "no sharp frame" in choice.reason
        return
    top = sorted(pooled)[-2:]
    assume(policy == "entropy" or top[1] - top[0] > 1e-9)  # rounding decides a draw
    assert choice.reason is None
    for i, got in zip(taken, [choice, *choice.alternatives], strict=True):
        assert got.frame == table.frame[i]
        assert got.time_s == table.time_s[i]
        assert got.value == DOORS.classes[label[i]]
        assert got.probability == table.probs["doors"][i, label[i]]
        assert got.entropy == table.entropy["doors"][i]
        assert got.certainty == pytest.approx(1 - got.entropy / math.log(4), abs=1e-6)
        assert 0 <= got.certainty <= 1
    assert choice.video_probability == pytest.approx(pooled[label[taken[0]]], abs=1e-9)


@given(seeds, st.permutations(range(4)))
@quick
def test_the_order_of_classes_does_not_matter(seed, order):
    table = random_table(seed, ties=False)
    assume(eligibility.car_frames(table).any())
    permuted = dataclasses.replace(
        table,
        schema=(Categorical("doors", tuple(DOORS.classes[k] for k in order)),),
        probs={"doors": table.probs["doors"][:, list(order)]},
    )
    for policy in selection.POLICIES:
        a = select_photos(table, attributes=["doors"], policy=policy).attributes["doors"]
        b = select_photos(permuted, attributes=["doors"], policy=policy).attributes["doors"]
        if a.value is None:
            assert b == a
            continue
        assert b.video_probability == pytest.approx(a.video_probability)
        assert dataclasses.replace(b, video_probability=a.video_probability) == a


def test_consensus_resists_a_certain_outlier():
    probs = np.tile([0.02, 0.03, 0.15, 0.8], (50, 1))
    probs[20] = [1, 0, 0, 0]
    probs[30] = [0.01, 0.01, 0.03, 0.95]
    table = make_table(probs={"doors": probs})
    consensus = select_photos(table, attributes=["doors"]).attributes["doors"]
    assert (consensus.value, consensus.frame) == ("5", 30)
    plain = select_photos(table, attributes=["doors"], policy="entropy").attributes["doors"]
    assert (plain.value, plain.frame) == ("2", 20)
    assert plain.video_probability < 0.05


def test_time_counts_and_not_the_number_of_frames():
    # The camera rests for one second at 60 frames a second, then walks for ten at 4.
    t = np.concatenate([np.arange(60) / 60, 1 + np.arange(40) / 4])
    probs = np.where(t[:, None] < 1, [0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7])
    table = make_table(probs={"doors": probs}, time_s=t)
    assert select_photos(table, attributes=["doors"]).attributes["doors"].value == "5"


@given(seeds, st.integers(2, 4))
@quick
def test_repeating_every_frame_changes_nothing(seed, times):
    rng = np.random.default_rng(seed)
    count = 60
    probs = rng.dirichlet([1, 1, 1, 2], count)
    table = make_table(
        schema=(DOORS,), probs={"doors": probs}, time_s=np.arange(count) / 2, frame=np.arange(count)
    )
    again = make_table(
        schema=(DOORS,),
        probs={"doors": probs.repeat(times, axis=0)},
        time_s=np.arange(count * times) / (2 * times),
        frame=np.arange(count).repeat(times),
    )
    a, b = (select_photos(x, alternatives=0).attributes["doors"] for x in (table, again))
    # The first and the last frame weigh a little more when they are repeated.
    assert a.video_probability == pytest.approx(b.video_probability, abs=0.03)
    if a.value == b.value:
        assert a.frame == b.frame
    else:
        assert a.video_probability < 0.5


def test_no_agreement_is_said_and_not_hidden():
    probs = [[0.55, 0.45, 0, 0], [0, 0.45, 0.55, 0]] * 3
    choice = select_photos(make_table(probs={"doors": probs}), attributes=["doors"])
    assert choice.attributes["doors"] == selection.AttributeChoice(
        None, reason="no sharp frame agrees with the video as a whole, which says '3'"
    )


def test_reasons():
    table = make_table(count=5, sharpness=np.full(5, np.nan))
    choice = select_photos(table, attributes=["doors"]).attributes["doors"]
    assert choice.reason == "no sharp frame shows a car"
    assert select_photos(table, attributes=["doors"], policy="entropy").attributes["doors"].value
    table = make_table(probs={"doors": np.full((5, 4), np.nan)})
    for policy, reason in {
        "consensus": "no sharp frame has a valid score",
        "entropy": "no frame has a valid score",
    }.items():
        choice = select_photos(table, attributes=["doors"], policy=policy).attributes["doors"]
        assert choice == selection.AttributeChoice(None, reason=reason)


def doors_table(novelty):
    probs = {"doors": np.array([[0.1, 0.6, 0.2, 0.1], [0.1, 0.8, 0.05, 0.05]])}
    table = make_table(probs=probs)
    return dataclasses.replace(table, novelty={"doors": np.asarray(novelty, np.float32)})


@pytest.mark.parametrize("policy", selection.POLICIES)
def test_an_unknown_class_has_no_value_and_still_its_best_frame(policy):
    table = doors_table([0.9, 0.7])
    known = select_photos(table, policy=policy, unknown_above={"doors": 0.81}).attributes["doors"]
    assert known == select_photos(table, policy=policy).attributes["doors"]
    assert (known.value, known.frame, known.reason) == ("3", 1, None)
    found = select_photos(table, policy=policy, unknown_above={"doors": 0.79})
    unknown = found.attributes["doors"]
    assert unknown == dataclasses.replace(known, value=None, nearest="3", reason="unknown doors")
    assert selection.chosen_frames(found)["doors"] == 1
    content = selection.to_json(found, video=VIDEO, model=MODEL)
    jsonschema.validate(content, selection.schema())
    written = content["attributes"]["doors"]
    assert (written["value"], written["reason"]) == (None, "unknown doors")
    assert (written["frame"], written["photo"]) == (1, "photos/doors.jpg")


def test_novelty_counts_by_time():
    table = dataclasses.replace(doors_table([0.9, 0.7]), time_s=np.array([0.0, 1.0]))
    three = dataclasses.replace(
        make_table(probs={"doors": np.tile(table.probs["doors"][1], (3, 1))}),
        novelty={"doors": np.array([0.9, 0.9, 0.1], np.float32)},
        time_s=np.array([0.0, 0.1, 8.0]),
    )
    limit = {"doors": 0.6}
    assert select_photos(three, unknown_above=limit).attributes["doors"].value == "3"
    assert select_photos(table, unknown_above=limit).attributes["doors"].value is None


def test_without_novelty_every_class_is_known():
    table = make_table(probs={"doors": np.array([[0.1, 0.6, 0.2, 0.1]])})
    assert select_photos(table, unknown_above={"doors": 0.0}).attributes["doors"].value == "3"


def test_one_class_is_certain():
    table = make_table(schema=(Categorical("kind", ("car",)),), count=3)
    choice = select_photos(table).attributes["kind"]
    assert (choice.value, choice.certainty, choice.video_probability) == ("car", 1.0, 1.0)


def test_alternatives_are_distinct_in_time():
    table = walk()
    short = select_photos(table, attributes=["doors"], alternatives=5).attributes["doors"]
    long = select_photos(table, attributes=["doors"], alternatives=5, duration_s=60.0).attributes[
        "doors"
    ]
    for choice, gap in ((short, 1.0), (long, 3.0)):
        times = sorted([choice.time_s, *(a.time_s for a in choice.alternatives)])
        assert min(np.diff(times)) >= gap - 1e-6
        entropies = [choice.entropy, *(a.entropy for a in choice.alternatives)]
        assert entropies == sorted(entropies)
    assert len(short.alternatives) == 5
    assert len(long.alternatives) < 5  # fifteen seconds hold at most five frames so far apart
    assert short.frame == long.frame


# ---- Views ----


def reference_views(table, view_policy, threshold):
    """The rule in plain Python; None where a tie of floats decides."""
    eligible = eligibility.eligible_frames(table)
    chosen = {}
    for view, name in enumerate(VIEWS):
        rows = []
        for i in range(len(table)):
            mass = table.view_probs[i].tolist()
            if eligible[i] and mass.index(max(mass)) == view and mass[view] > threshold:
                away = abs(float(table.azimuth_deg[i]) - 45 * view)
                rows.append((i, mass[view], min(away, 360 - away)))
        if view_policy == "best" and rows:
            rows = [r for r in rows if r[1] >= max(r[1] for r in rows) - 0.01]
            rows = [r for r in rows if r[2] <= min(r[2] for r in rows) + 2]
            rows.sort(key=lambda r: (-table.sharpness[r[0]], r[0]))
        chosen[name] = rows[0][0] if rows else None
    return chosen


@given(seeds, st.sampled_from(selection.VIEW_POLICIES), st.sampled_from([0.0, 0.5, 0.8, 0.99]))
@settings(max_examples=60, deadline=None)
def test_views_follow_the_rule(seed, view_policy, threshold):
    table = random_table(seed, count=60)
    got = select_photos(
        table, attributes=["orientation"], view_policy=view_policy, view_threshold=threshold
    ).orientation
    expected = reference_views(table, view_policy, threshold)
    assert list(got.views) == list(VIEWS)
    filled = {}
    for name, row in expected.items():
        if row is None:
            assert got.views[name] is None
            continue
        filled[name] = view = got.views[name]
        assert view.frame == table.frame[row]
        assert view.time_s == table.time_s[row]
        assert view.probability == table.view_probs[row].max() > threshold
        assert view.azimuth_deg == table.azimuth_deg[row]
        assert view.kappa == table.kappa[row]
    assert set(got.missing) | set(filled) == set(VIEWS)
    assert not set(got.missing) & set(filled)
    azimuths = [table.azimuth_deg[row_of(table, frame)] for frame in got.order]
    assert azimuths == sorted(azimuths)
    assert sorted(got.order) == sorted(view.frame for view in filled.values())


@given(seeds)
@quick
def test_first_is_never_later_and_hardly_better_than_best(seed):
    table = random_table(seed, count=60)
    first, best = (
        select_photos(table, attributes=["orientation"], view_policy=p).orientation.views
        for p in ("first", "best")
    )
    for name in VIEWS:
        assert (first[name] is None) == (best[name] is None)
        if first[name] is not None:
            assert first[name].frame <= best[name].frame
            assert first[name].probability <= best[name].probability + views.MASS_TOLERANCE


@given(seeds, st.integers(0, 7), st.sampled_from(selection.VIEW_POLICIES))
@quick
def test_turning_the_car_turns_the_views(seed, turn, view_policy):
    table = random_table(seed, count=60)
    turned = dataclasses.replace(
        table,
        azimuth_deg=(table.azimuth_deg + 45 * turn) % 360,
        view_probs=np.roll(table.view_probs, turn, axis=1),
    )
    a, b = (
        select_photos(x, attributes=["orientation"], view_policy=view_policy).orientation
        for x in (table, turned)
    )
    for i, name in enumerate(VIEWS):
        there = b.views[VIEWS[(i + turn) % 8]]
        assert (a.views[name] and a.views[name].frame) == (there and there.frame)
    np.testing.assert_allclose(np.roll(a.coverage, 45 * turn), b.coverage, atol=2e-4, rtol=2e-3)


@given(seeds)
@quick
def test_a_higher_threshold_fills_no_more_views(seed):
    table = random_table(seed, count=60)
    missing = [
        set(select_photos(table, attributes=["orientation"], view_threshold=t).orientation.missing)
        for t in (0.0, 0.3, 0.6, 0.9, 0.999)
    ]
    for lower, higher in itertools.pairwise(missing):
        assert lower <= higher


def test_best_prefers_the_centre_then_sharpness_then_the_earliest():
    # All have practically all their mass in the front bin.
    table = make_table(
        azimuth_deg=[10, 358.5, 1, 0, 0.5, 20],
        kappa=1e4,
        sharpness=np.array([900, 310, 320, 300, 320, 950.0]),
    )
    assert table.view_probs[:, 0].min() > 0.9999
    best = select_photos(table, attributes=["orientation"]).orientation
    assert best.views["front"].frame == 2
    first = select_photos(table, attributes=["orientation"], view_policy="first").orientation
    assert first.views["front"].frame == 0
    assert best.order == (2,)
    assert best.missing == VIEWS[1:]


def test_more_mass_beats_the_centre():
    table = make_table(azimuth_deg=[90, 97], kappa=[20, 500])
    assert table.view_probs[0, 2] < table.view_probs[1, 2] - 0.01
    assert select_photos(table, view_threshold=0.5).orientation.views["left"].frame == 1


def test_four_views():
    azimuth = np.arange(0, 360, 10.0)
    table = make_table(azimuth_deg=azimuth, kappa=100.0, azimuth_floor=0.02)
    got = select_photos(table, attributes=["orientation"], views=4).orientation
    assert list(got.views) == ["front", "left", "rear", "right"]
    assert [view.frame for view in got.views.values()] == [0, 9, 18, 27]
    masses = bin_masses(azimuth, np.full(36, 100.0), np.full(36, 0.02), views=4)
    for i, view in enumerate(got.views.values()):
        assert view.probability == pytest.approx(masses[view.frame, i], abs=1e-5)
    # 45 degrees off is on the border of a bin of 90: half of the mass at most.
    table = make_table(azimuth_deg=[45.0, 135.0], kappa=100.0)
    assert len(select_photos(table, views=4).orientation.missing) == 4
    assert len(select_photos(table, views=8).orientation.missing) == 6


# ---- Coverage ----


def test_coverage_is_the_time_weighted_mean_density():
    azimuth, kappa, floor = np.array([0, 100, 350.0]), np.array([5, 50, 200.0]), [0, 0.1, 0.3]
    table = make_table(
        azimuth_deg=azimuth, kappa=kappa, azimuth_floor=floor, time_s=np.array([0, 1, 4.0])
    )
    got = select_photos(table).orientation.coverage
    # Each number is the mean density of its degree: the mass of a bin over its width.
    density = bin_masses(azimuth, kappa, floor, views=360) / np.radians(1)
    expected = np.array([0.5, 2, 1.5]) / 4 @ density
    np.testing.assert_allclose(got, expected, atol=1e-4)
    assert got.dtype == np.float64


@given(seeds)
@quick
def test_coverage_is_a_density(seed):
    table = random_table(seed, count=60)
    coverage = select_photos(table, attributes=["orientation"]).orientation.coverage
    assert coverage.shape == (360,)
    assert coverage.min() >= 0
    assert coverage.mean() == pytest.approx(1 / (2 * np.pi), rel=1e-4)


def test_coverage_leaves_out_frames_without_a_car():
    table = make_table(azimuth_deg=[90, 270, 90], car_probability=np.array([0.9, 0.02, 0.9]))
    coverage = select_photos(table).orientation.coverage
    assert np.argmax(coverage) == 90
    assert coverage[270] < 1e-4


def test_coverage_of_unknown_directions_is_uniform():
    table = make_table(azimuth_deg=np.full(3, np.nan))
    got = select_photos(table).orientation
    assert got.missing == VIEWS
    np.testing.assert_allclose(got.coverage, 1 / (2 * np.pi))


# ---- All together ----


@pytest.mark.parametrize("view_policy", selection.VIEW_POLICIES)
def test_a_walk_with_bursts_of_blur(view_policy):
    spoilt = {*range(18, 22), *range(69, 73), *range(105, 108), *range(140, 144)}
    table = walk(blurred=spoilt)
    got = select_photos(table, view_policy=view_policy)
    assert got.attributes["doors"].value == "5"
    assert not got.orientation.missing
    assert not spoilt & set(selection.chosen_frames(got).values())
    assert not spoilt & {a.frame for a in got.attributes["doors"].alternatives}
    true = np.radians(340 + 360 * np.arange(180) / 179)
    for i, view in enumerate(got.orientation.views.values()):
        error = np.angle(np.exp(1j * (true[view.frame] - np.radians(45 * i))), deg=True)
        assert abs(error) < (8 if view_policy == "best" else 22.5)


@given(seeds)
@quick
def test_what_is_chosen_is_eligible_and_finite(seed):
    rng = np.random.default_rng(seed)
    table = random_table(seed, count=60)
    bad = [np.nan, np.inf, -np.inf]
    for values in (
        table.probs["doors"],
        table.entropy["doors"],
        table.azimuth_deg,
        table.kappa,
        table.azimuth_floor,
        table.view_probs,
        table.car_probability,
        table.box,
        table.sharpness,
    ):
        hit = rng.random(values.shape) < 0.05
        values[hit] = rng.choice(bad, hit.sum())
    for policy in selection.POLICIES:
        got = select_photos(table, policy=policy)
        json.dumps(selection.to_json(got, video=VIDEO, model=MODEL), allow_nan=False)
        eligible = set(table.frame[eligibility.eligible_frames(table)])
        assert set(got.orientation.order) <= eligible
        doors = got.attributes["doors"]
        for choice in [doors, *doors.alternatives] if doors.value else []:
            row = row_of(table, choice.frame)
            assert policy == "entropy" or choice.frame in eligible
            assert 0.15 / 4 <= table.car_probability[row] <= 1
            assert np.isfinite(table.probs["doors"][row]).all()


def test_one_frame():
    table = make_table(
        CAR, probs={"doors": [[0.1, 0.1, 0.1, 0.7]]}, azimuth_deg=[181.0], frame=np.array([17])
    )
    got = select_photos(table)
    assert list(got.attributes) == ["type", "brand", "doors", "seats"]
    assert got.attributes["doors"].frame == 17
    assert got.attributes["doors"].video_probability == pytest.approx(0.7)
    assert got.attributes["doors"].alternatives == ()
    assert got.orientation.order == (17,)
    assert np.argmax(got.orientation.coverage) == 181


def test_no_car():
    with pytest.raises(NoCarError) as error:
        select_photos(make_table(count=9, car_probability=np.full(9, 0.12)))
    assert str(error.value) == (
        "no car found in 9 frames (highest car probability 0.12, needed 0.15); "
        "film the whole car from nearer or in better light"
    )
    for empty in (make_table(count=0), make_table(count=2, car_probability=np.full(2, np.nan))):
        with pytest.raises(NoCarError, match="no frame with a valid score"):
            select_photos(empty)
    assert (
        select_photos(
            make_table(count=9, car_probability=np.full(9, 0.12)),
            attributes=["doors"],
            min_car_probability=0.1,
        )
        .attributes["doors"]
        .value
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "best"}, "policy is 'best'; it must be one of: consensus, entropy"),
        ({"view_policy": "entropy"}, "view_policy is 'entropy'; it must be one of: best, first"),
        ({"views": 6}, "views is 6; it must be one of: 8, 4"),
        ({"view_threshold": 1.0}, "view_threshold is 1.0; it must be at least 0 and below 1"),
        ({"view_threshold": math.nan}, "view_threshold is nan"),
        ({"alternatives": -1}, "alternatives is -1; it must be at least 0"),
        ({"attributes": ["colour"]}, "no attribute 'colour'; this model has: doors, orientation"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(UsageError) as error:
        select_photos(make_table(count=3), **options)
    assert message in str(error.value)


def test_only_what_is_asked_for():
    table = make_table(CAR, count=3)
    got = select_photos(table, attributes=["seats", "type", "seats"])
    assert list(got.attributes) == ["type", "seats"]
    assert got.orientation is None
    got = select_photos(table, attributes=["orientation"])
    assert got.attributes == {}
    assert got.orientation is not None


def test_importing_selection_does_not_import_jax():
    code = "import sys, carjax.selection; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# ---- JSON ----


def validate(content):
    jsonschema.Draft202012Validator(selection.schema()).validate(content)


def test_the_schema_is_valid_closed_and_described():
    jsonschema.Draft202012Validator.check_schema(selection.schema())

    def visit(node, path):
        if isinstance(node, list):
            for i, item in enumerate(node):
                visit(item, (*path, i))
        if not isinstance(node, dict):
            return
        if "properties" in node and path[-1:] != ("properties",):
            assert node["additionalProperties"] is False, path
            for name, field in node["properties"].items():
                assert "description" in field or "$ref" in field or "anyOf" in field, (path, name)
        for key, item in node.items():
            visit(item, (*path, key))

    visit(selection.schema(), ())


@pytest.mark.parametrize("views", [8, 4])
def test_json_is_the_contract(views):
    got = select_photos(walk(), views=views)
    content = selection.to_json(
        got, video=VIDEO, model=MODEL, photos={"view_rear": "photos/behind.jpg"}
    )
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    validate(content)
    assert list(content) == ["schema_version", "video", "attributes", "orientation", "model"]
    assert content["video"]["scored_frames"] == 180
    doors = content["attributes"]["doors"]
    assert list(doors) == [
        *("value", "probability", "entropy", "certainty", "frame", "time_s"),
        *("video_probability", "alternatives", "content", "photo"),
    ]
    assert doors["photo"] == "photos/doors.jpg"
    assert len(doors["alternatives"]) == 3
    assert list(doors["alternatives"][0]) == [
        *("frame", "time_s", "value", "probability", "entropy", "certainty"),
    ]
    orientation = content["orientation"]
    assert list(orientation) == ["views", "missing", "order", "coverage"]
    assert list(orientation["views"]) == list(selection.view_names(views))
    front = orientation["views"]["front"]
    names = ["azimuth_deg", "kappa", "probability", "frame", "time_s", "content", "photo"]
    assert list(front) == names
    assert front["photo"] == "photos/view_front.jpg"
    assert orientation["views"]["rear"]["photo"] == "photos/behind.jpg"
    assert np.mean(orientation["coverage"]) == pytest.approx(1 / (2 * np.pi), rel=1e-4)
    assert selection.chosen_frames(got) == {
        "doors": doors["frame"],
        **{f"view_{name}": view["frame"] for name, view in orientation["views"].items()},
    }


def test_json_of_what_is_missing_or_not_asked_for():
    table = make_table(count=5, sharpness=np.full(5, np.nan))
    content = selection.to_json(select_photos(table), video=VIDEO, model=MODEL)
    validate(content)
    assert content["attributes"]["doors"] == {
        "value": None,
        "reason": "no sharp frame shows a car",
    }
    assert set(content["orientation"]["views"].values()) == {None}
    assert content["orientation"]["missing"] == list(VIEWS)
    assert content["orientation"]["order"] == []

    asked = selection.to_json(select_photos(table, attributes=["doors"]), video=VIDEO, model=MODEL)
    validate(asked)
    assert "orientation" not in asked
    none = select_photos(make_table(count=5), attributes=["orientation"])
    content = selection.to_json(none, video=VIDEO, model=MODEL)
    validate(content)
    assert content["attributes"] == {}


def test_the_schema_refuses_what_is_not_the_contract():
    good = selection.to_json(select_photos(walk()), video=VIDEO, model=MODEL)

    def broken(change):
        content = json.loads(json.dumps(good))
        change(content)
        return content

    for change in (
        lambda c: c.update(extra=1),
        lambda c: c.pop("model"),
        lambda c: c["video"].pop("width"),
        lambda c: c["attributes"]["doors"].update(reason="none"),
        lambda c: c["attributes"]["doors"].update(probability=1.5),
        lambda c: c["attributes"]["doors"].update(value=None),
        lambda c: c["attributes"]["doors"]["alternatives"][0].pop("value"),
        lambda c: c["orientation"]["views"].pop("front"),
        lambda c: c["orientation"]["views"]["front"].update(alternatives=[]),
        lambda c: c["orientation"]["coverage"].pop(),
        lambda c: c["orientation"].update(missing=["top"]),
    ):
        with pytest.raises(jsonschema.ValidationError):
            validate(broken(change))


def test_json_holds_no_number_that_json_lacks():
    got = select_photos(make_table(count=3), attributes=["doors"])
    with pytest.raises(ValueError, match="nan"):
        selection.to_json(got, video=VIDEO | {"duration_s": math.nan}, model=MODEL)


def test_of_frames_at_one_time_each_may_be_the_only_one_with_the_car():
    table = dataclasses.replace(
        walk(4),
        time_s=np.array([0.0, 0.0, 0.0, 1.0]),
        car_probability=np.array([0.0, 0.9, 0.0, 0.0], np.float32),
    )
    chosen = selection.select_photos(table)
    assert {choice.frame for choice in chosen.attributes.values()} == {1}


def test_coverage_counts_frames_that_are_too_blurred_for_a_photo():
    azimuth = np.repeat([90.0, 270.0], 20)
    table = make_table(azimuth_deg=azimuth, sharpness=np.where(azimuth > 100, 30.0, 300.0))
    coverage = select_photos(table).orientation.coverage
    assert coverage[270] == pytest.approx(coverage[90], rel=0.1)


def test_the_consensus_weighs_frames_by_their_time():
    probs = np.array([[0.6, 0.4, 0, 0], [0.6, 0.4, 0, 0], [0.2, 0.8, 0, 0]])
    table = make_table(probs={"doors": probs}, time_s=np.array([0.0, 0.01, 5.0]))
    repetition = consensus.Repetition(shared=1.0)
    choice = select_photos(table, repetition={"doors": repetition}).attributes["doors"]
    weights = eligibility.time_weights(table.time_s)
    want = consensus.pool(table.probs["doors"], table.time_s, weights, repetition)
    assert choice.video_probability == pytest.approx(want.max(), rel=1e-5)
    alike = consensus.pool(table.probs["doors"], table.time_s, np.ones(3), repetition)
    assert alike.max() != pytest.approx(want.max(), rel=1e-2)
