"""A direction as an infinite mixture of von Mises densities, over a latent variable."""

from __future__ import annotations

import statistics
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from carjax import circular
from carjax.features import Features
from carjax.heads.directions import angle_of, floor_init, kappa_of
from carjax.heads.spec import HeadSpec, Trunk

# Size of the latent variable, and of the layers that read it.
_LATENT = 8
_LATENT_HIDDEN = 64
_LOG_SCALE_RANGE = (-6.0, 2.0)


class LatentTerms(NamedTuple):
    """What the bounds on a CVAE's log-likelihood are made of; S draws z ~ q(z|x, a) per image.

    Attributes:
        log_likelihood: float32 [B, S]; log p(a|x, z) in nats per radian.
        log_prior: float32 [B, S]; log p(z|x).
        log_posterior: float32 [B, S]; log q(z|x, a).
        kl: float32 [B]; KL(q(z|x, a) ‖ p(z|x)) in nats.
    """

    log_likelihood: jax.Array
    log_prior: jax.Array
    log_posterior: jax.Array
    kl: jax.Array


class Gaussian(nn.Module):
    """One hidden layer to a diagonal normal distribution of the latent variable."""

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps [B, C] to (mean, log of the standard deviation), float32 [B, L] each."""
        x = nn.gelu(nn.Dense(_LATENT_HIDDEN, name="hidden")(x))
        # Close to the standard normal at first: prior and encoder then start out as one.
        small = nn.initializers.variance_scaling(0.01, "fan_in", "truncated_normal")
        x = nn.Dense(2 * _LATENT, kernel_init=small, name="out")(x)
        mean, log_scale = jnp.split(x, 2, axis=-1)
        return mean, jnp.clip(log_scale, *_LOG_SCALE_RANGE)


class LatentMixtureHead(nn.Module):
    """An infinite mixture: p(a) = ∫ p(a|x, z) p(z|x) dz, a conditional variational autoencoder.

    Prokudin et al., ECCV 2018, section 4.3 (after Sohn et al., NIPS 2015): a prior p(z|x), an
    encoder q(z|x, a) and a decoder p(a|x, z), which is a von Mises above the floor of
    `VonMisesHead`. Prior and encoder are diagonal normal distributions. The density that the head
    gives is the finite mixture over K points z of the prior; the points come from fixed
    quasi-random noise, so that it is a deterministic function of the features.
    """

    spec: HeadSpec
    dropout: float = 0.0

    def setup(self) -> None:
        """Builds the layers."""
        spec = self.spec
        self.trunk = Trunk(spec, self.dropout)
        self.prior, self.encoder = Gaussian(), Gaussian()
        self.decoder = nn.Dense(_LATENT_HIDDEN)
        self.direction = nn.Dense(2)
        self.log_kappa = nn.Dense(1, bias_init=nn.initializers.constant(2.0))
        self.floor = self.param("floor", floor_init(), ())

    def __call__(self, features: Features, *, train: bool = False) -> circular.Density:
        """Maps Features of B images to a Density of batch shape [B] with K components."""
        x = self.trunk(features, train=train)
        if self.is_initializing():
            self._encode(x, jnp.zeros(x.shape[0]))
        mean, log_scale = self.prior(x)
        noise = normal_points(self.spec.components, _LATENT)
        mu, kappa = self._decode(x, mean[:, None] + jnp.exp(log_scale)[:, None] * noise)
        weights = jnp.full_like(mu, 1.0 / self.spec.components)
        return circular.Density(weights, mu, kappa, self._floor(mu[:, 0]))

    def latent_terms(self, features: Features, azimuth: jax.Array, samples: int) -> LatentTerms:
        """Draws z from the encoder (random stream 'latent'), with dropout (stream 'dropout').

        Args:
            features: of B images.
            azimuth: float [B]; true azimuths in radians.
            samples: S draws per image.
        """
        x = self.trunk(features, train=True)
        prior_mean, prior_log_scale = self.prior(x)
        mean, log_scale = self._encode(x, azimuth)
        shape = (len(x), samples, _LATENT)
        z = mean[:, None] + jnp.exp(log_scale)[:, None] * jax.random.normal(
            self.make_rng("latent"), shape
        )
        mu, kappa = self._decode(x, z)
        density = circular.from_single(mu, kappa, self._floor(mu))
        ratio = jnp.exp(log_scale - prior_log_scale)
        apart = (mean - prior_mean) * jnp.exp(-prior_log_scale)
        return LatentTerms(
            circular.log_prob(density, azimuth[:, None]),
            _normal_log_prob(z, prior_mean[:, None], prior_log_scale[:, None]),
            _normal_log_prob(z, mean[:, None], log_scale[:, None]),
            (0.5 * (ratio**2 + apart**2 - 1.0) - jnp.log(ratio)).sum(-1),
        )

    def _encode(self, x: jax.Array, azimuth: jax.Array) -> tuple[jax.Array, jax.Array]:
        seen = jnp.stack([jnp.cos(azimuth), jnp.sin(azimuth)], axis=-1)
        return self.encoder(jnp.concatenate([x, seen], axis=-1))

    def _decode(self, x: jax.Array, z: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(μ, κ), [B, S] each, of x [B, C] and z [B, S, L]."""
        wide = jnp.broadcast_to(x[:, None], (*z.shape[:2], x.shape[1]))
        h = nn.gelu(self.decoder(jnp.concatenate([wide, z], axis=-1)))
        return angle_of(self.direction(h)), kappa_of(self.log_kappa(h)[..., 0])

    def _floor(self, like: jax.Array) -> jax.Array:
        return jnp.broadcast_to(nn.sigmoid(self.floor), like.shape)


def _normal_log_prob(z: jax.Array, mean: jax.Array, log_scale: jax.Array) -> jax.Array:
    """Log-density of a diagonal normal distribution, summed over the last axis."""
    standard = (z - mean) * jnp.exp(-log_scale)
    return -(0.5 * standard**2 + log_scale + 0.5 * circular.LOG_TWO_PI).sum(-1)


def normal_points(count: int, size: int) -> np.ndarray:
    """Points float32 [count, size] that fill the standard normal distribution evenly.

    The additive recurrence of Roberts ("The unreasonable effectiveness of quasirandom sequences",
    2018): frac(1/2 + n·g^−j), g the root of g^(size+1) = g + 1, through the normal quantile. A
    formula, not a random stream: it is the same in every version of every library.

    Example:
        >>> points = normal_points(64, 3)
        >>> bool(abs(points.mean()) < 0.05), bool(abs(points.std() - 1) < 0.1)
        (True, True)
    """
    g = 1.5
    for _ in range(64):
        g = (1.0 + g) ** (1.0 / (size + 1))
    steps = g ** -np.arange(1.0, size + 1.0)
    uniform = (0.5 + np.arange(1, count + 1)[:, None] * steps) % 1.0
    quantile = np.vectorize(statistics.NormalDist().inv_cdf)
    return quantile(np.clip(uniform, 1e-6, 1.0 - 1e-6)).astype(np.float32)
