"""Prepared data sets: found below the data folder, and read by random access.

`carjax prepare`, or tfds itself, leaves ArrayRecord files in NAME/[CONFIG/]VERSION/. What is known
of each photo is needed whole and at once, so it is kept beside them in `index.parquet`, made by
the first to read them all; the photos themselves stay in the records until they are asked for.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from carjax import files
from carjax.attributes import Angular, Schema, attribute_from_json
from carjax.datasets import photos
from carjax.datasets.label_columns import encode_labels, foreign_classes
from carjax.errors import CarjaxError, needing

INDEX, METADATA = "index.parquet", "metadata.json"
# What a builder notes of boxes that count pixels of the photos as they are shown, not as stored.
UPRIGHT = "upright"
# Threads that read records for the index: it is bound by the disk.
_READERS = 8


class PreparedSet(NamedTuple):
    """N photos of a prepared data set.

    Attributes:
        photos: what is known of each.
        split: str [N]; the published split.
        model_split: str [N]; 'train' or 'val' by the model's name, '' without a model.
    """

    photos: photos.Photos
    split: np.ndarray
    model_split: np.ndarray


@dataclasses.dataclass(frozen=True)
class Record:
    """One encoded photo inside a record file; reads like a path.

    Attributes:
        records: random access to its split.
        row: its position there.
        name: what to call it in an error.
    """

    records: Sequence[Any]
    row: int
    name: str

    def __str__(self) -> str:
        return self.name

    def read_bytes(self) -> bytes:
        """Returns the photo as it was encoded.

        Raises:
            OSError: the record cannot be read.
        """
        try:
            encoded = self.records[self.row]["image"]
        except (RuntimeError, ValueError, IndexError) as error:
            raise OSError(None, f"broken record file: {error}") from None
        if not encoded:
            raise OSError(None, "broken record file: an empty record")
        return encoded


def find(root: pathlib.Path, name: str) -> pathlib.Path | None:
    """Returns the folder of a prepared data set; None if there is none.

    Args:
        root: the folder of data sets.
        name: 'pascal3d_car' (the default config), 'pascal3d_car/imagenet', or with a version:
            'pascal3d_car/imagenet/1.0.0'. Without one it is the newest.

    Raises:
        CarjaxError: there are several configs and none is the default.
    """
    folder = root / name
    versions = [p.parent for p in folder.glob("*/dataset_info.json") if _version(p.parent.name)]
    if (folder / "dataset_info.json").is_file():
        return folder
    if versions:
        return max(versions, key=lambda path: _version(path.name))
    configs = sorted({path.parents[1].name for path in folder.glob("*/*/dataset_info.json")})
    default = _default_config(folder)
    if default in configs:
        return find(root, f"{name}/{default}")
    if len(configs) == 1:
        return find(root, f"{name}/{configs[0]}")
    if configs:
        raise CarjaxError(f"{folder}: name one of {', '.join(f'{name}/{c}' for c in configs)}")
    return None


def _version(name: str) -> tuple[int, ...]:
    """'1.0.0' as numbers; empty for any other name."""
    return tuple(map(int, name.split("."))) if re.fullmatch(r"\d+\.\d+\.\d+", name) else ()


def _default_config(folder: pathlib.Path) -> str:
    """The default config as tfds notes it; '' if it does not."""
    try:
        return json.loads((folder / ".config" / "metadata.json").read_text())["default_config_name"]
    except (OSError, ValueError, KeyError):
        return ""


def read_metadata(folder: pathlib.Path) -> dict[str, Any]:
    """Returns what the builder noted: schema, notes, counts and skipped, and `UPRIGHT` if it is so.

    Raises:
        CarjaxError: it is missing or broken: no builder of carjax wrote this data set.
    """
    path = folder / METADATA
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CarjaxError(f"{path}: cannot be read ({error}): prepare the data set again") from None


def read_schema(folder: pathlib.Path) -> Schema:
    """Returns the attributes of a data set, with the classes that it has.

    Raises:
        CarjaxError: see `read_metadata`.
    """
    try:
        return tuple(attribute_from_json(row) for row in read_metadata(folder)["schema"])
    except (KeyError, TypeError):
        raise CarjaxError(
            f"{folder / METADATA}: states no schema: prepare the data set again"
        ) from None


def splits(folder: pathlib.Path) -> tuple[str, ...]:
    """Returns the names of the published splits."""
    info = json.loads((folder / "dataset_info.json").read_text())
    return tuple(split["name"] for split in info["splits"])


def read(folder: pathlib.Path, schema: Schema, *, cropped: bool) -> PreparedSet:
    """Reads what is known of every photo; pixels are read later, by `Photos.read`.

    Args:
        folder: from `find`.
        schema: the attributes to read; one that the data set lacks is unknown everywhere.
        cropped: cut each photo to its box, where it has one.

    Raises:
        CarjaxError: the files are broken, or an attribute is an angle where it should have classes,
            or the other way round.
    """
    table = read_index(folder)
    sources = open_splits(folder)
    column = {name: table.column(name).to_pylist() for name in ("name", "split", "row", "sha256")}
    box = np.asarray(table.column("box").to_pylist(), np.float32).reshape(-1, 4)
    n = len(table)
    labels = {}
    unheard_of: dict[str, collections.Counter[str]] = {}
    for attribute in schema:
        known = attribute.name in table.column_names
        angular = isinstance(attribute, Angular)
        if known and pa.types.is_floating(table.schema.field(attribute.name).type) != angular:
            here, there = ("is an angle", "has classes")[:: 1 if angular else -1]
            raise CarjaxError(
                f"{folder}: {attribute.name} {there} in this data set, and {here} in this run"
            )
        values = table.column(attribute.name).to_pylist() if known else [""] * n
        labels[attribute.name] = encode_labels(attribute, values)
        if foreign := foreign_classes(attribute, values):
            unheard_of[attribute.name] = foreign
    records = (
        Record(sources[split], row, f"{folder.parent}/{name}")
        for split, row, name in zip(column["split"], column["row"], column["name"], strict=True)
    )
    return PreparedSet(
        photos.Photos(
            paths=tuple(records),
            names=tuple(column["name"]),
            labels=labels,
            group=np.array(table.column("model").to_pylist(), str),
            box=box,
            crop=box if cropped else None,
            as_stored=not read_metadata(folder).get(UPRIGHT, False),
            sha256=tuple(column["sha256"]),
            unheard_of=unheard_of,
        ),
        np.array(column["split"], str),
        np.array(table.column("model_split").to_pylist(), str),
    )


def open_splits(folder: pathlib.Path) -> dict[str, Sequence[Any]]:
    """Returns split → random access to its examples, as dicts with the image still encoded.

    Raises:
        CarjaxError: the packages that read records are missing, or the files are broken.
    """
    try:
        with needing("train", "a prepared data set"):
            import tensorflow_datasets as tfds

            builder = tfds.builder_from_directory(str(folder))
            return builder.as_data_source(decoders={"image": tfds.decode.SkipDecoding()})
    except (OSError, ValueError, RuntimeError, NotImplementedError) as error:
        raise CarjaxError(f"{folder}: broken record files ({error}): prepare them again") from None


def read_index(folder: pathlib.Path) -> pa.Table:
    """Returns a row per photo: split, row in it, and every feature but the image.

    It is read from `index.parquet`, or made and, where the folder can be written, left there.

    Raises:
        CarjaxError: the files are broken.
    """
    path = folder / INDEX
    if not path.is_file():
        return write_index(folder)
    try:
        return pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise CarjaxError(f"{path}: broken ({error}): delete it, and it is made again") from None


def write_index(
    folder: pathlib.Path, on_progress: Callable[[int, int], None] = lambda done, total: None
) -> pa.Table:
    """Reads all records and writes the index beside them; see `read_index`."""
    with needing("train", "a prepared data set"):
        import grain
    sources = open_splits(folder)
    total = sum(map(len, sources.values()))
    rows: list[dict[str, Any]] = []
    options = grain.ReadOptions(num_threads=_READERS, prefetch_buffer_size=8 * _READERS)
    for split, source in sources.items():
        examples = grain.MapDataset.source(source).map(_without_image)
        for row, example in enumerate(examples.to_iter_dataset(options)):
            rows.append({"split": split, "row": row, **example})
            on_progress(len(rows), total)
    table = pa.Table.from_pylist(rows)
    try:
        with files.replacing(folder / INDEX) as temporary:
            pq.write_table(table, temporary)
    except OSError:
        # A folder that cannot be written: the index is made again the next time.
        pass
    return table


def _without_image(example: dict[str, Any]) -> dict[str, Any]:
    """The example as plain Python, without its photo."""
    return {name: _plain(value) for name, value in example.items() if name != "image"}


def _plain(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else np.asarray(value).tolist()
