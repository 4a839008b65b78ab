"""The smoothed score table: what the filter changes of it, and what selection makes of that."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from score_tables import make_table

from carjax import circular, selection
from carjax.attributes import CAR, Angular, Categorical
from carjax.grids import apart_deg
from carjax.selection import smoothing
from carjax.temporal import circular_filter, consensus
from carjax.temporal.consensus import Repetition
from carjax.temporal.motion import Motion

DOORS = Categorical("doors", ("3", "5"))
MOTION = Motion()
RESULTS = pathlib.Path(__file__).parents[1] / "benchmarks" / "results"

pytestmark = pytest.mark.usefixtures("quick_compilation")


def walk(azimuth_deg, kappa=60.0, **columns):
    """Frames of a camera, all fit to be chosen but for what is given."""
    azimuth = np.asarray(azimuth_deg, float) % 360
    n = len(azimuth)
    density = circular.from_single(jnp.radians(azimuth), jnp.full(n, kappa), jnp.full(n, 0.02))
    values = {
        "time_s": np.arange(n) / 8,
        "azimuth_entropy": np.asarray(circular.entropy(density)),
    }
    return make_table(
        (DOORS, Angular("orientation")),
        probs={"doors": np.tile([0.3, 0.7], (n, 1))},
        azimuth_deg=azimuth,
        kappa=kappa,
        azimuth_floor=0.02,
        **(values | columns),
    )


def test_a_video_that_grows_compiles_nothing_for_its_length(caplog):
    def said(count):
        table = walk(np.arange(count))
        caplog.clear()
        with jax.log_compiles():
            found = smoothing.smoothed(table)
        assert len(found.kappa) == count
        assert found.azimuth_density is not None
        return [record for record in caplog.records if "ompil" in record.getMessage()]

    said(65)
    assert said(66) == said(67) == []
    assert said(2100)  # a length that no other test has


@pytest.fixture(scope="module")
def truth():
    return np.linspace(-20, 370, 200)


@pytest.fixture(scope="module")
def flipped(truth):
    """Once around the car, every fifth frame turned by half a circle, the others a little off."""
    rng = np.random.default_rng(0)
    return truth + np.where(np.arange(200) % 5 == 2, 180, 0) + rng.normal(0, 6, 200)


def test_flips_are_gone_and_what_is_left_is_surer(truth, flipped):
    table = walk(flipped)
    smooth = smoothing.smoothed(table, MOTION)
    error = apart_deg(smooth.azimuth_deg, truth)
    assert apart_deg(table.azimuth_deg, truth).max() > 150
    assert error.max() < 15
    assert np.median(error) < 0.6 * np.median(apart_deg(table.azimuth_deg, truth))
    assert (smooth.azimuth_entropy < table.azimuth_entropy).all()
    assert (smooth.kappa > table.kappa).all()
    for name in ("frame", "time_s", "box", "sharpness"):
        np.testing.assert_array_equal(getattr(smooth, name), getattr(table, name))


def test_selection_reads_everything_off_the_smoothed_densities(truth, flipped):
    table = walk(flipped)
    for views in (8, 4):
        chosen = selection.select_photos(smoothing.smoothed(table, MOTION), views=views)
        assert not chosen.orientation.missing
        for name, view in chosen.orientation.views.items():
            centre = 360 / views * selection.view_names(views).index(name)
            assert apart_deg(truth[view.frame], centre) < 180 / views
            assert 0.8 < view.probability <= 1
        assert chosen.orientation.coverage.sum() * 2 * np.pi / 360 == pytest.approx(1)
    # The camera was seldom where every fifth frame alone points.
    half = walk(np.where(np.arange(60) % 5 == 2, 270.0, 90.0))
    alone = selection.select_photos(half).orientation.coverage
    together = selection.select_photos(smoothing.smoothed(half, MOTION)).orientation.coverage
    assert together[240:300].sum() < 0.1 * alone[240:300].sum()


def test_a_frame_without_the_car_says_nothing_and_learns_from_its_neighbours(truth):
    seen = truth.copy()
    seen[90:100] = 0.0  # looks away, and is sure of something
    shown = np.full(200, 0.9, np.float32)
    shown[90:100] = 0.0
    smooth = smoothing.smoothed(walk(seen, car_probability=shown), MOTION)
    assert apart_deg(smooth.azimuth_deg, truth).max() < 12
    broken = walk(seen, car_probability=shown)
    broken.azimuth_deg[95] = np.nan
    np.testing.assert_array_equal(
        smoothing.smoothed(broken, MOTION).azimuth_deg, smooth.azimuth_deg
    )


def test_a_table_without_car_frames_or_directions_stays_as_it_is():
    empty = walk(np.zeros(5), car_probability=np.zeros(5, np.float32))
    assert smoothing.smoothed(empty, MOTION) is empty
    undirected = dataclasses.replace(walk(np.zeros(5)), schema=(DOORS,))
    assert smoothing.smoothed(undirected, MOTION) is undirected


@pytest.mark.parametrize(
    ("azimuth_deg", "fps"),
    [
        (np.arange(36) * 10.0, 12),  # a turntable, 120° in a second
        (np.arange(8) * 45.0, 2),  # stills
        ([3.0], 30),
        ([3.0, 3.5], 30),
    ],
)
def test_frames_that_no_walk_explains_stand_alone(azimuth_deg, fps):
    azimuth = np.asarray(azimuth_deg) % 360
    table = walk(azimuth, 300.0, time_s=np.arange(len(azimuth)) / fps)
    assert smoothing.smoothed(table, MOTION) is table


def test_densities_become_the_fields_that_describe_them():
    table = walk(np.array([10.0, 350.0]), kappa=40.0)
    density = circular.from_single(jnp.radians(jnp.array([33.0, 181.0])), jnp.array([25.0, 90.0]))
    changed = smoothing.with_density(table, np.asarray(circular.on_grid(density, 360)))
    np.testing.assert_allclose(changed.azimuth_deg, [33, 181], atol=0.05)
    np.testing.assert_allclose(changed.kappa, [25, 90], rtol=0.02)
    np.testing.assert_allclose(changed.view_probs, circular.view_probs(density), atol=5e-3)
    np.testing.assert_allclose(changed.azimuth_entropy, circular.entropy(density), atol=5e-3)


def test_an_azimuth_is_below_360_degrees():
    density = np.full((1, 180), 1e-3)
    density[0, 0], density[0, -1] = 28.0, 1e-3 + 1e-7  # the mean is a little below 0
    changed = smoothing.with_density(walk(np.array([10.0])), density)
    assert changed.azimuth_deg.tolist() == [0.0]


def test_frames_that_agree_make_the_video_surer_than_each_of_them():
    table = walk(np.zeros(80))
    alone = selection.select_photos(table).attributes["doors"]
    together = selection.select_photos(
        table, repetition={"doors": Repetition(shared=0.2, time_s=0.5, floor=0.01)}
    ).attributes["doors"]
    assert alone.value == together.value == "5"
    assert alone.video_probability == pytest.approx(0.7)
    assert 0.9 < together.video_probability < 1
    assert (together.frame, together.probability) == (alone.frame, alone.probability)


def test_the_numbers_in_the_code_are_those_that_were_fitted():
    found = json.loads((RESULTS / "temporal_fit.json").read_text())
    assert set(found["repetition"]) == {a.name for a in CAR if isinstance(a, Categorical)}
    for name, fields in found["repetition"].items():
        assert dataclasses.asdict(consensus.FITTED[name]) == pytest.approx(fields, rel=5e-3)
    for name, value in found["motion"].items():
        assert getattr(Motion(), name) == pytest.approx(value, rel=5e-3)


def test_the_table_states_the_concentration_that_the_filter_states():
    found = circular_filter.smooth(circular.from_single(jnp.zeros(6), 8000.0), np.arange(6) / 2)
    table = smoothing.with_density(walk(np.zeros(6)), np.asarray(found.density))
    np.testing.assert_allclose(table.kappa, found.kappa, rtol=0.01)
