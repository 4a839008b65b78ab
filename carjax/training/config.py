"""What a training run is made of: the defaults of every config file, and their checks."""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, TypeVar

import ml_collections

import carjax
from carjax.attributes import CAR, CONTENT, Angular, Attribute, Categorical, Schema, find
from carjax.backbones import registry
from carjax.datasets import photos, prepared, schema_file
from carjax.datasets.augment import Augmentation
from carjax.errors import CarjaxError, UsageError
from carjax.evaluation import metrics
from carjax.heads import HeadSpec, find_density
from carjax.localise import LocaliseSpec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LOCALISE = "localise"
_KNOWN: dict[str, Attribute] = {a.name: a for a in (*CAR, CONTENT)}
# Where an attribute's classes come from, and the split of a prepared data set by car model.
CAR_SCHEMA, DATA_SCHEMA = "car", "data"
BY_MODEL = "by_model"
# Fields of a HeadSpec that follow from the attribute and the data, and those of directions.
_NOT_SET = ("attribute", "parts", "calibration")
_OF_DIRECTIONS = ("density", "module", "components", "kappa")
_OF_CLASSES = ("members",)

# A dataclass that a section of a config makes up.
Section = TypeVar("Section", bound="DataclassInstance")


def default_config(attribute: str) -> ml_collections.ConfigDict:
    """Returns the settings that the config files of `configs/` start from.

    Args:
        attribute: one of the car's, 'localise' for the car box, or one that the first data set
            declares (see data/README.md).

    Example:
        >>> config = default_config("doors")
        >>> config.head.grid, config.views, config.schema
        (4, 8, 'car')
        >>> default_config("ripeness").schema
        'data'
    """
    boxes = attribute == LOCALISE
    car = _KNOWN.get(attribute)
    head = LocaliseSpec() if boxes else HeadSpec(car or Angular(attribute))
    fields = {k: v for k, v in dataclasses.asdict(head).items() if k in _head_fields(attribute)}
    config = ml_collections.ConfigDict(
        {
            # What is trained, on what.
            "attribute": attribute,
            # The attribute's classes: "car", those of carjax; "data", those of the first data set.
            "schema": CAR_SCHEMA if boxes or car else DATA_SCHEMA,
            "classes": (),  # filled in by `resolve`
            "backbone": "efficientnet_lite2",
            "backbone_weights": "",  # a file, where the package does not ship them
            "dtype": "float32",  # of the backbone's computation; or bfloat16
            "input_size": head.input_size if isinstance(head, LocaliseSpec) else 0,  # 0: its own
            "datasets": ("car_boxes", "phone_photos") if boxes else ("stanford_cars",),
            # Of a folder of photos: the fold that is held out; −1 trains on everything.
            "splits": "data/splits",
            "fold": -1,
            # Labels that were looked at and found wrong: a table per folder of photos. Only what
            # is trained on is corrected.
            "corrections": "data/corrections",
            # Labels of folders of photos that have no table of their own.
            "label_tables": "data/label_tables",
            # Of a prepared data set: published splits, joined by +, or both "by_model".
            "train_split": "train",
            "eval_split": "",  # held out; "": nothing
            # The head, and the views of each photo.
            "head": fields,
            # Learn the car models (column class_name or model) as the parts of each class.
            "parts": isinstance(car, Categorical),
            "dropout": 0.1 if boxes else 0.3,
            # Features of `views` views, computed once; False: new views at every step, through
            # the backbone.
            "cache": True,
            "cells": 0 if boxes else 8,
            "views": 8,
            # Whether every other view is mirrored, where an angle a becomes −a and a class stays.
            "mirror": True,
            "augmentation": dataclasses.asdict(Augmentation()),
            # The loss.
            "mixup": 0.4,
            "label_smoothing": 0.05,
            # Both within each data set. How evenly classes, or the eight views, are drawn, up to 1.
            "balance": 0.0,
            # Photos of one car model that count in full; where there are more they share that
            # weight. 0: all count.
            "model_cap": 0,
            # The optimiser.
            "steps": 1200,
            "batch": 256,
            "lr": 1e-3,
            "warmup": 100,
            "weight_decay": 0.05,
            "clip": 1.0,
            "ema": 0.0,  # decay of the parameters' moving average; 0: none
            "seed": 0,
            "chunk": 200,  # steps between checkpoints
            # A held-out figure: the parameters of its best chunk are kept, not the last ones.
            "keep_best": "",
        }
    )
    if attribute == CONTENT.name:
        # The table of windows of photos and what each shows; `datasets` have the photos.
        config.labels = "data/content_labels.csv"
    if _is_direction(attribute):
        # Draws of a CVAE's latent variable: 1 trains on the ELBO, more on the tighter
        # importance-weighted bound. Other densities have none.
        config.latent_samples = 1
    return config


def _is_direction(attribute: str) -> bool:
    """Whether it is an angle, or may be one: the data set will tell."""
    return attribute != LOCALISE and not isinstance(_KNOWN.get(attribute), Categorical)


def _head_fields(attribute: str) -> set[str]:
    """The fields of `config.head`."""
    kind = LocaliseSpec if attribute == LOCALISE else HeadSpec
    hidden = (*_NOT_SET, *(_OF_CLASSES if _is_direction(attribute) else _OF_DIRECTIONS))
    return {f.name for f in dataclasses.fields(kind)} - set(hidden)


def input_size(config: ml_collections.ConfigDict) -> int:
    """Returns the side of the backbone's input in pixels."""
    return config.input_size or registry.spec_of(config.backbone).input_size


def head_spec(
    config: ml_collections.ConfigDict, parts: tuple[int, ...] = ()
) -> HeadSpec | LocaliseSpec:
    """Returns the static description of the head, or of the car box, that a config trains."""
    if config.attribute == LOCALISE:
        return LocaliseSpec(**config.head)
    return HeadSpec(attribute_of(config), **config.head, parts=parts)


def attribute_of(config: ml_collections.ConfigDict) -> Attribute:
    """Returns the attribute that a config trains, once resolved; not for the car box."""
    if config.schema == CAR_SCHEMA:
        return _KNOWN[config.attribute]
    if config.classes:
        return Categorical(config.attribute, tuple(config.classes))
    return Angular(config.attribute)


def resolve(
    config: ml_collections.ConfigDict, root: str | os.PathLike[str]
) -> ml_collections.ConfigDict:
    """Returns the config with the classes that its first data set declares, if it asks for those.

    Args:
        config: checked.
        root: the folder of data sets.
    """
    if config.schema == CAR_SCHEMA:
        return config
    attribute = find(data_schema(pathlib.Path(root), config.datasets[0]), config.attribute)
    resolved = config.copy_and_resolve_references()
    resolved.classes = attribute.classes if isinstance(attribute, Categorical) else ()
    _check_keep_best(resolved, attribute)
    return resolved


def data_schema(root: pathlib.Path, name: str) -> Schema:
    """Returns what a data set declares: its builder's schema, or `schema.json` of a folder.

    Raises:
        CarjaxError: it declares none.
    """
    folder = prepared.find(root, name)
    if folder is not None:
        return prepared.read_schema(folder)
    return schema_file.read(root / name / schema_file.NAME)


def split_names(config: ml_collections.ConfigDict) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the names in `train_split` and in `eval_split`."""
    train, held_out = (
        tuple(name.strip() for name in config[field].split("+") if name.strip())
        for field in ("train_split", "eval_split")
    )
    return train, held_out


def view_numbers(config: ml_collections.ConfigDict) -> range:
    """Returns the numbers of the views that are trained on: without mirroring the even ones."""
    return range(config.views) if config.mirror else range(0, 2 * config.views, 2)


def augmentation(config: ml_collections.ConfigDict) -> Augmentation:
    """Returns how views are drawn."""
    return section(config, "augmentation", Augmentation)


def section(config: ml_collections.ConfigDict, name: str, kind: type[Section]) -> Section:
    """Returns a section of a config, such as `config.augmentation`, as what it is made of.

    Args:
        config: that has the section.
        name: of the section.
        kind: dataclass whose fields are the section's settings.

    Raises:
        UsageError: a setting is unknown, missing or wrong; the line names it.
    """
    _check_names(config, name, {field.name for field in dataclasses.fields(kind)})
    try:
        return kind(**config[name])
    except UsageError as error:
        raise UsageError(f"config.{name}.{error}") from None


def splits_dir(config: ml_collections.ConfigDict) -> pathlib.Path:
    """Returns the folder of folds: as given, else below the repository's root.

    Raises:
        CarjaxError: there is no such folder.
    """
    found = _project_folder(config.splits)
    if found is None:
        raise CarjaxError(f"{config.splits}: no such folder of folds: give --config.splits=DIR")
    return found


def corrections_of(config: ml_collections.ConfigDict, name: str) -> pathlib.Path | None:
    """Returns the table of corrected labels of a folder of photos, if there is one."""
    folder = _project_folder(config.corrections) if config.corrections else None
    table = folder / f"{name}.csv" if folder else None
    return table if table is not None and table.is_file() else None


def label_table(config: ml_collections.ConfigDict, folder: pathlib.Path) -> pathlib.Path:
    """Returns the table of labels of a folder of photos: its own, else one beside `data/splits`."""
    own = folder / photos.LABEL_TABLE
    beside = _project_folder(config.label_tables) if config.label_tables else None
    lent = beside / f"{folder.name}.csv" if beside else own
    return own if own.is_file() or not lent.is_file() else lent


def content_labels(config: ml_collections.ConfigDict) -> pathlib.Path:
    """Returns the table of what windows of photos show: as given, else below the repository's root.

    Raises:
        CarjaxError: there is no such table.
    """
    given = pathlib.Path(config.labels)
    folder = _project_folder(os.fspath(given.parent))
    if folder is None or not (folder / given.name).is_file():
        raise CarjaxError(f"{config.labels}: no such table of content: give --config.labels=FILE")
    return folder / given.name


def _project_folder(given: str) -> pathlib.Path | None:
    """Returns a folder as given, else below the repository's root; None if there is none."""
    beside = pathlib.Path(carjax.__file__).parents[1]
    return next((p for p in (pathlib.Path(given), beside / given) if p.is_dir()), None)


def check(config: ml_collections.ConfigDict) -> None:
    """Checks the settings of a config, from a file, overrides applied; see `check_data`.

    Raises:
        UsageError: a setting is wrong; the line names it and what it may be.
    """
    names = [*_KNOWN, LOCALISE]
    if config.schema not in (CAR_SCHEMA, DATA_SCHEMA):
        raise UsageError(f"config.schema: must be car or data, not {config.schema!r}")
    if config.schema == CAR_SCHEMA and config.attribute not in names:
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
    by_data = config.attribute == LOCALISE or config.schema != CAR_SCHEMA
    _check_keep_best(config, None if by_data else attribute_of(config))
    for name in ("lr", "clip"):
        if not (config[name] > 0.0 and math.isfinite(config[name])):
            raise UsageError(f"config.{name}: must be above 0, not {config[name]}")
    if not config.datasets:
        raise UsageError("config.datasets: name at least one data set")
    _check_grid(config)
    _check_fields(config)
    _check_ignored(config)
    if _is_direction(config.attribute):
        _check_density(config)
    _check_split_names(config)


def _check_keep_best(config: ml_collections.ConfigDict, attribute: Attribute | None) -> None:
    """The figure is one that the task measures, and something is held out to measure it on.

    What the attribute is may be unknown yet: see `resolve`.
    """
    if not config.keep_best:
        return
    known: Collection[str]
    if config.attribute == LOCALISE:
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
    if config.attribute == LOCALISE:
        if config.cells:
            raise UsageError("config.cells: the car box reads the full grid: leave it 0")
        if config.head.input_size != input_size(config):
            raise UsageError(
                f"config.input_size: {input_size(config)} is not config.head.input_size "
                f"({config.head.input_size}), at which the car box will look"
            )
    elif config.cells and config.head.grid and config.cells % config.head.grid:
        raise UsageError(
            f"config.head.grid: {config.head.grid} does not divide config.cells ({config.cells}), "
            "so that its cells cannot be averaged from the cached ones"
        )


def _check_fields(config: ml_collections.ConfigDict) -> None:
    _check_names(config, "head", _head_fields(config.attribute))
    _check_sizes(config.head)
    augmentation(config)


def _check_names(config: ml_collections.ConfigDict, section: str, known: set[str]) -> None:
    """A section of the config has the settings that are known, and all of them."""
    if wrong := set(config[section]) ^ known:
        raise UsageError(
            f"config.{section}: {', '.join(sorted(wrong))} unknown or missing; "
            f"it has: {', '.join(sorted(known))}"
        )


def _check_sizes(head: ml_collections.ConfigDict) -> None:
    least = {"hidden": 1, "members": 1, "grid": 0, "channels": 0, "queries": 0}
    for name in least.keys() & head.keys():
        if head[name] < least[name]:
            raise UsageError(
                f"config.head.{name}: must be at least {least[name]}, not {head[name]}"
            )


def _check_ignored(config: ml_collections.ConfigDict) -> None:
    """What only heads of classes read is left as it is elsewhere."""
    known = _KNOWN.get(config.attribute)
    if config.attribute != LOCALISE and not isinstance(known, Angular):
        return
    default = default_config(config.attribute)
    for name in ("mixup", "label_smoothing", "model_cap"):
        if config[name] not in (0, default[name]):
            raise UsageError(f"config.{name}: only class heads use it: leave it at 0")


def _check_split_names(config: ml_collections.ConfigDict) -> None:
    if config.fold < -1:
        raise UsageError(f"config.fold: must be −1 (none) or a fold, not {config.fold}")
    train, held_out = split_names(config)
    if not train:
        raise UsageError("config.train_split: name at least one split")
    if BY_MODEL in (*train, *held_out):
        if not train == held_out == (BY_MODEL,):
            raise UsageError(
                f"config.train_split and config.eval_split must both be {BY_MODEL}, or neither"
            )
    elif set(train) & set(held_out):
        raise UsageError(f"config.eval_split: {config.eval_split} is trained on as well")


def _check_density(config: ml_collections.ConfigDict) -> None:
    """A direction's density is one that there is, with the settings that it reads."""
    head = config.head
    find_density(HeadSpec(Angular(config.attribute), **head))
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
    if config.schema == DATA_SCHEMA:
        names = [a.name for a in data_schema(root, config.datasets[0])]
        if config.attribute not in names:
            raise UsageError(
                f"config.attribute: {config.datasets[0]} has no {config.attribute!r}; "
                f"it has: {', '.join(names)}"
            )


def _check_photos(config: ml_collections.ConfigDict, root: pathlib.Path, name: str) -> None:
    """A folder of photos has its table."""
    if config.attribute == CONTENT.name:
        content_labels(config)
        if not (root / name / "images").is_dir():
            raise CarjaxError(
                f"{root / name}: no data set here: expected {name}/images/ below {root} "
                "(--data_dir or CARJAX_DATA)"
            )
        return
    folder = root / name
    boxes = config.attribute == LOCALISE
    table = folder / photos.BOX_TABLE if boxes else label_table(config, folder)
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
        path = splits_dir(config) / f"{name}.csv"
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
    train, held_out = split_names(config)
    wrong = [s for s in (*train, *held_out) if s not in (*known, BY_MODEL)]
    if wrong:
        raise UsageError(
            f"config.train_split, config.eval_split: {folder} has no split {', '.join(wrong)}; "
            f"there are: {', '.join(known)}, {BY_MODEL}"
        )
    names = [a.name for a in prepared.read_schema(folder)]
    if config.attribute not in (*names, LOCALISE):
        raise UsageError(
            f"config.attribute: {folder} has no labels of {config.attribute!r}; "
            f"it has: {', '.join(names)}"
        )
