"""Whether a run can be what its config says: the settings alone, then with the data sets."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Collection, Sequence

import ml_collections

from carjax.attributes import CONTENT, Angular, Attribute, Categorical
from carjax.backbones import registry
from carjax.datasets import photos, prepared
from carjax.errors import CarjaxError, UsageError
from carjax.evaluation import metrics
from carjax.heads import HeadSpec, find_density
from carjax.training import config as configs


def check(config: ml_collections.ConfigDict) -> None:
    """Checks the settings of a config, from a file, overrides applied.

    What only the data can tell is for `check_data` and `check_resolved`.

    Raises:
        UsageError: a setting is wrong; the line names it and what it may be.
    """
    names = [*configs.KNOWN, configs.LOCALISE]
    if config.schema not in (configs.CAR_SCHEMA, configs.DATA_SCHEMA):
        raise UsageError(f"config.schema: must be car or data, not {config.schema!r}")
    if config.schema == configs.CAR_SCHEMA and config.attribute not in names:
        raise UsageError(
            f"config.attribute: no attribute {config.attribute!r}; there are: {', '.join(names)}"
        )
    registry.spec_of(config.backbone)
    for name, least in (
        *((n, 1) for n in ("views", "steps", "batch", "chunk")),
        *((n, 0) for n in ("cells", "warmup", "input_size", "mixup", "weight_decay")),
        *((n, 0) for n in ("balance", "model_cap", "seed")),
    ):
        if not (config[name] >= least and math.isfinite(config[name])):
            raise UsageError(f"config.{name}: must be at least {least}, not {config[name]}")
    for name in ("dropout", "label_smoothing", "ema"):
        if not 0.0 <= config[name] < 1.0:
            raise UsageError(f"config.{name}: must be in [0, 1), not {config[name]}")
    if config.dtype not in ("float32", "bfloat16"):
        raise UsageError(f"config.dtype: must be float32 or bfloat16, not {config.dtype!r}")
    by_data = config.attribute == configs.LOCALISE or config.schema != configs.CAR_SCHEMA
    _check_keep_best(config, None if by_data else configs.attribute_of(config))
    for name in ("lr", "clip"):
        if not (config[name] > 0.0 and math.isfinite(config[name])):
            raise UsageError(f"config.{name}: must be above 0, not {config[name]}")
    if not config.datasets:
        raise UsageError("config.datasets: name at least one data set")
    _check_grid(config)
    _check_fields(config)
    if config.schema == configs.CAR_SCHEMA:
        _check_kind(config)
    _check_split_names(config)


def _check_keep_best(config: ml_collections.ConfigDict, attribute: Attribute | None) -> None:
    """The figure is one that the task measures, and something is held out to measure it on.

    What the attribute is may be unknown yet: see `check_resolved`.
    """
    if not config.keep_best:
        return
    known: Collection[str]
    if config.attribute == configs.LOCALISE:
        known = metrics.BOX_METRICS
    elif attribute is None:
        known = (*metrics.CATEGORICAL_METRICS, *metrics.ANGULAR_METRICS)
    elif isinstance(attribute, Categorical):
        known = metrics.CATEGORICAL_METRICS
    else:
        known = metrics.ANGULAR_METRICS
    if config.keep_best not in known:
        raise UsageError(
            f"config.keep_best: no figure {config.keep_best!r}; there are: {', '.join(known)}"
        )
    if config.fold < 0 and not config.eval_split:
        raise UsageError(
            "config.keep_best: nothing is held out to measure: give --config.fold, or "
            "--config.eval_split of a prepared data set"
        )


def _check_grid(config: ml_collections.ConfigDict) -> None:
    if config.attribute == configs.LOCALISE:
        if config.cells:
            raise UsageError("config.cells: the car box reads the full grid: leave it 0")
        if config.head.input_size != configs.input_size(config):
            raise UsageError(
                f"config.input_size: {configs.input_size(config)} is not config.head.input_size "
                f"({config.head.input_size}), at which the car box will look"
            )
    elif config.cells and config.head.grid and config.cells % config.head.grid:
        raise UsageError(
            f"config.head.grid: {config.head.grid} does not divide config.cells ({config.cells}), "
            "so that its cells cannot be averaged from the cached ones"
        )


def _check_fields(config: ml_collections.ConfigDict) -> None:
    configs.check_names(config, "head", configs.head_fields(config.attribute))
    _check_sizes(config.head)
    configs.augmentation(config)


def _check_sizes(head: ml_collections.ConfigDict) -> None:
    least = {"hidden": 1, "members": 1, "grid": 0, "channels": 0, "queries": 0}
    for name in least.keys() & head.keys():
        if head[name] < least[name]:
            raise UsageError(
                f"config.head.{name}: must be at least {least[name]}, not {head[name]}"
            )
    if head.get("queries", 0) and not head.grid:
        raise UsageError("config.head.queries: they read the grid, and config.head.grid is 0")


def _check_kind(config: ml_collections.ConfigDict) -> None:
    """What one kind of head does not read is left as it is; of an own attribute once resolved."""
    attribute = None if config.attribute == configs.LOCALISE else configs.attribute_of(config)
    if not isinstance(attribute, Categorical):
        _check_ignored(config)
    if isinstance(attribute, Angular):
        _check_density(config, attribute)
        return
    if attribute is None and config.balance:
        raise UsageError("config.balance: the car box draws all photos alike: leave it at 0")
    default = dataclasses.asdict(HeadSpec(Angular("")))
    for name in configs.OF_DIRECTIONS:
        if config.head.get(name, default[name]) != default[name]:
            raise UsageError(
                f"config.head.{name}: only directions have it: leave it at {default[name]!r}"
            )
    if config.latent_samples != 1:
        raise UsageError("config.latent_samples: only a direction's cvae has them: leave it at 1")


def _check_ignored(config: ml_collections.ConfigDict) -> None:
    """What only heads of classes read is left as it is elsewhere."""
    default = configs.default_config(config.attribute)
    for name in ("mixup", "label_smoothing", "model_cap"):
        if config[name] not in (0, default[name]):
            raise UsageError(f"config.{name}: only class heads use it: leave it at 0")
    if config.parts:
        raise UsageError("config.parts: only class heads have them: leave it False")
    if config.head.get("members", 1) != 1:
        raise UsageError("config.head.members: only class heads have them: leave it at 1")


def _check_split_names(config: ml_collections.ConfigDict) -> None:
    if config.fold < -1:
        raise UsageError(f"config.fold: must be −1 (none) or a fold, not {config.fold}")
    train, held_out = configs.split_names(config)
    if not train:
        raise UsageError("config.train_split: name at least one split")
    if configs.BY_MODEL in (*train, *held_out):
        if not train == held_out == (configs.BY_MODEL,):
            raise UsageError(
                f"config.train_split and config.eval_split must both be {configs.BY_MODEL}, "
                "or neither"
            )
    elif set(train) & set(held_out):
        raise UsageError(f"config.eval_split: {config.eval_split} is trained on as well")


def _check_density(config: ml_collections.ConfigDict, attribute: Angular) -> None:
    """A direction's density is one that there is, with the settings that it reads."""
    head = HeadSpec(attribute, **config.head)
    find_density(head)
    if head.components < 1 or config.latent_samples < 1 or head.kappa < 0:
        raise UsageError(
            "config.head.components and config.latent_samples must be at least 1, "
            "config.head.kappa at least 0"
        )
    for name, value, default, reader in (
        ("head.components", head.components, 1, ("mixture", "cvae")),
        ("head.kappa", head.kappa, 0.0, ("biternion",)),
        ("latent_samples", config.latent_samples, 1, ("cvae",)),
    ):
        if value != default and head.density not in reader:
            raise UsageError(
                f"config.{name}: does not apply to density {head.density!r}: leave it at {default}"
            )


def check_data(config: ml_collections.ConfigDict, root: str | os.PathLike[str]) -> None:
    """Checks the folders that a config names, without reading any photo.

    Every data set is there, in either form, and has what the config asks of it.

    Args:
        config: checked.
        root: the folder of data sets.

    Raises:
        UsageError: a setting does not fit them; the line names it and what it may be.
        CarjaxError: a folder or file is missing; the line shows the expected tree.
    """
    root = pathlib.Path(root)
    folders = {name: prepared.find(root, name) for name in config.datasets}
    for name, folder in folders.items():
        if folder is None:
            _check_photos(config, root, name)
        else:
            _check_splits(config, folder)
    if config.fold >= 0:
        _check_fold(config, [name for name, folder in folders.items() if folder is None])
    if config.eval_split and not any(folders.values()):
        raise UsageError("config.eval_split: folders of photos have none: give --config.fold")
    if config.schema == configs.DATA_SCHEMA:
        names = [a.name for a in configs.data_schema(root, config.datasets[0])]
        if config.attribute not in names:
            raise UsageError(
                f"config.attribute: {config.datasets[0]} has no {config.attribute!r}; "
                f"it has: {', '.join(names)}"
            )


def check_resolved(config: ml_collections.ConfigDict) -> None:
    """Checks what depends on the attribute's kind, which only the data set's schema may tell.

    Args:
        config: checked, and as `config.resolve` returns it.

    Raises:
        UsageError: a setting does not fit the attribute; the line names it and what it may be.
    """
    if config.schema == configs.DATA_SCHEMA:
        _check_keep_best(config, configs.attribute_of(config))
        _check_kind(config)


def _check_photos(config: ml_collections.ConfigDict, root: pathlib.Path, name: str) -> None:
    """A folder of photos has its table."""
    if config.attribute == CONTENT.name:
        configs.content_labels(config)
        if not (root / name / "images").is_dir():
            raise CarjaxError(
                f"{root / name}: no data set here: expected {name}/images/ below {root} "
                "(--data_dir or CARJAX_DATA)"
            )
        return
    folder = root / name
    boxes = config.attribute == configs.LOCALISE
    table = folder / photos.BOX_TABLE if boxes else configs.label_table(config, folder)
    if not table.is_file() or not (folder / "images").is_dir():
        raise CarjaxError(
            f"{folder}: no data set here: expected {name}/{{images/,{table.name}}}, or a prepared "
            f"{name}/[CONFIG/]VERSION/ (carjax prepare), below {root} (--data_dir or CARJAX_DATA)"
        )


def _check_fold(config: ml_collections.ConfigDict, names: Sequence[str]) -> None:
    """Every folder of photos has folds, and one of them has this one."""
    if not names:
        raise UsageError("config.fold: prepared data sets have none: give --config.eval_split")
    folds: set[int] = set()
    for name in names:
        path = configs.splits_dir(config) / f"{name}.csv"
        if not path.is_file():
            raise CarjaxError(f"{path}: no folds of {name}: train with --config.fold=-1")
        folds |= set(photos.read_fold_table(path).values())
    if config.fold not in folds:
        raise UsageError(
            f"config.fold: {', '.join(names)} has folds {sorted(folds)}, not {config.fold}"
        )


def _check_splits(config: ml_collections.ConfigDict, folder: pathlib.Path) -> None:
    """A prepared data set has the splits, and the attribute."""
    known = prepared.splits(folder)
    train, held_out = configs.split_names(config)
    wrong = [s for s in (*train, *held_out) if s not in (*known, configs.BY_MODEL)]
    if wrong:
        raise UsageError(
            f"config.train_split, config.eval_split: {folder} has no split {', '.join(wrong)}; "
            f"there are: {', '.join(known)}, {configs.BY_MODEL}"
        )
    names = [a.name for a in prepared.read_schema(folder)]
    if config.attribute not in (*names, configs.LOCALISE):
        raise UsageError(
            f"config.attribute: {folder} has no labels of {config.attribute!r}; "
            f"it has: {', '.join(names)}"
        )
