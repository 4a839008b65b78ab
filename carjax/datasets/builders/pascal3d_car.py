"""The cars of PASCAL3D+, release 1.1 (Xiang, Mottaghi, Savarese, WACV 2014).

Annotations/car_{pascal,imagenet}/NAME.mat   record.objects: class, bbox, viewpoint, …
Images/car_{pascal,imagenet}/                *.jpg, *.JPEG
Image_sets/car_imagenet_{train,val}.txt      a name per line
PASCAL/VOCdevkit/VOC2012/ImageSets/Main/car_{train,val}.txt   a name and −1, 0 or 1 per line
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from carjax.attributes import Angular, Schema
from carjax.datasets.builders import base, encoded, matlab
from carjax.datasets.builders.encoded import Fault

_PARTS = ("train", "val")
_FLAGS = ("truncated", "occluded", "difficult")


@dataclasses.dataclass
class Pascal3dConfig(tfds.core.BuilderConfig):
    """A protocol.

    Attributes:
        splits: split → (folder, published list) of its parts; folder is 'pascal' or 'imagenet'.
        clear_only: splits whose truncated, occluded or difficult objects are left out.
    """

    splits: dict[str, tuple[tuple[str, str], ...]] = dataclasses.field(default_factory=dict)
    clear_only: tuple[str, ...] = ()


class Pascal3dCar(base.PhotoBuilder):
    """The cars of PASCAL3D+ release 1.1, an example per annotated car.

    Orientation is the azimuth in degrees: 0 front towards the camera, 90 nose to image-left. Where
    an object has no continuous viewpoint (distance 0, or no azimuth) it is the coarse one, and
    `azimuth_is_coarse` is set. `model` is the CAD model that the annotators chose: cad_01 to
    cad_10.
    """

    TREE = (
        "Annotations/car_{pascal,imagenet}/*.mat, Images/car_{pascal,imagenet}/, "
        "Image_sets/car_imagenet_{train,val}.txt and "
        "PASCAL/VOCdevkit/VOC2012/ImageSets/Main/car_{train,val}.txt"
    )
    ORIGIN = (
        "PASCAL3D+_release1.1.zip from https://cvgl.stanford.edu/projects/pascal3d.html, unpacked"
    )
    BUILDER_CONFIGS = [  # noqa: RUF012 (tfds reads a list)
        Pascal3dConfig(
            name="voc",
            description="Trained on VOC train and all ImageNet photos; measured on VOC val without "
            "truncated, occluded and difficult objects (Tulsiani and Malik 2015, Su et al. 2015).",
            splits={
                "train": (("pascal", "train"), ("imagenet", "train"), ("imagenet", "val")),
                "val": (("pascal", "val"),),
            },
            clear_only=("val",),
        ),
        Pascal3dConfig(
            name="imagenet",
            description="The published train and val lists of the ImageNet photos, every object.",
            splits={"train": (("imagenet", "train"),), "val": (("imagenet", "val"),)},
        ),
        Pascal3dConfig(
            name="all",
            description="Every object, a split per published list.",
            splits={
                f"{name}_{part}": ((folder, part),)
                for name, folder in (("voc", "pascal"), ("imagenet", "imagenet"))
                for part in ("train", "val")
            },
        ),
    ]

    def kinds(self) -> Schema:
        """The azimuth."""
        return (Angular("orientation"),)

    def more_features(self) -> dict[str, Any]:
        """The rest of the viewpoint (degrees, CAD units), and the flags."""
        numbers = {k: tfds.features.Scalar(np.float32) for k in ("elevation", "theta", "distance")}
        flags = {k: tfds.features.Scalar(np.bool_) for k in (*_FLAGS, "azimuth_is_coarse")}
        return numbers | flags

    @classmethod
    def missing(cls, source: pathlib.Path) -> list[str]:
        """The folders, and the lists."""
        folders = [
            f"{kind}/car_{part}"
            for kind in ("Annotations", "Images")
            for part in ("pascal", "imagenet")
        ]
        lists = [_list_path(f, p) for f in ("pascal", "imagenet") for p in _PARTS]
        return [f for f in folders if not (source / f).is_dir()] + [
            f for f in lists if not (source / f).is_file()
        ]

    def plan(self, source: pathlib.Path) -> tuple[Schema, dict[str, list[str]]]:
        """An item is an annotation: 'Annotations/car_imagenet/n02814533_10205.mat'."""
        self.source = source
        config: Any = self.builder_config
        published = {(f, p): _listed(source, f, p) for f in ("pascal", "imagenet") for p in _PARTS}
        known = {item for items in published.values() for item in items}
        for path in sorted(source.glob("Annotations/car_*/*.mat")):
            item = path.relative_to(source).as_posix()
            if path.parent.name in ("car_pascal", "car_imagenet") and item not in known:
                self.skip(item, "in no published list")
        splits = {
            split: [item for part in parts for item in published[part]]
            for split, parts in config.splits.items()
        }
        return self.kinds(), splits

    def examples(self, split: str, item: str) -> Iterator[base.Example]:
        """The cars of one annotation; one of them being at fault does not lose the others."""
        record = matlab.load(self.source / item, "record")
        objects = matlab.items(record.get("objects")) if isinstance(record, dict) else []
        cars = [(n, o) for n, o in enumerate(objects) if _is_car(o)]
        if not cars:
            raise Fault("its record has no object of class car")
        file = _image_file(item, record)
        try:
            photo = encoded.load(self.source / file)
        except Fault as fault:
            raise Fault(f"{file}: {fault}") from None
        config: Any = self.builder_config
        for number, car in cars:
            flags = {flag: matlab.number(car, flag) == 1 for flag in _FLAGS}
            if split in config.clear_only and any(flags.values()):
                self.count(f"{split}: truncated, occluded or difficult, left out by the protocol")
                continue
            try:
                viewpoint = _viewpoint(car.get("viewpoint"))
                box = self.inside(matlab.box(car.get("bbox")), photo)
            except Fault as fault:
                self.skip(item, f"object {number + 1}: {fault}")
                continue
            if viewpoint["azimuth_is_coarse"]:
                self.count("azimuths that are coarse only")
            cad = matlab.number(car, "cad_index")
            yield base.Example(
                photo=photo,
                file=file,
                number=number,
                model="" if math.isnan(cad) else f"cad_{int(cad):02d}",
                box=box,
                labels={"orientation": viewpoint.pop("azimuth")},
                more=viewpoint | flags,
            )


def _list_path(folder: str, part: str) -> str:
    """The published list of a part, below the source."""
    if folder == "pascal":
        return f"PASCAL/VOCdevkit/VOC2012/ImageSets/Main/car_{part}.txt"
    return f"Image_sets/car_imagenet_{part}.txt"


def _listed(source: pathlib.Path, folder: str, part: str) -> list[str]:
    """The items of a published list; VOC's name every photo, with −1 where it shows no car."""
    text = (source / _list_path(folder, part)).read_text(encoding="utf-8", errors="replace")
    rows = [line.split() for line in text.splitlines() if line.strip()]
    return [f"Annotations/car_{folder}/{row[0]}.mat" for row in rows if row[1:] != ["-1"]]


def _is_car(found: Any) -> bool:
    return isinstance(found, dict) and found.get("class") == "car"


def _image_file(item: str, record: dict[str, Any]) -> str:
    """The photo's path below the source: as the record names it, else named as the annotation."""
    annotation = pathlib.PurePosixPath(item)
    folder = annotation.parent.name
    named = record.get("filename")
    if isinstance(named, str) and named:
        return f"Images/{folder}/{pathlib.PurePosixPath(named).name}"
    return f"Images/{folder}/{annotation.stem}" + (".jpg" if folder == "car_pascal" else ".JPEG")


def _viewpoint(struct: Any) -> dict[str, Any]:
    """Azimuth, elevation, theta (degrees) and distance, and whether the azimuth is coarse.

    The release's own tools take the coarse angles where distance is 0.
    """
    if not isinstance(struct, dict):
        raise Fault("no viewpoint")
    distance = matlab.number(struct, "distance")
    azimuth = matlab.number(struct, "azimuth")
    coarse = not (distance > 0 and math.isfinite(azimuth))
    suffix = "_coarse" if coarse else ""
    azimuth = matlab.number(struct, f"azimuth{suffix}")
    if not math.isfinite(azimuth):
        raise Fault("no azimuth, not even a coarse one")
    return {
        "azimuth": azimuth % 360.0,
        "azimuth_is_coarse": coarse,
        "elevation": matlab.number(struct, f"elevation{suffix}"),
        "theta": matlab.number(struct, "theta"),
        "distance": distance,
    }
