"""Stanford Cars (Krause, Stark, Deng, Fei-Fei, 3dRR 2013) with attributes of its classes.

devkit/cars_meta.mat                      class_names
devkit/cars_train_annos.mat               annotations: bbox_x1, bbox_y1, bbox_x2, bbox_y2,
                                          class (from 1), fname
devkit/ or ./cars_test_annos_withlabels.mat   the same of the test photos
cars_train/, cars_test/                   *.jpg
labels.csv                                optional: file,azimuth_deg
"""

from __future__ import annotations

import math
import pathlib
from collections.abc import Iterator
from typing import Any

from carjax import files
from carjax.attributes import CAR, DOORS, SEATS, TYPES, Angular, Categorical, Schema
from carjax.datasets import csv_table
from carjax.datasets.builders import base, encoded, matlab
from carjax.datasets.builders.encoded import Fault
from carjax.datasets.photos import LABEL_TABLE
from carjax.errors import CarjaxError

_TABLE = "stanford_cars_classes.csv"
_TRAIN, _TEST = "devkit/cars_train_annos.mat", "cars_test_annos_withlabels.mat"


class StanfordCarsAttributes(base.PhotoBuilder):
    """Stanford Cars with type, brand, doors and seats of its classes, assigned by hand.

    The table of classes is `data/stanford_cars_classes.csv` of carjax's repository, or a file of
    that name beside the data. A class that it does not list is unknown. `model` is the class.
    Orientation is known only where a labels.csv (columns file, azimuth_deg) lies beside the data;
    its file is a name of cars_train/, or a path such as cars_test/00001.jpg.
    """

    TREE = (
        f"devkit/cars_meta.mat, {_TRAIN}, cars_train/*.jpg and, for the test split, "
        f"{_TEST} (here or in devkit/) with cars_test/*.jpg"
    )
    ORIGIN = (
        "cars_train.tgz, cars_test.tgz, car_devkit.tgz and cars_test_annos_withlabels.mat of "
        "https://ai.stanford.edu/~jkrause/cars/car_dataset.html, or a mirror with the same layout"
    )

    def kinds(self) -> Schema:
        """The car's own attributes."""
        return CAR

    @classmethod
    def missing(cls, source: pathlib.Path) -> list[str]:
        """What the training split needs; the test split is optional."""
        needed = ("devkit/cars_meta.mat", _TRAIN, "cars_train")
        return [path for path in needed if not (source / path).exists()]

    def plan(self, source: pathlib.Path) -> tuple[Schema, dict[str, list[str]]]:
        """An item is a photo: 'cars_train/00001.jpg'."""
        self.source = source
        self.classes = matlab.strings(_variable(source, "devkit/cars_meta.mat", "class_names"))
        self.table = _read_table(source)
        self.azimuth = self._read_azimuth(source)
        self.annotations: dict[str, Any] = {}
        splits = {"train": self._read_annotations(_TRAIN, "cars_train")}
        test = next((p for p in (_TEST, f"devkit/{_TEST}") if (source / p).is_file()), None)
        if test and (source / "cars_test").is_dir():
            splits["test"] = self._read_annotations(test, "cars_test")
        else:
            self.note(f"no test split: it needs {_TEST} and cars_test/")
        brands = sorted({row["make"] for row in self.table.values() if row["make"]})
        schema: Schema = (
            Categorical("type", TYPES),
            Categorical("brand", tuple(brands)),
            Categorical("doors", DOORS),
            Categorical("seats", SEATS),
        )
        self.note(
            f"{sum(name in self.table for name in self.classes)} of {len(self.classes)} classes "
            "have attributes"
        )
        return (*schema, Angular("orientation")) if self.azimuth else schema, splits

    def examples(self, split: str, item: str) -> Iterator[base.Example]:
        """The one car of a photo."""
        row = self.annotations[item]
        index = matlab.number(row, "class")
        if not 1 <= index <= len(self.classes):
            raise Fault(f"class {index:g} is none of the {len(self.classes)} in cars_meta.mat")
        name = self.classes[int(index) - 1]
        known = self.table.get(name, {})
        if not known:
            self.count(f"photos of {name}, which has no attributes")
        yield base.Example(
            photo=encoded.load(self.source / item),
            file=item,
            model=name,
            box=matlab.box(
                [matlab.number(row, f"bbox_{side}") for side in ("x1", "y1", "x2", "y2")]
            ),
            labels={
                "brand": known.get("make", ""),
                **{column: known.get(column, "") for column in ("type", "doors", "seats")},
                "orientation": self.azimuth.get(item, math.nan),
            },
        )

    def _read_annotations(self, path: str, folder: str) -> list[str]:
        """Keeps the rows of an annotation file and returns the photos that they name."""
        photos = []
        for at, row in enumerate(matlab.items(_variable(self.source, path, "annotations")), 1):
            file = row.get("fname") if isinstance(row, dict) else None
            if not isinstance(file, str) or not file:
                self.skip(path, f"row {at} names no file")
                continue
            item = f"{folder}/{file}"
            self.annotations[item] = row
            photos.append(item)
        return photos

    def _read_azimuth(self, source: pathlib.Path) -> dict[str, float]:
        """Photo → azimuth in degrees, from an optional labels.csv."""
        path = source / LABEL_TABLE
        if not path.is_file():
            return {}
        azimuth = {}
        for row in _read_csv(path, ("file", "azimuth_deg")):
            file = row["file"] if "/" in row["file"] else f"cars_train/{row['file']}"
            try:
                if row["azimuth_deg"]:
                    azimuth[file] = base.degrees(row["azimuth_deg"], file)
            except Fault as fault:
                self.skip(LABEL_TABLE, str(fault))
        return azimuth


def _variable(source: pathlib.Path, path: str, name: str) -> Any:
    try:
        return matlab.load(source / path, name)
    except Fault as fault:
        raise Fault(f"{path}: {fault}") from None


def _read_table(source: pathlib.Path) -> dict[str, dict[str, str]]:
    """Class name → make, type, doors, seats ('' where unknown)."""
    places = (source, files.project_dir() / "data")
    path = next((folder / _TABLE for folder in places if (folder / _TABLE).is_file()), None)
    if path is None:
        raise Fault(f"{_TABLE} missing: copy it here from data/ of carjax's repository")
    columns = ("class_name", "make", "type", "doors", "seats")
    return {row["class_name"]: row for row in _read_csv(path, columns)}


def _read_csv(path: pathlib.Path, columns: tuple[str, ...]) -> csv_table.Rows:
    try:
        return csv_table.read(path, columns).rows
    except CarjaxError as error:
        raise Fault(str(error)) from None
