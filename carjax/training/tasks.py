"""What a run can train: a softmax head, a direction, the car box; for sequences see `sequences`."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from carjax import circular, heads, localise
from carjax.attributes import VIEWS, Categorical
from carjax.backbones import registry
from carjax.datasets import augment
from carjax.datasets.feature_cache import box_in_window
from carjax.datasets.photos import Photos
from carjax.evaluation import metrics
from carjax.features import Features
from carjax.temporal.sequence_heads import SequenceSpec
from carjax.training import config as configs
from carjax.training import losses

Params = Any
Predictions = dict[str, np.ndarray]


class Task(Protocol):
    """What the loop needs to know of a head."""

    @property
    def spec(self) -> heads.HeadSpec | localise.LocaliseSpec | SequenceSpec:
        """The static description of the head."""

    @property
    def module(self) -> nn.Module:
        """The head, with dropout."""

    @property
    def cells(self) -> int:
        """The head reads the grid pooled to this side (0: as it is cached)."""

    def known(self, photos: Photos) -> np.ndarray:
        """Which photos have a label, bool [N]."""

    def loss(self, params: Params, features: Any, targets: jax.Array, key: jax.Array) -> jax.Array:
        """The training loss of a batch, a scalar."""

    def predict(self, params: Params, features: Any) -> dict[str, jax.Array]:
        """The distribution of a batch, as named arrays [B, ...]."""

    def metrics(self, predictions: Predictions, targets: np.ndarray) -> dict[str, float]:
        """Metrics of predictions against the targets of what is held out."""


class PhotoTask(Task, Protocol):
    """What training on single photos needs to know besides."""

    def weights(self, photos: Photos) -> np.ndarray:
        """How often each labelled photo is drawn, float [N], up to a factor."""

    def targets(self, photos: Photos, window: np.ndarray, view: int | np.ndarray) -> np.ndarray:
        """The targets [N, ...] of one view of labelled photos, or of one view each (int [N])."""


def balanced_weights(group: np.ndarray, counts: np.ndarray, exponent: float) -> np.ndarray:
    """Sampling weights count^−exponent of each sample's group; 0 draws as the data are.

    Example:
        >>> balanced_weights(np.array([0, 0, 1]), np.array([2, 1]), 1.0)
        array([0.5, 0.5, 1. ])
    """
    return np.maximum(counts, 1).astype(float)[group] ** -exponent


@dataclasses.dataclass(frozen=True)
class CategoricalTask:
    """Softmax cross-entropy with mixup and label smoothing, over the classes and their parts."""

    spec: heads.HeadSpec
    part_keys: tuple[tuple[str, int], ...]
    dropout: float
    mixup: float
    label_smoothing: float
    balance: float
    model_cap: int = 0

    @property
    def classes(self) -> int:
        """The number of classes."""
        assert isinstance(self.spec.attribute, Categorical)
        return len(self.spec.attribute.classes)

    @property
    def module(self) -> nn.Module:
        """The head, with dropout."""
        return heads.create(self.spec, dropout=self.dropout)

    @property
    def cells(self) -> int:
        """The head's own grid; one cell if it reads none."""
        return self.spec.grid or 1

    def known(self, photos: Photos) -> np.ndarray:
        """Photos whose class is known."""
        return photos.labels[self.spec.attribute.name] >= 0

    def weights(self, photos: Photos) -> np.ndarray:
        """By the frequency of the photo's class, and by that of its car model beyond the cap."""
        labels = photos.labels[self.spec.attribute.name]
        weights = balanced_weights(
            labels, np.bincount(labels, minlength=self.classes), self.balance
        )
        if self.model_cap:
            _, model, counts = np.unique(photos.group, return_inverse=True, return_counts=True)
            share = np.minimum(1.0, self.model_cap / counts)[model]
            weights = weights * np.where(photos.group == "", 1.0, share)
        return weights

    def targets(self, photos: Photos, window: np.ndarray, view: int | np.ndarray) -> np.ndarray:
        """Indices of the class and of its part (0 without parts), int32 [N, 2], in every view."""
        labels = photos.labels[self.spec.attribute.name]
        part = np.zeros_like(labels)
        if self.part_keys:
            index = {key: i for i, key in enumerate(self.part_keys)}
            keys = zip(photos.group.tolist(), labels.tolist(), strict=True)
            part = np.array([index[key] for key in keys], np.int32)
        return np.stack([labels, part], axis=1)

    def loss(
        self, params: Params, features: Features, targets: jax.Array, key: jax.Array
    ) -> jax.Array:
        """Cross-entropy of blended features against blended, smoothed classes, and parts.

        Every second member learns the classes alone: it is worse on cars that it knows and better
        on others, and the mean of both kinds keeps most of either.
        """
        mix_key, dropout_key = jax.random.split(key)
        wanted = [jax.nn.one_hot(targets[:, 0], self.classes)]
        if self.part_keys:
            wanted += [jax.nn.one_hot(targets[:, 1], len(self.part_keys))]
        wanted = [optax.smooth_labels(target, self.label_smoothing) for target in wanted]
        features, wanted = losses.mixup(mix_key, self.mixup, features, wanted)
        logits: Any = self.module.apply(
            {"params": params},
            features,
            train=True,
            rngs={"dropout": dropout_key},
            method="part_logits",
        )
        loss = jnp.zeros(())
        for i, own in enumerate(logits):
            joined = heads.join_parts(own, self.spec)
            loss += optax.softmax_cross_entropy(joined, wanted[0]).mean()
            if self.part_keys and i % 2 == 0:
                loss += optax.softmax_cross_entropy(own, wanted[1]).mean()
        return loss

    def predict(self, params: Params, features: Features) -> dict[str, jax.Array]:
        """Log-probabilities float32 [B, K]; disagreement and both novelties float32 [B]."""
        out: Any = self.module.apply({"params": params}, features)
        return {
            "log_probs": jax.nn.log_softmax(out.logits),
            "disagreement": out.disagreement,
            "novelty": out.novelty,
            "part_novelty": out.part_novelty,
        }

    def metrics(self, predictions: Predictions, targets: np.ndarray) -> dict[str, float]:
        """See `metrics.categorical_metrics`."""
        return metrics.categorical_metrics(predictions["log_probs"], targets[:, 0])


@dataclasses.dataclass(frozen=True)
class AngularTask:
    """The azimuth's loss under the head's density: see `losses`, by `spec.density`."""

    spec: heads.HeadSpec
    dropout: float
    balance: float
    latent_samples: int = 1
    mirror: bool = True

    @property
    def module(self) -> nn.Module:
        """The head, with dropout."""
        return heads.create(self.spec, dropout=self.dropout)

    @property
    def cells(self) -> int:
        """The head's own grid; one cell if it reads none."""
        return self.spec.grid or 1

    def known(self, photos: Photos) -> np.ndarray:
        """Photos whose azimuth is known."""
        return ~np.isnan(photos.labels[self.spec.attribute.name])

    def weights(self, photos: Photos) -> np.ndarray:
        """By the frequency of the photo's view bin, mirrored views counted as well if shown."""
        azimuth = photos.labels[self.spec.attribute.name]
        bins = len(VIEWS)
        group = metrics.view_bin(azimuth)
        counts = np.bincount(group, minlength=bins)
        if self.mirror:
            counts = counts + counts[-np.arange(bins)]
        return balanced_weights(group, counts, self.balance)

    def targets(self, photos: Photos, window: np.ndarray, view: int | np.ndarray) -> np.ndarray:
        """Azimuths float32 [N] in degrees; a mirrored view has the negative one."""
        azimuth = photos.labels[self.spec.attribute.name]
        return np.where(augment.is_mirrored(view), -azimuth, azimuth)

    def loss(
        self, params: Params, features: Features, targets: jax.Array, key: jax.Array
    ) -> jax.Array:
        """Negative log-likelihood in nats per radian, a bound on it, or the cosine loss."""
        azimuth = jnp.deg2rad(targets)
        if self.spec.density == "cvae":
            dropout_key, latent_key = jax.random.split(key)
            terms: Any = self.module.apply(
                {"params": params},
                features,
                azimuth,
                self.latent_samples,
                rngs={"dropout": dropout_key, "latent": latent_key},
                method="latent_terms",
            )
            bound = (
                losses.elbo_loss if self.latent_samples == 1 else losses.importance_weighted_loss
            )
            return bound(terms)
        rngs = {"dropout": key}
        density: Any = self.module.apply({"params": params}, features, train=True, rngs=rngs)
        if self.spec.density == "biternion":
            return losses.biternion_loss(density, azimuth)
        return losses.angular_loss(density, azimuth)

    def predict(self, params: Params, features: Features) -> dict[str, jax.Array]:
        """The fields of the density."""
        density: Any = self.module.apply({"params": params}, features)
        return density._asdict()

    def metrics(self, predictions: Predictions, targets: np.ndarray) -> dict[str, float]:
        """See `metrics.angular_metrics`."""
        return metrics.angular_metrics(density_of(predictions), targets)


def density_of(predictions: Predictions) -> circular.Density:
    """Returns the density that `AngularTask.predict` took apart."""
    return circular.Density(*(jnp.asarray(predictions[k]) for k in circular.Density._fields))


@dataclasses.dataclass(frozen=True)
class BoxTask:
    """The main car's box in one look."""

    spec: localise.LocaliseSpec
    dropout: float

    @property
    def module(self) -> nn.Module:
        """The head, with dropout."""
        return localise.CarBoxHead(self.spec.channels, self.dropout)

    @property
    def cells(self) -> int:
        """The full grid."""
        return 0

    def known(self, photos: Photos) -> np.ndarray:
        """Photos with a box."""
        return ~np.isnan(photos.box).any(1)

    def weights(self, photos: Photos) -> np.ndarray:
        """All the same."""
        return np.ones(len(photos))

    def targets(self, photos: Photos, window: np.ndarray, view: int | np.ndarray) -> np.ndarray:
        """The car's boxes float32 [N, 4] as fractions of the view."""
        return box_in_window(photos.box, window)

    def loss(
        self, params: Params, features: Features, targets: jax.Array, key: jax.Array
    ) -> jax.Array:
        """See `losses.box_loss`."""
        rngs = {"dropout": key}
        out: Any = self.module.apply({"params": params}, features, train=True, rngs=rngs)
        return losses.box_loss(out[0], out[1], targets)

    def predict(self, params: Params, features: Features) -> dict[str, jax.Array]:
        """Boxes float32 [B, 4], inside the view."""
        out: Any = self.module.apply({"params": params}, features)
        return {"box": jnp.clip(jax.vmap(localise.best_box)(*out), 0.0, 1.0)}

    def metrics(self, predictions: Predictions, targets: np.ndarray) -> dict[str, float]:
        """See `metrics.box_metrics`."""
        return metrics.box_metrics(predictions["box"], targets)


def create(
    config: ml_collections.ConfigDict, part_keys: tuple[tuple[str, int], ...] = ()
) -> PhotoTask:
    """Builds the task of a config, of a sequence head the one in `sequences`.

    Args:
        config: checked; of anything but a sequence head.
        part_keys: the parts of a categorical head: (group of photos, class index) of each.

    Raises:
        UsageError: there is no such density, or one of one's own gives none.
    """
    spec = configs.head_spec(config, tuple(label for _, label in part_keys))
    if isinstance(spec, localise.LocaliseSpec):
        return BoxTask(spec, config.dropout)
    if isinstance(spec.attribute, Categorical):
        return CategoricalTask(
            spec, part_keys, config.dropout, config.mixup, config.label_smoothing, config.balance,
            config.model_cap,
        )  # fmt: skip
    if spec.module:
        seen = registry.example_features(config.backbone, configs.input_size(config))
        heads.check_density(spec, seen)
    return AngularTask(spec, config.dropout, config.balance, config.latent_samples, config.mirror)
