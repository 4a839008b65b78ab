"""What a run learns from: photos, walks around them, or recordings; and chunks of steps on it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import ml_collections
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from carjax.backbones import registry
from carjax.errors import CarjaxError
from carjax.features import Features
from carjax.prefetch import prefetch
from carjax.training import config as configs
from carjax.training import (
    data,
    frame_batch,
    live,
    recording_data,
    sequences,
    steps,
    tasks,
    walk_data,
)

RunChunk = Callable[[steps.TrainState, int, int], tuple[steps.TrainState, Any]]


class Setup(NamedTuple):
    """What chunks of steps are built from, whatever they learn from.

    Attributes:
        adamw: the optimiser.
        mesh: the devices.
        backbone: its module.
        frozen: the parameters that do not train, on the devices.
    """

    adamw: optax.GradientTransformation
    mesh: jax.sharding.Mesh
    backbone: nn.Module
    frozen: Any


class Material(Protocol):
    """What a run learns from and is measured on."""

    def counts(self) -> dict[str, dict[str, int]]:
        """How many labels are trained on, and held out, by data set or by recording."""

    def fingerprint(self) -> str:
        """A SHA-256 that is another one with any other photo, label, window, fold or recording."""

    def features_fingerprint(self, weights_sha256: str) -> str:
        """A SHA-256 that is another one with any other features of the same photos or frames.

        Args:
            weights_sha256: `model.weights_hash` of the backbone.
        """

    def trained_on(self) -> tuple[dict[str, list[str]], frozenset[str]]:
        """What a head's card tells of it, and the SHA-256 of every photo.

        The card tells the car models, so that an evaluation can tell cars of models that were
        trained on from others, and the recordings.
        """

    def held_out(self) -> data.HeldOut | None:
        """What the run is measured on, if anything."""

    def make_run(self, setup: Setup) -> RunChunk:
        """Builds the function (state, first step, steps) → (state, losses) of a chunk."""


# --- Photos --------------------------------------------------------------------------------------


class _FromPhotos:
    """What is told of photos, whatever is learnt from them."""

    config: ml_collections.ConfigDict
    sources: Sequence[data.Source]

    def counts(self) -> dict[str, dict[str, int]]:
        return {
            "photos": {s.name: int((~s.held_out).sum()) for s in self.sources},
            "held_out_photos": {s.name: int(s.held_out.sum()) for s in self.sources},
        }

    def fingerprint(self) -> str:
        told = hashlib.sha256()
        for s in self.sources:
            words = [s.name, *s.photos.names, *(s.photos.sha256 or ()), *s.photos.group.tolist()]
            numbers = [*s.photos.labels.values(), s.photos.box, s.held_out]
            # Windows are told where there are any, so that other data keep their fingerprint.
            numbers += [] if s.photos.crop is None else [s.photos.crop]
            _tell(told, words, numbers)
        return told.hexdigest()

    def features_fingerprint(self, weights_sha256: str) -> str:
        told = hashlib.sha256()
        _tell(told, (weights_sha256, registry.code_of(self.config.backbone)), ())
        return told.hexdigest()

    def trained_on(self) -> tuple[dict[str, list[str]], frozenset[str]]:
        kept = [s.photos.take(np.flatnonzero(~s.held_out)) for s in self.sources]
        models = {m for p in kept for m in p.group if m}
        return {"models": sorted(models)}, frozenset(h for p in kept for h in p.sha256 or ())


@dataclasses.dataclass(frozen=True)
class PhotoMaterial(_FromPhotos):
    """Single photos, drawn from cached features or, without a cache, decoded at every step."""

    config: ml_collections.ConfigDict
    task: tasks.PhotoTask
    sources: Sequence[data.Source]

    def held_out(self) -> data.HeldOut | None:
        """The held-out photos in the plain view."""
        if not any(s.held_out.any() for s in self.sources):
            return None
        return data.held_out_set(self.sources, self.task)

    def make_run(self, setup: Setup) -> RunChunk:
        """See `Material`."""
        if not self.config.cache:
            return self._make_live_run(setup)
        views = configs.view_numbers(self.config)
        training_set = replicate(data.training_set(self.sources, self.task, views), setup.mesh)
        scan = steps.make_run_chunk(self.config, self.task, setup.adamw, setup.mesh)
        return lambda state, _, length: scan(state, setup.frozen, training_set, length=length)

    def _make_live_run(self, setup: Setup) -> RunChunk:
        adamw, mesh, backbone, frozen = setup
        size = self.config.batch
        if size % mesh.size:  # no equal share for every device: each of them has the whole batch
            rows, spread = slice(None), NamedSharding(mesh, PartitionSpec())
        else:
            own = size // jax.process_count()
            rows = slice(own * jax.process_index(), own * (jax.process_index() + 1))
            spread = NamedSharding(mesh, PartitionSpec("data"))
        live_step = steps.make_live_step(self.config, self.task, adamw, mesh, backbone)

        def run(state: steps.TrainState, first: int, length: int) -> tuple[steps.TrainState, Any]:
            losses = []
            drawn = live.batches(
                self.sources, self.task, self.config, range(first, first + length), rows
            )
            with prefetch(drawn, depth=2) as stream:
                for batch in stream:
                    placed = jax.tree.map(
                        lambda x: jax.make_array_from_process_local_data(spread, x), batch
                    )
                    state, loss = live_step(state, frozen, placed)
                    losses.append(loss)
            return state, np.array([float(loss) for loss in losses])

        return run


# --- Sequences -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class WalkMaterial(_FromPhotos):
    """Simulated walks around the photos of each car model; `spoilt` are their spoilt views."""

    config: ml_collections.ConfigDict
    task: sequences.SequenceTask
    sources: Sequence[data.Source]
    spoilt: Sequence[data.Source]

    def held_out(self) -> data.HeldOut | None:
        """Walks around the held-out photos."""
        if not any(s.held_out.any() for s in self.sources):
            return None
        views = walk_data.photo_views(self.sources, self.spoilt, self.task, 2, held_out=True)
        return walk_data.held_out_walks(views, self.config)

    def make_run(self, setup: Setup) -> RunChunk:
        """See `Material`."""
        views = walk_data.photo_views(
            self.sources, self.spoilt, self.task, self.config.views, held_out=False
        )
        chunk = steps.make_sequence_chunk(self.config, self.task, setup.adamw, setup.mesh)
        return _sequence_run(
            chunk, views.features, lambda step: walk_data.draw(views, self.config, step), setup
        )


@dataclasses.dataclass(frozen=True)
class RecordingMaterial:
    """Windows of recordings of known azimuth."""

    config: ml_collections.ConfigDict
    task: sequences.SequenceTask
    split: recording_data.Split

    def counts(self) -> dict[str, dict[str, int]]:
        """Labelled frames by recording."""
        train, held_out = self.split
        return {
            "frames": train.labelled(),
            "held_out_frames": {} if held_out is None else held_out.labelled(),
        }

    def fingerprint(self) -> str:
        """See `Material`."""
        told = hashlib.sha256()
        for part in filter(None, self.split):
            _tell(told, part.sources, (part.starts, part.azimuth_deg, part.time_s, part.frame))
        return told.hexdigest()

    def features_fingerprint(self, weights_sha256: str) -> str:
        """See `Material`: of the features as they were scored, whoever computed them."""
        told = hashlib.sha256()
        for part in filter(None, self.split):
            _tell(told, (), jax.tree.leaves(part.features))
        return told.hexdigest()

    def trained_on(self) -> tuple[dict[str, list[str]], frozenset[str]]:
        """No car model, and no photo."""
        return {"models": [], "recordings": list(self.split.train.sources)}, frozenset()

    def held_out(self) -> data.HeldOut | None:
        """The held-out recordings, in windows."""
        if self.split.held_out is None:
            return None
        return recording_data.held_out_windows(self.split.held_out, self.config)

    def make_run(self, setup: Setup) -> RunChunk:
        """See `Material`."""
        train = self.split.train
        chunk = steps.make_sequence_chunk(self.config, self.task, setup.adamw, setup.mesh)
        return _sequence_run(
            chunk, train.features, lambda step: recording_data.draw(train, self.config, step), setup
        )


def _sequence_run(
    chunk: Callable[..., tuple[steps.TrainState, jax.Array]],
    features: Features,
    draw: Callable[[int], frame_batch.FrameBatch],
    setup: Setup,
) -> RunChunk:
    """The features stay on the device; every chunk is told which of their rows its steps see."""
    placed = replicate(features, setup.mesh)

    def run(state: steps.TrainState, first: int, length: int) -> tuple[steps.TrainState, Any]:
        batches = frame_batch.stack(draw(step) for step in range(first, first + length))
        return chunk(state, setup.frozen, placed, replicate(batches, setup.mesh))

    return run


# -------------------------------------------------------------------------------------------------


def of_photos(
    config: ml_collections.ConfigDict,
    task: tasks.PhotoTask | sequences.SequenceTask,
    root: pathlib.Path,
    backbone: nn.Module,
    params: Mapping[str, Any],
    weights_sha256: str,
    *,
    cache_dir: str | os.PathLike[str] | None,
    on_progress: Callable[[int, int], None],
) -> PhotoMaterial | WalkMaterial:
    """Reads photos, and computes the features that the cache lacks; see `data.load_sources`.

    Raises:
        CarjaxError: a label file or a photo is missing or broken, or none is left to train on.
    """

    def load(config: ml_collections.ConfigDict, views: Sequence[int] | None) -> list[data.Source]:
        return data.load_sources(
            config, task, root, backbone, params, weights_sha256,
            views=views, cache_dir=cache_dir, on_progress=on_progress,
        )  # fmt: skip

    sources = load(config, None)
    if not any((~s.held_out).any() for s in sources):
        raise CarjaxError(f"no photo in {', '.join(config.datasets)} has a label to train on")
    if not isinstance(task, sequences.SequenceTask):
        return PhotoMaterial(config, task, sources)
    spoilt = load(sequences.spoilt_config(config), sequences.SPOILT_VIEWS)
    return WalkMaterial(config, task, sources, spoilt)


def replicate(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """Puts the same arrays on every device of the mesh, of all processes."""
    everywhere = NamedSharding(mesh, PartitionSpec())

    def put(x: Any) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, everywhere, lambda index: x[index])

    return jax.tree.map(put, tree)


def _tell(told: Any, words: Iterable[str], columns: Iterable[np.ndarray]) -> None:
    told.update("\n".join(words).encode())
    for column in columns:
        told.update(np.ascontiguousarray(column))
