"""Live views: photos decoded and drawn anew at every step, for training without a cache."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from carjax import runtime
from carjax.datasets import augment, feature_cache, photos
from carjax.training import config as configs
from carjax.training import data
from carjax.training.tasks import PhotoTask

# Views 0 and 1 are plain; those drawn live lie beyond them.
_FIRST_VIEW, _VIEWS = 2, 1 << 30


class LiveBatch(NamedTuple):
    """Photos of one step, and how each is to be seen.

    Attributes:
        canvas: uint8 [B, S, S, 3].
        valid: float32 [B, 2]; height and width of each photo inside its canvas.
        view: of B photos.
        targets: [B, ...].
    """

    canvas: np.ndarray
    valid: np.ndarray
    view: augment.View
    targets: np.ndarray


def batches(
    sources: Sequence[data.Source],
    task: PhotoTask,
    config: ml_collections.ConfigDict,
    steps: range,
    rows: slice = slice(None),
) -> Iterator[LiveBatch]:
    """Draws the batches of some steps; step s depends on the seed and s alone.

    Args:
        sources: photos that are not held out are drawn, as often as `task.weights` says.
        task: makes the targets.
        config: the seed, the batch and the augmentation.
        steps: which steps.
        rows: of every batch, those that this process feeds.

    Raises:
        CarjaxError: a photo is missing or cannot be decoded.
    """
    kept = [s.photos.take(np.nonzero(~s.held_out)[0]) for s in sources]
    ends = np.cumsum([len(k) for k in kept])
    weights = np.concatenate([task.weights(k) for k in kept])
    augmentation = configs.augmentation(config)
    with concurrent.futures.ThreadPoolExecutor(runtime.cores()) as threads:
        for step in steps:
            rng = np.random.default_rng((config.seed, step))
            index = rng.choice(len(weights), config.batch, p=weights / weights.sum())[rows]
            views = (_FIRST_VIEW + rng.integers(0, _VIEWS, config.batch))[rows]
            views -= 0 if config.mirror else views % 2
            parts, places = [], []
            for k, pool in enumerate(kept):
                own = np.flatnonzero(np.searchsorted(ends, index, side="right") == k)
                drawn = pool.take(index[own] - (ends[k] - len(pool)))
                if len(drawn):
                    places.append(own)
                    images = list(threads.map(drawn.read, range(len(drawn))))
                    parts.append(_render_later(drawn, images, views[own], task, augmentation))
            # As drawn, whichever source a row is of: mixup joins neighbours.
            order = np.argsort(np.concatenate(places))
            yield jax.tree.map(lambda *x, order=order: np.concatenate(x)[order], *parts)


def _render_later(
    drawn: photos.Photos,
    images: list[np.ndarray],
    views: np.ndarray,
    task: PhotoTask,
    augmentation: augment.Augmentation,
) -> LiveBatch:
    """Lays decoded photos out as the device wants them, with the targets of their views."""
    canvas, valid = photos.to_canvas(images, feature_cache.CANVAS)
    view = augment.draw(augmentation, list(drawn.names), valid, views)
    scale = np.array([image.shape[1::-1] for image in images], np.float32) / valid[:, ::-1]
    return LiveBatch(canvas, valid, view, task.targets(drawn, view.window(scale), views))
