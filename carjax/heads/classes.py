"""Softmax heads of classes, of their parts, and of small ensembles."""

from __future__ import annotations

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from carjax import certainty
from carjax.attributes import Categorical
from carjax.calibration import ClassCalibration, novelty, state_classes
from carjax.features import Features
from carjax.heads.spec import HeadSpec, Trunk

_EMPTY_CLASS = 20.0


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
    logits = mean
    if isinstance(spec.calibration, ClassCalibration):
        logits = state_classes(mean, spec.calibration, among_parts)
    return ClassPrediction(logits, disagreement, novelty(mean), among_parts)


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
