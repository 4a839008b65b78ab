"""From data sets on disk to arrays on the device: cached features, targets, and who is held out."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import ml_collections
import numpy as np

from carjax import heads, pooling
from carjax.attributes import CONTENT, Categorical
from carjax.backbones import registry
from carjax.datasets import feature_cache, photos, prepared
from carjax.errors import CarjaxError
from carjax.features import Features
from carjax.temporal.sequence_heads import Frames
from carjax.training import config as configs

if TYPE_CHECKING:
    from carjax.training.tasks import PhotoTask, Task


@dataclasses.dataclass(frozen=True)
class Source:
    """One data set, labelled photos only.

    Attributes:
        name: as the config names it.
        photos: with a label for the task, and their hashes.
        rows: int [n]; the position of each among the cached photos, where it is one.
        held_out: bool [n]; in the fold, or the split, that is left out.
        cache: of all photos of the data set; in live training, of those that are held out.
    """

    name: str
    photos: photos.Photos
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
    """The plain view of the m photos that are left out; of a sequence head, m walks.

    Attributes:
        features: float16; pooled [m, C], grid [m, g, g, Cm]; or the `Frames` of walks.
        targets: [m, ...].
        names: 'data set/file name' of each photo; [m, T] of walks.
    """

    features: Features | Frames
    targets: np.ndarray
    names: np.ndarray


class Partition(NamedTuple):
    """The photos of a data set that a run uses.

    Attributes:
        photos: N of them, labelled or not.
        held_out: bool [N]; measured on, never trained on.
        left_out: bool [N]; neither the one nor the other: photos of fold −1.
    """

    photos: photos.Photos
    held_out: np.ndarray
    left_out: np.ndarray


def read_partition(config: ml_collections.ConfigDict, root: pathlib.Path, name: str) -> Partition:
    """Reads what is known of a data set's photos, and which are held out; no pixels yet.

    Args:
        config: checked and resolved.
        root: the folder of data sets.
        name: one of `config.datasets`: a prepared data set, or a folder of photos.

    Raises:
        CarjaxError: a table is missing or broken.
    """
    boxes = config.attribute == configs.LOCALISE
    schema = () if boxes else (configs.attribute_of(config),)
    folder = prepared.find(root, name)
    if folder is None:
        if boxes:
            known = photos.read_boxes(root / name)
        elif config.attribute == CONTENT.name:
            known = photos.read_content(configs.content_labels(config), root / name)
        else:
            table = configs.label_table(config, root / name)
            known = photos.read_labels(root / name, schema, table)
        held_out = left_out = np.zeros(len(known), bool)
        if config.fold >= 0:
            folds = photos.read_folds(configs.splits_dir(config) / f"{name}.csv", known.names)
            held_out = folds == config.fold
            left_out = folds < 0
        if corrections := configs.corrections_of(config, name):
            known = photos.correct(known, schema, corrections, ~held_out)
        return Partition(known, held_out, left_out)
    # Heads learn from cars as the car box cuts them out; the car box itself from whole photos.
    found = prepared.read(folder, schema, cropped=not boxes)
    train, evaluated = configs.split_names(config)
    if configs.BY_MODEL in train:
        trained, held_out = found.model_split == "train", found.model_split == "val"
    else:
        trained, held_out = np.isin(found.split, train), np.isin(found.split, evaluated)
    if configs.BY_MODEL in train and not (trained.any() and held_out.any()):
        models = len(set(found.photos.group.tolist()) - {""})
        raise CarjaxError(f"{folder}: {models} models cannot be split by_model")
    used = np.nonzero(trained | held_out)[0]
    return Partition(found.photos.take(used), held_out[used], np.zeros(len(used), bool))


def _warn_of_foreign(name: str, known: photos.Photos) -> None:
    """Says which labels are no class of the head, and so are not learned from."""
    for attribute, values in known.unheard_of.items():
        told = ", ".join(f"{v!r} ({n})" for v, n in values.most_common(5))
        logging.getLogger(__name__).warning(
            "%s: %d photos have a %s that the head does not know, the most frequent: %s",
            name, values.total(), attribute, told,
        )  # fmt: skip


def _warn_of_unseen(task: Task, sources: Sequence[Source]) -> None:
    """Says which classes have no photo, and so will never be stated."""
    if not isinstance(task.spec, heads.HeadSpec):
        return
    attribute = task.spec.attribute
    if isinstance(attribute, Categorical):
        seen = {i for s in sources for i in s.photos.labels[attribute.name][~s.held_out].tolist()}
        unseen = [name for i, name in enumerate(attribute.classes) if i not in seen]
        if unseen:
            logging.getLogger(__name__).warning(
                "no photo to train on is labelled %s %s: the head cannot learn that",
                attribute.name, " or ".join(unseen),
            )  # fmt: skip


def part_keys(config: ml_collections.ConfigDict, root: pathlib.Path) -> tuple[tuple[str, int], ...]:
    """Returns the parts of the classes: every (car model, class index) of the labelled photos.

    Raises:
        CarjaxError: the data set does not name the models (in a label table: class_name or model).
    """
    if not config.parts:
        return ()
    keys: set[tuple[str, int]] = set()
    for name in config.datasets:
        known = read_partition(config, root, name).photos
        labels = known.labels[config.attribute].tolist()
        own = {(g, k) for g, k in zip(known.group.tolist(), labels, strict=True) if k >= 0}
        if any(not group for group, _ in own):
            raise CarjaxError(
                f"{root / name}: photos without a model (class_name): "
                "name the model of each, or give --config.parts=False"
            )
        keys |= own
    return tuple(sorted(keys))


def load_sources(
    config: ml_collections.ConfigDict,
    task: Task,
    root: pathlib.Path,
    backbone: nn.Module,
    params: Mapping[str, Any],
    weights_sha256: str,
    *,
    views: Sequence[int] | None = None,
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
        views: the views that are needed; default: those that the config trains on.
        cache_dir: where features are kept.
        on_progress: called with (photos done, photos to do) while features are computed.

    Raises:
        CarjaxError: a label file or a photo is missing or broken, or no photo has a label.
    """
    if views is None:
        views = configs.view_numbers(config) if config.cache else (0,)
    sources = []
    for name in config.datasets:
        everything, held_out, left_out = read_partition(config, root, name)
        _warn_of_foreign(name, everything)
        everything = photos.hashed(everything)
        # Live training needs no more than the plain view of what it is measured on.
        cached = everything if config.cache else everything.take(np.nonzero(held_out)[0])
        key = feature_cache.CacheKey(
            backbone=config.backbone,
            weights_sha256=weights_sha256,
            input_size=configs.input_size(config),
            cells=config.cells,
            content_sha256=feature_cache.content_sha256(
                cached.names, photos.content_hashes(cached)
            ),
            augmentation=configs.augmentation(config),
            dtype=config.dtype,
            code=registry.code_of(config.backbone),
        )
        cache = feature_cache.build(
            cached,
            key,
            backbone,
            params,
            views,
            cache_dir=cache_dir,
            on_progress=on_progress,
        )
        # The features of what is left out are cached all the same: other folds need them.
        labelled = np.nonzero(task.known(everything) & ~left_out)[0]
        known = everything.take(labelled)
        rows = labelled if config.cache else np.cumsum(held_out)[labelled] - 1
        sources.append(Source(name, known, rows, held_out[labelled], cache))
    _warn_of_unseen(task, sources)
    return sources


def read_view(
    source: Source, view: int, chosen: np.ndarray, cells: int
) -> tuple[Features, np.ndarray]:
    """Returns features of the chosen photos in one view, the grid at `cells`², and the windows."""
    cached = source.cache.load(view)
    rows = source.rows[chosen]
    features = jax.tree.map(lambda x: np.asarray(x[rows]), cached.features)
    return pooling.pool_kept(features, cells), cached.window[rows]


def training_set(sources: Sequence[Source], task: PhotoTask, views: Sequence[int]) -> TrainingSet:
    """Gathers these views of the photos that are not held out."""
    targets = []

    def read() -> Iterator[Features]:
        for view in views:
            parts = [(s, *read_view(s, view, ~s.held_out, task.cells)) for s in sources]
            targets.append(
                np.concatenate(
                    [task.targets(_chosen(s, ~s.held_out), window, view) for s, _, window in parts]
                )
            )
            yield concatenate([f for _, f, _ in parts])

    features = stack_views(read(), len(views))
    weights = np.concatenate([task.weights(_chosen(s, ~s.held_out)) for s in sources])
    cumulative = np.cumsum(weights / weights.sum())
    return TrainingSet(features, np.stack(targets), cumulative.astype(np.float32))


def stack_views(views: Iterable[Features], count: int) -> Features:
    """Stacks the features of the same n photos in so many views: [n, …] each, [count, n, …] in all.

    Each view is written in place: all take a gigabyte, which is not copied twice.
    """
    stacked: Any = None
    for row, view in enumerate(views):
        if stacked is None:
            stacked = jax.tree.map(lambda x: np.empty((count, *x.shape), x.dtype), view)
        jax.tree.map(lambda out, x, row=row: out.__setitem__(row, x), stacked, view)
    return stacked


def held_out_set(sources: Sequence[Source], task: PhotoTask, view: int = 0) -> HeldOut:
    """Gathers one view, the plain one if not told otherwise, of the photos that are held out."""
    # Of a source of which nothing is held out, live training has no features at all.
    parts = [(s, *read_view(s, view, s.held_out, task.cells)) for s in sources if s.held_out.any()]
    targets = [task.targets(_chosen(s, s.held_out), window, view) for s, _, window in parts]
    names = [f"{s.name}/{name}" for s, *_ in parts for name in _chosen(s, s.held_out).names]
    return HeldOut(concatenate([f for _, f, _ in parts]), np.concatenate(targets), np.array(names))


def _chosen(source: Source, which: np.ndarray) -> photos.Photos:
    return source.photos.take(np.nonzero(which)[0])


def concatenate(parts: Sequence[Features]) -> Features:
    """Joins the features of several data sets' photos, [n_i, …] each."""
    if len(parts) == 1:
        return parts[0]
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)
