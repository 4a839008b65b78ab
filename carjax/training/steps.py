"""One training step, compiled: on cached features, or on live views through the backbone."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from carjax import pooling, precision
from carjax.backbones import registry
from carjax.datasets import augment
from carjax.features import Features
from carjax.training import config as configs
from carjax.training import data, live, optimiser, tasks
from carjax.training.frame_batch import FrameBatch, gather

# Photos are drawn from another key than dropout and mixup.
_DRAWS = 1 << 20


class TrainState(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        step: int32 scalar; steps done.
        trained: the parameters that train; None in the place of every other.
        optimiser: state of the optimiser.
        average: moving average of `trained`, or None.
        best: the parameters of the best held-out figure so far, or None.
        best_figure: float32 scalar; that figure, larger is better.
    """

    step: jax.Array
    trained: Any
    optimiser: optax.OptState
    average: Any
    best: Any
    best_figure: jax.Array


def draw_batch(
    key: jax.Array, training_set: data.TrainingSet, batch: int
) -> tuple[Features, jax.Array]:
    """Draws photos by their probability and views uniformly, with replacement.

    Returns:
        (float32 Features of `batch` images, their targets).
    """
    photo_key, view_key = jax.random.split(key)
    uniform = jax.random.uniform(photo_key, (batch,))
    photo = jnp.searchsorted(training_set.cumulative, uniform, side="right")
    # The last cumulative probability may round to just below 1.
    photo = jnp.minimum(photo, training_set.cumulative.shape[0] - 1)
    view = jax.random.randint(view_key, (batch,), 0, training_set.targets.shape[0])
    features, targets = jax.tree.map(
        lambda x: x[view, photo], (training_set.features, training_set.targets)
    )
    return jax.tree.map(lambda x: x.astype(jnp.float32), features), targets


def make_update(
    config: ml_collections.ConfigDict, task: tasks.Task, adamw: optax.GradientTransformation
) -> Callable[[TrainState, Any, Any, jax.Array], tuple[TrainState, jax.Array]]:
    """Builds the function (state, frozen, features, targets) → (state, loss) of one step."""
    base = jax.random.key(config.seed)

    def update(
        state: TrainState, frozen: Any, features: Any, targets: jax.Array
    ) -> tuple[TrainState, jax.Array]:
        key = jax.random.fold_in(base, state.step)

        def loss_fn(params: Any) -> jax.Array:
            return task.loss(subtree(params, config.attribute), features, targets, key)

        trained, inner, loss = optimiser.update_step(
            adamw, loss_fn, state.trained, frozen, state.optimiser
        )
        average = state.average
        if config.ema:
            # Starts fast, so that the random start is soon forgotten.
            decay = jnp.minimum(config.ema, (1.0 + state.step) / (10.0 + state.step))
            average = optax.incremental_update(trained, average, 1.0 - decay)
        return state._replace(
            step=state.step + 1, trained=trained, optimiser=inner, average=average
        ), loss

    return update


def make_run_chunk(
    config: ml_collections.ConfigDict,
    task: tasks.Task,
    adamw: optax.GradientTransformation,
    mesh: Mesh,
) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Builds the compiled function that runs `length` steps (static) on cached features.

    Returns:
        (state, frozen, training_set, *, length) → (state, losses float32 [length]).
    """
    base = jax.random.key(config.seed + _DRAWS)
    update = make_update(config, task, adamw)

    @functools.partial(jax.jit, static_argnames="length", donate_argnums=0)
    def run_chunk(
        state: TrainState, frozen: Any, training_set: data.TrainingSet, *, length: int
    ) -> tuple[TrainState, jax.Array]:
        def one_step(state: TrainState, _: None) -> tuple[TrainState, jax.Array]:
            key = jax.random.fold_in(base, state.step)
            batch = draw_batch(key, training_set, config.batch)
            return update(state, frozen, *over_rows(batch, mesh, config.batch))

        return jax.lax.scan(one_step, state, None, length=length)

    return run_chunk


def make_sequence_chunk(
    config: ml_collections.ConfigDict,
    task: tasks.Task,
    adamw: optax.GradientTransformation,
    mesh: Mesh,
) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Builds the compiled function that runs a step on every batch of stretches.

    Returns:
        (state, frozen, features of all photos and views, FrameBatch [steps, B, T]) → (state, losses
        float32 [steps]).
    """
    update = make_update(config, task, adamw)

    @functools.partial(jax.jit, donate_argnums=0)
    def sequence_chunk(
        state: TrainState, frozen: Any, features: Features, batches: FrameBatch
    ) -> tuple[TrainState, jax.Array]:
        def one_step(state: TrainState, batch: FrameBatch) -> tuple[TrainState, jax.Array]:
            batch = over_rows(batch, mesh, config.batch)
            frames = gather(features, batch)
            frames = frames._replace(
                features=jax.tree.map(lambda x: x.astype(jnp.float32), frames.features)
            )
            return update(state, frozen, frames, batch.azimuth_deg)

        return jax.lax.scan(one_step, state, batches)

    return sequence_chunk


def make_live_step(
    config: ml_collections.ConfigDict,
    task: tasks.Task,
    adamw: optax.GradientTransformation,
    mesh: Mesh,
    backbone: nn.Module,
) -> Callable[[TrainState, Any, live.LiveBatch], tuple[TrainState, jax.Array]]:
    """Builds the compiled function of one step on photos: rendered, and through the backbone.

    Returns:
        (state, frozen, batch) → (state, loss); `frozen` holds the backbone.
    """
    update = make_update(config, task, adamw)
    size, augmentation = configs.input_size(config), configs.augmentation(config)

    @functools.partial(jax.jit, donate_argnums=0)
    def live_step(
        state: TrainState, frozen: Any, batch: live.LiveBatch
    ) -> tuple[TrainState, jax.Array]:
        canvas, valid, view, targets = over_rows(batch, mesh, config.batch)
        with precision.exact_products():
            images = augment.render(canvas, valid, view, size, augmentation)
            inputs = registry.normalize(config.backbone, images)
            features: Any = backbone.apply({"params": frozen["backbone"]}, inputs)
        if task.cells:
            features = features._replace(grid=pooling.pool_grid(features.grid, task.cells))
        return update(state, frozen, features, targets)

    return live_step


def over_rows(batch: Any, mesh: Mesh, rows: int) -> Any:
    """Spreads a batch over the mesh, where its rows can be dealt out evenly."""
    if rows % mesh.size:
        return batch
    return jax.lax.with_sharding_constraint(batch, NamedSharding(mesh, PartitionSpec("data")))


def subtree(params: Any, name: str) -> Any:
    """The parameters of one head, or of the car box."""
    return params["localise"] if name == configs.LOCALISE else params["heads"][name]
