"""What a head says of any number of rows, in batches of one shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from carjax import precision
from carjax.features import Features
from carjax.temporal.sequence_heads import Frames

BATCH = 256


def predict_all(
    predict: Callable[[Any, Any], Any],
    features: Features | Frames,
    params: Any,
    batch: int = BATCH,
) -> Any:
    """Predicts all rows; the last batch is padded, so that one program serves for all.

    Args:
        predict: compiled; (params, float32 features of `batch` rows) → pytree of arrays [batch, …].
        features: as they are kept, in float16, or as they are; n ≥ 1 rows.
        params: of the head.
        batch: rows at once.

    Returns:
        The pytree of arrays [n, …], on the host.
    """
    rows = len(jax.tree.leaves(features)[0])
    parts = []
    for start in range(0, rows, batch):
        index = np.minimum(np.arange(start, start + batch), rows - 1)
        chosen = jax.tree.map(lambda x, i=index: _full(x[i]), features)
        with precision.exact_products():
            parts.append(jax.tree.map(np.asarray, predict(params, chosen)))
    return jax.tree.map(lambda *x: np.concatenate(x)[:rows], *parts)


def _full(x: np.ndarray) -> jax.Array:
    """Half precision is for storage alone."""
    return jnp.asarray(x, jnp.float32 if x.dtype == np.float16 else x.dtype)
