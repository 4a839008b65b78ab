"""The web-nature photos of CompCars (Yang, Luo, Loy, Tang, CVPR 2015).

image/MAKE/MODEL/YEAR/NAME.jpg       numbers of make and model, from 1; year or 'unknown'
label/MAKE/MODEL/YEAR/NAME.txt       viewpoint; number of boxes, 1; x1 y1 x2 y2
misc/attributes.txt                  model_id maximum_speed displacement door_number …
misc/car_type.mat                    types: names of the 12 types
misc/make_model_name.mat             make_names, model_names
train_test_split/classification/{train,test}.txt   MAKE/MODEL/YEAR/NAME.jpg per line
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from carjax.attributes import DOORS, SEATS, Categorical, Schema
from carjax.datasets.builders import base, encoded, matlab
from carjax.datasets.builders.encoded import Fault

_COLUMNS = ("model_id", "maximum_speed", "displacement", "door_number", "seat_number", "type")
_NEEDED = (
    "image",
    "label",
    "misc/attributes.txt",
    "misc/car_type.mat",
    "misc/make_model_name.mat",
    "train_test_split/classification/train.txt",
    "train_test_split/classification/test.txt",
)


class CompcarsWeb(base.PhotoBuilder):
    """The web-nature photos of CompCars, with type, brand, doors and seats of the model.

    Splits: `train` and `test` are the published classification lists (431 models); `rest` holds
    the photos in neither. Doors are 2 to 5 and seats 2, 4, 5 or >5; every other number is unknown.
    `viewpoint` is 1 front, 2 rear, 3 side, 4 front-side, 5 rear-side, −1 uncertain.
    """

    TREE = "in data/ or the folder itself: " + ", ".join(_NEEDED)
    ORIGIN = (
        "http://mmlab.ie.cuhk.edu.hk/datasets/comp_cars/index.html; its authors give the archive's "
        "password on request"
    )

    def kinds(self) -> Schema:
        """The four attributes of a model."""
        return tuple(Categorical(name, ()) for name in ("type", "brand", "doors", "seats"))

    def more_features(self) -> dict[str, Any]:
        """The coarse viewpoint, and the year as published."""
        return {"viewpoint": tfds.features.Scalar(np.int32), "year": tfds.features.Text()}

    @classmethod
    def missing(cls, source: pathlib.Path) -> list[str]:
        """The folders and files, below data/ where there is such a folder."""
        return [path for path in _NEEDED if not (_data(source) / path).exists()]

    def plan(self, source: pathlib.Path) -> tuple[Schema, dict[str, list[str]]]:
        """An item is a photo: 'image/1/1101/2011/07b90decb92ba6.jpg'."""
        root = self.source = _data(source)
        names = root / "misc/make_model_name.mat"
        self.makes = matlab.strings(_variable(names, "make_names"))
        self.models = matlab.strings(_variable(names, "model_names"))
        types = matlab.strings(_variable(root / "misc/car_type.mat", "types"))
        self.attributes = self._read_attributes(root / "misc/attributes.txt", types)

        found = [
            path.relative_to(root).as_posix() for path in sorted(root.glob("image/*/*/*/*.jpg"))
        ]
        splits = {part: _listed(root, part) for part in ("train", "test")}
        listed = {item for items in splits.values() for item in items}
        splits["rest"] = [item for item in found if item not in listed]

        numbers = {item.split("/")[1] for item in found}
        brands = sorted({make for n in numbers if (make := _name(self.makes, n))})
        self.note(
            f"{len(brands)} makes have photos; make_model_name.mat names {len(self.makes)}, "
            "the reference article counts 161"
        )
        schema = (
            Categorical("type", tuple(types)),
            Categorical("brand", tuple(brands)),
            Categorical("doors", DOORS),
            Categorical("seats", SEATS),
        )
        return schema, {split: items for split, items in splits.items() if items}

    def examples(self, split: str, item: str) -> Iterator[base.Example]:
        """The one car of a photo."""
        parts = item.split("/")
        if len(parts) != 5:
            raise Fault("not image/MAKE/MODEL/YEAR/NAME.jpg")
        _, make_number, model_number, year, _ = parts
        make = _name(self.makes, make_number)
        if not make:
            raise Fault(f"make_model_name.mat has no make {make_number}")
        photo = encoded.load(self.source / item)
        label = pathlib.PurePosixPath("label", *parts[1:]).with_suffix(".txt").as_posix()
        viewpoint, box = _read_label(self.source, label)
        model = _name(self.models, model_number)
        if model_number not in self.attributes:
            self.count("photos whose model is not in attributes.txt")
        yield base.Example(
            photo=photo,
            file=item,
            # Without a name, the number still keeps the model's photos together.
            model=f"{make} {model or model_number}",
            box=box,
            labels={"brand": make, **self._known(self.attributes.get(model_number, {}))},
            more={"viewpoint": viewpoint, "year": year},
        )

    def _known(self, row: Mapping[str, str]) -> dict[str, str]:
        """The labels of a model; a number that is no class is unknown, and counted."""
        labels = {}
        for name, classes in (("doors", DOORS), ("seats", SEATS)):
            value = row.get(name, "0")
            if name == "seats" and value.isdecimal() and int(value) > 5:
                value = SEATS[-1]
            labels[name] = value if value in classes else ""
            if not labels[name]:
                self.count(f"{name}: {'unknown' if value == '0' else value + ' is no class'}")
        labels["type"] = row.get("type", "")
        if not labels["type"]:
            self.count("type: unknown")
        return labels

    def _read_attributes(self, path: pathlib.Path, types: list[str]) -> dict[str, dict[str, str]]:
        """Number of a model → doors and seats as written, and the type's name ('' for 0)."""
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        if not lines or tuple(lines[0].split()) != _COLUMNS:
            raise Fault(f"misc/attributes.txt must begin with the line {' '.join(_COLUMNS)!r}")
        found = {}
        for at, line in enumerate(lines[1:], 2):
            words = line.split()
            if not words:
                continue
            if len(words) != len(_COLUMNS) or not all(words[i].isdecimal() for i in (0, 3, 4, 5)):
                self.skip(f"misc/attributes.txt:{at}", f"not six numbers: {line.strip()!r}")
                continue
            row = dict(zip(_COLUMNS, words, strict=True))
            if int(row["type"]) > len(types):
                self.skip(f"misc/attributes.txt:{at}", f"car_type.mat has no type {row['type']}")
            found[row["model_id"]] = {
                "doors": row["door_number"],
                "seats": row["seat_number"],
                "type": _name(types, row["type"]),
            }
        return found


def _data(source: pathlib.Path) -> pathlib.Path:
    """The archive unpacks to data/; either folder may be given."""
    return source / "data" if (source / "data").is_dir() else source


def _variable(path: pathlib.Path, name: str) -> Any:
    try:
        return matlab.load(path, name)
    except Fault as fault:
        raise Fault(f"misc/{path.name}: {fault}") from None


def _listed(root: pathlib.Path, part: str) -> list[str]:
    path = root / f"train_test_split/classification/{part}.txt"
    text = path.read_text(encoding="utf-8", errors="replace")
    return [f"image/{line.strip()}" for line in text.splitlines() if line.strip()]


def _name(names: list[str], number: str) -> str:
    """The name of a number that counts from 1; '' if there is none."""
    known = number.isdecimal() and 1 <= int(number) <= len(names)
    return names[int(number) - 1] if known else ""


def _read_label(root: pathlib.Path, label: str) -> tuple[int, base.Box]:
    """Viewpoint and box of a label file."""
    try:
        lines = (root / label).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise Fault(f"{label}: cannot be read ({error.strerror})") from None
    try:
        viewpoint, boxes = int(lines[0]), int(lines[1])
        corners = [float(word) for word in lines[2].split()]
    except (IndexError, ValueError):
        raise Fault(f"{label}: not a viewpoint, the number of boxes and a box") from None
    if boxes != 1 or len(corners) != 4:
        raise Fault(f"{label}: {boxes} boxes, the first of {len(corners)} numbers; expected one")
    return viewpoint, matlab.box(corners)
