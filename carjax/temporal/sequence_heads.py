"""Sequence heads: the azimuth density of every frame, from the features of all frames of a video.

A head has three parts. A trunk looks at each frame alone, as a single-frame head does, and gives it
a direction. A mixer, the only part that differs between models, lets frames tell each other what
they saw: it maps per-frame vectors, times and a mask to vectors of the same shape. Votes join the
two: each frame predicts from its mixed vector how the car turned since the frame before, so that
the directions of all frames can be carried to any other frame's time, and their mean, weighted by
attention, is that frame's direction.

A new model is a Flax module under a name of its own:

    @sequence_heads.register("mean")
    class Mean(nn.Module):
        width: int
        causal: bool

        @nn.compact
        def __call__(self, x, time_s, mask, *, train): ...

and a config that names the model, and the module to import if it is not one of carjax.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from carjax import circular, heads, plugins, pooling
from carjax.backbones import registry
from carjax.errors import UsageError
from carjax.features import Features
from carjax.heads import HeadSpec
from carjax.temporal.votes import VOTES, Votes, constant_layer, length, time_gaps

# Where the models of carjax are; other modules are named by the config.
_OWN = "carjax.temporal.mixers"

Mixer = TypeVar("Mixer", bound=type[nn.Module])
MIXERS: dict[str, type[nn.Module]] = {}


class Frames(NamedTuple):
    """Frames of B videos, each in order of time; padding is anywhere the mask is False.

    Attributes:
        features: float; pooled [B, T, C], grid [B, T, g, g, Cm].
        time_s: float [B, T]; not decreasing.
        mask: bool [B, T].
    """

    features: Features
    time_s: jax.Array
    mask: jax.Array


@dataclasses.dataclass(frozen=True)
class SequenceSpec:
    """The static description of a sequence head: enough to build its module.

    Attributes:
        model: name of the mixer.
        head: the trunk's: attribute, grid, channels and hidden.
        module: the Python module that registers it, if it is not one of carjax.
        width: of the mixed vectors.
        causal: a frame knows nothing of later ones, as in a live video.
        options: of the mixer: its fields by name.
        backbone: whose features it reads.
        input_size: side of the backbone's input in pixels.
    """

    model: str
    head: HeadSpec
    module: str = ""
    width: int = 128
    causal: bool = False
    options: tuple[tuple[str, Any], ...] = ()
    backbone: str = "efficientnet_lite2"
    input_size: int = 320


def register(name: str) -> Callable[[Mixer], Mixer]:
    """Registers a mixer under a name for configs; for use as a decorator.

    The class is a Flax module with the fields `width` and `causal`, and options with defaults. It
    is called with (x float32 [B, T, width], time_s float32 [B, T], mask bool [B, T], train=bool)
    and returns float32 [B, T, width]. What it gives for a masked frame is never read, and a masked
    frame must change nothing in any other; x is 0 there. If `causal`, a frame must not depend on
    later ones.
    """
    return plugins.adder(MIXERS, name)


def find(spec: SequenceSpec) -> type[nn.Module]:
    """Returns the mixer's class, importing the module that registers it.

    Raises:
        UsageError: there is no such module, model or option.
    """
    importlib.import_module(_OWN)
    plugins.load(spec.module, "config.sequence.module")
    if spec.model not in MIXERS:
        raise UsageError(
            f"config.sequence.model: no {spec.model!r}; there are: {', '.join(sorted(MIXERS))}"
        )
    mixer = MIXERS[spec.model]
    known = set(inspect.signature(mixer).parameters) - {"width", "causal", "parent", "name"}
    if wrong := {name for name, _ in spec.options} - known:
        raise UsageError(
            f"config.sequence.options: {spec.model} has no {', '.join(sorted(wrong))}; "
            f"it has: {', '.join(sorted(known)) or 'none'}"
        )
    return mixer


class SequenceHead(nn.Module):
    """The density of every frame: the frames' own directions, carried along and joined."""

    spec: SequenceSpec
    dropout: float = 0.0

    def __call__(self, frames: Frames, *, train: bool = False) -> circular.Density:
        """Maps Frames to a Density of batch shape [B, T] with one component."""
        return self.both(frames, train=train)[1]

    @nn.compact
    def both(
        self, frames: Frames, *, train: bool = False
    ) -> tuple[circular.Density, circular.Density]:
        """Returns (each frame's density on its own, the density that knows the others)."""
        spec, mask = self.spec, frames.mask
        # What is left out may be anything, NaN too.
        rows = jax.tree.map(
            lambda x: jnp.where(
                mask.reshape(-1, *[1] * (x.ndim - 2)), x.reshape(mask.size, *x.shape[2:]), 0.0
            ),
            frames.features,
        )
        trunk = heads.Trunk(spec.head, self.dropout, name="trunk")
        hidden = trunk(rows, train=train).reshape(*mask.shape, -1)
        own = nn.Dense(2, name="direction")(hidden)
        own = own / length(own)[..., None]
        own_log_kappa = nn.Dense(1, name="log_kappa", bias_init=nn.initializers.constant(2.0))(
            hidden
        )
        floor = nn.sigmoid(self.param("floor", nn.initializers.constant(-4.0), ()))
        alone = _density(own, own_log_kappa, jnp.broadcast_to(floor, mask.shape))

        gap = time_gaps(frames.time_s, mask)[..., None]
        seen = jnp.concatenate([hidden, own, own_log_kappa, jnp.log1p(gap)], axis=-1)
        x = nn.LayerNorm(name="norm")(nn.Dense(spec.width, name="embed")(seen))
        x = jnp.where(mask[..., None], x, 0.0)
        mixer = find(spec)(width=spec.width, causal=spec.causal, name="mixer", **dict(spec.options))
        mixed = x + mixer(x, frames.time_s, mask, train=train)
        votes = Votes(spec.causal, name="votes")(mixed, own, own_log_kappa, gap, mask)

        # Each frame weighs the votes, and may add a direction that no frame has.
        share = nn.softmax(nn.Dense(VOTES, name="share")(mixed))
        direction = jnp.einsum("bth,bthd->btd", share, votes)
        direction += nn.Dense(2, name="own", kernel_init=nn.initializers.zeros)(mixed)
        agreed = length(votes)
        seen = jnp.concatenate([mixed, agreed, own_log_kappa], axis=-1)
        log_kappa = constant_layer(1, "log_kappa_mixed", 3.0)(seen)
        floor = nn.sigmoid(constant_layer(1, "floor_mixed", -4.0)(seen)[..., 0])
        return alone, _density(direction, log_kappa, floor)


def _density(direction: jax.Array, log_kappa: jax.Array, floor: jax.Array) -> circular.Density:
    return circular.from_single(heads.angle_of(direction), heads.kappa_of(log_kappa[..., 0]), floor)


def example_frames(spec: SequenceSpec) -> Frames:
    """Returns two zero frames of one video, of the shapes that the spec's backbone gives."""
    one = registry.example_features(spec.backbone, spec.input_size)
    if spec.head.grid:
        one = one._replace(grid=pooling.pool_grid(one.grid, spec.head.grid))
    features = jax.tree.map(lambda x: jnp.repeat(x[None], 2, axis=1), one)
    return Frames(features, jnp.zeros((1, 2)), jnp.ones((1, 2), bool))


@functools.cache
def expected_params(spec: SequenceSpec) -> Any:
    """Returns shapes and dtypes of a head's parameters, computing nothing."""

    def init(key: jax.Array) -> Any:
        return SequenceHead(spec).init(key, example_frames(spec))["params"]

    return jax.eval_shape(init, jax.random.key(0))
