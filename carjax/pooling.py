"""Area pooling of feature grids: of a head's input, and of what a cache or a file keeps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from carjax.features import Features

# Images of which kept grids are averaged at once: in float32 they take five times as much then.
_POOLED_AT_ONCE = 1024


def area_weights(size_in: int, size_out: int) -> np.ndarray:
    """Averaging weights float32 [size_out, size_in] of exact area pooling.

    Pooling 17 → 8 → 4 equals 17 → 4, so that cached, already pooled grids serve as well.

    Example:
        >>> area_weights(3, 2).round(2)
        array([[0.67, 0.33, 0.  ],
               [0.  , 0.33, 0.67]], dtype=float32)
    """
    edges = np.linspace(0, size_in, size_out + 1)
    low, high = edges[:-1, None], edges[1:, None]
    cell = np.arange(size_in)
    overlap = np.clip(np.minimum(high, cell + 1) - np.maximum(low, cell), 0, None)
    return (overlap * size_out / size_in).astype(np.float32)


def pool_grid(grid: jax.Array | np.ndarray, size: int) -> jax.Array | np.ndarray:
    """Area-averages a feature grid [B, h, w, C] to [B, size, size, C]; of that size it stays."""
    if grid.shape[1:3] == (size, size):
        return grid
    rows = area_weights(grid.shape[1], size)
    columns = area_weights(grid.shape[2], size)
    # As on CPU on every device: training and scoring pool alike.
    return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, grid, precision=jax.lax.Precision.HIGHEST)


def compact(features: Features, cells: int) -> Features:
    """Returns features as they are kept: float16, the grid area-averaged to cells × cells.

    Args:
        features: of B images.
        cells: 0 keeps the grid as it is.
    """
    grid = pool_grid(features.grid, cells) if cells else features.grid
    return Features(features.pooled.astype(jnp.float16), grid.astype(jnp.float16))


def pool_kept(features: Features, cells: int) -> Features:
    """Returns kept features of B images, float16 on the host, with a smaller grid.

    Args:
        features: as of `compact`.
        cells: the grid is area-averaged to cells × cells; 0 keeps it as it is.
    """
    if not cells or features.grid.shape[1] == cells:
        return features
    steps = range(0, max(len(features.grid), 1), _POOLED_AT_ONCE)
    parts = (jnp.asarray(features.grid[i : i + _POOLED_AT_ONCE], jnp.float32) for i in steps)
    grid = np.concatenate([np.asarray(pool_grid(part, cells), np.float16) for part in parts])
    return features._replace(grid=grid)
