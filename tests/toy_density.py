"""A density from outside the package: a direction, or the one that is opposite."""

import flax.linen as nn
import jax.numpy as jnp

from carjax import circular, heads


@heads.register("twofold")
class Twofold(nn.Module):
    spec: heads.HeadSpec
    dropout: float = 0.0

    @nn.compact
    def __call__(self, features, *, train=False):
        x = heads.Trunk(self.spec, self.dropout, name="trunk")(features, train=train)
        mu = heads.angle_of(nn.Dense(2, name="direction")(x))
        kappa = heads.kappa_of(nn.Dense(1, name="log_kappa")(x)[:, 0])
        weights = nn.softmax(nn.Dense(2, name="weights")(x))
        return circular.Density(
            weights, jnp.stack([mu, mu + jnp.pi], -1), jnp.stack([kappa] * 2, -1), 0.01 + 0 * kappa
        )
