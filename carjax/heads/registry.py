"""Which head a spec names: carjax's own, and those that other modules register."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from carjax import circular, plugins
from carjax.attributes import Categorical
from carjax.errors import UsageError, one_line
from carjax.features import Features
from carjax.heads.classes import CategoricalHead
from carjax.heads.directions import BiternionHead, VonMisesHead, VonMisesMixtureHead
from carjax.heads.latent import LatentMixtureHead
from carjax.heads.spec import HeadSpec

ANGULAR_HEADS: dict[str, type[nn.Module]] = {
    "vonmises": VonMisesHead,
    "biternion": BiternionHead,
    "mixture": VonMisesMixtureHead,
    "cvae": LatentMixtureHead,
}
Head = TypeVar("Head", bound=type[nn.Module])


def register(density: str) -> Callable[[Head], Head]:
    """Registers a head of directions under the name of its density; for use as a decorator.

    The class is a Flax module with the fields `spec`, a `HeadSpec`, and `dropout`. It is called
    with (Features of B images, train=bool) and returns a `circular.Density` of batch shape [B]. It
    learns by the negative log-likelihood of that (`losses.angular_loss`). A calibration is no
    concern of it: `scoring` applies that. A name that another module has taken is a ValueError.
    """
    return plugins.adder(ANGULAR_HEADS, density)


def find_density(spec: HeadSpec) -> type[nn.Module]:
    """Returns the class of a direction's head, importing the module that registers it.

    Raises:
        UsageError: there is no such module or density.
    """
    plugins.load(spec.module, "config.head.module")
    if spec.density not in ANGULAR_HEADS:
        raise UsageError(
            f"config.head.density: no {spec.density!r}; there are: {', '.join(ANGULAR_HEADS)}"
        )
    return ANGULAR_HEADS[spec.density]


def create(spec: HeadSpec, *, dropout: float = 0.0) -> nn.Module:
    """Builds the module of a head: `CategoricalHead`, or what `spec.density` names.

    Raises:
        UsageError: a direction has no such density.
    """
    if isinstance(spec.attribute, Categorical):
        return CategoricalHead(spec, dropout)
    head: type = find_density(spec)
    return head(spec, dropout)


def check_density(spec: HeadSpec, features: Features) -> None:
    """Checks what a density of one's own gives, by shapes alone.

    Args:
        spec: of a direction's head.
        features: of one image, as it will see them.

    Raises:
        UsageError: it cannot be built or called, or gives no `circular.Density` of batch shape [B].
    """
    find_density(spec)
    said = f"config.head.density: {spec.density!r} of {spec.module}"
    two = jax.tree.map(lambda x: jnp.concatenate([x, x]), features)

    def predict(two: Features) -> Any:
        return create(spec).init_with_output(jax.random.key(0), two)[0]

    try:
        density = jax.eval_shape(predict, two)
    except Exception as error:  # it is anybody's code
        raise UsageError(f"{said}: cannot be called ({one_line(error)})") from error
    if not isinstance(density, circular.Density):
        raise UsageError(f"{said} must return a circular.Density, not {type(density).__name__}")
    shapes = {name: getattr(x, "shape", None) for name, x in density._asdict().items()}
    components = shapes["mu"] if shapes["mu"] and len(shapes["mu"]) == 2 else (2, 1)
    wanted = {"weights": components, "mu": components, "kappa": components, "floor": (2,)}
    if components[0] != 2 or shapes != wanted:
        got = ", ".join(f"{name} {list(shape or ())}" for name, shape in shapes.items())
        raise UsageError(
            f"{said}: of 2 images it must give weights, mu, kappa [2, K] and floor [2], not {got}"
        )
