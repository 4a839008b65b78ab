"""`carjax bundle`: join separately trained heads into one model file."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags

from carjax import runtime
from carjax.cli import common
from carjax.errors import CarjaxError, UsageError
from carjax.model import Model

SYNOPSIS = """usage: carjax bundle --heads=DIR1,DIR2,… --out=FILE.safetensors [--name=NAME]

Joins what `carjax train` left in each DIR (or bundle files) into one model for --model.
All must be trained on the same backbone; the car box is optional. Example:

  carjax bundle --heads=out/type,out/brand,out/orientation,out/localise --out=mine.safetensors"""


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit status."""
    values = flags.FlagValues()
    flags.DEFINE_list("heads", None, "folders of `carjax train`, or bundles", flag_values=values)
    flags.DEFINE_string("out", None, "the file to write", flag_values=values)
    flags.DEFINE_string("name", "car_heads", "the model's name in results", flag_values=values)
    flags.DEFINE_string(
        "backbone_weights", None, "weights of the backbone, if not shipped", flag_values=values
    )
    flags.DEFINE_string(
        "card", None, "JSON of sources, split and metrics, kept in the file", flag_values=values
    )
    flags.DEFINE_string(
        "calibration", None, "JSON of the heads' calibrations, kept in the file", flag_values=values
    )
    try:
        rest = common.parse(values, argv, SYNOPSIS)
    except common.HelpShown:
        return 0
    if rest:
        raise UsageError(f"carjax bundle takes flags only, not {rest[0]!r}")
    if not values.heads or not values.out:
        raise UsageError("carjax bundle needs --heads=DIR1,DIR2,… and --out=FILE (see --help)")
    out = pathlib.Path(values.out)
    if not out.parent.is_dir():
        raise CarjaxError(f"{out.parent}: no such folder")
    paths = [_bundle_file(pathlib.Path(given)) for given in values.heads]
    facts = _facts(pathlib.Path(values.card)) if values.card else {}
    calibrations = _facts(pathlib.Path(values.calibration)) if values.calibration else {}

    runtime.set_up_jax()
    from carjax import model

    parts = [model.load(path, backbone_weights=values.backbone_weights) for path in paths]
    joined = join(parts, [str(p) for p in paths], values.name)
    joined = model.with_calibrations(joined, calibrations, values.calibration)
    model.save(dataclasses.replace(joined, card={**facts, **joined.card}), out)
    names = [h.attribute.name for h in joined.spec.heads]
    names += ["localise"] if joined.spec.localise else []
    names += ["content"] if joined.spec.content else []
    print(f"{out}: {', '.join(names)} on {joined.spec.backbone}")
    return 0


def _bundle_file(given: pathlib.Path) -> pathlib.Path:
    """Returns the bundle that a folder of `carjax train`, or a file, stands for."""
    path = given / "head.safetensors" if given.is_dir() else given
    if not path.is_file():
        hint = "is its training finished?" if given.is_dir() else "give a folder of `carjax train`"
        raise CarjaxError(f"{path}: no such file: {hint}")
    return path


def _facts(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object: a card, or calibrations."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CarjaxError(f"{path}: not a file of JSON ({error})") from None
    if not isinstance(facts, dict):
        raise CarjaxError(f"{path}: must hold one JSON object")
    return facts


def _apart(part: Model) -> tuple[Model, int]:
    """A model as `carjax train` left it, its content head in its place, and that head's input size.

    The size is 0 where there is no such head; a joined bundle's belongs to its car box.
    """
    from carjax.attributes import CONTENT

    mine = [h for h in part.spec.heads if h.attribute.name == CONTENT.name]
    if not mine:
        size = part.spec.localise.input_size if part.spec.content and part.spec.localise else 0
        return part, size
    heads = {k: v for k, v in part.params["heads"].items() if k != CONTENT.name}
    params = {**part.params, "heads": heads, CONTENT.name: part.params["heads"][CONTENT.name]}
    rest = tuple(h for h in part.spec.heads if h.attribute.name != CONTENT.name)
    spec = dataclasses.replace(part.spec, heads=rest, content=mine[0])
    return dataclasses.replace(part, params=params, spec=spec), part.spec.input_size


def join(parts: Sequence[Model], sources: Sequence[str], name: str) -> Model:
    """Joins models that share a backbone: heads in the schema's order, at most one car box.

    A head named content goes with the car box, whose look it reads.

    Args:
        parts: one or more models.
        sources: what to call each in an error.
        name: of the result.

    Raises:
        CarjaxError: other backbones or weights, other input sizes, an attribute twice, or content
            without the car box of its input size.
    """
    import carjax
    from carjax import model
    from carjax.attributes import CAR, CONTENT

    first = parts[0]
    taken: dict[str, str] = {}
    found = {}
    box, content = None, None
    looks: dict[int, str] = {}  # input size that a content head was trained at → source
    sizes: dict[int, str] = {}
    params: dict[str, dict] = {"backbone": first.params["backbone"], "heads": {}}
    training: dict[str, object] = {}
    for given, source in zip(parts, sources, strict=True):
        part, content_size = _apart(given)
        if content_size:
            looks[content_size] = source
        for key, what in (("backbone", "backbone"), ("backbone_sha256", "backbone's weights")):
            if part.card[key] != first.card[key]:
                raise CarjaxError(
                    f"{source}: trained on another {what} than {sources[0]} "
                    f"({part.card[key]}, not {first.card[key]})"
                )
        own = [h.attribute.name for h in (*part.spec.heads, part.spec.content) if h]
        own += ["localise"] if part.spec.localise else []
        for attribute in own:
            if attribute in taken:
                raise CarjaxError(f"{source}: {attribute} comes from {taken[attribute]} already")
            taken[attribute] = source
        if part.spec.heads:
            sizes.setdefault(part.spec.input_size, source)
        if len(sizes) > 1:
            told = ", ".join(f"{size} ({path})" for size, path in sizes.items())
            raise CarjaxError(f"heads were trained at different input sizes: {told}")
        if part.spec.content:
            content = part.spec.content
            params[CONTENT.name] = part.params[CONTENT.name]
        for head in part.spec.heads:
            found[head.attribute.name] = head
            params["heads"][head.attribute.name] = part.params["heads"][head.attribute.name]
        if part.spec.localise:
            box = part.spec.localise
            params["localise"] = part.params["localise"]
        training |= part.card.get("training", {})
    for size, source in looks.items():
        if box is None or box.input_size != size:
            raise CarjaxError(f"{source}: content needs a car box that looks at {size} pixels")
    order = [a.name for a in CAR if a.name in found]
    order += [a for a in found if a not in order]
    return model.Model(
        params=params,
        spec=model.Spec(
            backbone=first.spec.backbone,
            heads=tuple(found[a] for a in order),
            localise=box,
            input_size=next(iter(sizes), first.spec.input_size),
            content=content,
        ),
        card={
            "bundle": name,
            "version": carjax.__version__,
            "backbone": first.card["backbone"],
            "backbone_sha256": first.card["backbone_sha256"],
            "training": {
                a: training[a] for a in [*order, "localise", CONTENT.name] if a in training
            },
            "models": sorted({m for part in parts for m in part.card.get("models", ())}),
        },
        training_hashes=frozenset().union(*(p.training_hashes for p in parts)),
    )
