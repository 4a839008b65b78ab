"""Heads of directions: von Mises densities over azimuth, one or a finite mixture of them."""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from carjax import circular
from carjax.calibration import DirectionCalibration, state_direction
from carjax.features import Features
from carjax.heads.spec import HeadSpec, Trunk

# exp(log κ) stays in the range where float32 statistics are exact (see circular).
_LOG_KAPPA_RANGE = (-4.0, 9.0)


def angle_of(direction: jax.Array) -> jax.Array:
    """The angle [...] of plane vectors [..., 2]; of one shorter than 1e-15 it is 0.

    Its gradient is finite there too, where that of the arctangent is not.
    """
    x, y = direction[..., 0], direction[..., 1]
    nowhere = x * x + y * y < 1e-30
    return jnp.arctan2(y, jnp.where(nowhere, 1.0, x))


def kappa_of(log_kappa: jax.Array) -> jax.Array:
    """The concentration of its logarithm, kept in the range where statistics are exact."""
    return jnp.exp(jnp.clip(log_kappa, *_LOG_KAPPA_RANGE))


def stated(density: circular.Density, spec: HeadSpec) -> circular.Density:
    """What is stated of a direction: its head's density, as the spec's calibration makes it.

    `scoring` does so for every head; in training there is no calibration yet.
    """
    if isinstance(spec.calibration, DirectionCalibration):
        return state_direction(density, spec.calibration)
    return density


def floor_init() -> nn.initializers.Initializer:
    """Starts the logit of the uniform floor at 2%."""
    return nn.initializers.constant(math.log(0.02 / 0.98))


class VonMisesHead(nn.Module):
    """A von Mises density over azimuth with a uniform floor: p(a) = (1−ε) vM(a; μ, κ) + ε/2π.

    A unit vector gives μ and a scalar log κ (Prokudin et al., "Deep Directional Statistics",
    ECCV 2018, single von Mises); the floor ε is one learned number for all images, the share of
    labels or cars that the von Mises does not explain.
    """

    spec: HeadSpec
    dropout: float = 0.0

    @nn.compact
    def __call__(self, features: Features, *, train: bool = False) -> circular.Density:
        """Maps Features of B images to a Density of batch shape [B] with one component."""
        x = Trunk(self.spec, self.dropout, name="trunk")(features, train=train)
        direction = nn.Dense(2, name="direction")(x)
        log_kappa = nn.Dense(1, name="log_kappa", bias_init=nn.initializers.constant(2.0))(x)[:, 0]
        floor = self.param("floor", floor_init(), ())
        floor = jnp.broadcast_to(nn.sigmoid(floor), log_kappa.shape)
        return circular.from_single(angle_of(direction), kappa_of(log_kappa), floor)


class BiternionHead(nn.Module):
    """A direction as a unit vector, with one concentration κ for all images and no floor.

    Beyer, Hermans and Leibe, "Biternion Nets", GCPR 2015: the network predicts (cos a, sin a). As
    a density it is the von Mises of fixed κ that Prokudin et al. compare with.
    """

    spec: HeadSpec
    dropout: float = 0.0

    @nn.compact
    def __call__(self, features: Features, *, train: bool = False) -> circular.Density:
        """Maps Features of B images to a Density of batch shape [B] with one component."""
        x = Trunk(self.spec, self.dropout, name="trunk")(features, train=train)
        mu = angle_of(nn.Dense(2, name="direction")(x))
        if self.spec.kappa:
            return circular.from_single(mu, self.spec.kappa)
        log_kappa = self.param("log_kappa", nn.initializers.constant(2.0), ())
        return circular.from_single(mu, kappa_of(log_kappa))


class VonMisesMixtureHead(nn.Module):
    """A finite mixture: p(a) = (1−ε) Σ_k w_k vM(a; μ_k, κ_k) + ε/2π, the weights by softmax.

    Prokudin et al., ECCV 2018, section 4.2; the floor ε as in `VonMisesHead`.
    """

    spec: HeadSpec
    dropout: float = 0.0

    @nn.compact
    def __call__(self, features: Features, *, train: bool = False) -> circular.Density:
        """Maps Features of B images to a Density of batch shape [B] with K components."""
        k = self.spec.components
        x = Trunk(self.spec, self.dropout, name="trunk")(features, train=train)
        # The components start all around the circle: alike, they would stay alike.
        turns = jnp.arange(k) * (circular.TWO_PI / k)
        around = jnp.stack([jnp.cos(turns), jnp.sin(turns)], axis=-1)
        direction = nn.Dense(2 * k, name="direction", bias_init=lambda *_: around.reshape(-1))(x)
        log_kappa = nn.Dense(k, name="log_kappa", bias_init=nn.initializers.constant(2.0))(x)
        weights = nn.softmax(nn.Dense(k, name="weights")(x))
        floor = self.param("floor", floor_init(), ())
        return circular.Density(
            weights,
            angle_of(direction.reshape(len(direction), k, 2)),
            kappa_of(log_kappa),
            jnp.broadcast_to(nn.sigmoid(floor), weights.shape[:1]),
        )
