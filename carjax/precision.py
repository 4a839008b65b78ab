"""How exact products of float32 are on accelerators, which have faster, rougher ways."""

from __future__ import annotations

import contextlib

import jax


def exact_products() -> contextlib.AbstractContextManager:
    """Products of float32 that are traced inside are as exact as those of a CPU.

    By default a TPU rounds their factors to bfloat16, and a GPU to TF32; so a TPU takes six passes
    of bfloat16, of the factors' leading, middle and trailing bits, and a GPU computes in float32.
    Factors of half precision are not concerned.

    Example:
        >>> import jax.numpy as jnp
        >>> with exact_products():
        ...     "HIGHEST" in jax.jit(jnp.matmul).lower(jnp.ones((2, 2)), jnp.ones((2, 2))).as_text()
        True
    """
    return jax.default_matmul_precision("highest")
