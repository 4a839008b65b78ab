"""The two levels of frozen features that every backbone gives and every head reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import jax
    import numpy as np

# Which features of scored frames are kept: the pooled ones, or the grid as well, averaged to
# KEPT_CELLS × KEPT_CELLS: heads with 1, 2, 4 or 8 cells can be read from it.
Level = Literal["pooled", "grid"]
KEPT_CELLS = 8


class Features(NamedTuple):
    """What a backbone sees in a batch of images; a pytree, on a device or on the host.

    Attributes:
        pooled: float [B, C]; the globally averaged top features.
        grid: float [B, g, g, Cm]; the output of the last stride-16 block, before pooling.
    """

    pooled: jax.Array | np.ndarray
    grid: jax.Array | np.ndarray
