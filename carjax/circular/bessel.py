"""The Bessel functions of the von Mises distribution, in forms that neither overflow nor cancel.

A(κ) = I1(κ)/I0(κ), log I0 and what follows from them, for κ from 0 to 1e6. References: Mardia and
Jupp, "Directional Statistics" (2000), section 5.3; Abramowitz and Stegun, "Handbook of Mathematical
Functions" (1964), 9.6.10 and 9.7.1.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import i0e, i1e
from jax.typing import ArrayLike

from carjax.circular.angles import floating

# Where the closed forms of 1 − A and A' give way to series: 1 − A is then right to 1e-5 on both
# sides, A' to 2e-4.
_SMALL_KAPPA = 0.1
_LARGE_KAPPA = 15.0
# 1 − A(κ) = Σ c_n κ^−n for n = 1, 2, …: the series that solves A' = 1 − A/κ − A², with A(∞) = 1.
_ONE_MINUS_A = (1 / 2, 1 / 8, 1 / 8, 25 / 128, 13 / 32, 1073 / 1024, 103 / 32)


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """Returns Σ_n coefficients[n]·xⁿ by Horner's rule."""
    total = jnp.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = total * x + coefficient
    return total


@jax.custom_jvp
def _a(kappa: Array) -> Array:
    return i1e(kappa) / i0e(kappa)


@_a.defjvp
def _a_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (kappa,), (tangent,) = primals, tangents
    return _a(kappa), a_prime(kappa) * tangent


@jax.custom_jvp
def one_minus_a(kappa: Array) -> Array:
    """1 − A(κ), right in relative terms also where A rounds to 1."""
    inverse = 1.0 / jnp.maximum(kappa, _LARGE_KAPPA)
    series = inverse * _polynomial(_ONE_MINUS_A, inverse)
    return jnp.where(kappa > _LARGE_KAPPA, series, 1.0 - i1e(kappa) / i0e(kappa))


@one_minus_a.defjvp
def _one_minus_a_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (kappa,), (tangent,) = primals, tangents
    return one_minus_a(kappa), -a_prime(kappa) * tangent


def a_prime(kappa: Array) -> Array:
    """dA/dκ = 1 − A/κ − A² (Mardia and Jupp, A.14), right in relative terms for every κ ≥ 0."""
    is_small, is_large = kappa < _SMALL_KAPPA, kappa > _LARGE_KAPPA
    # Each piece sees only arguments of its own range: `where` alone would pass on a NaN gradient.
    small = jnp.where(is_small, kappa, 0.0)
    middle = jnp.where(is_small | is_large, 1.0, kappa)
    inverse = 1.0 / jnp.where(is_large, kappa, _LARGE_KAPPA)
    near_zero = _polynomial((1 / 2, -3 / 16, 5 / 96, -77 / 6144), small * small)
    a = _a(middle)
    closed = 1.0 - a / middle - a * a
    slopes = tuple(n * c for n, c in enumerate(_ONE_MINUS_A, start=1))
    far = inverse * inverse * _polynomial(slopes, inverse)
    return jnp.where(is_small, near_zero, jnp.where(is_large, far, closed))


@jax.custom_jvp
def log_i0e(kappa: Array) -> Array:
    """log(I0(κ)·exp(−κ))."""
    return jnp.log(i0e(kappa))


@log_i0e.defjvp
def _log_i0e_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (kappa,), (tangent,) = primals, tangents
    return log_i0e(kappa), -one_minus_a(kappa) * tangent


@jax.jit
def log_i0(kappa: ArrayLike) -> Array:
    """Logarithm of the modified Bessel function I0.

    log I0(κ) = κ + log(I0(κ)·exp(−κ)); I0 itself overflows float32 at κ ≈ 92.

    Args:
        kappa: float [...]; ≥ 0.

    Returns:
        float [...]; its gradient is A(κ).

    Example:
        >>> print(f"{log_i0(1000.0):.3f}")
        995.627
    """
    kappa = floating(kappa)
    return kappa + log_i0e(kappa)


@jax.jit
def mean_resultant_length(kappa: ArrayLike) -> Array:
    """Mean resultant length A(κ) = I1(κ)/I0(κ) of a von Mises distribution.

    Mardia and Jupp, 3.5.31.

    Args:
        kappa: float [...]; ≥ 0.

    Returns:
        float [...] in [0, 1]: 0 for the uniform distribution, 1 for a point.

    Example:
        >>> print(f"{mean_resultant_length(2.0):.4f}")
        0.6978
    """
    return _a(floating(kappa))


@jax.jit
def concentration(length: ArrayLike) -> Array:
    """Concentration κ of a von Mises distribution by its mean resultant length: the inverse of A.

    Best and Fisher's piecewise approximation (Mardia and Jupp, 5.3.7 to 5.3.10), then two Newton
    steps on A(κ) = length.

    Args:
        length: float [...] in [0, 1).

    Returns:
        float [...]; ≥ 0, at most 1e6.

    Example:
        >>> print(f"{concentration(mean_resultant_length(2.0)):.4f}")
        2.0000
    """
    length = floating(length)
    # In half precision the bound below would round to 1.
    length = length.astype(jnp.promote_types(length.dtype, jnp.float32))
    most = 1.0 - 5e-7
    return _concentration(jnp.where(length < 0.0, 0.0, jnp.where(length > most, most, length)))


@jax.custom_jvp
def _concentration(length: Array) -> Array:
    small = 2.0 * length + length**3 + 5.0 / 6.0 * length**5
    middle = -0.4 + 1.39 * length + 0.43 / (1.0 - length)
    large = 1.0 / (length * (length - 1.0) * (length - 3.0) + 1e-30)
    kappa = jnp.where(length < 0.53, small, jnp.where(length < 0.85, middle, large))
    for _ in range(2):
        kappa = kappa - ((1.0 - length) - one_minus_a(kappa)) / a_prime(kappa)
        kappa = jnp.clip(kappa, 0.0, 1e6)
    return kappa


@_concentration.defjvp
def _concentration_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """A(κ) = length, so dκ/dlength = 1/A′(κ)."""
    kappa = _concentration(*primals)
    return kappa, tangents[0] / a_prime(kappa)
