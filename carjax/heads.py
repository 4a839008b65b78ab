"""The probabilistic heads: one small Flax module per attribute, from features to a distribution."""

from __future__ import annotations

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from carjax import circular
from carjax.attributes import Attribute, Categorical
from carjax.backbones.features import Features

# exp(log κ) stays in the range where float32 statistics are exact (see circular).
_LOG_KAPPA_RANGE = (-4.0, 9.0)
_EMPTY_CLASS = 20.0


@dataclasses.dataclass(frozen=True)
class HeadSpec:
    """The static description of one head: enough to build its module.

    Attributes:
        attribute: what it predicts.
        grid: the feature grid is area-averaged to grid × grid cells (0: pooled features only).
        channels: each cell is first projected to this many channels (0: no projection).
        hidden: width of the hidden layer.
        parts: the class that each part belongs to, where a class is predicted as the union of
            finer parts (a brand as its models); empty: every class is one part.
    """

    attribute: Attribute
    grid: int = 4
    channels: int = 0
    hidden: int = 256
    parts: tuple[int, ...] = ()


def area_weights(size_in: int, size_out: int) -> np.ndarray:
    """Averaging weights float32 [size_out, size_in] of exact area pooling.

    Pooling 17 → 8 → 4 equals 17 → 4, so that cached, already pooled grids serve as well.

    Example:
        >>> area_weights(3, 2).round(2)
        array([[0.67, 0.33, 0.  ],
               [0.  , 0.33, 0.67]], dtype=float32)
    """
    edges = np.linspace(0, size_in, size_out + 1)
    low, high = edges[:-1, None], edges[1:, None]
    cell = np.arange(size_in)
    overlap = np.clip(np.minimum(high, cell + 1) - np.maximum(low, cell), 0, None)
    return (overlap * size_out / size_in).astype(np.float32)


def pool_grid(grid: jax.Array, size: int) -> jax.Array:
    """Area-averages a feature grid [B, h, w, C] to [B, size, size, C]."""
    if grid.shape[1:3] == (size, size):
        return grid
    rows = area_weights(grid.shape[1], size)
    columns = area_weights(grid.shape[2], size)
    return jnp.einsum("ih,jw,bhwc->bijc", rows, columns, grid)


class Trunk(nn.Module):
    """Features → one hidden vector: both levels normalised, joined, and one hidden layer."""

    grid: int
    channels: int
    hidden: int
    dropout: float

    @nn.compact
    def __call__(self, features: Features, *, train: bool = False) -> jax.Array:
        """Maps Features of B images to float32 [B, hidden]."""
        # The root tames the long tail of averaged ReLU activations (a power normalisation as of
        # Perronnin et al., ECCV 2010).
        pooled = jnp.sqrt(jnp.maximum(features.pooled.astype(jnp.float32), 0.0))
        parts = [nn.LayerNorm(name="norm_pooled")(pooled)]
        if self.grid:
            cells = pool_grid(features.grid.astype(jnp.float32), self.grid)
            cells = nn.LayerNorm(name="norm_grid")(cells)
            if self.channels:
                cells = nn.gelu(nn.Dense(self.channels, name="project")(cells))
            parts.append(cells.reshape(cells.shape[0], -1))
        x = jnp.concatenate(parts, axis=-1)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = nn.gelu(nn.Dense(self.hidden, name="hidden")(x))
        return nn.Dropout(self.dropout, deterministic=not train)(x)


class CategoricalHead(nn.Module):
    """Class logits; their softmax is the distribution, its entropy the uncertainty.

    Where the classes have parts, the softmax is over the parts and a class has the sum of its
    parts' probabilities: photos of one car model look alike, those of one brand do not.
    """

    spec: HeadSpec
    dropout: float = 0.0

    def setup(self) -> None:
        """Builds the layers."""
        spec, attribute = self.spec, self.spec.attribute
        assert isinstance(attribute, Categorical)
        self.trunk = Trunk(spec.grid, spec.channels, spec.hidden, self.dropout)
        self.logits = nn.Dense(len(spec.parts) or len(attribute.classes))

    def part_logits(self, features: Features, *, train: bool = False) -> jax.Array:
        """Maps Features of B images to the logits of the parts, float32 [B, P]."""
        return self.logits(self.trunk(features, train=train))

    def __call__(self, features: Features, *, train: bool = False) -> jax.Array:
        """Maps Features of B images to class logits float32 [B, K]."""
        return join_parts(self.part_logits(features, train=train), self.spec)


def join_parts(part_logits: jax.Array, spec: HeadSpec) -> jax.Array:
    """Class logits [B, K] from part logits [B, P]: log Σ exp over the parts of each class."""
    if not spec.parts:
        return part_logits
    assert isinstance(spec.attribute, Categorical)
    classes = np.arange(len(spec.attribute.classes))
    member = classes[:, None] == np.array(spec.parts)
    # A class without a part keeps a finite logit, far below all others.
    logits = jnp.where(member, part_logits[:, None, :], -jnp.inf)
    low = part_logits.min(axis=-1, keepdims=True) - _EMPTY_CLASS
    return jnp.where(
        member.any(1), jax.nn.logsumexp(jnp.where(member.any(1)[:, None], logits, 0.0), -1), low
    )


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
        x = Trunk(self.spec.grid, self.spec.channels, self.spec.hidden, self.dropout, name="trunk")(
            features, train=train
        )
        direction = nn.Dense(2, name="direction")(x)
        log_kappa = nn.Dense(1, name="log_kappa", bias_init=nn.initializers.constant(2.0))(x)[:, 0]
        floor = self.param("floor", nn.initializers.constant(math.log(0.02 / 0.98)), ())
        return circular.from_single(
            jnp.arctan2(direction[:, 1], direction[:, 0]),
            jnp.exp(jnp.clip(log_kappa, *_LOG_KAPPA_RANGE)),
            jnp.broadcast_to(nn.sigmoid(floor), log_kappa.shape),
        )


def create(spec: HeadSpec, *, dropout: float = 0.0) -> nn.Module:
    """Builds the module of a head: `CategoricalHead` or `VonMisesHead`, by its attribute."""
    kind = CategoricalHead if isinstance(spec.attribute, Categorical) else VonMisesHead
    return kind(spec, dropout)
