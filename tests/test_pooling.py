"""Area pooling of feature grids, at once, in steps and of kept features."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from carjax import pooling
from carjax.features import Features


@given(st.integers(1, 40), st.integers(1, 20))
def test_area_weights_average(size_in, size_out):
    weights = pooling.area_weights(size_in, size_out)
    assert weights.shape == (size_out, size_in)
    assert (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(weights.sum(0), size_out / size_in, atol=1e-5)


@given(st.integers(1, 30), st.integers(1, 8), st.integers(1, 4))
def test_pooling_in_two_steps_is_pooling_in_one(size_in, size_out, factor):
    two_steps = pooling.area_weights(size_out * factor, size_out) @ pooling.area_weights(
        size_in, size_out * factor
    )
    np.testing.assert_allclose(two_steps, pooling.area_weights(size_in, size_out), atol=1e-5)


def test_pool_grid_is_the_mean_of_blocks():
    grid = np.random.default_rng(0).standard_normal((3, 6, 6, 5)).astype(np.float32)
    got = pooling.pool_grid(jnp.asarray(grid), 2)
    want = grid.reshape(3, 2, 3, 2, 3, 5).mean((2, 4))
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert pooling.pool_grid(grid, 6) is grid


def test_kept_features_are_pooled_as_the_head_pools_them_also_none_of_them():
    rng = np.random.default_rng(0)
    kept = Features(np.zeros((3, 2), "f2"), rng.random((3, 8, 8, 5)).astype("f2"))
    pooled = pooling.pool_kept(kept, 4)
    expected = pooling.pool_grid(jnp.asarray(kept.grid, jnp.float32), 4)
    np.testing.assert_allclose(pooled.grid, expected, atol=1e-3)
    none = pooling.pool_kept(jax.tree.map(lambda x: x[:0], kept), 4)
    assert (none.grid.shape, none.grid.dtype) == ((0, 4, 4, 5), np.float16)
    assert pooling.pool_kept(kept, 0) is kept
