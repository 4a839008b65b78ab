"""What sequence heads learn from: simulated walks over the cached features of photos.

Features lie on the device as for single photos; a step is B walks of T frames, as indices of photos
and views, simulated on the host from (seed, step) alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import ml_collections
import numpy as np

from carjax.errors import CarjaxError
from carjax.features import Features
from carjax.temporal import walks
from carjax.training import data, sequences
from carjax.training.frame_batch import FrameBatch, gather

# The walks that a run is measured on are always the same ones.
_HELD_OUT_SEED = 20261


class PhotoViews(NamedTuple):
    """What walks are made of: n photos in V plain views and, after those, the spoilt ones.

    Attributes:
        features: float16; pooled [V + 2, n, C], grid [V + 2, n, g, g, Cm].
        azimuth_deg: float32 [n]; labels.
        models: the photos of each car model, int [n_m] each.
        names: 'data set/file name' of each photo.
    """

    features: Features
    azimuth_deg: np.ndarray
    models: tuple[np.ndarray, ...]
    names: np.ndarray

    @property
    def plain(self) -> int:
        """V: the number of plain views."""
        return len(self.features.pooled) - len(sequences.SPOILT_VIEWS)

    def batch(self, found: Sequence[walks.Walk], rng: np.random.Generator | None) -> FrameBatch:
        """Joins walks; `rng` chooses among the plain views, None takes the photo as it is."""
        walk = walks.stack(found)
        mirrored, plain = walk.view % 2, self.plain
        view = (
            mirrored
            if rng is None
            else mirrored + 2 * rng.integers(plain // 2, size=mirrored.shape)
        )
        view = np.where(walk.spoilt, plain + mirrored, view).astype(np.int32)
        return FrameBatch(view, walk.photo, walk.azimuth_deg, walk.time_s, walk.mask)


def photo_views(
    sources: Sequence[data.Source],
    spoilt: Sequence[data.Source],
    task: sequences.SequenceTask,
    views: int,
    *,
    held_out: bool,
) -> PhotoViews:
    """Gathers the views of the photos that are, or are not, held out.

    Raises:
        CarjaxError: a photo has no car model to walk around.
    """
    index = [np.flatnonzero(s.held_out == held_out) for s in sources]
    wanted = [(sources, view) for view in range(views - views % 2)]
    wanted += [(spoilt, view) for view in sequences.SPOILT_VIEWS]

    def read() -> Iterator[Features]:
        for own, view in wanted:
            which = zip(own, index, strict=True)
            yield data.concatenate([data.read_view(s, view, i, task.cells)[0] for s, i in which])

    features = data.stack_views(read(), len(wanted))
    chosen = [s.photos.take(i) for s, i in zip(sources, index, strict=True)]
    group = np.concatenate([p.group for p in chosen])
    if not all(group):
        raise CarjaxError(
            f"{sources[0].name}: photos without a model (class_name): walks go around one model"
        )
    return PhotoViews(
        features,
        np.concatenate([p.labels[task.spec.head.attribute.name] for p in chosen]),
        tuple(np.flatnonzero(group == name) for name in np.unique(group)),
        np.array([f"{s.name}/{n}" for s, p in zip(sources, chosen, strict=True) for n in p.names]),
    )


def draw(views: PhotoViews, config: ml_collections.ConfigDict, step: int) -> FrameBatch:
    """Draws the walks of one training step, each around a random model, cut to a random part."""
    rng = np.random.default_rng((config.seed, step))
    spec, frames = sequences.walk_spec(config), config.sequence.frames
    found = []
    for _ in range(config.batch):
        photos = views.models[rng.integers(len(views.models))]
        walk = walks.simulate(views.azimuth_deg[photos], spec, rng)
        found.append(cut(walk._replace(photo=photos[walk.photo]), frames, rng))
    return views.batch(found, rng)


def cut(walk: walks.Walk, frames: int, rng: np.random.Generator) -> walks.Walk:
    """Returns `frames` consecutive frames of a walk from a random one on; a short one is padded."""
    first = rng.integers(max(int(walk.mask.sum()) - frames, 0) + 1)
    part = walks.Walk(*(x[first : first + frames] for x in walk))
    missing = frames - len(part.mask)
    if not missing:
        return part
    padded = walks.Walk(*(np.pad(x, (0, missing), mode="edge") for x in part))
    return padded._replace(mask=np.arange(frames) < part.mask.sum())


def held_out_walks(views: PhotoViews, config: ml_collections.ConfigDict) -> data.HeldOut:
    """Walks around every held-out model, the same for every run; NaN targets are padding."""
    found = []
    for i, photos in enumerate(views.models):
        for k in range(config.sequence.held_out_walks):
            rng = np.random.default_rng((_HELD_OUT_SEED, i, k))
            walk = walks.simulate(views.azimuth_deg[photos], sequences.walk_spec(config), rng)
            found.append(walk._replace(photo=photos[walk.photo]))
    batch = views.batch(found, None)
    frames = gather(views.features, batch)
    targets = np.where(batch.mask, batch.azimuth_deg, np.nan)
    names = np.where(batch.mask, views.names[batch.row], "")
    return data.HeldOut(frames, targets, names)
