"""Train one head, or the car box: `train_and_evaluate` reads from top to end.

A run is a sequence of chunks of steps. A chunk is one `lax.scan` on the device, over features that
lie there; step s draws its batch, its dropout and its mixup from fold_in(key, s) alone. So a run
that is resumed from the checkpoint of any chunk repeats the losses of an undisturbed one exactly.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from carjax import backbones, model, pooling, progress
from carjax.backbones import registry
from carjax.datasets import photos
from carjax.errors import CarjaxError, UsageError
from carjax.evaluation import metrics
from carjax.temporal import sequence_heads
from carjax.training import config as configs
from carjax.training import (
    config_check,
    data,
    head_file,
    optimiser,
    prediction,
    recording_data,
    run_folder,
    sequences,
    steps,
    tasks,
)
from carjax.training import material as materials

# Walks that are predicted at once.
_EVALUATION_WALKS = 8


def train_and_evaluate(
    config: ml_collections.ConfigDict,
    workdir: str | os.PathLike[str],
    data_dir: str | os.PathLike[str] | None = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Trains what the config names, resuming where `workdir` stands, and writes the result there.

    `workdir` ends up with `head.safetensors` (a bundle of one head), `result.json`, `metrics.csv`,
    `held_out.npz` (predictions on the fold that was left out) and `checkpoints/`.

    Args:
        config: from a file of `configs/`.
        workdir: a folder of this run alone; made if it does not exist.
        data_dir: the folder of data sets; default `$CARJAX_DATA`.
        cache_dir: where features are kept; default: see `feature_cache.cache_root`.
        quiet: show no progress.

    Returns:
        The content of `result.json`: config, photos (or labelled frames of recordings), metrics on
        the held-out fold, seconds.

    Raises:
        UsageError: a setting is wrong.
        CarjaxError: data are missing or broken, `workdir` holds another run, or a disk is full.
    """
    # --- Check everything that can be checked before any photo is read. ---------------------------
    config_check.check(config)
    if sequences.is_sequence(config):
        sequences.check(config)
    recorded = recording_data.find(config) if sequences.from_recordings(config) else None
    if recorded is None:
        root = photos.data_root(data_dir)
        config_check.check_data(config, root)
        config = configs.resolve(config, root)
        config_check.check_resolved(config)
    primary = jax.process_index() == 0
    folder = run_folder.RunFolder(workdir, writes=primary)
    folder.claim(config)
    if result := folder.finished():
        return result
    # Not before: this import takes seconds.
    from carjax.training.checkpoints import Checkpoints

    # --- Frozen features of every photo and view, from the cache. ---------------------------------
    backbone, backbone_params = backbones.load_pretrained(
        config.backbone, config.backbone_weights or None, dtype=jnp.dtype(config.dtype)
    )
    weights_sha256 = model.weights_hash(backbone_params)
    of_sequences = sequences.is_sequence(config)
    task: tasks.PhotoTask | sequences.SequenceTask
    material: materials.Material
    if recorded is not None:
        task = sequences.create(config)
        split = recording_data.load(recorded, config, weights_sha256)
        material = materials.RecordingMaterial(config, task, split)
    else:
        keys = data.part_keys(config, root)
        task = sequences.create(config) if of_sequences else tasks.create(config, keys)
        with progress.bars(quiet=quiet) as show:
            material = materials.of_photos(
                config, task, root, backbone, backbone_params, weights_sha256,
                cache_dir=cache_dir, on_progress=functools.partial(show, "features"),
            )  # fmt: skip
    folder.claim_data(material.fingerprint(), material.features_fingerprint(weights_sha256))
    started = time.monotonic()
    held_out = material.held_out()
    if config.keep_best and held_out is None:
        raise UsageError("config.keep_best: nothing that is held out has a label to measure")
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))

    # --- Parameters: one head trains, all else stays. ---------------------------------------------
    params = {"backbone": backbone_params, **_init(config, task)}
    mask = optimiser.head_mask(params, config.attribute)
    adamw = optimiser.make_optimiser(
        mask,
        optimiser.OptimiserConfig(
            config.lr, config.steps, config.warmup, config.weight_decay, config.clip
        ),
    )
    trained, frozen = optimiser.split(params, mask)
    state = steps.TrainState(
        step=jnp.zeros((), jnp.int32),
        trained=trained,
        optimiser=adamw.init(params),
        average=jax.tree.map(jnp.copy, trained) if config.ema else None,
        best=jax.tree.map(jnp.copy, trained) if config.keep_best else None,
        best_figure=jnp.float32(-jnp.inf),
    )
    state, frozen = materials.replicate((state, frozen), mesh)
    run_chunk = material.make_run(materials.Setup(adamw, mesh, backbone, frozen))
    batch = _EVALUATION_WALKS if of_sequences else prediction.BATCH
    predict_rows = functools.partial(prediction.predict_all, jax.jit(task.predict), batch=batch)

    # --- Train in chunks; each ends with a line of metrics and a checkpoint. ----------------------
    with contextlib.ExitStack() as stack:
        stack.enter_context(folder.writing())
        checkpoints = stack.enter_context(Checkpoints(folder.path / run_folder.CHECKPOINTS))
        show = stack.enter_context(progress.bars(quiet=quiet))
        state = checkpoints.restore(state, NamedSharding(mesh, PartitionSpec())) or state
        step = int(state.step)
        curves = stack.enter_context(
            contextlib.closing(run_folder.Curves(folder, step, writes=primary))
        )
        show("steps", step, config.steps)
        while step < config.steps:
            length = min(config.chunk, config.steps - step)
            state, losses = run_chunk(state, step, length)
            step += length
            row = {"step": step, "loss": float(np.asarray(losses, np.float64).mean())}
            if not np.isfinite(row["loss"]):
                elsewhere = " and give another --workdir" if folder.begun() else ""
                raise CarjaxError(
                    f"the loss is {row['loss']} at step {step}: lower --config.lr{elsewhere}"
                )
            if held_out is not None:
                figures = task.metrics(
                    predict_rows(held_out.features, _head(state, config)), held_out.targets
                )
                row |= figures
                state = _keep_best(config, state, figures, mesh)
            curves.add(row)
            checkpoints.save(step, state)
            show("steps", step, config.steps, _told(row))

    # --- Evaluate exactly what is written, float16 weights included. ------------------------------
    final = state.best if config.keep_best else None
    head = _head(state, config) if final is None else steps.subtree(final, config.attribute)
    head = jax.tree.map(lambda x: np.asarray(x).astype(np.float16).astype(np.float32), head)
    measured: dict[str, float] = {}
    if held_out is not None:
        predictions = predict_rows(held_out.features, head)
        measured = task.metrics(predictions, held_out.targets)
        folder.write_predictions(
            {"names": held_out.names, "targets": held_out.targets, **predictions}
        )
    result = {
        "config": config.to_dict(),
        **material.counts(),
        "held_out": measured,
        "seconds": round(time.monotonic() - started, 1),
    }
    folder.write_result(result)
    if primary:
        path = folder.path / run_folder.HEAD_FILE
        with folder.writing():
            head_file.save(config, task, head, result, weights_sha256, material, path)
    return result


def _keep_best(
    config: ml_collections.ConfigDict,
    state: steps.TrainState,
    figures: Mapping[str, float],
    mesh: jax.sharding.Mesh,
) -> steps.TrainState:
    """Remembers the parameters whose held-out figure is the best so far."""
    if not config.keep_best:
        return state
    sign = -1.0 if config.keep_best in metrics.LOWER_IS_BETTER else 1.0
    figure = np.float32(sign * figures[config.keep_best])
    if figure <= float(state.best_figure):
        return state
    current = state.average if config.ema else state.trained
    return state._replace(
        best=jax.tree.map(jnp.copy, current), best_figure=materials.replicate(figure, mesh)
    )


# --- Parameters ----------------------------------------------------------------------------------


def _init(config: ml_collections.ConfigDict, task: tasks.Task) -> dict[str, Any]:
    """Initialises the head in its place: {'heads': {name: …}} or {'localise': …}."""
    one: Any
    if isinstance(task, sequences.SequenceTask):
        one = sequence_heads.example_frames(task.spec)
    else:
        one = registry.example_features(config.backbone, configs.input_size(config))
        if task.cells:
            one = one._replace(grid=pooling.pool_grid(one.grid, task.cells))
    params = task.module.init(jax.random.key(config.seed), one)["params"]
    if config.attribute == configs.LOCALISE:
        return {"localise": params}
    return {"heads": {config.attribute: params}}


def _head(state: steps.TrainState, config: ml_collections.ConfigDict) -> Any:
    """The head's parameters: the moving average where the run keeps one."""
    return steps.subtree(state.average if config.ema else state.trained, config.attribute)


def _told(row: Mapping[str, float]) -> str:
    """The loss and the first two held-out figures, as they stand beside the bar."""
    return "  ".join(f"{k} {v:.3f}" for k, v in list(row.items())[1:4])
