"""Train one head, or the car box, on cached features: `train_and_evaluate` reads from top to end.

A run is a sequence of chunks of steps. A chunk is one `lax.scan` on the device, over features that
lie there; step s draws its batch, its dropout and its mixup from fold_in(key, s) alone. So a run
that is resumed from the checkpoint of any chunk repeats the losses of an undisturbed one exactly.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import rich.console
import rich.progress
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import carjax
from carjax import backbones, files, localise, model
from carjax.backbones import registry
from carjax.backbones.features import Features
from carjax.datasets import photos
from carjax.errors import CarjaxError
from carjax.training import config as configs
from carjax.training import data, optimiser, tasks

HEAD_FILE = "head.safetensors"
PREDICTIONS_FILE = "held_out.npz"
RESULT_FILE = "result.json"
METRICS_FILE = "metrics.csv"
_EVALUATION_BATCH = 256


class TrainState(NamedTuple):
    """What a checkpoint holds.

    Attributes:
        step: int32 scalar; steps done.
        trained: the parameters that train; None in the place of every other.
        optimiser: state of the optimiser.
        average: moving average of `trained`, or None.
    """

    step: jax.Array
    trained: Any
    optimiser: optax.OptState
    average: Any


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
        The content of `result.json`: config, photos, metrics on the held-out fold, seconds.

    Raises:
        UsageError: a setting is wrong.
        CarjaxError: data are missing or broken, or `workdir` holds another run.
    """
    # --- Check everything that can be checked before any photo is read. ---------------------------
    configs.check(config)
    root = photos.data_root(data_dir)
    configs.check(config, root)
    out = pathlib.Path(workdir)
    _claim(out, config)
    if (out / HEAD_FILE).is_file():
        return json.loads((out / RESULT_FILE).read_text())
    # Not before: this import takes seconds.
    from carjax.training.checkpoints import Checkpoints

    # --- Frozen features of every photo and view, from the cache. ---------------------------------
    task = tasks.create(config, data.part_keys(config, root))
    backbone, backbone_params = backbones.load_pretrained(
        config.backbone, config.backbone_weights or None
    )
    weights_sha256 = model.weights_hash(backbone_params)
    with _progress("features", quiet) as show:
        sources = data.load_sources(
            config,
            task,
            root,
            backbone,
            backbone_params,
            weights_sha256,
            cache_dir=cache_dir,
            on_progress=show,
        )
    if not any((~s.held_out).any() for s in sources):
        raise CarjaxError(f"no photo in {', '.join(config.datasets)} has a label to train on")
    started = time.monotonic()
    held_out = data.held_out_set(sources, task)
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",), axis_types=(AxisType.Auto,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    training_set = jax.device_put(data.training_set(sources, task, config.views), everywhere)

    # --- Parameters: one head trains, all else stays. ---------------------------------------------
    params = {"backbone": backbone_params, **_init(config, task, held_out.features)}
    mask = optimiser.head_mask(params, config.attribute)
    adamw = optimiser.make_optimiser(
        mask,
        optimiser.OptimiserConfig(
            config.lr, config.steps, config.warmup, config.weight_decay, config.clip
        ),
    )
    trained, frozen = optimiser.split(params, mask)
    state = TrainState(
        jnp.zeros((), jnp.int32),
        trained,
        adamw.init(params),
        jax.tree.map(jnp.copy, trained) if config.ema else None,
    )
    state, frozen = jax.device_put((state, frozen), everywhere)
    run_chunk = make_run_chunk(config, task, adamw, mesh)
    evaluate = functools.partial(_predict, jax.jit(task.predict), held_out.features)

    # --- Train in chunks; each ends with a line of metrics and a checkpoint. ----------------------
    with Checkpoints(out / "checkpoints") as checkpoints, _progress("steps", quiet) as show:
        state = checkpoints.restore(state, everywhere) or state
        step = int(state.step)
        log = _read_log(out / METRICS_FILE, step)
        show(step, config.steps)
        while step < config.steps:
            length = min(config.chunk, config.steps - step)
            state, losses = run_chunk(state, frozen, training_set, length=length)
            step += length
            row = {"step": step, "loss": float(np.asarray(losses, np.float64).mean())}
            if not np.isfinite(row["loss"]):
                raise CarjaxError(f"the loss is {row['loss']} at step {step}: lower --config.lr")
            if len(held_out.names):
                row |= task.metrics(evaluate(_head(state, config)), held_out.targets)
            log.append(row)
            _write_log(out / METRICS_FILE, log)
            checkpoints.save(step, state)
            show(step, config.steps)

    # --- Evaluate exactly what is written, float16 weights included. ------------------------------
    head = jax.tree.map(lambda x: x.astype(jnp.float16).astype(jnp.float32), _head(state, config))
    metrics: dict[str, float] = {}
    if len(held_out.names):
        predictions = evaluate(head)
        metrics = task.metrics(predictions, held_out.targets)
        with files.replacing(out / PREDICTIONS_FILE) as temporary, temporary.open("wb") as f:
            columns: dict[str, Any] = {"names": held_out.names, "targets": held_out.targets}
            np.savez(f, **(columns | predictions))
    result = {
        "config": config.to_dict(),
        "photos": {s.name: int((~s.held_out).sum()) for s in sources},
        "held_out_photos": {s.name: int(s.held_out.sum()) for s in sources},
        "held_out": metrics,
        "seconds": round(time.monotonic() - started, 1),
    }
    with files.replacing(out / RESULT_FILE) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")
    model.save(_bundle(config, task, head, result, weights_sha256, sources), out / HEAD_FILE)
    return result


# --- One chunk -----------------------------------------------------------------------------------


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


def make_run_chunk(
    config: ml_collections.ConfigDict,
    task: tasks.Task,
    adamw: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Builds the compiled function that runs `length` steps (static) from a state.

    Returns:
        (state, frozen, training_set, *, length) → (state, losses float32 [length]).
    """
    base = jax.random.key(config.seed)
    split_rows = NamedSharding(mesh, PartitionSpec("data"))

    @functools.partial(jax.jit, static_argnames="length", donate_argnums=0)
    def run_chunk(
        state: TrainState, frozen: Any, training_set: data.TrainingSet, *, length: int
    ) -> tuple[TrainState, jax.Array]:
        def one_step(state: TrainState, _: None) -> tuple[TrainState, jax.Array]:
            batch_key, loss_key = jax.random.split(jax.random.fold_in(base, state.step))
            features, targets = draw_batch(batch_key, training_set, config.batch)
            if config.batch % mesh.size == 0:
                features = jax.lax.with_sharding_constraint(features, split_rows)

            def loss_fn(params: Any) -> jax.Array:
                return task.loss(_subtree(params, config.attribute), features, targets, loss_key)

            trained, inner, loss = optimiser.update_step(
                adamw, loss_fn, state.trained, frozen, state.optimiser
            )
            average = state.average
            if config.ema:
                # Starts fast, so that the random start is soon forgotten.
                decay = jnp.minimum(config.ema, (1.0 + state.step) / (10.0 + state.step))
                average = optax.incremental_update(trained, average, 1.0 - decay)
            return TrainState(state.step + 1, trained, inner, average), loss

        return jax.lax.scan(one_step, state, None, length=length)

    return run_chunk


# --- Parameters ----------------------------------------------------------------------------------


def _init(config: ml_collections.ConfigDict, task: tasks.Task, example: Features) -> dict[str, Any]:
    """Initialises the head in its place: {'heads': {name: …}} or {'localise': …}."""
    one = jax.tree.map(lambda x: jnp.zeros((1, *x.shape[1:]), jnp.float32), example)
    params = task.module.init(jax.random.key(config.seed), one)["params"]
    if config.attribute == configs.LOCALISE:
        return {"localise": params}
    return {"heads": {config.attribute: params}}


def _subtree(params: Mapping[str, Any], name: str) -> Any:
    return params["localise"] if name == configs.LOCALISE else params["heads"][name]


def _head(state: TrainState, config: ml_collections.ConfigDict) -> Any:
    """The head's parameters: the moving average where the run keeps one."""
    return _subtree(state.average if config.ema else state.trained, config.attribute)


def _predict(
    predict: Callable[[Any, Features], dict[str, jax.Array]], features: Features, params: Any
) -> tasks.Predictions:
    """Predicts all rows in batches of one shape; the last one is padded."""
    rows = len(features.pooled)
    parts = []
    for start in range(0, rows, _EVALUATION_BATCH):
        index = np.minimum(np.arange(start, start + _EVALUATION_BATCH), rows - 1)
        batch = jax.tree.map(lambda x, i=index: jnp.asarray(x[i], jnp.float32), features)
        parts.append(jax.tree.map(np.asarray, predict(params, batch)))
    return jax.tree.map(lambda *x: np.concatenate(x)[:rows], *parts)


def _bundle(
    config: ml_collections.ConfigDict,
    task: tasks.Task,
    params: Any,
    result: dict[str, Any],
    weights_sha256: str,
    sources: Sequence[data.Source],
) -> model.Model:
    """Wraps one trained head, or the car box, as a model that `carjax bundle` can join."""
    spec = task.spec
    boxes = isinstance(spec, localise.LocaliseSpec)
    card = {
        "bundle": f"car_{config.attribute}",
        "version": carjax.__version__,
        "backbone": config.backbone,
        "backbone_sha256": weights_sha256,
        "training": {config.attribute: result},
        # So that an evaluation can tell cars of models that were trained on from others.
        "models": sorted({m for s in sources for m in s.photos.group[~s.held_out] if m}),
    }
    own = registry.spec_of(config.backbone).input_size
    return model.Model(
        params={"localise": params} if boxes else {"heads": {config.attribute: params}},
        spec=model.Spec(
            backbone=config.backbone,
            heads=() if isinstance(spec, localise.LocaliseSpec) else (spec,),
            localise=spec if isinstance(spec, localise.LocaliseSpec) else None,
            input_size=own if boxes else configs.input_size(config),
        ),
        card=card,
        training_hashes=frozenset(h for s in sources for h in s.hashes[~s.held_out]),
    )


# --- The folder of a run -------------------------------------------------------------------------


def _claim(out: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Makes the folder for this run, or checks that it is this run's."""
    path = out / "config.json"
    mine = json.loads(json.dumps(config.to_dict()))
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not path.is_file():
            with files.replacing(path) as temporary:
                temporary.write_text(json.dumps(mine, indent=1) + "\n")
            return
        theirs = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CarjaxError(f"{out}: cannot be the run's folder ({error})") from None
    changed = [k for k in mine.keys() | theirs.keys() if mine.get(k) != theirs.get(k)]
    if changed:
        raise CarjaxError(
            f"{out}: holds a run with other settings ({', '.join(sorted(changed))}): "
            "give another --workdir, or delete it"
        )


def _read_log(path: pathlib.Path, step: int) -> list[dict[str, Any]]:
    """Returns the lines up to a step: one after it was lost with its checkpoint."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as f:
        return [row for row in csv.DictReader(f) if int(row["step"]) <= step]


def _write_log(path: pathlib.Path, log: Sequence[Mapping[str, Any]]) -> None:
    with files.replacing(path) as temporary, temporary.open("w", newline="") as f:
        writer = csv.DictWriter(f, list(log[-1]))
        writer.writeheader()
        writer.writerows(log)


@contextlib.contextmanager
def _progress(what: str, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Shows a bar on standard error once it is told of work to do."""
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(*columns, console=console, disable=quiet) as bar:
        task: rich.progress.TaskID | None = None

        def show(done: int, total: int) -> None:
            nonlocal task
            if task is None:
                task = bar.add_task(what)
            bar.update(task, completed=done, total=total)

        yield show
