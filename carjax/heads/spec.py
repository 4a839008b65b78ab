"""What describes a head, and the layers that every head begins with."""

from __future__ import annotations

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from carjax import pooling
from carjax.attributes import Attribute
from carjax.calibration import ClassCalibration, DirectionCalibration
from carjax.features import Features


@dataclasses.dataclass(frozen=True)
class HeadSpec:
    """The static description of one head: enough to build its module.

    Attributes:
        attribute: what it predicts.
        grid: the feature grid is area-averaged to grid × grid cells (0: pooled features only).
        channels: each cell is first projected to this many channels (0: no projection).
        hidden: width of the hidden layer.
        density: of a direction: a key of `ANGULAR_HEADS`; classes ignore it and the next three.
        module: the Python module that registers it, if it is not one of carjax.
        components: of a 'mixture', or samples of the latent variable that a 'cvae' is scored by.
        kappa: the concentration that a 'biternion' head states for every image; 0 learns that of
            highest likelihood on the training set.
        parts: the class that each part belongs to, where a class is predicted as the union of
            finer parts (a brand as its models); empty: every class is one part.
        queries: attention pooling: this number of learned weighted means over the cells takes
            their place (0: the cells are joined in order).
        members: of classes: size of the ensemble.
        calibration: what the stated distribution owes to held-out photos; None: nothing. To a
            direction `scoring` applies it, by `stated`.
    """

    attribute: Attribute
    grid: int = 4
    channels: int = 0
    hidden: int = 256
    density: str = "vonmises"
    module: str = ""
    components: int = 1
    kappa: float = 0.0
    parts: tuple[int, ...] = ()
    queries: int = 0
    members: int = 1
    calibration: ClassCalibration | DirectionCalibration | None = None


class Trunk(nn.Module):
    """Features → one hidden vector: both levels normalised, joined, and one hidden layer."""

    spec: HeadSpec
    dropout: float

    @nn.compact
    def __call__(self, features: Features, *, train: bool = False) -> jax.Array:
        """Maps Features of B images to float32 [B, hidden]."""
        spec = self.spec
        # The root tames the long tail of averaged ReLU activations (a power normalisation as of
        # Perronnin et al., ECCV 2010).
        pooled = features.pooled.astype(jnp.float32)
        # Of a channel that never fires the root's gradient would be infinite.
        silent = pooled <= 0.0
        pooled = jnp.where(silent, 0.0, jnp.sqrt(jnp.where(silent, 1.0, pooled)))
        parts = [nn.LayerNorm(name="norm_pooled")(pooled)]
        if spec.grid:
            cells = pooling.pool_grid(features.grid.astype(jnp.float32), spec.grid)
            cells = nn.LayerNorm(name="norm_grid")(cells)
            values = cells
            if spec.channels:
                values = nn.gelu(nn.Dense(spec.channels, name="project")(cells))
            if spec.queries:
                # As Ilse, Tomczak and Welling, ICML 2018, eq. 7, without the gate; each query may
                # prefer places as well as contents.
                place = (spec.grid, spec.grid, spec.queries)
                scores = nn.Dense(spec.queries, name="queries")(cells)
                scores += self.param("place", nn.initializers.zeros, place)
                weights = nn.softmax(scores, axis=(1, 2))
                values = jnp.einsum("bhwq,bhwc->bqc", weights, values)
            parts.append(values.reshape(len(values), math.prod(values.shape[1:])))
        x = jnp.concatenate(parts, axis=-1)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = nn.gelu(nn.Dense(spec.hidden, name="hidden")(x))
        return nn.Dropout(self.dropout, deterministic=not train)(x)
