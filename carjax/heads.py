"""The probabilistic heads: one small Flax module per attribute, from features to a distribution."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from carjax import certainty, circular, plugins, pooling
from carjax.attributes import Attribute, Categorical
from carjax.calibration import (
    ClassCalibration,
    DirectionCalibration,
    novelty,
    state_classes,
    state_direction,
)
from carjax.errors import UsageError, one_line
from carjax.features import Features

# exp(log κ) stays in the range where float32 statistics are exact (see circular).
_LOG_KAPPA_RANGE = (-4.0, 9.0)
_EMPTY_CLASS = 20.0
# The infinite mixture: size of its latent variable, and of the layers that read it.
_LATENT = 8
_LATENT_HIDDEN = 64
_LOG_SCALE_RANGE = (-6.0, 2.0)


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
        calibration: what the stated distribution owes to held-out photos; None: nothing.
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


class ClassPrediction(NamedTuple):
    """What a softmax head says of B images.

    Attributes:
        logits: float32 [B, K]; their softmax is the stated distribution.
        disagreement: float32 [B]; mutual information of class and member in nats, 0 for one member
            (Houlsby et al., 2011): what more training photos might settle, where the entropy also
            counts what no photo of this kind would show.
        novelty: float32 [B] in [0, 1]; see `calibration.novelty`.
        part_novelty: float32 [B] in [0, 1]; the same among the parts, by the first member.
    """

    logits: jax.Array
    disagreement: jax.Array
    novelty: jax.Array
    part_novelty: jax.Array


class CategoricalHead(nn.Module):
    """A small ensemble of softmax classifiers; the entropy of their mean is the uncertainty.

    Where the classes have parts, the softmax is over the parts and a class has the sum of its
    parts' probabilities: photos of one car model look alike, those of one brand do not. Members
    differ in their start, and some may be trained on the classes alone (`training.tasks`); their
    distributions are averaged (Lakshminarayanan et al., NIPS 2017).
    """

    spec: HeadSpec
    dropout: float = 0.0

    def setup(self) -> None:
        """Builds the layers."""
        spec, attribute = self.spec, self.spec.attribute
        assert isinstance(attribute, Categorical)
        for name in self._members:
            setattr(self, f"trunk{name}", Trunk(spec, self.dropout))
            setattr(self, f"logits{name}", nn.Dense(len(spec.parts) or len(attribute.classes)))

    @property
    def _members(self) -> tuple[str, ...]:
        """The endings of the members' names; one alone has none."""
        count = self.spec.members
        return ("",) if count == 1 else tuple(f"_{i}" for i in range(count))

    def part_logits(self, features: Features, *, train: bool = False) -> jax.Array:
        """Maps Features of B images to each member's logits of the parts, float32 [M, B, P]."""
        return jnp.stack(
            [
                getattr(self, f"logits{name}")(getattr(self, f"trunk{name}")(features, train=train))
                for name in self._members
            ]
        )

    def __call__(self, features: Features) -> ClassPrediction:
        """Maps Features of B images to what the head says of them."""
        return combine(self.part_logits(features), self.spec)


def combine(part_logits: jax.Array, spec: HeadSpec) -> ClassPrediction:
    """Joins the members' part logits [M, B, P] to the stated class distribution."""
    members = part_logits.shape[0]
    by_member = jax.nn.log_softmax(jax.vmap(lambda x: join_parts(x, spec))(part_logits))
    mean = jax.nn.logsumexp(by_member, axis=0) - math.log(members)
    apart = certainty.entropy_from_logits(by_member).mean(0)
    disagreement = jnp.maximum(certainty.entropy_from_logits(mean) - apart, 0.0)
    among_parts = novelty(jax.nn.log_softmax(part_logits[0]))
    stated = mean
    if isinstance(spec.calibration, ClassCalibration):
        stated = state_classes(mean, spec.calibration, among_parts)
    return ClassPrediction(stated, disagreement, novelty(mean), among_parts)


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


# --- directions ----------------------------------------------------------------------------------


def _trunk(spec: HeadSpec, dropout: float) -> Trunk:
    return Trunk(spec, dropout, name="trunk")


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
    """What the head states: its density, as the spec's calibration makes it."""
    if isinstance(spec.calibration, DirectionCalibration):
        return state_direction(density, spec.calibration)
    return density


def _floor_init() -> nn.initializers.Initializer:
    """The logit of a floor of 2%."""
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
        x = _trunk(self.spec, self.dropout)(features, train=train)
        direction = nn.Dense(2, name="direction")(x)
        log_kappa = nn.Dense(1, name="log_kappa", bias_init=nn.initializers.constant(2.0))(x)[:, 0]
        floor = self.param("floor", _floor_init(), ())
        floor = jnp.broadcast_to(nn.sigmoid(floor), log_kappa.shape)
        density = circular.from_single(angle_of(direction), kappa_of(log_kappa), floor)
        return stated(density, self.spec)


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
        x = _trunk(self.spec, self.dropout)(features, train=train)
        mu = angle_of(nn.Dense(2, name="direction")(x))
        if self.spec.kappa:
            return stated(circular.from_single(mu, self.spec.kappa), self.spec)
        log_kappa = self.param("log_kappa", nn.initializers.constant(2.0), ())
        return stated(circular.from_single(mu, kappa_of(log_kappa)), self.spec)


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
        x = _trunk(self.spec, self.dropout)(features, train=train)
        # The components start all around the circle: alike, they would stay alike.
        turns = jnp.arange(k) * (circular.TWO_PI / k)
        around = jnp.stack([jnp.cos(turns), jnp.sin(turns)], axis=-1)
        direction = nn.Dense(2 * k, name="direction", bias_init=lambda *_: around.reshape(-1))(x)
        log_kappa = nn.Dense(k, name="log_kappa", bias_init=nn.initializers.constant(2.0))(x)
        weights = nn.softmax(nn.Dense(k, name="weights")(x))
        floor = self.param("floor", _floor_init(), ())
        density = circular.Density(
            weights,
            angle_of(direction.reshape(len(direction), k, 2)),
            kappa_of(log_kappa),
            jnp.broadcast_to(nn.sigmoid(floor), weights.shape[:1]),
        )
        return stated(density, self.spec)


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
        self.floor = self.param("floor", _floor_init(), ())

    def __call__(self, features: Features, *, train: bool = False) -> circular.Density:
        """Maps Features of B images to a Density of batch shape [B] with K components."""
        x = self.trunk(features, train=train)
        if self.is_initializing():
            self._encode(x, jnp.zeros(x.shape[0]))
        mean, log_scale = self.prior(x)
        noise = normal_points(self.spec.components, _LATENT)
        mu, kappa = self._decode(x, mean[:, None] + jnp.exp(log_scale)[:, None] * noise)
        weights = jnp.full_like(mu, 1.0 / self.spec.components)
        return stated(circular.Density(weights, mu, kappa, self._floor(mu[:, 0])), self.spec)

    def latent_terms(
        self, features: Features, azimuth: jax.Array, samples: int, *, train: bool = True
    ) -> LatentTerms:
        """Draws z from the encoder (random stream 'latent').

        Args:
            features: of B images.
            azimuth: float [B]; true azimuths in radians.
            samples: S draws per image.
            train: apply dropout (random stream 'dropout').
        """
        x = self.trunk(features, train=train)
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
    learns by the negative log-likelihood of that (`losses.angular_loss`). What held-out photos ask
    of the stated density is `stated(density, spec)`. A name that another module has taken is a
    ValueError.
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
