"""What a training run is made of: the defaults of every config file, and what follows from them."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import TYPE_CHECKING, TypeVar

import ml_collections

from carjax import files
from carjax.attributes import CAR, CONTENT, Angular, Attribute, Categorical, Schema, find
from carjax.backbones import registry
from carjax.datasets import photos, prepared, schema_file
from carjax.datasets.augment import Augmentation
from carjax.errors import CarjaxError, UsageError
from carjax.heads import HeadSpec
from carjax.localise import LocaliseSpec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

LOCALISE = "localise"
# carjax's own attributes, by name.
KNOWN: dict[str, Attribute] = {a.name: a for a in (*CAR, CONTENT)}
# Where an attribute's classes come from, and the split of a prepared data set by car model.
CAR_SCHEMA, DATA_SCHEMA = "car", "data"
BY_MODEL = "by_model"
# Fields of a HeadSpec that follow from the attribute and the data, and those of one kind of head.
_NOT_SET = ("attribute", "parts", "calibration")
OF_DIRECTIONS = ("density", "module", "components", "kappa")
OF_CLASSES = ("members",)

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
    car = KNOWN.get(attribute)
    head = LocaliseSpec() if boxes else HeadSpec(car or Angular(attribute))
    fields = {k: v for k, v in dataclasses.asdict(head).items() if k in head_fields(attribute)}
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
            # Draws of a CVAE's latent variable: 1 trains on the ELBO, more on the tighter
            # importance-weighted bound. Nothing else has any.
            "latent_samples": 1,
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
    return config


def head_fields(attribute: str) -> set[str]:
    """Returns the names of the fields of `config.head`, given the attribute's name.

    Of an attribute of one's own they are those of classes and of directions: the data set will tell
    which it is.
    """
    if attribute == LOCALISE:
        return {f.name for f in dataclasses.fields(LocaliseSpec)}
    hidden = set(_NOT_SET)
    if attribute in KNOWN:
        hidden |= {*(OF_DIRECTIONS if isinstance(KNOWN[attribute], Categorical) else OF_CLASSES)}
    return {f.name for f in dataclasses.fields(HeadSpec)} - hidden


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
        return KNOWN[config.attribute]
    if config.classes:
        return Categorical(config.attribute, tuple(config.classes))
    return Angular(config.attribute)


def resolve(
    config: ml_collections.ConfigDict, root: str | os.PathLike[str]
) -> ml_collections.ConfigDict:
    """Returns the config with the classes that its first data set declares, if it asks for those.

    Args:
        config: checked, but for `config_check.check_resolved`.
        root: the folder of data sets.
    """
    if config.schema == CAR_SCHEMA:
        return config
    attribute = find(data_schema(pathlib.Path(root), config.datasets[0]), config.attribute)
    resolved = config.copy_and_resolve_references()
    resolved.classes = attribute.classes if isinstance(attribute, Categorical) else ()
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
    check_names(config, name, {field.name for field in dataclasses.fields(kind)})
    try:
        return kind(**config[name])
    except UsageError as error:
        raise UsageError(f"config.{name}.{error}") from None


def check_names(config: ml_collections.ConfigDict, section: str, known: set[str]) -> None:
    """Raises a UsageError unless a section has the settings that are known, and all of them."""
    if wrong := set(config[section]) ^ known:
        raise UsageError(
            f"config.{section}: {', '.join(sorted(wrong))} unknown or missing; "
            f"it has: {', '.join(sorted(known))}"
        )


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
    places = (pathlib.Path(given), files.project_dir() / given)
    return next((place for place in places if place.is_dir()), None)
