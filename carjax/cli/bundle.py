"""`carjax bundle`: join separately trained heads into one model file."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import safetensors
from absl import flags

from carjax import errors, files, runtime
from carjax.cli import common
from carjax.errors import CarjaxError, UsageError

SYNOPSIS = """usage: carjax bundle --heads=DIR1,DIR2,… --out=FILE.safetensors [--name=NAME]

Joins what `carjax train` left in each DIR (or bundle files) into one model for --model.
All must be trained on the same backbone; the car box is optional. Example:

  carjax bundle --heads=out/type,out/brand,out/orientation,out/localise --out=mine.safetensors"""


def main(argv: list[str]) -> int:
    """Runs the command and returns its exit status."""
    values = flags.FlagValues()
    flags.DEFINE_list("heads", None, "folders of `carjax train`, or bundles", flag_values=values)
    flags.DEFINE_string("out", None, "the file to write", flag_values=values)
    flags.DEFINE_string("name", None, "the model's name in results: FILE's", flag_values=values)
    flags.DEFINE_string(
        "backbone_weights", None, "weights of the backbone, if not shipped", flag_values=values
    )
    flags.DEFINE_string(
        "card", None, "JSON of sources, split and metrics, kept in the file", flag_values=values
    )
    flags.DEFINE_string(
        "calibration", None, "JSON of the heads' calibrations, kept in the file", flag_values=values
    )
    common.parse_flags(values, argv, SYNOPSIS, "bundle")
    if not values.heads or not values.out:
        raise UsageError("carjax bundle needs --heads=DIR1,DIR2,… and --out=FILE (see --help)")
    out = pathlib.Path(values.out)
    if not out.parent.is_dir():
        raise CarjaxError(f"{out.parent}: no such folder")
    if out.is_dir():
        raise CarjaxError(f"{out}: is a folder: give a file, --out=FILE.safetensors")
    if not all(values.heads):
        raise UsageError("--heads: a name between commas is empty")
    paths = [_bundle_file(pathlib.Path(given)) for given in values.heads]
    others = (values.card, values.calibration, values.backbone_weights)
    _check_replaced(out, [*paths, *(pathlib.Path(path) for path in others if path)])
    facts = _facts(pathlib.Path(values.card)) if values.card else {}
    calibrations = _facts(pathlib.Path(values.calibration)) if values.calibration else {}

    runtime.set_up_jax()
    from carjax import bundle, model

    parts = [model.load(path, backbone_weights=values.backbone_weights) for path in paths]
    joined = bundle.join(parts, [str(p) for p in paths], values.name or out.stem)
    joined = model.with_calibrations(joined, calibrations, values.calibration)
    with errors.writing(out):
        model.save(dataclasses.replace(joined, card={**facts, **joined.card}), out)
    names = [h.attribute.name for h in joined.spec.heads]
    names += ["localise"] if joined.spec.localise else []
    names += ["content"] if joined.spec.content else []
    print(f"{out}: {', '.join(names)} on {joined.spec.backbone}")
    return 0


def _bundle_file(given: pathlib.Path) -> pathlib.Path:
    """Returns the bundle that a folder of `carjax train`, or a file, stands for."""
    path = files.head_file(given)
    if not path.is_file():
        hint = "is its training finished?" if given.is_dir() else "give a folder of `carjax train`"
        raise CarjaxError(f"{path}: no such file: {hint}")
    return path


def _check_replaced(out: pathlib.Path, read: Sequence[pathlib.Path]) -> None:
    """Raises a CarjaxError if the file exists, and is read as well or no bundle."""
    if not out.exists():
        return
    if any(path.exists() and out.samefile(path) for path in read):
        raise UsageError(f"--out={out} is read as well: give another --out")
    try:
        with safetensors.safe_open(out, "numpy") as file:
            ours = (file.metadata() or {}).keys() >= {"spec", "card"}
    except (OSError, safetensors.SafetensorError):
        ours = False
    if not ours:
        raise CarjaxError(f"{out}: is not a bundle that carjax wrote: give another --out")


def _facts(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object: a card, or calibrations."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CarjaxError(f"{path}: not a file of JSON ({error})") from None
    if not isinstance(facts, dict):
        raise CarjaxError(f"{path}: must hold one JSON object")
    return facts
