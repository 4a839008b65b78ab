"""How exact products of float32 are where the hardware has a faster, rougher way."""

from __future__ import annotations

import contextlib

import jax


def exact_products() -> contextlib.AbstractContextManager:
    """Products of float32 that are traced inside are exact to about 1e-6 on every platform.

    By default a TPU rounds their factors to bfloat16, and a GPU to TF32; so they take three passes
    of bfloat16 (or of TF32), of the factors' leading and trailing halves. A CPU always computes in
    float32. Factors of half precision are not concerned.

    Example:
        >>> import jax.numpy as jnp
        >>> with exact_products():
        ...     "HIGH" in jax.jit(jnp.matmul).lower(jnp.ones((2, 2)), jnp.ones((2, 2))).as_text()
        True
    """
    return jax.default_matmul_precision("high")
