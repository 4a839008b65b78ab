"""A sequence model from outside the package: each frame adds the mean of those near it in time."""

import flax.linen as nn
import jax.numpy as jnp

from carjax.temporal.sequence_heads import register
from carjax.temporal.votes import allowed


@register("toy")
class WindowMean(nn.Module):
    width: int
    causal: bool
    seconds: float = 1.0

    @nn.compact
    def __call__(self, x, time_s, mask, *, train):
        apart = time_s[:, :, None] - time_s[:, None, :]
        near = allowed(mask, self.causal) & (jnp.abs(apart) <= self.seconds)
        mean = near @ x / jnp.maximum(near.sum(-1, keepdims=True), 1)
        return nn.Dense(self.width)(nn.gelu(mean))
