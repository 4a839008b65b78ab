"""Labelled photos: what is known of each, where its pixels come from, and batches of them.

A photo lies in a file of its own (`read_labels`, `read_boxes`) or in a record of a prepared data
set (`prepared.read`); `Photos.read` gives its pixels either way.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import logging
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Protocol

import cv2
import numpy as np

from carjax import files, pictures
from carjax.attributes import CONTENT, Categorical, Schema
from carjax.datasets import csv_table
from carjax.datasets.label_columns import column_of, encode_labels, model_column, read_column
from carjax.errors import CarjaxError

# What a folder of photos is read from, beside `images/`.
BOX_TABLE, LABEL_TABLE = "boxes.csv", "labels.csv"
SIDES = ("left", "top", "right", "bottom")


class Encoded(Protocol):
    """Where one encoded photo lies: a `pathlib.Path`, or a `prepared.Record`."""

    def read_bytes(self) -> bytes:
        """Its bytes; OSError if they cannot be read."""

    def __str__(self) -> str:
        """What to call it in an error."""


@dataclasses.dataclass(frozen=True)
class Photos:
    """N photos and what is known of each.

    Attributes:
        paths: where each photo lies.
        names: file names, the keys of splits and of augmentation.
        labels: attribute → int32 class index [N] (−1: unknown), or float32 degrees (NaN).
        group: model class of each photo, for splits by model.
        box: float32 [N, 4]; left, top, right, bottom of the car in pixels (NaN: none or unknown).
        crop: float32 [N, 4]; what `read` cuts out of each photo (NaN: nothing, the photo is
            whole); None: all photos are whole.
        as_stored: boxes count pixels as they are stored, as those of published data sets do, so
            that a photo with a box is read without the orientation that its EXIF asks for.
        sha256: of each photo's bytes, where that is known beforehand.
        unheard_of: attribute → labels that are none of its classes, with their counts; of all that
            were read, also in a part of them.
    """

    paths: tuple[Encoded, ...]
    names: tuple[str, ...]
    labels: dict[str, np.ndarray]
    group: np.ndarray
    box: np.ndarray
    crop: np.ndarray | None = None
    as_stored: bool = False
    sha256: tuple[str, ...] | None = None
    unheard_of: Mapping[str, collections.Counter[str]] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        """The number of photos."""
        return len(self.paths)

    def take(self, index: np.ndarray) -> Photos:
        """Returns the photos at those positions."""
        return Photos(
            tuple(self.paths[i] for i in index),
            tuple(self.names[i] for i in index),
            {k: v[index] for k, v in self.labels.items()},
            self.group[index],
            self.box[index],
            None if self.crop is None else self.crop[index],
            self.as_stored,
            None if self.sha256 is None else tuple(self.sha256[i] for i in index),
            self.unheard_of,
        )

    def reads_as_stored(self, i: int) -> bool:
        """Whether a photo is read without the orientation that its EXIF asks for."""
        return self.as_stored and not np.isnan(self.box[i]).any()

    def read(self, i: int) -> np.ndarray:
        """Reads one photo, cut to its crop, as uint8 [H, W, 3] RGB; safe in threads.

        Raises:
            CarjaxError: it is missing or cannot be decoded, or the crop lies outside.
        """
        image = decode(self.paths[i], as_stored=self.reads_as_stored(i))
        if self.crop is None or np.isnan(self.crop[i]).any():
            return image
        left, top = np.floor(self.crop[i, :2]).astype(int).clip(0)
        right, bottom = np.ceil(self.crop[i, 2:]).astype(int).clip(0)
        image = image[top:bottom, left:right]
        if not image.size:
            raise CarjaxError(f"{self.paths[i]}: the box {self.crop[i].tolist()} lies outside")
        return image


def data_root(data_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Returns the folder of training photos: the argument, or `$CARJAX_DATA`.

    Raises:
        CarjaxError: neither is given, or it is not a folder.
    """
    root = files.data_dir(data_dir)
    if root is None:
        raise CarjaxError(
            "no training photos: give --data_dir=DIR or set CARJAX_DATA to a folder that holds "
            "stanford_cars/{images/,labels.csv}, car_boxes/{images/,boxes.csv} and "
            "phone_photos/{images/,boxes.csv}"
        )
    if not root.is_dir():
        raise CarjaxError(f"{root}: no such folder of training photos")
    return root


def read_labels(
    folder: str | os.PathLike[str],
    schema: Schema,
    table: str | os.PathLike[str] | None = None,
) -> Photos:
    """Reads the labels of a folder's photos; an empty or unheard-of class is unknown.

    The column of an attribute has its name, or, of brand and orientation, may be `make` and
    `azimuth_deg`.

    Args:
        folder: has the photos in `images/`.
        schema: the attributes that are read.
        table: `labels.csv` of the folder if not given. Where it has the columns `left`, `top`,
            `right` and `bottom`, photos are cropped to that window, in pixels.

    Raises:
        CarjaxError: no such file, a missing column, a value that is not a number, a window that
            lacks a side or has no area, or two rows of one photo (or window).
    """
    root = pathlib.Path(folder)
    path = pathlib.Path(table or root / LABEL_TABLE)
    read = csv_table.read(path, ["file"])
    csv_table.require(
        path, read.columns, [column_of(attribute, read.columns) for attribute in schema]
    )
    return of_table(read, root / "images", schema)


def of_table(table: csv_table.Table, images: pathlib.Path, schema: Schema) -> Photos:
    """Returns the photos of a table of labels, a row each; see `read_labels`.

    Args:
        table: has a column `file` and one for each attribute.
        images: the folder that `file` is relative to.
        schema: the attributes that are read.

    Raises:
        CarjaxError: a row names no file, has a value that is not a number, or is of the same photo
            (or window) as another one.
    """
    rows, header = table.rows, table.columns
    names = tuple(row["file"] for row in rows)
    if "" in names:
        raise table.fault(names.index(""), "names no file")
    windows = {*SIDES} <= {*header}
    table.check_unique(["file", *SIDES] if windows else ["file"])
    labels: dict[str, np.ndarray] = {}
    unheard_of: dict[str, collections.Counter[str]] = {}
    for attribute in schema:
        labels[attribute.name], foreign = read_column(table, attribute)
        if foreign:
            unheard_of[attribute.name] = foreign
    model = model_column(header)
    return Photos(
        tuple(images / name for name in names),
        names,
        labels,
        np.array([row[model] if model else "" for row in rows]),
        np.full((len(rows), 4), np.nan, np.float32),
        crop=_sides(table) if windows else None,
        unheard_of=unheard_of,
    )


def _sides(table: csv_table.Table) -> np.ndarray:
    """Returns the four sides in every row, float32 [N, 4]; NaN where all four are empty.

    Raises:
        CarjaxError: some of them are empty, one is no number, or they hold no area.
    """
    sides = [[table.number_or_nan(i, side) for side in SIDES] for i in range(len(table.rows))]
    for i, own in enumerate(sides):
        empty = np.isnan(own)
        if empty.any() and not empty.all():
            missing = ", ".join(np.array(SIDES)[empty])
            raise table.fault(i, f"no {missing}: all four sides are given, or none")
        left, top, right, bottom = own
        if left >= right or top >= bottom:  # never of NaN
            told = ", ".join(f"{side:g}" for side in own)
            raise table.fault(i, f"left, top, right, bottom are {told}: no area")
    return np.array(sides, np.float32).reshape(-1, 4)


def correct(
    photos: Photos, schema: Schema, path: str | os.PathLike[str], which: np.ndarray
) -> Photos:
    """Replaces labels that were looked at and found wrong.

    Args:
        photos: N of them.
        schema: the attributes to correct.
        path: a table with the column `file`, and one for each label that it corrects.
        which: bool [N]; only these are corrected.

    Raises:
        CarjaxError: no such table, or a value that is no class or no angle.
    """
    table = csv_table.read(path, ["file"])
    table.check_unique(["file"])
    rows = {row["file"]: row for row in table.rows}
    labels = dict(photos.labels)
    for attribute in schema:
        column = column_of(attribute, table.columns)
        values = labels[attribute.name] = labels[attribute.name].copy()
        for i in np.nonzero(which)[0]:
            if given := rows.get(photos.names[i], {}).get(column, ""):
                try:
                    values[i] = encode_labels(attribute, [given])[0]
                except ValueError as error:
                    raise CarjaxError(f"{path}: {photos.names[i]}: {error}") from None
                if isinstance(attribute, Categorical) and values[i] < 0:
                    raise CarjaxError(f"{path}: {photos.names[i]}: no {column} {given!r}")
    return dataclasses.replace(photos, labels=labels)


def read_boxes(folder: str | os.PathLike[str]) -> Photos:
    """Reads `boxes.csv` and `images/` of a folder; an empty box stays NaN.

    Raises:
        CarjaxError: no such file, a missing column, a side that is missing or not a number, a box
            without area, or a photo with two rows.
    """
    root = pathlib.Path(folder)
    table = csv_table.read(root / BOX_TABLE, ["file", *SIDES])
    table.check_unique(["file"])
    rows = table.rows
    return Photos(
        tuple(root / "images" / row["file"] for row in rows),
        tuple(row["file"] for row in rows),
        {},
        np.array([""] * len(rows)),
        _sides(table),
    )


def read_content(path: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Photos:
    """Reads what windows of one folder's photos show of a car, from a table over several folders.

    Args:
        path: a table with the columns `dataset` (the folder's name), `file`, `left`, `top`,
            `right`, `bottom` (the window in pixels; empty: the whole photo) and `content`, one of
            `attributes.CONTENT`.
        folder: has the photos in `images/`.

    Returns:
        A photo per row, cropped to its window; one file may have several. Two rows of one window
        are both kept, and a warning tells how many there are: what it shows may be open to doubt.

    Raises:
        CarjaxError: no such table, a missing column, a side that is missing or not a number, or a
            window without area.
    """
    root = pathlib.Path(folder)
    read = csv_table.read(path, ["dataset", "file", *SIDES, CONTENT.name])
    own = [i for i, row in enumerate(read.rows) if row["dataset"] == root.name]
    rows = [read.rows[i] for i in own]
    table = read._replace(rows=rows, lines=tuple(read.lines[i] for i in own))
    windows = collections.Counter(tuple(row[name] for name in ("file", *SIDES)) for row in rows)
    if twice := [window for window, count in windows.items() if count > 1]:
        logging.getLogger(__name__).warning(
            "%s: %d windows have more than one row, the first of %s/%s",
            path, len(twice), root.name, twice[0][0],
        )  # fmt: skip
    labels, foreign = read_column(table, CONTENT)
    return Photos(
        tuple(root / "images" / row["file"] for row in rows),
        tuple(row["file"] for row in rows),
        {CONTENT.name: labels},
        np.array([""] * len(rows)),
        np.full((len(rows), 4), np.nan, np.float32),
        crop=_sides(table),
        unheard_of={CONTENT.name: foreign} if foreign else {},
    )


def read_fold_table(path: str | os.PathLike[str]) -> dict[str, int]:
    """Returns file name → fold, from a file of `data/splits/` or one like it.

    Raises:
        CarjaxError: no such table, or a fold that is not a whole number.
    """
    table = csv_table.read(path, ["file", "fold"])
    table.check_unique(["file"])
    return {row["file"]: table.integer(i, "fold") for i, row in enumerate(table.rows)}


def read_folds(path: str | os.PathLike[str], names: Sequence[str]) -> np.ndarray:
    """Returns the fold int32 [N] of each name.

    Raises:
        CarjaxError: as `read_fold_table`, or a name is not in the file.
    """
    folds = read_fold_table(path)
    unknown = [n for n in names if n not in folds]
    if unknown:
        raise CarjaxError(f"{path}: {len(unknown)} files have no fold, the first {unknown[0]}")
    return np.array([folds[n] for n in names], np.int32)


def decode(path: Encoded, *, as_stored: bool = False) -> np.ndarray:
    """Reads one photo as uint8 [H, W, 3] RGB.

    Args:
        path: where it lies.
        as_stored: leave it as its pixels are stored, whatever orientation EXIF asks for.

    Raises:
        CarjaxError: it is missing or cannot be decoded.
    """
    try:
        encoded = path.read_bytes()
    except OSError as error:
        raise CarjaxError(f"{path}: cannot read this photo ({error.strerror})") from None
    flags = cv2.IMREAD_COLOR | (cv2.IMREAD_IGNORE_ORIENTATION if as_stored else 0)
    image = pictures.decoded(encoded, flags)
    if image is None:
        raise CarjaxError(f"{path}: not an image that can be decoded")
    return image


def square(image: np.ndarray, side: int) -> np.ndarray:
    """Resizes a photo to one square for all sizes, so that scoring compiles once.

    Every later step squashes its window to a square, so the change of aspect changes nothing.
    """
    method = cv2.INTER_AREA if max(image.shape[:2]) > side else cv2.INTER_LINEAR
    return cv2.resize(image, (side, side), interpolation=method)


def to_canvas(images: Sequence[np.ndarray], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Lays images into the top left corner of square canvases.

    A photo larger than the canvas is shrunk to fit.

    Returns:
        (uint8 [B, side, side, 3], float32 [B, 2] height and width inside the canvas).
    """
    canvas = np.zeros((len(images), side, side, 3), np.uint8)
    valid = np.zeros((len(images), 2), np.float32)
    for i, image in enumerate(images):
        image = pictures.shrunk(image, side)
        height, width = image.shape[:2]
        canvas[i, :height, :width] = image
        valid[i] = height, width
    return canvas, valid


def hashed(photos: Photos) -> Photos:
    """Returns the photos with the SHA-256 of each one's bytes as encoded.

    Raises:
        CarjaxError: a photo is missing or cannot be read.
    """
    if photos.sha256 is not None:
        return photos
    hashes = []
    for path in photos.paths:
        try:
            hashes.append(hashlib.sha256(path.read_bytes()).hexdigest())
        except OSError as error:
            raise CarjaxError(f"{path}: cannot read this photo ({error.strerror})") from None
    return dataclasses.replace(photos, sha256=tuple(hashes))


def content_hashes(photos: Photos) -> list[str]:
    """Returns what the pixels of every photo depend on.

    That is its SHA-256, whether it is read as stored, and its crop if it has one.

    Raises:
        CarjaxError: a photo is missing or cannot be read.
    """
    hashes = hashed(photos).sha256 or ()
    told = [[h] + ["as stored"] * photos.reads_as_stored(i) for i, h in enumerate(hashes)]
    if photos.crop is not None:
        for words, crop in zip(told, photos.crop, strict=True):
            words += [] if np.isnan(crop).any() else map(str, crop.tolist())
    return [" ".join(words) for words in told]
