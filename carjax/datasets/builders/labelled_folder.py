"""Any photos with a table of labels: other objects than cars, or your own cars.

images/        photos
labels.csv     file, a column per attribute; optional: model (or class_name), split,
               left, top, right, bottom
schema.json    [{"name": "ripeness", "classes": ["green", "ripe"]}, {"name": "heading"}]
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from carjax.attributes import Angular, Attribute, Schema, class_name
from carjax.datasets import csv_table, prepared, schema_file
from carjax.datasets.builders import base, encoded
from carjax.datasets.builders.encoded import Fault
from carjax.datasets.label_columns import column_of, foreign_classes, model_column
from carjax.datasets.photos import LABEL_TABLE, SIDES
from carjax.errors import CarjaxError, UsageError


@dataclasses.dataclass
class FolderConfig(tfds.core.BuilderConfig):
    """One folder; its name is that of the config.

    Attributes:
        schema: its attributes, from its schema.json.
    """

    schema: Schema = ()


class LabelledFolder(base.PhotoBuilder):
    """Photos with a table of labels and a schema.

    An empty label is unknown; one that the schema does not list is unknown and counted. Without a
    column `split` every photo is in `train`. Boxes count pixels of the photos turned upright as
    their EXIF says, which is how they are shown, and read where they are not prepared.
    """

    TREE = (
        "images/, labels.csv (file, a column per attribute; optional: model, split, left, top, "
        'right, bottom) and schema.json ([{"name": …, "classes": […]}, {"name": …}])'
    )
    ORIGIN = "make it from your own photos"

    def kinds(self) -> Schema:
        """What the config's schema says."""
        config: Any = self.builder_config
        return config.schema

    @classmethod
    def missing(cls, source: pathlib.Path) -> list[str]:
        """The three parts."""
        needed = ("images", LABEL_TABLE, schema_file.NAME)
        return [path for path in needed if not (source / path).exists()]

    @classmethod
    def choose_config(cls, name: str, source: pathlib.Path) -> FolderConfig:
        """Makes a config from the folder's schema; '' names it after the folder."""
        name = name or re.sub(r"\W+", "_", source.resolve().name)
        if not re.fullmatch(r"\w+", name):
            raise UsageError(f"labelled_folder/{name}: its name is letters, digits and _")
        return FolderConfig(name=name, schema=schema_file.read(source / schema_file.NAME))

    def plan(self, source: pathlib.Path) -> tuple[Schema, dict[str, list[str]]]:
        """An item is a photo: 'images/001.jpg'."""
        self.source = source
        self.metadata[prepared.UPRIGHT] = True
        try:
            table = csv_table.read(source / LABEL_TABLE, ["file"])
        except CarjaxError as error:
            raise Fault(str(error)) from None
        self.header = table.columns
        missing = [a.name for a in self.kinds() if column_of(a, self.header) not in self.header]
        if missing:
            raise Fault(f"{LABEL_TABLE}: no column {', '.join(missing)}")
        self.rows: dict[str, dict[str, str]] = {}
        splits: dict[str, list[str]] = {}
        for at, row in zip(table.lines, table.rows, strict=True):
            item = f"images/{row['file']}"
            split = row.get("split") or "train"
            if not split.isidentifier():
                self.skip(f"{LABEL_TABLE}:{at}", f"{split!r} cannot be the name of a split")
            elif item in self.rows:
                self.skip(f"{LABEL_TABLE}:{at}", f"{item} has a row already")
            else:
                self.rows[item] = row
                splits.setdefault(split, []).append(item)
        if not splits:
            raise Fault(f"{LABEL_TABLE}: no row that can be used")
        return self.kinds(), splits

    def examples(self, split: str, item: str) -> Iterator[base.Example]:
        """The one object of a photo."""
        row = self.rows[item]
        photo = encoded.load(self.source / item, upright=True)
        yield base.Example(
            photo=photo,
            file=item,
            model=(row[model] or "") if (model := model_column(self.header)) else "",
            box=_box(row),
            labels={
                a.name: self._label(a, row[column_of(a, self.header)] or "") for a in self.kinds()
            },
        )

    def _label(self, attribute: Attribute, value: str) -> str | float:
        if isinstance(attribute, Angular):
            return base.degrees(value, attribute.name) if value else math.nan
        if foreign_classes(attribute, [value]):
            self.count(f"{attribute.name}: {value!r} is no class of the schema")
            return ""
        return class_name(value, attribute.classes)


def _box(row: dict[str, str]) -> base.Box | None:
    """The box of a row; None where all sides are empty."""
    sides = [row.get(side) or "" for side in SIDES]
    if not any(sides):
        return None
    try:
        left, top, right, bottom = (float(side) for side in sides)
    except ValueError:
        raise Fault(f"a box is four numbers, not {', '.join(sides)}") from None
    return left, top, right, bottom
