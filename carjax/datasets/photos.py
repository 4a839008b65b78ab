"""Labelled photos on disk: the label tables of carjax's training sets, and batches of pixels."""

from __future__ import annotations

import csv
import dataclasses
import os
import pathlib
from collections.abc import Sequence

import cv2
import numpy as np

from carjax import files
from carjax.attributes import Categorical, Schema
from carjax.errors import CarjaxError

# Column of a labels file, where it is not the attribute's own name.
COLUMNS = {"brand": "make", "orientation": "azimuth_deg"}


@dataclasses.dataclass(frozen=True)
class Photos:
    """N photos and what is known of each.

    Attributes:
        paths: where each photo lies.
        names: file names, the keys of splits and of augmentation.
        labels: attribute → int32 class index [N] (−1: unknown), or float32 degrees (NaN).
        group: model class of each photo, for splits by model.
        box: float32 [N, 4]; left, top, right, bottom of the car in pixels (NaN: none or unknown).
    """

    paths: tuple[pathlib.Path, ...]
    names: tuple[str, ...]
    labels: dict[str, np.ndarray]
    group: np.ndarray
    box: np.ndarray

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
        )


def data_root(data_dir: str | os.PathLike[str] | None = None) -> pathlib.Path:
    """Returns the folder of training photos: the argument, or `$CARJAX_DATA`.

    Raises:
        CarjaxError: neither is given, or it is not a folder.
    """
    chosen = data_dir or os.environ.get("CARJAX_DATA")
    if not chosen:
        raise CarjaxError(
            "no training photos: give --data_dir=DIR or set CARJAX_DATA to a folder that holds "
            "stanford_cars/{images/,labels.csv}, car_boxes/{images/,boxes.csv} and "
            "phone_photos/{images/,boxes.csv}"
        )
    root = pathlib.Path(chosen)
    if not root.is_dir():
        raise CarjaxError(f"{root}: no such folder of training photos")
    return root


def _rows(path: pathlib.Path, needed: Sequence[str]) -> list[dict[str, str]]:
    if not path.is_file():
        raise CarjaxError(f"{path}: no such labels file (with the photos in {path.parent}/images)")
    with path.open(newline="", encoding="utf-8") as f:
        reader = csv.DictReader(f)
        missing = [c for c in needed if c not in (reader.fieldnames or ())]
        if missing:
            raise CarjaxError(f"{path}: no column {', '.join(missing)}")
        return list(reader)


def read_labels(folder: str | os.PathLike[str], schema: Schema) -> Photos:
    """Reads `labels.csv` and `images/` of a folder; an empty or unheard-of class is unknown.

    Raises:
        CarjaxError: no such file, a missing column, a value that is not a number.
    """
    root = pathlib.Path(folder)
    columns = {a.name: COLUMNS.get(a.name, a.name) for a in schema}
    rows = _rows(root / "labels.csv", ["file", *columns.values()])
    labels: dict[str, np.ndarray] = {}
    for attribute in schema:
        values = [row[columns[attribute.name]] for row in rows]
        if isinstance(attribute, Categorical):
            index = {c: i for i, c in enumerate(attribute.classes)}
            labels[attribute.name] = np.array([index.get(v, -1) for v in values], np.int32)
        else:
            try:
                labels[attribute.name] = np.array(
                    [float(v) if v else np.nan for v in values], np.float32
                )
            except ValueError as error:
                raise CarjaxError(f"{root / 'labels.csv'}: {attribute.name}: {error}") from None
    return Photos(
        tuple(root / "images" / row["file"] for row in rows),
        tuple(row["file"] for row in rows),
        labels,
        np.array([row.get("class_name", "") for row in rows]),
        np.full((len(rows), 4), np.nan, np.float32),
    )


def read_boxes(folder: str | os.PathLike[str]) -> Photos:
    """Reads `boxes.csv` and `images/` of a folder; an empty box stays NaN.

    Raises:
        CarjaxError: no such file, a missing column, a side that is not a number.
    """
    root = pathlib.Path(folder)
    sides = ("left", "top", "right", "bottom")
    rows = _rows(root / "boxes.csv", ["file", *sides])
    try:
        box = [[float(row[s]) if row[s] else np.nan for s in sides] for row in rows]
    except ValueError as error:
        raise CarjaxError(f"{root / 'boxes.csv'}: a side of a box: {error}") from None
    return Photos(
        tuple(root / "images" / row["file"] for row in rows),
        tuple(row["file"] for row in rows),
        {},
        np.array([""] * len(rows)),
        np.array(box, np.float32).reshape(-1, 4),
    )


def read_folds(path: str | os.PathLike[str], names: Sequence[str]) -> np.ndarray:
    """Returns the fold int32 [N] of each name, from a committed file of `data/splits/`.

    Raises:
        CarjaxError: a name is not in the file.
    """
    try:
        rows = _rows(pathlib.Path(path), ["file", "fold"])
        folds = {row["file"]: int(row["fold"]) for row in rows}
    except ValueError as error:
        raise CarjaxError(f"{path}: a fold: {error}") from None
    unknown = [n for n in names if n not in folds]
    if unknown:
        raise CarjaxError(f"{path}: {len(unknown)} files have no fold, the first {unknown[0]}")
    return np.array([folds[n] for n in names], np.int32)


def decode(path: pathlib.Path) -> np.ndarray:
    """Reads one photo as uint8 [H, W, 3] BGR, as OpenCV orders it.

    Raises:
        CarjaxError: it is missing or cannot be decoded.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise CarjaxError(f"{path}: no such photo, or not an image")
    return image


def square(image: np.ndarray, side: int) -> np.ndarray:
    """Resizes a BGR photo to one RGB square for all sizes, so that scoring compiles once.

    Every later step squashes its window to a square, so the change of aspect changes nothing.
    """
    method = cv2.INTER_AREA if max(image.shape[:2]) > side else cv2.INTER_LINEAR
    return cv2.resize(image, (side, side), interpolation=method)[..., ::-1]


def to_canvas(images: Sequence[np.ndarray], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Lays BGR images into the top left corner of square RGB canvases.

    A photo larger than the canvas is shrunk to fit.

    Returns:
        (uint8 [B, side, side, 3] RGB, float32 [B, 2] height and width inside the canvas).
    """
    canvas = np.zeros((len(images), side, side, 3), np.uint8)
    valid = np.zeros((len(images), 2), np.float32)
    for i, image in enumerate(images):
        longest = max(image.shape[:2])
        if longest > side:
            height, width = (max(1, round(n * side / longest)) for n in image.shape[:2])
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        height, width = image.shape[:2]
        canvas[i, :height, :width] = image[..., ::-1]
        valid[i] = height, width
    return canvas, valid


def content_hashes(photos: Photos) -> list[str]:
    """Returns the SHA-256 of every photo's file.

    Raises:
        CarjaxError: a photo is missing or cannot be read.
    """
    try:
        return [files.sha256(path) for path in photos.paths]
    except OSError as error:
        raise CarjaxError(f"{error.filename}: cannot read this photo ({error.strerror})") from None
