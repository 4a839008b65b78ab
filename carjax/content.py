"""What a frame shows of the car: all of it, a part of it, or none.

A small softmax head reads the features of the car box's last look, which are there already. That
look shows the found box with some context, cut off where the frame ends, so that a distant car
and a near one look alike, and one that the border cuts off does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from carjax import heads
from carjax.attributes import CONTENT, VEHICLE_CLASSES
from carjax.features import Features
from carjax.heads import HeadSpec

# The training windows show streets, floors and walls, not all that a camera may see. The frozen
# ImageNet classifier knows more: where its mass on vehicles is below the first number, 'none'
# gains the second, times how far below in nats. Both were set by hand: on folds the head alone is
# as good, but it takes a cat or a cup for a part of a car, and this does not.
_LOW_VEHICLE_MASS = 0.01
_VEHICLE_WEIGHT = 0.25


def content_probs(
    params: Mapping[str, Any],
    spec: HeadSpec,
    backbone: nn.Module,
    backbone_params: Mapping[str, Any],
    features: Features,
) -> jax.Array:
    """Returns the probabilities of `attributes.CONTENT`.

    Args:
        params: of the head.
        spec: of the head.
        backbone: its module, and …
        backbone_params: … its parameters, whose classifier is asked as well.
        features: of the last look at B frames (`localise.find`).

    Returns:
        float32 [B, 3]; whole, part, none.
    """
    out: Any = heads.create(spec).apply({"params": params}, features)
    imagenet: Any = backbone.apply({"params": backbone_params}, features, method="classify")
    return jax.nn.softmax(out.logits + none_bonus(imagenet), axis=-1)


def none_bonus(imagenet: jax.Array) -> jax.Array:
    """What 'none' gains for ImageNet logits [B, 1000] that see no vehicle: float32 [B, 3]."""
    vehicles = jax.nn.log_softmax(imagenet)[..., np.array(VEHICLE_CLASSES)]
    short = jnp.log(_LOW_VEHICLE_MASS) - jax.nn.logsumexp(vehicles, axis=-1)
    is_none = np.array([name == "none" for name in CONTENT.classes], np.float32)
    return _VEHICLE_WEIGHT * jnp.maximum(short, 0.0)[..., None] * is_none
