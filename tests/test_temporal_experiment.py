"""The experiment about time: its figures on footage whose answers are known."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from carjax import calibration, circular
from carjax.attributes import Angular
from carjax.calibration import DirectionCalibration
from carjax.cli import experiment as command
from carjax.errors import CarjaxError, UsageError
from carjax.experiment import cast, methods, temporal, temporal_page, temporal_run
from carjax.experiment.page import rounded
from carjax.experiment.temporal import WALK, Estimate, Footage
from carjax.features import Features
from carjax.heads import HeadSpec
from carjax.temporal import walks
from carjax.temporal.consensus import Repetition
from carjax.temporal.motion import Motion
from carjax.temporal.sequence_heads import Frames, SequenceHead, SequenceSpec
from carjax.temporal.sequence_model import SequenceModel

pytestmark = pytest.mark.usefixtures("quick_compilation")


def footage(azimuth_deg, seen_deg, *, source="a", kappa=80.0, spoilt=None, probs=None, label=0):
    n = len(azimuth_deg)
    mu = jnp.radians(jnp.asarray(seen_deg, jnp.float32))
    density = circular.from_single(mu, jnp.full(n, kappa), jnp.full(n, 0.02))
    return Footage(
        kind=WALK,
        source=source,
        time_s=np.arange(n) / 8,
        azimuth_deg=np.asarray(azimuth_deg, float),
        offset_deg=np.zeros(n),
        spoilt=np.zeros(n, bool) if spoilt is None else np.asarray(spoilt),
        speaks=np.ones(n, bool),
        density=jax.tree.map(np.asarray, density),
        probs={"doors": np.tile([0.7, 0.3], (n, 1)) if probs is None else probs},
        labels={"doors": label},
        features=Features(np.zeros((n, 4), np.float16), np.zeros((n, 2, 2, 3), np.float16)),
    )


def once_around(seed=0, flips=0.2):
    rng = np.random.default_rng(seed)
    truth = np.linspace(0, 360, 160, endpoint=False)
    seen = truth + rng.normal(0, 5, 160) + 180 * (rng.random(160) < flips)
    return footage(truth, seen, source=str(seed))


def test_errors_flips_and_likelihood_are_those_of_the_frames():
    own = footage([0.0, 90.0, 180.0, 270.0], [2.0, 86.0, 0.0, 270.0])
    figures = temporal.azimuth_figures([own], [methods.single(own)], samples=5)
    assert figures["frames"] == 4
    assert figures["mederr_deg"] == pytest.approx(3.0, abs=0.01)
    assert figures["flip_rate"] == 0.25
    truth = jnp.radians(jnp.asarray(own.azimuth_deg, jnp.float32))
    expected = float(circular.log_prob(own.density, truth).mean())
    assert figures["loglik"] == pytest.approx(expected, abs=1e-5)
    # The flipped frame is the surer one of the two that say front.
    assert (figures["views_right"], figures["views_wrong"]) == (2, 1)


def test_a_view_gets_its_surest_sound_frame_and_is_wrong_where_that_shows_another():
    own = footage([0.0, 90.0, 90.0], [0.0, 0.0, 90.0], spoilt=[False, False, True])
    assert temporal.views_filled(own, methods.single(own)) == (1, 0)  # the spoilt one is left out
    turned = footage([180.0], [0.0])
    assert temporal.views_filled(turned, methods.single(turned)) == (0, 1)
    unsure = footage([0.0], [22.0])
    assert temporal.views_filled(unsure, methods.single(unsure)) == (0, 0)


def test_the_filter_halves_errors_and_flips_of_simulated_frames_and_gains_half_a_nat():
    walks = [once_around(seed) for seed in range(3)]
    ways = methods.standard(Motion())
    figures = {
        name: temporal.azimuth_figures(walks, [way(w) for w in walks], samples=20)
        for name, way in ways.items()
    }
    gained = temporal_run.gains(figures)["filter"]
    assert gained["mederr_ratio"] < 0.5
    assert gained["flip_ratio"] < 0.5
    assert gained["loglik_gain"] > 0.5
    assert figures["filter"]["views_right"] == 8
    path = figures["most probable path"]
    assert path["loglik"] is None
    assert path["mederr_deg"] < figures["single frames"]["mederr_deg"]


def test_the_interval_of_the_median_draws_whole_sources():
    rng = np.random.default_rng(0)
    values = np.concatenate([np.full(40, 1.0), np.full(40, 5.0), rng.normal(3, 0.1, 40)])
    groups = np.repeat(["a", "b", "c"], 40)
    low, high = temporal._median_interval(values, groups, 400)
    assert low == 1.0
    assert high == 5.0


def test_a_class_is_told_by_frames_and_by_whole_videos():
    right, wrong = np.tile([0.8, 0.2], (20, 1)), np.tile([0.4, 0.6], (20, 1))
    own = [
        footage(np.zeros(20), np.zeros(20), source="a", probs=right),
        footage(np.zeros(20), np.zeros(20), source="b", probs=wrong),
    ]
    figures = temporal.class_figures(own, "doors", {"mean": Repetition(1.0, 1.0, 1e-4)})
    assert (figures["frames"]["n"], figures["mean"]["n"]) == (40, 2)
    assert figures["frames"]["accuracy"] == figures["mean"]["accuracy"] == 0.5
    assert figures["mean"]["agreement"] == 1
    expected = -(np.log(0.8) + np.log(0.4)) / 2
    assert figures["mean"]["nll"] == pytest.approx(expected, abs=1e-3)


def test_steadiness_needs_no_truth():
    estimate = Estimate(np.array([350.0, 0.0, 10.0, 190.0]), np.full(4, np.nan), np.zeros((4, 8)))
    steady = temporal.steadiness(estimate)
    assert steady == {"median_step_deg": 10.0, "jumps": pytest.approx(1 / 3)}


@pytest.fixture(scope="module")
def content():
    walks = [once_around(seed) for seed in range(2)]
    ways = methods.standard(Motion())
    figures = {
        name: temporal.azimuth_figures(walks, [way(w) for w in walks], samples=5)
        for name, way in ways.items()
    }
    shares = dict.fromkeys(("0%", "20%"), figures)
    video = {
        name: {**own, **temporal.steadiness(ways[name](walks[0]))} for name, own in figures.items()
    }
    return rounded(
        {
            "walks": shares,
            "gains": {share: temporal_run.gains(own) for share, own in shares.items()},
            "shared_error": {"mederr_deg": 3.0, "neighbours_mederr_deg": 2.0, "correlation": 0.5},
            "videos": {"sample": video},
            "classes": {"doors": temporal.class_figures(walks, "doors", {"mean": Repetition()})
                        | {"frames": temporal.class_figures(walks, "doors", {})["frames"]}},
            "video_classes": {},
            "cost_ms": {n: 1e3 * s for n, s in methods.timed(ways, walks).items()},
        }
    )  # fmt: skip


def test_a_model_from_outside_the_package_gets_into_the_table(content):
    head = HeadSpec(Angular("orientation"), grid=2, channels=4, hidden=8)
    spec = SequenceSpec("toy", head, module="toy_sequence_model", width=8)
    walks = [once_around(seed) for seed in range(2)]
    rows = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32)[None], walks[0].features)
    frames = Frames(rows, jnp.zeros((1, 160)), jnp.ones((1, 160), bool))
    params = jax.jit(SequenceHead(spec).init)(jax.random.key(0), frames)["params"]
    ways = methods.sequences({"out/toy": SequenceModel(params, spec, {})})
    assert list(ways) == ["toy"]
    figures = {
        n: temporal.azimuth_figures(walks, [w(x) for x in walks], 5) for n, w in ways.items()
    }
    joined = {share: own | figures for share, own in content["walks"].items()}
    costs = content["cost_ms"] | {"toy": 1.0}
    tables = temporal_page.tables(content | {"walks": joined, "cost_ms": costs})
    assert "| 20% | toy |" in tables["walks"]


def test_the_page_gets_its_tables_and_charts(content, tmp_path):
    page = tmp_path / "page.md"
    names = ("walks", "gains", "videos")
    page.write_text("".join(f"<!-- table {n} -->\n<!-- end {n} -->\n" for n in names))
    temporal_page.write(content, tmp_path / "out", page)
    text = page.read_text()
    for name in content["walks"]["20%"]:
        assert f"| 20% | {name} |" in text
    assert "Not measured" not in text
    svg = (tmp_path / "out" / "walks.svg").read_text()
    assert svg.count('class="line"') == 4 + 4 + 3  # a path has no likelihood
    assert json.loads((tmp_path / "out" / "temporal.json").read_text()) == content
    assert "median error" in temporal_page.headline(content)


def test_what_is_missing_is_said_in_one_line(tmp_path):
    with pytest.raises(UsageError, match="one folder of --runs"):
        command.main(["temporal", "--runs=a,b", f"--out={tmp_path / 'o'}"])
    with pytest.raises(CarjaxError, match="no such page"):
        command.main(
            ["temporal", "--runs=a", f"--out={tmp_path / 'o'}", f"--page={tmp_path / 'none.md'}"]
        )
    with pytest.raises(CarjaxError, match=r"orientation-0.*crossval"):
        command.main(["temporal", f"--runs={tmp_path}", f"--out={tmp_path / 'o'}"])
    assert not (tmp_path / "o").exists()


def test_a_head_is_not_measured_on_what_it_was_trained_on():
    def head(models):
        return SimpleNamespace(card={"models": models})

    shown = SimpleNamespace(group=np.array(["a", "a", "b"]))
    temporal_run._check_unseen({"x": head(["c", "d"]), "y": head([])}, shown, 0)
    with pytest.raises(CarjaxError, match=r"y: was trained on 1 of .*such as b: .*config\.fold=0"):
        temporal_run._check_unseen({"x": head(["c"]), "y": head(["b", "c"])}, shown, 0)


def test_the_intervals_of_means_draw_whole_sources():
    truth = np.linspace(0.0, 315.0, 8)
    own = [footage(truth, truth, source="a"), footage(truth, truth + 180, source="b")]
    said = [methods.single(f) for f in own]
    interval = temporal.azimuth_figures(own, said, samples=200)["ci95"]
    assert interval["flip_rate"] == [0.0, 1.0]
    want = sorted(float(e.loglik.mean()) for e in said)
    assert interval["loglik"] == pytest.approx(want)


def test_frames_count_for_the_time_that_they_stand_for():
    probs = np.repeat([[0.2, 0.8], [0.8, 0.2]], [20, 6], axis=0)
    time_s = np.concatenate([np.arange(20) / 100, 0.2 + np.arange(1, 7)])
    own = dataclasses.replace(footage(np.zeros(26), np.zeros(26), probs=probs), time_s=time_s)
    figures = temporal.class_figures([own], "doors", {"mean": Repetition(1.0, 1.0, 1e-4)})
    assert figures["mean"]["accuracy"] == 1.0


def a_cast(azimuth_deg, error_deg, group=None):
    """Photos of one model unless told otherwise; errors of the plain and the mirrored view."""
    n = len(azimuth_deg)
    truth = np.stack([azimuth_deg, -np.asarray(azimuth_deg)] * 2)
    mu = jnp.radians(jnp.asarray(truth + np.concatenate([error_deg] * 2), jnp.float32))
    density = circular.from_single(mu, jnp.full((4, n), 60.0), jnp.full((4, n), 0.02))
    return cast.Cast(
        group=np.full(n, "a") if group is None else group,
        azimuth_deg=np.asarray(azimuth_deg, float),
        features=Features(np.zeros((4, n, 4), np.float16), np.zeros((4, n, 1, 1, 1), np.float16)),
        density=jax.tree.map(np.asarray, density),
        log_probs={},
        labels={},
    )


def test_a_mirrored_view_is_calibrated_on_the_mirrored_azimuth():
    rng = np.random.default_rng(0)
    azimuth = rng.uniform(20, 160, 80)
    fitted = cast.fit_calibrations(a_cast(azimuth, rng.normal(0, 4, (2, 80)))).direction
    # All errors are small: of mirrored truths taken as they are, half would be anywhere.
    stated = calibration.state_direction(circular.from_single(jnp.zeros(1), 60.0), fitted)
    assert float(circular.log_prob(stated, jnp.zeros(1))[0]) > 1.4


def test_neighbours_of_a_photo_are_other_photos():
    rng = np.random.default_rng(1)
    # Near the front a photo is a neighbour of its own mirror image by angle.
    azimuth, error = np.linspace(0.5, 12.0, 12), rng.normal(0, 5, (2, 12))
    got = cast.shared_error(a_cast(azimuth, error))
    truth, flat = np.concatenate([azimuth, -azimuth]), error.ravel()
    own, around = [], []
    for i in range(24):
        near = (np.abs(truth - truth[i]) < 10.0) & (np.arange(24) % 12 != i % 12)
        own.append(flat[i])
        around.append(np.median(flat[near]))
    assert got["mederr_deg"] == pytest.approx(np.median(np.abs(own)), abs=1e-3)
    assert got["neighbours_mederr_deg"] == pytest.approx(np.median(np.abs(around)), abs=1e-3)
    assert got["correlation"] == pytest.approx(np.corrcoef(own, around)[0, 1], abs=1e-3)


def test_every_walk_around_a_model_is_another_one():
    azimuth = np.arange(0.0, 360.0, 5.0)
    shown = a_cast(azimuth, np.zeros((2, len(azimuth))))
    neutral = cast.Calibrations({}, DirectionCalibration())
    first, second = cast.footage(shown, walks.WalkSpec(frames=20), 2, 0, neutral)
    assert not np.array_equal(first.time_s[:5], second.time_s[:5])
    for own in (first, second):
        error = np.degrees(np.asarray(own.density.mu)[:, 0]) - own.azimuth_deg
        apart = np.abs((error + 180) % 360 - 180)
        np.testing.assert_allclose(apart, own.offset_deg, atol=1e-3)
