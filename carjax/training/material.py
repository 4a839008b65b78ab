"""What a run learns from: photos, walks around them, or recordings; and chunks of steps on it."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import ml_collections
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from carjax.errors import CarjaxError, UsageError
from carjax.prefetch import prefetch
from carjax.training import config as configs
from carjax.training import data, live, recording_data, sequences, steps, tasks, walk_data

RunChunk = Callable[[steps.TrainState, int, int], tuple[steps.TrainState, Any]]


@dataclasses.dataclass(frozen=True)
class Material:
    """What a run learns from and is measured on.

    Attributes:
        sources: data sets of photos; empty where it learns from recordings.
        spoilt: the same photos in the views of spoilt frames; empty unless walks show them.
        recordings: of a sequence head; None: photos.
    """

    sources: Sequence[data.Source] = ()
    spoilt: Sequence[data.Source] = ()
    recordings: recording_data.Split | None = None

    def counts(self) -> dict[str, dict[str, int]]:
        """How many labels are trained on, and held out, by data set or by recording."""
        if self.recordings is not None:
            train, held_out = self.recordings
            return {
                "frames": train.labelled(),
                "held_out_frames": {} if held_out is None else held_out.labelled(),
            }
        return {
            "photos": {s.name: int((~s.held_out).sum()) for s in self.sources},
            "held_out_photos": {s.name: int(s.held_out.sum()) for s in self.sources},
        }

    def fingerprint(self) -> str:
        """A SHA-256 that is another one with any other photo, label, window, fold or recording."""
        told = hashlib.sha256()
        for s in self.sources:
            words = [s.name, *s.photos.names, *s.hashes.tolist(), *s.photos.group.tolist()]
            told.update("\n".join(words).encode())
            for column in (*s.photos.labels.values(), s.photos.box, s.held_out):
                told.update(np.ascontiguousarray(column).tobytes())
        for part in self.recordings or ():
            if part is not None:
                told.update("\n".join(part.sources).encode())
                for column in (part.starts, part.azimuth_deg, part.time_s, part.frame):
                    told.update(np.ascontiguousarray(column).tobytes())
        return told.hexdigest()

    def trained_on(self) -> tuple[dict[str, list[str]], frozenset[str]]:
        """What a head's card tells of it, and the SHA-256 of every photo.

        The card tells the car models, so that an evaluation can tell cars of models that were
        trained on from others, and the recordings.
        """
        models = {m for s in self.sources for m in s.photos.group[~s.held_out] if m}
        told = {"models": sorted(models)}
        if self.recordings is not None:
            told["recordings"] = list(self.recordings.train.sources)
        return told, frozenset(h for s in self.sources for h in s.hashes[~s.held_out])


def of_photos(
    config: ml_collections.ConfigDict,
    task: tasks.Task,
    root: pathlib.Path,
    backbone: nn.Module,
    params: Mapping[str, Any],
    weights_sha256: str,
    *,
    cache_dir: str | os.PathLike[str] | None,
    on_progress: Callable[[int, int], None],
) -> Material:
    """Reads photos, and computes the features that the cache lacks; see `data.load_sources`.

    Raises:
        CarjaxError: a label file or a photo is missing or broken, or none is left to train on.
    """

    def load(config: ml_collections.ConfigDict, views: Sequence[int] | None) -> list[data.Source]:
        return data.load_sources(
            config, task, root, backbone, params, weights_sha256,
            views=views, cache_dir=cache_dir, on_progress=on_progress,
        )  # fmt: skip

    sources, spoilt = load(config, None), []
    if isinstance(task, sequences.SequenceTask):
        spoilt = load(sequences.spoilt_config(config), sequences.SPOILT_VIEWS)
    if not any((~s.held_out).any() for s in sources):
        raise CarjaxError(f"no photo in {', '.join(config.datasets)} has a label to train on")
    return Material(sources, spoilt)


def held_out(
    config: ml_collections.ConfigDict, task: tasks.Task, material: Material
) -> data.HeldOut | None:
    """What the run is measured on: held-out photos, walks around them, windows of recordings."""
    if material.recordings is not None:
        own = material.recordings.held_out
        return None if own is None else recording_data.held_out_windows(own, config)
    if not any(s.held_out.any() for s in material.sources):
        return None
    if isinstance(task, sequences.SequenceTask):
        views = walk_data.photo_views(material.sources, material.spoilt, task, 2, held_out=True)
        return walk_data.held_out_walks(views, config)
    return data.held_out_set(material.sources, task)


def make_run(
    config: ml_collections.ConfigDict,
    task: tasks.Task,
    adamw: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    backbone: nn.Module,
    material: Material,
    frozen: Any,
) -> RunChunk:
    """Builds the function (state, first step, steps) → (state, losses) of a chunk."""
    sources = material.sources
    if isinstance(task, sequences.SequenceTask):
        walk_chunk = steps.make_walk_chunk(config, task, adamw, mesh)
        shown: Any
        chunk_of: Callable[[Any, ml_collections.ConfigDict, range], walk_data.WalkBatch]
        if material.recordings is not None:
            shown, chunk_of = material.recordings.train, recording_data.chunk_of
        else:
            shown = walk_data.photo_views(
                sources, material.spoilt, task, config.views, held_out=False
            )
            chunk_of = walk_data.chunk_of
        features = replicate(shown.features, mesh)

        def walk(state: steps.TrainState, first: int, length: int) -> tuple[steps.TrainState, Any]:
            batches = chunk_of(shown, config, range(first, first + length))
            return walk_chunk(state, frozen, features, replicate(batches, mesh))

        return walk
    if config.cache:
        training_set = replicate(
            data.training_set(sources, task, configs.view_numbers(config)), mesh
        )
        scan = steps.make_run_chunk(config, task, adamw, mesh)
        return lambda state, _, length: scan(state, frozen, training_set, length=length)
    live_step = steps.make_live_step(config, task, adamw, mesh, backbone)
    if config.batch % jax.process_count():
        raise UsageError(
            f"config.batch: {config.batch} cannot be shared by {jax.process_count()} processes"
        )
    own = config.batch // jax.process_count()
    rows = slice(own * jax.process_index(), own * (jax.process_index() + 1))
    spread = NamedSharding(mesh, PartitionSpec("data" if config.batch % mesh.size == 0 else None))

    def run(state: steps.TrainState, first: int, length: int) -> tuple[steps.TrainState, Any]:
        losses = []
        wanted = range(first, first + length)
        with prefetch(live.batches(sources, task, config, wanted, rows), depth=2) as stream:
            for batch in stream:
                placed = jax.tree.map(
                    lambda x: jax.make_array_from_process_local_data(spread, x), batch
                )
                state, loss = live_step(state, frozen, placed)
                losses.append(loss)
        return state, np.array([float(loss) for loss in losses])

    return run


def replicate(tree: Any, mesh: jax.sharding.Mesh) -> Any:
    """Puts the same arrays on every device of the mesh, of all processes."""
    everywhere = NamedSharding(mesh, PartitionSpec())

    def put(x: Any) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, everywhere, lambda index: x[index])

    return jax.tree.map(put, tree)
