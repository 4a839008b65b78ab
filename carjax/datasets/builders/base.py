"""What the builders share: one kind of example, faults skipped and counted, checks up front."""

from __future__ import annotations

import collections
import dataclasses
import io
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from carjax.attributes import Categorical, Schema, attribute_to_json
from carjax.datasets.builders import encoded
from carjax.datasets.builders.encoded import Fault
from carjax.datasets.folds import fold_of
from carjax.errors import CarjaxError, UsageError

Box = tuple[float, float, float, float]
# One model in this many is held out by the split by model.
MODEL_FOLDS = 5


def model_split(model: str) -> str:
    """Returns 'val' for a fifth of all models and 'train' for the others, '' without a model.

    It is the SHA-1 of the name (UTF-8), as a number modulo 5; 0 is 'val'. So it depends on nothing
    but the name: the same model is held out in every data set, today and in the next version.

    Example:
        >>> model_split("Audi A4L"), model_split("Acura TL Sedan 2012"), model_split("")
        ('train', 'val', '')
    """
    if not model:
        return ""
    return "val" if fold_of(model, MODEL_FOLDS) == 0 else "train"


def degrees(text: str, name: str) -> float:
    """Reads an angle in degrees, and returns it in [0, 360).

    Raises:
        Fault: it is not a finite number; `name` says whose it is.
    """
    try:
        angle = float(text)
    except ValueError:
        angle = math.nan
    if not math.isfinite(angle):
        raise Fault(f"{name}: {text!r} is not an angle in degrees")
    return angle % 360.0


@dataclasses.dataclass(frozen=True)
class Example:
    """One object in one photo.

    Attributes:
        photo: the encoded photo.
        file: its path below the source.
        number: which object of the photo, from 0.
        model: what a split by model keeps together; empty: unknown.
        box: left, top, right, bottom in pixels of the photo as it was loaded, as stored or
            upright; edges at 0 and the width or height; None: not annotated.
        labels: attribute → class name, or degrees; '' and NaN are unknown.
        more: further features of this data set.
    """

    photo: encoded.Photo
    file: str
    number: int = 0
    model: str = ""
    box: Box | None = None
    labels: Mapping[str, str | float] = dataclasses.field(default_factory=dict)
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class PhotoBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Base of the builders; a subclass knows one layout of files.

    `builder.info.metadata`, and so `metadata.json` of the prepared data set, holds `schema` (the
    attributes with their classes), `notes`, `counts` and `skipped` ([path, reason] of every photo
    and annotation that could not be used).

    Attributes:
        TREE: the files that are needed, as one line.
        ORIGIN: where to get them, as one line.
        on_progress: called with (split, items done, items to do).
    """

    VERSION = tfds.core.Version("1.0.0")
    TREE: ClassVar[str]
    ORIGIN: ClassVar[str]
    # tfds refuses a source folder without it.
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Give the folder of the data set as manual_dir."

    on_progress: Callable[[str, int, int], None] = staticmethod(lambda split, done, total: None)

    def __init__(self, *, file_format: str = "array_record", **kwargs: Any) -> None:
        super().__init__(file_format=file_format, **kwargs)

    # --- What a subclass says ---------------------------------------------------------------------

    def kinds(self) -> Schema:
        """The attributes; their classes need not be known yet."""
        raise NotImplementedError

    def more_features(self) -> dict[str, Any]:
        """The tfds features of `Example.more`."""
        return {}

    @classmethod
    def missing(cls, source: pathlib.Path) -> list[str]:
        """The paths below the source that are needed and not there."""
        raise NotImplementedError

    def plan(self, source: pathlib.Path) -> tuple[Schema, dict[str, list[str]]]:
        """Reads the tables of the data set.

        Returns:
            (the schema with its classes, split → names of its items, for `examples`).

        Raises:
            Fault: a table that all else depends on is broken.
        """
        raise NotImplementedError

    def examples(self, split: str, item: str) -> Iterator[Example]:
        """Yields the examples of one item.

        Raises:
            Fault: none (or no more) of them can be used.
        """
        raise NotImplementedError

    # --- What went wrong --------------------------------------------------------------------------

    @property
    def metadata(self) -> dict[str, Any]:
        """The content of `metadata.json`."""
        metadata: Any = self.info.metadata
        return metadata

    def skip(self, path: str, reason: object) -> None:
        """Notes that a photo or annotation is not used."""
        self.metadata["skipped"].append([path, str(reason)])

    def count(self, what: str) -> None:
        """Counts something that loses information but no example."""
        self.metadata["counts"][what] += 1

    def note(self, line: str) -> None:
        """Keeps a line for whoever prepares the data set."""
        self.metadata["notes"].append(line)

    def inside(self, box: Box, photo: encoded.Photo) -> Box:
        """Cuts a box off at the photo's edges; counts those that reach out by more than a pixel.

        Raises:
            Fault: less than a pixel of it lies inside.
        """
        left, top = max(box[0], 0.0), max(box[1], 0.0)
        right, bottom = min(box[2], float(photo.width)), min(box[3], float(photo.height))
        # Written so that NaN fails too.
        if not (right - left >= 1.0 and bottom - top >= 1.0):
            told = ", ".join(f"{v:g}" for v in box)
            raise Fault(f"the box ({told}) is not inside the photo ({photo.width}×{photo.height})")
        kept = (left, top, right, bottom)
        if max(abs(a - b) for a, b in zip(box, kept, strict=True)) > 1.0:
            self.count("boxes cut off at the photo's edge")
        return kept

    @classmethod
    def check_source(cls, source: pathlib.Path) -> None:
        """Checks that the expected tree is there, without reading it.

        Raises:
            CarjaxError: it is not; the line names what lacks, the tree and its origin.
        """
        lacking = cls.missing(source) if source.is_dir() else ["the folder itself"]
        if lacking:
            raise CarjaxError(
                f"{source}: not {cls.name} as published: {', '.join(lacking)} missing; "
                f"expected {cls.TREE}; to get it: {cls.ORIGIN}"
            )

    @classmethod
    def choose_config(cls, name: str, source: pathlib.Path) -> tfds.core.BuilderConfig | None:
        """Returns the config of that name; '' is the default one.

        Raises:
            UsageError: there is no such config.
        """
        if name and name not in cls.builder_configs:
            known = ", ".join(cls.builder_configs) or "none"
            raise UsageError(f"{cls.name} has no config {name!r}; there are: {known}")
        return cls.builder_configs[name] if name else None

    # --- tfds -------------------------------------------------------------------------------------

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(),  # kept encoded
            "name": tfds.features.Text(),  # the file, and #number where a photo has several objects
            "file": tfds.features.Text(),
            "sha256": tfds.features.Text(),
            "model": tfds.features.Text(),
            "model_split": tfds.features.Text(),
            "box": tfds.features.Tensor(shape=(4,), dtype=np.float32),
        }
        for attribute in self.kinds():
            is_class = isinstance(attribute, Categorical)
            features[attribute.name] = (
                tfds.features.Text() if is_class else tfds.features.Scalar(np.float32)
            )
        return tfds.core.DatasetInfo(
            builder=self,
            description=" ".join((self.__doc__ or "").split()),
            features=tfds.features.FeaturesDict(features | self.more_features()),
            metadata=tfds.core.MetadataDict(
                schema=[], notes=[], counts=collections.Counter(), skipped=[]
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        source = pathlib.Path(dl_manager.manual_dir)
        self.check_source(source)
        try:
            schema, splits = self.plan(source)
        except Fault as fault:
            raise CarjaxError(f"{source}: {fault}; expected {self.TREE}") from None
        self.metadata["schema"] = [attribute_to_json(attribute) for attribute in schema]
        taken: dict[str, str] = {}
        for split, items in splits.items():
            for item in items:
                if item in taken:
                    self.skip(item, f"listed in {split} and before that in {taken[item]}")
                taken.setdefault(item, split)
        # A photo in two splits would be trained on and measured.
        own = {split: [i for i, s in taken.items() if s == split] for split in splits}
        return {split: self._generate_examples(split, items) for split, items in own.items()}

    def _generate_examples(
        self, split: str, items: list[str]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        kept = 0
        for done, item in enumerate(items):
            self.on_progress(split, done, len(items))
            try:
                for example in self.examples(split, item):
                    yield self._encode(example)
                    kept += 1
            except Fault as fault:
                self.skip(item, fault)
        self.on_progress(split, len(items), len(items))
        if not kept:
            first = "; ".join(": ".join(row) for row in self.metadata["skipped"][:1])
            raise CarjaxError(
                f"{self.name}: no usable example in the split {split!r}"
                + (f" ({first})" if first else "")
            )

    def _encode(self, example: Example) -> tuple[str, dict[str, Any]]:
        photo = example.photo
        name = f"{example.file}#{example.number}" if example.number else example.file
        box = (math.nan,) * 4
        if example.box is not None:
            box = self.inside(example.box, photo)
        return name, {
            "image": io.BytesIO(photo.encoded),
            "name": name,
            "file": example.file,
            "sha256": photo.sha256,
            "model": example.model,
            "model_split": model_split(example.model),
            "box": np.array(box, np.float32),
            **example.labels,
            **example.more,
        }
