"""What a training run is made of: the defaults of every config file, and their checks."""

from __future__ import annotations

import csv
import dataclasses
import os
import pathlib

import ml_collections

import carjax
from carjax.attributes import CAR, Angular, Attribute, Categorical, find
from carjax.backbones import registry
from carjax.datasets.augment import Augmentation
from carjax.errors import CarjaxError, UsageError
from carjax.heads import ANGULAR_HEADS, HeadSpec
from carjax.localise import LocaliseSpec

LOCALISE = "localise"
# What a data set is read from, and the sets that each kind of task may name.
BOX_TABLE, LABEL_TABLE = "boxes.csv", "labels.csv"
# Fields of a HeadSpec that follow from the attribute and the data, and those of directions.
_NOT_SET = ("attribute", "parts")
_OF_DIRECTIONS = ("density", "components", "kappa")


def default_config(attribute: str) -> ml_collections.ConfigDict:
    """Returns the settings that the config files of `configs/` start from.

    Args:
        attribute: one of the schema's, or 'localise' for the car box.

    Example:
        >>> config = default_config("doors")
        >>> config.head.grid, config.views
        (4, 8)
    """
    boxes = attribute == LOCALISE
    head = LocaliseSpec() if boxes else HeadSpec(find(CAR, attribute))
    fields = {k: v for k, v in dataclasses.asdict(head).items() if k in _head_fields(attribute)}
    config = ml_collections.ConfigDict(
        {
            # What is trained, on what.
            "attribute": attribute,
            "backbone": "efficientnet_lite2",
            "backbone_weights": "",  # a file, where the package does not ship them
            "input_size": head.input_size if isinstance(head, LocaliseSpec) else 0,  # 0: its own
            "datasets": ("car_boxes", "phone_photos") if boxes else ("stanford_cars",),
            "splits": "data/splits",
            "fold": -1,  # held out; −1 trains on everything
            # The head, and the views of each photo.
            "head": fields,
            # Learn the car models (column class_name) as the parts of each class.
            "parts": not boxes and isinstance(find(CAR, attribute), Categorical),
            "dropout": 0.1 if boxes else 0.3,
            "cells": 0 if boxes else 8,
            "views": 8,
            "augmentation": dataclasses.asdict(Augmentation()),
            # The loss.
            "mixup": 0.4,
            "label_smoothing": 0.05,
            "balance": 0.0,
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
        }
    )
    if _is_direction(attribute):
        # Draws of a CVAE's latent variable: 1 trains on the ELBO, more on the tighter
        # importance-weighted bound. Other densities have none.
        config.latent_samples = 1
    return config


def _is_direction(attribute: str) -> bool:
    return attribute != LOCALISE and isinstance(find(CAR, attribute), Angular)


def _head_fields(attribute: str) -> set[str]:
    """The fields of `config.head`."""
    kind = LocaliseSpec if attribute == LOCALISE else HeadSpec
    hidden = _NOT_SET if _is_direction(attribute) else (*_NOT_SET, *_OF_DIRECTIONS)
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
    """Returns the attribute that a config trains; not for the car box."""
    return find(CAR, config.attribute)


def augmentation(config: ml_collections.ConfigDict) -> Augmentation:
    """Returns how views are drawn."""
    return Augmentation(**config.augmentation)


def splits_dir(config: ml_collections.ConfigDict) -> pathlib.Path:
    """Returns the folder of folds: as given, else below the repository's root.

    Raises:
        CarjaxError: there is no such folder.
    """
    given = pathlib.Path(config.splits)
    for path in (given, pathlib.Path(carjax.__file__).parents[1] / given):
        if path.is_dir():
            return path
    raise CarjaxError(f"{given}: no such folder of folds: give --config.splits=DIR")


def check(config: ml_collections.ConfigDict, root: str | os.PathLike[str] | None = None) -> None:
    """Checks a config, and the folders that it names, without reading any photo.

    Args:
        config: from a config file, overrides applied.
        root: the folder of data sets; None checks the config alone.

    Raises:
        UsageError: a setting is wrong; the line names it and what it may be.
        CarjaxError: a folder or file is missing; the line shows the expected tree.
    """
    names = [a.name for a in CAR] + [LOCALISE]
    if config.attribute not in names:
        raise UsageError(
            f"config.attribute: no attribute {config.attribute!r}; there are: {', '.join(names)}"
        )
    registry.spec_of(config.backbone)
    for name, least in (
        *((n, 1) for n in ("views", "steps", "batch", "chunk")),
        *((n, 0) for n in ("cells", "warmup", "input_size", "mixup", "balance", "weight_decay")),
    ):
        if config[name] < least:
            raise UsageError(f"config.{name}: must be at least {least}, not {config[name]}")
    for name in ("dropout", "label_smoothing", "ema"):
        if not 0.0 <= config[name] < 1.0:
            raise UsageError(f"config.{name}: must be in [0, 1), not {config[name]}")
    for name in ("lr", "clip"):
        if not config[name] > 0.0:
            raise UsageError(f"config.{name}: must be above 0, not {config[name]}")
    if not config.datasets:
        raise UsageError("config.datasets: name at least one data set")
    _check_grid(config)
    _check_fields(config)
    if _is_direction(config.attribute):
        _check_density(config)
    _check_fold(config)
    if root is not None:
        _check_tree(config, pathlib.Path(root))


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
    for name, known in (
        ("head", _head_fields(config.attribute)),
        ("augmentation", {f.name for f in dataclasses.fields(Augmentation)}),
    ):
        wrong = set(config[name]) ^ known
        if wrong:
            raise UsageError(
                f"config.{name}: {', '.join(sorted(wrong))} unknown or missing; "
                f"it has: {', '.join(sorted(known))}"
            )


def _check_density(config: ml_collections.ConfigDict) -> None:
    """A direction's density is one that there is, with the settings that it reads."""
    head = config.head
    if head.density not in ANGULAR_HEADS:
        raise UsageError(
            f"config.head.density: no {head.density!r}; there are: {', '.join(ANGULAR_HEADS)}"
        )
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
                f"config.{name}: a density {head.density!r} has none: leave it {default}"
            )


def _check_fold(config: ml_collections.ConfigDict) -> None:
    """The fold is one that every data set has."""
    if config.fold < 0:
        if config.fold != -1:
            raise UsageError(f"config.fold: must be −1 (none) or a fold, not {config.fold}")
        return
    for name in config.datasets:
        path = splits_dir(config) / f"{name}.csv"
        if not path.is_file():
            raise CarjaxError(f"{path}: no folds of {name}: train with --config.fold=-1")
        with path.open(newline="", encoding="utf-8") as f:
            folds = {int(row["fold"]) for row in csv.DictReader(f)}
        if config.fold not in folds:
            raise UsageError(f"config.fold: {name} has folds {sorted(folds)}, not {config.fold}")


def _check_tree(config: ml_collections.ConfigDict, root: pathlib.Path) -> None:
    table = BOX_TABLE if config.attribute == LOCALISE else LABEL_TABLE
    for name in config.datasets:
        if not (root / name / table).is_file() or not (root / name / "images").is_dir():
            tree = ", ".join(f"{n}/{{images/,{table}}}" for n in config.datasets)
            raise CarjaxError(
                f"{root / name}: no data set here: expected {tree} below {root} "
                "(--data_dir or CARJAX_DATA)"
            )
