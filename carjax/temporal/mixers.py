"""The sequence models of carjax: how the frames of a video tell each other what they saw.

Each is a mixer, as `sequence_heads.register` describes it; all leave out masked frames.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from carjax.errors import UsageError
from carjax.temporal.sequence_heads import register
from carjax.temporal.votes import NEVER, allowed


@register("tcn")
class TemporalConvolution(nn.Module):
    """Dilated convolutions over frames (Bai, Kolter and Koltun, arXiv:1803.01271), pre-normalised.

    Attributes:
        width: of the vectors.
        causal: look back only.
        layers: each has twice the dilation of the one before.
        taps: of each convolution.
    """

    width: int
    causal: bool
    layers: int = 5
    taps: int = 3

    @nn.compact
    def __call__(
        self, x: jax.Array, time_s: jax.Array, mask: jax.Array, *, train: bool
    ) -> jax.Array:
        """Maps [B, T, width] to [B, T, width]."""
        del time_s, train  # the time since the frame before is in x
        for i in range(self.layers):
            reach = (self.taps - 1) * 2**i
            ahead = 0 if self.causal else reach // 2
            y = jnp.where(mask[..., None], nn.LayerNorm()(x), 0.0)
            y = nn.Conv(
                self.width, (self.taps,), kernel_dilation=2**i, padding=[(reach - ahead, ahead)]
            )(y)
            x += nn.Dense(self.width)(nn.gelu(y))
        return x


@register("gru")
class Recurrent(nn.Module):
    """Gated recurrent units (Cho et al., EMNLP 2014), in both directions unless causal.

    Attributes:
        width: of the vectors, and of each state.
        causal: run forward only.
        layers: the number of passes, each over what the one before gave.
    """

    width: int
    causal: bool
    layers: int = 1

    @nn.compact
    def __call__(
        self, x: jax.Array, time_s: jax.Array, mask: jax.Array, *, train: bool
    ) -> jax.Array:
        """Maps [B, T, width] to [B, T, width]."""
        del time_s, train  # the time since the frame before is in x
        for _ in range(self.layers):
            passes = [self._run(x, mask, reverse) for reverse in (False, True)[: 2 - self.causal]]
            x += nn.Dense(self.width)(jnp.concatenate(passes, axis=-1))
        return x

    def _run(self, x: jax.Array, mask: jax.Array, reverse: bool) -> jax.Array:
        scan = nn.scan(
            _MaskedCell,
            variable_broadcast="params",
            split_rngs={"params": False},
            in_axes=1,
            out_axes=1,
            reverse=reverse,
        )
        start = jnp.zeros((x.shape[0], self.width), x.dtype)
        return scan(self.width)(start, (nn.LayerNorm()(x), mask))[1]


class _MaskedCell(nn.Module):
    """One step; a masked frame leaves the state as it is."""

    width: int

    @nn.compact
    def __call__(
        self, state: jax.Array, frame: tuple[jax.Array, jax.Array]
    ) -> tuple[jax.Array, jax.Array]:
        x, mask = frame
        new, _ = nn.GRUCell(self.width)(state, x)
        state = jnp.where(mask[:, None], new, state)
        return state, state


@register("attention")
class Attention(nn.Module):
    """Self-attention whose logits know the time between two frames, before or after.

    Pre-normalised blocks (Vaswani et al., NIPS 2017; Xiong et al., ICML 2020). In place of
    positions a logit has a term that is linear between learned values at fixed time differences
    (as the relative bias of Raffel et al., JMLR 2020, but in seconds), so that irregular frames
    are no special case.

    Attributes:
        width: of the vectors.
        causal: look back only.
        layers: the number of blocks.
        heads: of each block.
    """

    width: int
    causal: bool
    layers: int = 2
    heads: int = 4

    @nn.compact
    def __call__(
        self, x: jax.Array, time_s: jax.Array, mask: jax.Array, *, train: bool
    ) -> jax.Array:
        """Maps [B, T, width] to [B, T, width]."""
        del train
        if self.width % self.heads:
            raise UsageError(
                f"config.sequence.width: must be a multiple of attention's {self.heads} heads, "
                f"not {self.width}"
            )
        seen = allowed(mask, self.causal)[:, None]
        apart = time_s[:, None, :] - time_s[:, :, None]
        # Signed square roots: near frames are told apart finely, distant ones coarsely.
        knots = jnp.linspace(-4.0, 4.0, 17)
        place = jnp.clip(jnp.sign(apart) * jnp.sqrt(jnp.abs(apart)), knots[0], knots[-1])
        near = jnp.maximum(1.0 - jnp.abs(place[..., None] - knots) / (knots[1] - knots[0]), 0.0)
        size = self.width // self.heads
        for i in range(self.layers):
            y = nn.LayerNorm()(x)
            query, key, value = (nn.DenseGeneral((self.heads, size))(y) for _ in range(3))
            bias = self.param(f"bias_{i}", _decay(self.heads, knots), ())
            logits = jnp.einsum("bthk,bshk->bhts", query, key) / size**0.5
            logits += jnp.einsum("btsn,hn->bhts", near, bias)
            weights = nn.softmax(jnp.where(seen, logits, NEVER))
            joined = jnp.einsum("bhts,bshk->bthk", weights, value)
            x += nn.DenseGeneral(self.width, axis=(-2, -1))(joined)
            x += nn.Dense(self.width)(nn.gelu(nn.Dense(2 * self.width)(nn.LayerNorm()(x))))
        return x


def _decay(heads: int, knots: jax.Array) -> nn.initializers.Initializer:
    """Logits that fall with the time between two frames, in each head at a rate of its own."""
    rates = 2.0 ** -jnp.arange(heads)
    return lambda *_: -rates[:, None] * knots**2
