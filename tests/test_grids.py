"""Densities on a grid, against the analytic densities of `circular`."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carjax import circular, grids

angles = st.floats(-1000, 1000)


@given(a=angles, b=angles)
def test_a_difference_of_angles_is_the_shorter_way_from_one_to_the_other(a, b):
    way = grids.difference_deg(a, b)
    assert -180 <= way < 180
    np.testing.assert_allclose(np.exp(1j * np.radians(b + way)), np.exp(1j * np.radians(a)))
    assert grids.apart_deg(a, b) == abs(way)


@pytest.mark.parametrize("bins", [4, 8])
@given(mu=st.floats(-3.2, 3.2), kappa=st.floats(0, 100))
def test_masses_entropy_and_height_are_those_of_the_density(mu, kappa, bins):
    density = circular.from_single(jnp.float32([mu]), jnp.float32([kappa]), jnp.float32([0.05]))
    grid = np.asarray(circular.on_grid(density, 360))
    masses = grids.bin_masses(grid, bins)[0]
    assert masses.sum() == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(masses, circular.view_probs(density, bins)[0], atol=5e-3)
    np.testing.assert_allclose(grids.entropy(grid), circular.entropy(density), atol=5e-3)
    truth = np.array([37.3])
    expected = circular.log_prob(density, np.deg2rad(truth).astype(np.float32))
    np.testing.assert_allclose(grids.log_density(grid, truth), expected, atol=2e-2)


@pytest.mark.parametrize(("cells", "bins"), [(180, 8), (72, 8), (360, 4), (90, 8), (7, 3)])
def test_every_cell_is_dealt_out_whole(cells, bins):
    masses = grids.bin_masses(np.eye(cells) * cells / (2 * np.pi), bins)
    np.testing.assert_allclose(masses.sum(axis=1), 1)
    np.testing.assert_allclose(masses.sum(axis=0), cells / bins)
    assert masses[0, 0] == pytest.approx(1)  # the first cell lies in the middle of the first bin


def test_an_unknown_truth_has_no_height():
    assert np.isnan(grids.log_density(np.full((1, 8), 0.1), [np.nan])).all()


def test_a_finer_grid_keeps_the_mass_and_the_peak():
    rough = np.asarray(circular.on_grid(circular.from_single(jnp.float32([1.0]), 30.0), 72))
    fine = grids.resampled(rough, 360)
    assert fine.sum() * 2 * np.pi / 360 == pytest.approx(1)
    assert abs(int(fine[0].argmax()) - 57) <= 3


def test_nothing_ends_where_the_circle_closes():
    fine = grids.resampled([0.4, 0.1, 0.1, 0.3], 8)
    assert fine[7] / fine[0] == pytest.approx(0.35 / 0.4)
    between = grids.log_density([[1.0, 0.5, 0.5, 0.25]], [315.0])
    assert between[0] == pytest.approx(0.5 * np.log(0.25))
