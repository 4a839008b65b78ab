"""How exact products of float32 are on a TPU, which has a faster, rougher way."""

from __future__ import annotations

import contextlib

import jax


def exact_products() -> contextlib.AbstractContextManager:
    """Products of float32 that are traced inside have relative errors of about 1e-5 on a TPU.

    By default a TPU rounds their factors to bfloat16; so they take three passes of bfloat16, of the
    factors' leading and trailing halves. A GPU computes them in TF32 either way, a CPU in float32.
    Factors of half precision are not concerned.

    Example:
        >>> import jax.numpy as jnp
        >>> with exact_products():
        ...     "HIGH" in jax.jit(jnp.matmul).lower(jnp.ones((2, 2)), jnp.ones((2, 2))).as_text()
        True
    """
    return jax.default_matmul_precision("high")
