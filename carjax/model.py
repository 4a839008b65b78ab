"""A model: one frozen backbone, one head per attribute, the car box; and the file that holds it."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.resources
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from carjax import files, heads, localise, weights_file
from carjax.attributes import (
    CAR,
    Angular,
    Attribute,
    Categorical,
    Schema,
    attribute_from_json,
    attribute_to_json,
)
from carjax.backbones import pretrained, registry
from carjax.calibration import ClassCalibration, DirectionCalibration
from carjax.errors import CarjaxError, UsageError
from carjax.heads import HeadSpec
from carjax.localise import LocaliseSpec

BUNDLE_VERSION = 1
DEFAULT_BUNDLE = "car_heads"
_KIND = "carjax_bundle"
# No backbone makes features of less.
_LEAST_INPUT = 32


@dataclasses.dataclass(frozen=True)
class Spec:
    """The static, hashable description of a model: what `score` compiles for.

    Attributes:
        backbone: its name in the registry.
        heads: one per attribute, in the schema's order.
        localise: the car box; None scores whole frames.
        input_size: side of the backbone's input when scoring.
        content: whether a frame shows the car, on the car box's last look; None: not told.
    """

    backbone: str
    heads: tuple[HeadSpec, ...]
    localise: LocaliseSpec | None
    input_size: int
    content: HeadSpec | None = None

    @property
    def schema(self) -> Schema:
        """The attributes that the heads predict."""
        return tuple(head.attribute for head in self.heads)

    @property
    def modules(self) -> tuple[str, ...]:
        """The Python modules that register what carjax does not have: see `plugins`."""
        named = {head.module for head in self.heads} | {registry.module_of(self.backbone)}
        return tuple(sorted(named - {""}))

    @property
    def of_cars(self) -> bool:
        """Whether it can be that a frame shows no car: not where all attributes are one's own."""
        known = {attribute.name for attribute in CAR}
        shared = any(head.attribute.name in known for head in self.heads)
        return self.localise is not None or self.content is not None or shared

    @property
    def unknown_above(self) -> dict[str, float]:
        """Attribute name → the novelty above which its class is none that the head knows."""
        limits: dict[str, float] = {}
        for head in self.heads:
            if isinstance(head.calibration, ClassCalibration):
                limit = head.calibration.unknown_above
                limits |= {} if limit is None else {head.attribute.name: limit}
        return limits

    def head(self, name: str) -> HeadSpec:
        """Returns the head of an attribute.

        Raises:
            KeyError: there is none.
        """
        for head in self.heads:
            if head.attribute.name == name:
                return head
        raise KeyError(f"no head for {name!r}; there are: {', '.join(a.name for a in self.schema)}")


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """Parameters, their static description, and what is known of their making.

    Compares and hashes by identity, and is kept as compiled: other parameters are another model,
    `dataclasses.replace(model, params=…)`.

    Attributes:
        params: {'backbone': …, 'heads': {name: …}, 'localise': …, 'content': …}; float32 arrays.
        spec: the static description.
        card: JSON-like facts: bundle name, version, backbone hash, and per head its training.
        training_hashes: SHA-256 of every photo that a head or the car box was trained on.
    """

    params: dict[str, Any]
    spec: Spec
    card: dict[str, Any]
    training_hashes: frozenset[str] = frozenset()

    @property
    def origin(self) -> dict[str, Any]:
        """Which model it is, as results name it: backbone, bundle and version."""
        return {key: self.card.get(key) for key in ("backbone", "bundle", "version")}

    def with_localise(self, enabled: bool | None) -> Model:
        """Returns the model that finds the car first, or the one that scores whole frames.

        Args:
            enabled: which; None: finds the car if it can.

        Raises:
            CarjaxError: asked for a car box that the bundle does not hold.
        """
        if enabled is None:
            return self
        if not enabled:
            return dataclasses.replace(self, spec=dataclasses.replace(self.spec, localise=None))
        if self.spec.localise is None:
            raise CarjaxError("this model has no car box: score with --nolocalise")
        return self


def weights_hash(params: Mapping[str, Any]) -> str:
    """Returns a SHA-256 over names, shapes and float32 values of a pytree of dicts."""
    digest = hashlib.sha256()
    for key, value in sorted(pretrained.flatten(params).items()):
        array = np.ascontiguousarray(value, np.float32)
        digest.update(f"{key}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def spec_to_json(spec: Spec) -> dict[str, Any]:
    """Returns the JSON form of a spec; `spec_from_json` inverts it."""
    box = dataclasses.asdict(spec.localise) if spec.localise else None
    return {
        "backbone": spec.backbone,
        "heads": [head_to_json(head) for head in spec.heads],
        "localise": box,
        "input_size": spec.input_size,
        "content": head_to_json(spec.content) if spec.content else None,
    }


def head_to_json(head: HeadSpec) -> dict[str, Any]:
    """Returns the JSON form of a head's spec; `head_from_json` inverts it."""
    row = {**dataclasses.asdict(head), "attribute": attribute_to_json(head.attribute)}
    # As it was before there were densities of one's own: older versions read it.
    return row if head.module else {k: v for k, v in row.items() if k != "module"}


def head_from_json(row: Mapping[str, Any]) -> HeadSpec:
    """Builds a head's spec from its JSON form."""
    return HeadSpec(
        **{
            **row,
            "attribute": attribute_from_json(row["attribute"]),
            "parts": tuple(row.get("parts", ())),
            "calibration": _calibration(row),
        }
    )


def spec_from_json(tree: Mapping[str, Any]) -> Spec:
    """Builds a spec from its JSON form."""
    read_heads = tuple(head_from_json(row) for row in tree["heads"])
    # Bundles of before there was a content head name none.
    content = tree.get("content")
    return Spec(
        backbone=tree["backbone"],
        heads=read_heads,
        localise=localise.LocaliseSpec(**tree["localise"]) if tree["localise"] else None,
        input_size=tree["input_size"],
        content=head_from_json(content) if content else None,
    )


def _check_spec(spec: Spec) -> None:
    """Raises ValueError for what no carjax writes."""
    sizes = [spec.input_size, *([spec.localise.input_size] if spec.localise else [])]
    if not all(isinstance(size, int) and size >= _LEAST_INPUT for size in sizes):
        raise ValueError(f"its inputs have sides of {sizes} pixels")
    names = [head.attribute.name for head in spec.heads]
    if len(set(names)) < len(names):
        raise ValueError("two heads for one attribute")
    check_directions(head.attribute for head in spec.heads)
    for head in spec.heads:
        if isinstance(head.attribute, Categorical) and any(
            not 0 <= part < len(head.attribute.classes) for part in head.parts
        ):
            raise ValueError(f"{head.attribute.name}: parts of classes that do not exist")


def _check_registered(spec: Spec, path: str | os.PathLike[str]) -> None:
    """Raises a CarjaxError if the backbone or a density of a file is not at hand."""
    try:
        registry.spec_of(spec.backbone)
        for head in spec.heads:
            if isinstance(head.attribute, Angular):
                heads.find_density(head)
    except UsageError as error:
        own = ":" in spec.backbone or any(head.module for head in spec.heads)
        hint = "" if own else " (made by a newer carjax?)"
        raise CarjaxError(f"{path}: {error}{hint}") from None


def check_directions(schema: Iterable[Attribute]) -> None:
    """Raises ValueError if more than one attribute is a direction: scores hold one azimuth."""
    names = [attribute.name for attribute in schema if isinstance(attribute, Angular)]
    if len(names) > 1:
        raise ValueError(f"{' and '.join(names)} are directions, of which a model can have one")


def _calibration(row: Mapping[str, Any]) -> ClassCalibration | DirectionCalibration | None:
    """A head's calibration from its JSON form; classes and directions have their own."""
    if not row.get("calibration"):
        return None
    kind = ClassCalibration if "classes" in row["attribute"] else DirectionCalibration
    return kind(**row["calibration"])


def with_calibrations(
    model: Model, calibrations: Mapping[str, Mapping[str, Any]], source: str
) -> Model:
    """Returns the model that states what these calibrations make of its heads' output.

    Args:
        model: as trained.
        calibrations: attribute name → fields of its calibration; others keep theirs.
        source: what to call them in an error.

    Raises:
        CarjaxError: an attribute has no head, or a calibration no such field.
    """
    known = {head.attribute.name: head for head in model.spec.heads}
    for name, fields in calibrations.items():
        if name not in known:
            raise CarjaxError(f"{source}: there is no head for {name!r} to calibrate")
        row = {"attribute": attribute_to_json(known[name].attribute), "calibration": fields}
        try:
            known[name] = dataclasses.replace(known[name], calibration=_calibration(row))
        except (TypeError, ValueError) as error:
            raise CarjaxError(f"{source}: {name}: {error}") from None
    spec = dataclasses.replace(model.spec, heads=tuple(known.values()))
    return dataclasses.replace(model, spec=spec)


def save(model: Model, path: str | os.PathLike[str]) -> None:
    """Writes a bundle: every head and the car box as float16, never the backbone.

    The backbone is named with the hash of its weights; the file's metadata holds the spec and the
    card as JSON. Of a model that scores whole frames the car box is left out, and with it the
    content head, which reads the car box's look.

    Raises:
        CarjaxError: a weight is not finite, or too large for float16.
        OSError: the file cannot be written.
    """
    spec = model.spec
    left_out = {"backbone"}
    if spec.localise is None:
        spec = dataclasses.replace(spec, content=None)
        left_out |= {"localise", "content"}
    tree = {k: v for k, v in model.params.items() if k not in left_out}
    weights_file.write(
        path,
        (_KIND, BUNDLE_VERSION),
        tree,
        spec=spec_to_json(spec),
        card=model.card,
        training_hashes=model.training_hashes,
    )


def _assets() -> pathlib.Path:
    return pathlib.Path(str(importlib.resources.files("carjax") / "assets"))


def bundle_path(name_or_path: str | os.PathLike[str] | None) -> pathlib.Path:
    """Returns the file that a name in the package, a file or a folder of training stands for.

    Raises:
        CarjaxError: there is no such file.
    """
    name = DEFAULT_BUNDLE if name_or_path is None else os.fspath(name_or_path)
    shipped = _assets() / f"{name}.safetensors"
    path = shipped if shipped.is_file() else files.head_file(name)
    if not path.is_file():
        if pathlib.Path(name).is_dir():
            raise CarjaxError(f"{path}: no such file: is its training finished?")
        raise CarjaxError(
            f"{name}: no such model: give a bundle's file (made by `carjax bundle`), "
            f"or leave --model out for {DEFAULT_BUNDLE}"
        )
    return path


def load(
    name_or_path: str | os.PathLike[str] | None = None,
    *,
    backbone_weights: str | os.PathLike[str] | None = None,
) -> Model:
    """Loads a bundle and the backbone that it was trained on.

    Args:
        name_or_path: a bundle in the package by name, a file, or a folder of `carjax train`;
            default: the car model.
        backbone_weights: weights of the backbone, where the package does not ship them.

    Raises:
        CarjaxError: no such file, not a bundle, or the backbone's weights are not those that the
            heads were trained on.
    """
    path = bundle_path(name_or_path)
    with weights_file.reading(path, (_KIND, BUNDLE_VERSION), "bundle") as (flat, row, card, hashes):
        spec = spec_from_json(row)
        _check_spec(spec)
        _check_registered(spec, path)
        backbone_sha256 = card["backbone_sha256"]
        tree = pretrained.to_device(flat)
        # What ships is checked by the tests: tracing the heads takes 0.4 s.
        if path.parent != _assets():
            check(tree, spec, path)
    backbone_params, source = pretrained.read(spec.backbone, backbone_weights)
    if weights_hash(backbone_params) != backbone_sha256:
        pretrained.check(backbone_params, spec.backbone, source)
        raise CarjaxError(
            f"{path}: its heads were trained on other weights of {spec.backbone}: "
            "give those with --backbone_weights=FILE"
        )
    return Model({"backbone": backbone_params, **tree}, spec, card, hashes)


def check(tree: Mapping[str, Any], spec: Spec, path: str | os.PathLike[str]) -> None:
    """Raises one CarjaxError that lists every tensor that the spec does not ask for, or lacks."""
    weights_file.check_shapes(tree, expected_params(spec), path)


@functools.cache
def expected_params(spec: Spec) -> dict[str, Any]:
    """Returns shapes and dtypes of the tree below 'backbone', computing nothing."""

    def init(key: jax.Array) -> dict[str, Any]:
        features = registry.example_features(spec.backbone, spec.input_size)
        tree: dict[str, Any] = {"heads": {}}
        for head in spec.heads:
            module = heads.create(head)
            tree["heads"][head.attribute.name] = module.init(key, features)["params"]
        if spec.localise is not None:
            box = localise.CarBoxHead(spec.localise.channels)
            features = registry.example_features(spec.backbone, spec.localise.input_size)
            tree["localise"] = box.init(key, features)["params"]
            if spec.content is not None:
                tree["content"] = heads.create(spec.content).init(key, features)["params"]
        return tree

    return jax.eval_shape(init, jax.random.key(0))
