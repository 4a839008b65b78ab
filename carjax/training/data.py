"""From data sets on disk to arrays on the device: cached features, targets, and who is held out."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from carjax import heads
from carjax.attributes import CAR
from carjax.backbones.features import Features
from carjax.datasets import feature_cache, photos
from carjax.errors import CarjaxError
from carjax.training import config as configs
from carjax.training.tasks import Task


@dataclasses.dataclass(frozen=True)
class Source:
    """One data set, labelled photos only.

    Attributes:
        name: of its folder.
        photos: with a label for the task.
        hashes: SHA-256 of each.
        rows: int [n]; the position of each among the cached photos.
        held_out: bool [n]; in the fold that is left out.
        cache: of all photos of the data set.
    """

    name: str
    photos: photos.Photos
    hashes: np.ndarray
    rows: np.ndarray
    held_out: np.ndarray
    cache: feature_cache.FeatureCache


class TrainingSet(NamedTuple):
    """What the device holds during training; V views of n photos.

    Attributes:
        features: float16; pooled [V, n, C], grid [V, n, g, g, Cm].
        targets: [V, n, ...].
        cumulative: float32 [n]; cumulative probability of drawing each photo.
    """

    features: Features
    targets: np.ndarray
    cumulative: np.ndarray


class HeldOut(NamedTuple):
    """The plain view of the m photos that are left out.

    Attributes:
        features: float16; pooled [m, C], grid [m, g, g, Cm].
        targets: [m, ...].
        names: 'data set/file name' of each.
    """

    features: Features
    targets: np.ndarray
    names: np.ndarray


def read_photos(root: pathlib.Path, name: str, attribute: str) -> photos.Photos:
    """Reads the label table of a data set that an attribute, or the car box, learns from."""
    if attribute == configs.LOCALISE:
        return photos.read_boxes(root / name)
    return photos.read_labels(root / name, CAR)


def part_keys(config: ml_collections.ConfigDict, root: pathlib.Path) -> tuple[tuple[str, int], ...]:
    """Returns the parts of the classes: every (car model, class index) of the labelled photos.

    Raises:
        CarjaxError: the label table does not name the models (column class_name).
    """
    if not config.parts:
        return ()
    keys: set[tuple[str, int]] = set()
    for name in config.datasets:
        known = read_photos(root, name, config.attribute)
        labels = known.labels[config.attribute].tolist()
        keys |= {(g, k) for g, k in zip(known.group.tolist(), labels, strict=True) if k >= 0}
    if any(not group for group, _ in keys):
        raise CarjaxError(
            f"{root / config.datasets[0]}: photos without a class_name: "
            "name the model of each, or give --config.parts=False"
        )
    return tuple(sorted(keys))


def load_sources(
    config: ml_collections.ConfigDict,
    task: Task,
    root: pathlib.Path,
    backbone: nn.Module,
    params: Mapping[str, Any],
    weights_sha256: str,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Source]:
    """Reads the data sets of a config and computes the features that the cache lacks.

    Args:
        config: checked.
        task: says which photos have a label.
        root: the folder of data sets.
        backbone: its module.
        params: its parameters.
        weights_sha256: `model.weights_hash` of them.
        cache_dir: where features are kept.
        on_progress: called with (photos done, photos to do) while features are computed.

    Raises:
        CarjaxError: a label file or a photo is missing or broken, or no photo has a label.
    """
    sources = []
    for name in config.datasets:
        everything = read_photos(root, name, config.attribute)
        hashes = photos.content_hashes(everything)
        key = feature_cache.CacheKey(
            backbone=config.backbone,
            weights_sha256=weights_sha256,
            input_size=configs.input_size(config),
            cells=config.cells,
            content_sha256=feature_cache.content_sha256(everything.names, hashes),
            augmentation=configs.augmentation(config),
        )
        cache = feature_cache.build(
            everything,
            key,
            backbone,
            params,
            config.views,
            cache_dir=cache_dir,
            on_progress=on_progress,
        )
        rows = np.nonzero(task.known(everything))[0]
        known = everything.take(rows)
        held_out = np.zeros(len(rows), bool)
        if config.fold >= 0:
            folds = photos.read_folds(configs.splits_dir(config) / f"{name}.csv", known.names)
            held_out = folds == config.fold
        sources.append(Source(name, known, np.array(hashes)[rows], rows, held_out, cache))
    return sources


def _read(source: Source, view: int, chosen: np.ndarray, cells: int) -> tuple[Features, np.ndarray]:
    """Features of the chosen photos in one view, the grid pooled to `cells`, and the windows."""
    cached = source.cache.load(view)
    rows = source.rows[chosen]
    features = jax.tree.map(lambda x: np.asarray(x[rows]), cached.features)
    if cells and cells != features.grid.shape[1]:
        pooled = heads.pool_grid(jnp.asarray(features.grid, jnp.float32), cells)
        features = features._replace(grid=np.asarray(pooled, np.float16))
    return features, cached.window[rows]


def training_set(sources: Sequence[Source], task: Task, views: int) -> TrainingSet:
    """Gathers every view of the photos that are not held out."""
    features: list[Features] = []
    targets = []
    for view in range(views):
        parts = [(s, *_read(s, view, ~s.held_out, task.cells)) for s in sources]
        features.append(_concatenate([f for _, f, _ in parts]))
        targets.append(
            np.concatenate(
                [task.targets(_chosen(s, ~s.held_out), window, view) for s, _, window in parts]
            )
        )
    weights = np.concatenate([task.weights(_chosen(s, ~s.held_out)) for s in sources])
    cumulative = np.cumsum(weights / weights.sum())
    stacked = jax.tree.map(lambda *x: np.stack(x), *features)
    return TrainingSet(stacked, np.stack(targets), cumulative.astype(np.float32))


def held_out_set(sources: Sequence[Source], task: Task) -> HeldOut:
    """Gathers the plain view of the photos that are held out."""
    parts = [(s, *_read(s, 0, s.held_out, task.cells)) for s in sources]
    targets = [task.targets(_chosen(s, s.held_out), window, 0) for s, _, window in parts]
    names = [f"{s.name}/{name}" for s in sources for name in _chosen(s, s.held_out).names]
    return HeldOut(_concatenate([f for _, f, _ in parts]), np.concatenate(targets), np.array(names))


def _chosen(source: Source, which: np.ndarray) -> photos.Photos:
    return source.photos.take(np.nonzero(which)[0])


def _concatenate(parts: Sequence[Features]) -> Features:
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)
