"""Trains the five heads of the reference design in order and bundles them: `make reference`.

    python configs/reference/run.py --data_dir=DIR --workdir=out/reference

Says first what is missing of data sets and weights, all of it, and where to get it. Finished heads
are kept: what was stopped goes on. The result is WORKDIR/reference.safetensors, for
`carjax select --model`.
"""

from __future__ import annotations

import pathlib
import runpy
from typing import Any

from absl import flags

from carjax import runtime
from carjax.backbones import pretrained
from carjax.cli import bundle, common
from carjax.datasets import photos
from carjax.errors import CarjaxError
from carjax.training import config_check

HERE = pathlib.Path(__file__).parent
HEADS = {
    "type": "type_compcars_irv2",
    "brand": "brand_compcars_irv2",
    "doors": "doors_compcars_irv2",
    "seats": "seats_compcars_irv2",
    "orientation": "orientation_pascal3d_irv2",
}
SYNOPSIS = "usage: python configs/reference/run.py [--data_dir=DIR] [--workdir=DIR]"


def main(argv: list[str]) -> int:
    values = flags.FlagValues()
    flags.DEFINE_string("data_dir", None, "default: $CARJAX_DATA", flag_values=values)
    flags.DEFINE_string("workdir", "out/reference", "a folder per head", flag_values=values)
    flags.DEFINE_string("cache_dir", None, "where features are kept", flag_values=values)
    common.parse(values, argv, SYNOPSIS)
    settings = {
        name: runpy.run_path(str(HERE / f"{file}.py"))["get_config"]()
        for name, file in HEADS.items()
    }
    missing = faults(settings, values.data_dir)
    if missing:
        raise CarjaxError("\n  ".join(["the reference design cannot be trained yet:", *missing]))

    runtime.set_up_jax()
    from carjax.training import loop

    workdir = pathlib.Path(values.workdir)
    for name, config in settings.items():
        result = loop.train_and_evaluate(
            config, workdir / name, values.data_dir, cache_dir=values.cache_dir
        )
        print(name, result["held_out"], flush=True)
    out = workdir / "reference.safetensors"
    folders = ",".join(str(workdir / name) for name in HEADS)
    return bundle.main([f"--heads={folders}", f"--out={out}", "--name=reference"])


def faults(settings: dict[str, Any], data_dir: str | None) -> list[str]:
    """Everything that is missing, one line each, without reading a photo."""
    found: dict[str, None] = {}  # an ordered set: four heads miss the same
    try:
        root = photos.data_root(data_dir)
    except CarjaxError as error:
        return [str(error)]
    for config in settings.values():
        try:
            pretrained.locate(config.backbone, config.backbone_weights or None)
        except CarjaxError as error:
            found[str(error)] = None
        try:
            config_check.check_data(config, root)
        except CarjaxError as error:
            found[str(error)] = None
    return list(found)


if __name__ == "__main__":
    common.script("reference", main)
