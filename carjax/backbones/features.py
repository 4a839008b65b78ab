"""The two levels of frozen features that every backbone gives and every head reads."""

from __future__ import annotations

from typing import NamedTuple

import jax


class Features(NamedTuple):
    """What a backbone sees in a batch of images.

    Attributes:
        pooled: float [B, C]; the globally averaged top features.
        grid: float [B, g, g, Cm]; the output of the last stride-16 block, before pooling.
    """

    pooled: jax.Array
    grid: jax.Array
