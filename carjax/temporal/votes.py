"""Votes: the directions of all frames, carried to the time of each and joined there."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

# Attention heads of the votes, and the size of their keys.
VOTES, _KEY = 4, 16
# The logit of a frame that must not be seen: far below every other, and still finite, so that
# padding alone gives no NaN.
NEVER = -1e9


class Votes(nn.Module):
    """Weighted means of all frames' directions, each carried to the time of every frame."""

    causal: bool

    @nn.compact
    def __call__(
        self,
        mixed: jax.Array,
        own: jax.Array,
        log_kappa: jax.Array,
        gap: jax.Array,
        mask: jax.Array,
    ) -> jax.Array:
        """Joins the frames' directions.

        Args:
            mixed: float32 [B, T, width].
            own: float32 [B, T, 2]; unit vectors: the frames' directions.
            log_kappa: float32 [B, T, 1]; how sure each is.
            gap: float32 [B, T, 1]; seconds since the frame before.
            mask: bool [B, T].

        Returns:
            float32 [B, T, H, 2]; as many votes as heads, each no longer than 1.
        """
        # The car's angle since the first frame: the sum of the speeds between frames.
        speed = constant_layer(1, "speed", 0.0)(mixed)
        turned = jnp.cumsum(speed * gap, axis=1)
        time_s = jnp.cumsum(gap, axis=1)[..., 0]
        start = _rotate(own, -turned[..., 0])

        query = nn.DenseGeneral((VOTES, _KEY), name="query")(mixed)
        key = nn.DenseGeneral((VOTES, _KEY), name="key")(mixed)
        trust = nn.Dense(VOTES, name="trust")(jnp.concatenate([mixed, log_kappa], axis=-1))
        # Forgetting per second: from slow to fast over the heads.
        decay = jnp.exp(self.param("log_decay", lambda *_: jnp.log(0.5 * 2.0 ** jnp.arange(VOTES))))
        apart = time_s[:, :, None] - time_s[:, None, :]
        logits = jnp.einsum("bthk,bshk->bhts", query, key) / _KEY**0.5
        logits += (
            trust.transpose(0, 2, 1)[:, :, None] - decay[:, None, None] * jnp.abs(apart)[:, None]
        )
        weights = nn.softmax(jnp.where(allowed(mask, self.causal)[:, None], logits, NEVER))
        votes = jnp.einsum("bhts,bsd->bthd", weights, start)
        return _rotate(votes, turned)


def allowed(mask: jax.Array, causal: bool) -> jax.Array:
    """Which frame [b, t] may look at which [b, s], bool [B, T, T]."""
    seen = mask[:, None, :]
    if causal:
        seen = seen & jnp.tril(jnp.ones((mask.shape[1],) * 2, bool))
    return jnp.broadcast_to(seen, (*mask.shape, mask.shape[1]))


def time_gaps(time_s: jax.Array, mask: jax.Array) -> jax.Array:
    """Seconds since the frame before that is not masked, float32 [B, T]; 0 for the first."""
    last = jax.lax.cummax(jnp.where(mask, time_s, -jnp.inf), axis=1)
    before = jnp.concatenate([time_s[:, :1], last[:, :-1]], axis=1)
    return jnp.where(mask & jnp.isfinite(before), time_s - before, 0.0)


def _rotate(vector: jax.Array, angle: jax.Array) -> jax.Array:
    """Turns plane vectors [..., 2] by angles [...] in radians."""
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    x, y = vector[..., 0], vector[..., 1]
    return jnp.stack([cosine * x - sine * y, sine * x + cosine * y], axis=-1)


def length(vector: jax.Array) -> jax.Array:
    """Lengths of plane vectors [..., 2], with a finite gradient at 0."""
    return jnp.sqrt(jnp.sum(vector * vector, axis=-1) + 1e-12)


def constant_layer(size: int, name: str, bias: float) -> nn.Dense:
    """A layer that says the same of every frame at first."""
    return nn.Dense(
        size,
        name=name,
        kernel_init=nn.initializers.zeros,
        bias_init=nn.initializers.constant(bias),
    )
