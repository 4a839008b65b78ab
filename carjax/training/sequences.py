"""Sequence heads: the settings of their runs, and their task.

For what they learn from see `walk_data` and `recording_data`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from carjax import circular
from carjax.datasets import augment
from carjax.datasets.photos import Photos
from carjax.errors import UsageError
from carjax.evaluation import metrics
from carjax.heads import HeadSpec
from carjax.temporal import sequence_heads, walks
from carjax.temporal.sequence_heads import Frames, SequenceHead, SequenceSpec
from carjax.training import config as configs

# The views of the spoilt photos that are cached: straight and mirrored.
SPOILT_VIEWS = (2, 3)


# --- Settings ------------------------------------------------------------------------------------


def default_config(model: str, **options: Any) -> ml_collections.ConfigDict:
    """Returns the settings that the config files `configs/temporal_*.py` start from.

    Args:
        model: name of the mixer, as it is registered.
        options: of the mixer.

    Example:
        >>> config = default_config("gru", layers=1)
        >>> config.attribute, config.sequence.model, config.walk.spoilt
        ('orientation', 'gru', 0.2)
    """
    config = configs.default_config("orientation")
    config.input_size = 320
    config.head.grid = 4
    config.head.channels = 32
    config.head.hidden = 256
    config.splits = "data/splits/by_model"
    # Of the plain photos; the spoilt ones have two.
    config.views = 4
    config.steps = 400
    config.batch = 16
    config.lr = 2e-3
    config.warmup = 50
    config.chunk = 100
    config.unlock()
    config.sequence = ml_collections.ConfigDict(
        {
            "model": model,
            "module": "",  # a Python module that registers the model, if carjax does not
            "width": 128,
            "causal": False,
            "options": dict(options),
            # Frames of a walk, or of a recording, that a step learns from: longer ones are cut.
            "frames": 64,
            # Weight of the loss of each frame's density on its own.
            "alone": 0.5,
            # Walks around each held-out model, which the run is measured on.
            "held_out_walks": 2,
        }
    )
    config.recordings = ml_collections.ConfigDict(
        {
            # Labelled videos to learn from, in place of walks around the photos of `datasets`: what
            # `carjax score --save_features` wrote, and the CSV file of labels (data/README.md).
            "scores": "",
            "labels": "",
            # A column of the labels: recordings of one value, say of one car, share a fold.
            "group": "",
            "folds": 5,  # `fold` is one of them; −1 trains on every recording
        }
    )
    config.walk = ml_collections.ConfigDict(dataclasses.asdict(walks.WalkSpec()))
    config.spoilt = ml_collections.ConfigDict(dataclasses.asdict(walks.SPOILT))
    config.lock()
    return config


def is_sequence(config: ml_collections.ConfigDict) -> bool:
    """Whether a config trains a sequence head."""
    return "sequence" in config


def from_recordings(config: ml_collections.ConfigDict) -> bool:
    """Whether a config trains a sequence head on recordings."""
    return is_sequence(config) and bool(config.recordings.scores)


def check(config: ml_collections.ConfigDict) -> None:
    """Checks what only sequence heads have.

    Raises:
        UsageError: a setting is wrong; the line names it and what it may be.
    """
    walk_spec(config)
    configs.section(config, "spoilt", augment.Augmentation)
    if config.head.density != "vonmises":
        raise UsageError(
            f"config.head.density: sequence heads need vonmises, not {config.head.density!r}"
        )
    sequence_heads.find(spec_of(config))
    for name in ("width", "frames", "held_out_walks"):
        if config.sequence[name] < 1:
            raise UsageError(
                f"config.sequence.{name}: must be at least 1, not {config.sequence[name]}"
            )
    if not config.mirror:
        raise UsageError("config.mirror: walks show mirror images: leave it True")
    if config.views < 2:
        raise UsageError(f"config.views: walks need mirror images: at least 2, not {config.views}")
    if not config.cache:
        raise UsageError("config.cache: sequence heads learn from cached features: leave it True")
    _check_recordings(config)


def _check_recordings(config: ml_collections.ConfigDict) -> None:
    own = config.recordings
    if bool(own.scores) != bool(own.labels):
        raise UsageError("config.recordings: scores and labels are given together, or neither")
    if own.folds < 2:
        raise UsageError(f"config.recordings.folds: must be at least 2, not {own.folds}")
    if own.scores and config.fold >= own.folds:
        raise UsageError(
            f"config.fold: must be below config.recordings.folds ({own.folds}), not {config.fold}"
        )


def walk_spec(config: ml_collections.ConfigDict) -> walks.WalkSpec:
    """Returns how the walks are simulated."""
    return configs.section(config, "walk", walks.WalkSpec)


def spec_of(config: ml_collections.ConfigDict) -> SequenceSpec:
    """Returns the static description of the head that a config trains."""
    head, sequence = configs.head_spec(config), config.sequence
    assert isinstance(head, HeadSpec)
    return SequenceSpec(
        model=sequence.model,
        head=head,
        module=sequence.module,
        width=sequence.width,
        causal=sequence.causal,
        options=tuple(sorted(sequence.options.items())),
        backbone=config.backbone,
        input_size=configs.input_size(config),
    )


def spoilt_config(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Returns the config whose views are those of spoilt frames."""
    spoilt = config.copy_and_resolve_references()
    spoilt.augmentation = config.spoilt
    return spoilt


# --- The task ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class SequenceTask:
    """The mean negative log-likelihood of the camera's path, over frames of known azimuth.

    The density of each frame on its own has a loss too, of the weight `alone`.
    """

    spec: SequenceSpec
    dropout: float
    alone: float

    @property
    def module(self) -> nn.Module:
        """The head, with dropout."""
        return SequenceHead(self.spec, self.dropout)

    @property
    def cells(self) -> int:
        """The trunk's own grid; one cell if it reads none."""
        return self.spec.head.grid or 1

    def known(self, photos: Photos) -> np.ndarray:
        """Photos whose azimuth is known."""
        return ~np.isnan(photos.labels[self.spec.head.attribute.name])

    def loss(self, params: Any, features: Frames, targets: jax.Array, key: jax.Array) -> jax.Array:
        """Of targets float32 [B, T] in degrees, NaN where unknown, in nats per radian."""
        densities: Any = self.module.apply(
            {"params": params}, features, train=True, rngs={"dropout": key}, method="both"
        )
        known = features.mask & ~jnp.isnan(targets)
        # No NaN may come near the densities: the gradient of what is masked would be NaN.
        azimuth = jnp.deg2rad(jnp.where(known, targets, 0.0))
        alone, joined = (circular.log_prob(d, azimuth) for d in densities)
        total = jnp.where(known, joined + self.alone * alone, 0.0).sum()
        return -total / jnp.maximum(known.sum(), 1)

    def predict(self, params: Any, features: Frames) -> dict[str, jax.Array]:
        """The fields of the density, [B, T, ...]."""
        density: Any = self.module.apply({"params": params}, features)
        return density._asdict()

    def metrics(self, predictions: dict[str, np.ndarray], targets: np.ndarray) -> dict[str, float]:
        """See `metrics.angular_metrics`; over the frames [W, T] whose target is not NaN."""
        seen = ~np.isnan(targets)
        fields = (jnp.asarray(predictions[k][seen]) for k in circular.Density._fields)
        return metrics.angular_metrics(circular.Density(*fields), targets[seen])


def create(config: ml_collections.ConfigDict) -> SequenceTask:
    """Builds the task of a config, checked."""
    return SequenceTask(spec_of(config), config.dropout, config.sequence.alone)
