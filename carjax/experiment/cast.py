"""The photos that simulated walks show: held-out car models, and what heads say of each view."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from carjax import backbones, calibration, circular, heads
from carjax import model as models
from carjax.attributes import CAR, Categorical
from carjax.calibration import ClassCalibration, DirectionCalibration
from carjax.datasets import photos
from carjax.errors import CarjaxError
from carjax.experiment.temporal import WALK, Footage
from carjax.features import Features
from carjax.grids import apart_deg, difference_deg
from carjax.temporal import walks
from carjax.training import config as configs
from carjax.training import data, run_folder, tasks
from carjax.training.prediction import predict_all
from carjax.training.sequences import SPOILT_VIEWS

PLAIN_VIEWS = (0, 1)
# The neighbours of a photo lie so near in azimuth; fewer have no median worth the name.
_NEIGHBOURS_DEG, _FEWEST_NEIGHBOURS = 10.0, 3


class Calibrations(NamedTuple):
    """What the heads owe to photos of other car models: of the classes by attribute."""

    classes: Mapping[str, ClassCalibration]
    direction: DirectionCalibration


@dataclasses.dataclass(frozen=True)
class Cast:
    """n photos of car models that no head of these was trained on, in four views each.

    Views are those of `walks.Walk`: plain, mirrored, spoilt, spoilt and mirrored. Predictions are
    of the heads themselves, without a calibration.

    Attributes:
        group: str [n]; the car model.
        azimuth_deg: float64 [n]; the label.
        features: float16 Features [4, n, …].
        density: `circular.Density` of batch [4, n].
        log_probs: attribute → float32 [4, n, K].
        labels: attribute → int [n]; −1 where unknown.
    """

    group: np.ndarray
    azimuth_deg: np.ndarray
    features: Features
    density: circular.Density
    log_probs: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]


def read(
    runs: str | os.PathLike[str],
    fold: int,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Cast:
    """Reads a fold of car models, and what the heads that did not see it say of its photos.

    Args:
        runs: holds `ATTRIBUTE-FOLD/head.safetensors`, as `benchmarks/crossval.py` makes it with
            `--splits=data/splits/by_model`; the orientation is needed, other attributes are used.
        fold: which.
        data_dir: the folder of data sets, see `photos.data_root`.
        cache_dir: where features are kept.
        on_progress: called with (photos done, photos to do) while features are computed.

    Raises:
        CarjaxError: a run or a photo is missing or broken.
    """
    folder = pathlib.Path(runs)
    orientation = folder / f"orientation-{fold}"
    config = _config(orientation)
    task = tasks.create(config)
    backbone, params = backbones.load_pretrained(
        config.backbone, config.backbone_weights or None, dtype=jnp.dtype(config.dtype)
    )
    root, weights = photos.data_root(data_dir), models.weights_hash(params)
    parts: list[Any] = []
    spoilt = config.copy_and_resolve_references()
    spoilt.augmentation = dataclasses.asdict(walks.SPOILT)
    for shows, views in ((config, PLAIN_VIEWS), (spoilt, SPOILT_VIEWS)):
        (source,) = data.load_sources(
            shows,
            task,
            root,
            backbone,
            params,
            weights,
            views=views,
            cache_dir=cache_dir,
            on_progress=on_progress,
        )
        rows = source.rows[source.held_out]
        for view in views:
            cached = source.cache.load(view).features
            parts.append(jax.tree.map(lambda x, r=rows: np.asarray(x[r]), cached))
    shown = source.photos.take(np.flatnonzero(source.held_out))
    known = photos.read_labels(root / source.name, CAR)
    position = {name: i for i, name in enumerate(known.names)}
    at = np.array([position[name] for name in shown.names])
    features: Any = jax.tree.map(lambda *views: np.stack(views), *parts)
    density: circular.Density | None = None
    log_probs = {}
    for attribute in CAR:
        path = folder / f"{attribute.name}-{fold}" / run_folder.HEAD_FILE
        if path.is_file():
            said = _predict(path, attribute.name, features)
            if isinstance(attribute, Categorical):
                log_probs[attribute.name] = said
            else:
                density = said
    assert density is not None
    return Cast(
        group=shown.group,
        azimuth_deg=np.asarray(shown.labels["orientation"], np.float64),
        features=features,
        density=density,
        log_probs=log_probs,
        labels={name: known.labels[name][at] for name in log_probs},
    )


def _config(run: pathlib.Path) -> ml_collections.ConfigDict:
    """The config of a finished run."""
    import json

    path = run / run_folder.RESULT_FILE
    if not (path.is_file() and (run / run_folder.HEAD_FILE).is_file()):
        raise CarjaxError(
            f"{path}: no such run: python benchmarks/crossval.py --workdir={run.parent} "
            "--splits=data/splits/by_model --attributes=orientation"
        )
    config = configs.default_config("orientation")
    config.update(json.loads(path.read_text(encoding="utf-8"))["config"])
    return config


def _predict(path: pathlib.Path, name: str, features: Features) -> Any:
    """What a run's head says of every view: log-probabilities [4, n, K], or a Density [4, n]."""
    model = models.load(path)
    spec = model.spec.head(name)
    module = heads.create(spec)

    @jax.jit
    def apply(params: Any, batch: Features) -> Any:
        out: Any = module.apply({"params": params}, batch)
        return out if isinstance(out, circular.Density) else jax.nn.log_softmax(out.logits)

    shape = features.pooled.shape[:2]
    flat = Features(*(level.reshape(-1, *level.shape[2:]) for level in features))
    said = predict_all(apply, flat, model.params["heads"][name])
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), said)


def fit_calibrations(cast: Cast) -> Calibrations:
    """Fits every head's calibration to the plain views, as the shipped heads' are."""
    found = {}
    plain = list(PLAIN_VIEWS)
    for name, log_probs in cast.log_probs.items():
        labels = np.tile(cast.labels[name], 2)
        rows = log_probs[plain].reshape(len(labels), -1)[labels >= 0]
        found[name] = calibration.fit_classes(rows, labels[labels >= 0])
    truth = np.concatenate([cast.azimuth_deg, -cast.azimuth_deg])
    said = jax.tree.map(lambda x: x[plain].reshape(len(truth), *x.shape[2:]), cast.density)
    return Calibrations(found, calibration.fit_direction(said, truth))


def footage(
    cast: Cast, spec: walks.WalkSpec, per_model: int, seed: int, calibrations: Calibrations
) -> list[Footage]:
    """Simulates walks around every car model of the cast.

    Args:
        cast: the photos.
        spec: how cameras walk.
        per_model: walks around each model.
        seed: of the walks; the same for equal arguments.
        calibrations: from other car models.
    """
    density = calibration.state_direction(
        jax.tree.map(jnp.asarray, cast.density), calibrations.direction
    )
    density = jax.tree.map(np.asarray, density)
    probs = {
        name: np.exp(
            np.asarray(
                calibration.state_classes(jnp.asarray(log_probs), calibrations.classes[name])
            )
        )
        for name, log_probs in cast.log_probs.items()
    }
    found = []
    for number, group in enumerate(np.unique(cast.group)):
        own = np.flatnonzero(cast.group == group)
        for i in range(per_model):
            rng = np.random.default_rng([seed, number, i])
            walk = walks.simulate(cast.azimuth_deg[own], spec, rng)
            if walk.mask.sum() < 2:
                continue
            kept = walk.mask
            view, photo = walk.view[kept], own[walk.photo[kept]]
            found.append(
                Footage(
                    kind=WALK,
                    source=str(group),
                    time_s=walk.time_s[kept].astype(np.float64),
                    azimuth_deg=walk.azimuth_deg[kept].astype(np.float64),
                    offset_deg=apart_deg(walk.label_deg, walk.azimuth_deg)[kept],
                    spoilt=walk.spoilt[kept],
                    speaks=np.ones(len(photo), bool),
                    density=jax.tree.map(lambda x, v=view, p=photo: x[v, p], density),
                    probs={name: p[view, photo] for name, p in probs.items()},
                    labels={
                        name: int(labels[own[0]])
                        for name, labels in cast.labels.items()
                        if labels[own[0]] >= 0
                    },
                    features=jax.tree.map(lambda x, v=view, p=photo: x[v, p], cast.features),
                )
            )
    return found


def shared_error(cast: Cast) -> dict[str, float]:
    """How far the errors of neighbouring photos of one car model are the same error.

    That part no smoothing over so short a stretch of a walk removes. Over the plain and mirrored
    views whose error is below 30°, against the median signed error of all others of the model
    within 10°.

    Returns:
        {mederr_deg: of a photo, neighbours_mederr_deg: of its neighbours' median signed error,
        correlation: of the two errors, signed}.
    """
    plain = list(PLAIN_VIEWS)
    truth = np.stack([cast.azimuth_deg, -cast.azimuth_deg])
    said = np.asarray(circular.azimuth_deg(jax.tree.map(lambda x: x[plain], cast.density)))
    error = difference_deg(said, truth).ravel()
    azimuth, group = truth.ravel(), np.tile(cast.group, 2)
    photo = np.tile(np.arange(len(cast.group)), 2)
    sound = np.abs(error) < 30.0
    around = np.full(len(error), np.nan)
    for i in np.flatnonzero(sound):
        near = apart_deg(azimuth, azimuth[i]) < _NEIGHBOURS_DEG
        near &= sound & (group == group[i]) & (photo != photo[i])
        if near.sum() >= _FEWEST_NEIGHBOURS:
            around[i] = np.median(error[near])
    known = np.isfinite(around)
    return {
        "mederr_deg": float(np.median(np.abs(error[known]))),
        "neighbours_mederr_deg": float(np.median(np.abs(around[known]))),
        "correlation": float(np.corrcoef(error[known], around[known])[0, 1]),
    }
